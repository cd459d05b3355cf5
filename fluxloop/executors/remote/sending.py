"""A task as bytes, for a process elsewhere; and what cannot be sent there, with the way out."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any

from attrs import frozen

from fluxloop.exceptions import TargetError
from fluxloop.records import Case
from fluxloop.runner import Task
from fluxloop.tracing.capture import message, type_name

MAIN = "__mp_main__"
"""The name under which a worker imports the script that was started, as `multiprocessing` does."""

_loading: list[str] = []
"""What is being imported for the agent in this worker."""
_refused: list[TargetError] = []
"""Why experiments were refused meanwhile."""


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
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # which a folder or an archive is
        return Script(spec.name, None)
    path = getattr(main, "__file__", None)
    return Script(None, os.path.abspath(path)) if path is not None and os.path.isfile(path) else None


def packed(task: Task) -> bytes:
    """Return the task as bytes.

    Raises:
        TargetError: its target, or an argument, cannot be sent to another process; says what to do.
    """
    if not isinstance(task.target, str):
        _prove("runner.target", task.target, _FACTORY)
    for name, value in task.args.items():
        _prove(f"runner.args.{name}", value, _IN_THE_AGENT)
    try:
        return pickle.dumps(task)
    except Exception as error:
        told = f"{type_name(error)}: {message(error)}; {_IN_THE_AGENT}"
        raise TargetError(f"what the runs are given cannot be sent to another process: {told}") from None


def input_problem(case: Case) -> str | None:
    """Say why an input cannot be sent to another process, or None when it can."""
    try:
        _prove("input", case.input, _IN_THE_AGENT)
    except TargetError as error:
        return str(error)
    return None


def _prove(key: str, value: Any, way_out: str) -> None:
    try:
        data = pickle.dumps(value)
    except Exception as error:
        told = f"{key}: {_named(value)} cannot be sent to another process: {_why(value, error, way_out)}"
        raise TargetError(told) from None
    if script() is None and names_main(data):
        told = "is defined in a notebook or at a prompt, where no other process can find it"
        raise TargetError(f"{key}: {_named(value)} {told}: {_MODULE}")


def names_main(data: bytes) -> bool:
    """Tell whether a pickle is of something that the script defines which was started."""
    import pickletools  # only a notebook pays for it

    return any(argument == "__main__" for _, argument, _ in pickletools.genops(data))


_MODULE = "put it into a module, at its top level, and import it from there; or use the executor threads"
_FACTORY = "name a factory in a module that makes it, as module:factory(); or use the executor threads"
_IN_THE_AGENT = "pass what it is made from, and make it in the agent; or use the executor threads"


def _named(value: Any) -> str:
    if isinstance(value, partial):
        return f"a partial of {_named(value.func)}"
    return getattr(value, "__qualname__", None) or f"an object of class {type(value).__qualname__}"


def _why(value: Any, error: Exception, way_out: str) -> str:
    while isinstance(value, partial):
        value = value.func
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    if name.rpartition(".")[2] == "<lambda>":
        return f"a lambda has no name to be found by; write it with `def`, and {_MODULE}"
    if "<locals>" in name:
        return f"it is defined inside a function, where no other process can find it; {_MODULE}"
    return f"{type_name(error)}: {message(error)}; {way_out}"


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
    code, spec = _code(script)
    module = ModuleType(MAIN)
    module.__package__ = None if spec is None else spec.parent
    module.__spec__ = spec
    module.__file__ = code.co_filename
    # What the agent starts with `multiprocessing` looks for it there.
    sys.modules["__main__"] = sys.modules[MAIN] = module
    with loading(code.co_filename):
        exec(code, module.__dict__)
    module.__name__ = "__main__"
    _rename(module.__dict__)
    return module


def _rename(names: dict[str, Any]) -> None:
    """Let what the script defines say that it is of `__main__`, as where it was started: records show it."""
    for value in list(names.values()):
        if isinstance(value, type | FunctionType) and value.__module__ == MAIN:
            value.__module__ = "__main__"
            if isinstance(value, type):
                _rename(dict(vars(value)))


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Refuse experiments while the agent is imported in a worker, which would start workers of their own.

    Raises:
        TargetError: one was started, even where nobody was told.
    """
    _loading.append(what)
    try:
        yield
    except BaseException:
        if not _refused:
            raise
    finally:
        _loading.pop()
    if _refused:
        raise _refused[0] from None


def _code(script: Script) -> tuple[CodeType, ModuleSpec | None]:
    if script.module is not None:
        spec = importlib.util.find_spec(script.module)
        code = spec.loader.get_code(script.module) if spec and isinstance(spec.loader, InspectLoader) else None
        if spec is None or code is None:
            raise TargetError(f"cannot import {script.module}, which was started")
        return code, spec
    loader = SourceFileLoader(MAIN, str(script.path))
    code = loader.get_code(MAIN)
    assert code is not None
    return code, None


def refuse_in_worker() -> None:
    """Refuse an experiment that a script or module starts while a worker imports it.

    Raises:
        TargetError: names it, and the guard that is missing.
    """
    if _loading:
        refused = TargetError(
            f"{_loading[-1]} starts an experiment when it is imported, as each worker process does to find the agent: "
            'put what starts it below `if __name__ == "__main__":`'
        )
        _refused.append(refused)
        raise refused
