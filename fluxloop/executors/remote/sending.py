"""A task as bytes, for a process elsewhere; and what cannot be sent there, with the way out."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import sys
from collections.abc import Callable
from importlib.abc import InspectLoader
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

from attrs import frozen

from fluxloop.exceptions import TargetError
from fluxloop.runner import Task
from fluxloop.tracing.capture import message, type_name

MAIN = "__mp_main__"
"""The name under which a worker imports the script that was started, as `multiprocessing` does."""

_loading: list[str] = []


@frozen
class Script:
    """What `__main__` is here, so that another process can import it."""

    module: str | None
    """The module that was started with `-m`."""
    path: str | None
    """The file that was started."""


def script() -> Script | None:
    """Return what was started, or None at a prompt and in a notebook."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return Script(spec.name, None)
    path = getattr(main, "__file__", None)
    return None if path is None else Script(None, os.path.abspath(path))


def packed(task: Task) -> bytes:
    """Return the task as bytes.

    Raises:
        TargetError: its target, or an argument, cannot be sent to another process; says what to do.
    """
    if not isinstance(task.target, str):
        _prove("runner.target", task.target)
    for name, value in task.args.items():
        _prove(f"runner.args.{name}", value)
    return pickle.dumps(task)


def _prove(key: str, value: Any) -> None:
    try:
        data = pickle.dumps(value)
    except Exception as error:
        raise TargetError(f"{key}: {_named(value)} cannot be sent to another process: {_why(value, error)}") from None
    if script() is None and _names_main(data):
        told = "is defined in a notebook or at a prompt, where no other process can find it"
        raise TargetError(f"{key}: {_named(value)} {told}: {_FIX}")


def _names_main(data: bytes) -> bool:
    import pickletools  # only a notebook pays for it

    return any(argument == "__main__" for _, argument, _ in pickletools.genops(data))


_FIX = "put it into a module, as `def` at its top level, and import it from there; or use the executor threads"


def _named(value: Any) -> str:
    return getattr(value, "__qualname__", None) or f"an object of class {type(value).__qualname__}"


def _why(value: Any, error: Exception) -> str:
    name = getattr(value, "__qualname__", "")
    if name.rpartition(".")[2] == "<lambda>":
        return f"a lambda has no name to be found by; {_FIX}"
    if "<locals>" in name:
        return f"it is defined inside a function, where no other process can find it; {_FIX}"
    return f"{type_name(error)}: {message(error)}; name a factory in a module that makes it, as module:factory()"


class Received:
    """Unpickles what another process has sent, which may be defined in the script that was started there.

    Args:
        script: what was started there.
    """

    def __init__(self, script: Script | None) -> None:
        self._script = script
        self._main: ModuleType | None = None

    def loads(self, data: bytes) -> Any:
        """Return the object."""
        return _Unpickler(io.BytesIO(data), self.main).load()

    def main(self) -> ModuleType:
        """Import the script, as soon as something of it is needed and once."""
        if self._main is None:
            if self._script is None:
                raise TargetError("what is defined in a notebook or at a prompt cannot be sent to another process")
            self._main = _imported(self._script)
        return self._main


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: io.BytesIO, main: Callable[[], ModuleType]) -> None:
        super().__init__(data)
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            module = self._main().__name__
        return super().find_class(module, name)


def _imported(script: Script) -> ModuleType:
    code, package = _code(script)
    module = ModuleType(MAIN)
    module.__package__ = package
    module.__file__ = code.co_filename
    # What the agent starts with `multiprocessing` looks for it there.
    sys.modules["__main__"] = sys.modules[MAIN] = module
    _loading.append(code.co_filename)
    try:
        exec(code, module.__dict__)
    finally:
        _loading.pop()
    return module


def _code(script: Script) -> tuple[CodeType, str | None]:
    if script.module is not None:
        spec = importlib.util.find_spec(script.module)
        code = spec.loader.get_code(script.module) if spec and isinstance(spec.loader, InspectLoader) else None
        if spec is None or code is None:
            raise TargetError(f"cannot import {script.module}, which was started")
        return code, spec.parent
    loader = SourceFileLoader(MAIN, str(script.path))
    code = loader.get_code(MAIN)
    assert code is not None
    return code, None


def refuse_in_worker() -> None:
    """Refuse an experiment that a script starts while a worker imports it.

    Raises:
        TargetError: names the script and the guard that is missing.
    """
    if _loading:
        raise TargetError(
            f"{_loading[-1]} starts an experiment when it is imported, as each worker process does to find the agent: "
            'put what starts it below `if __name__ == "__main__":`'
        )
