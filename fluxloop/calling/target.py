"""From the text of a target to something that can be called."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from contextlib import AsyncContextDecorator, ContextDecorator
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from attrs import field, frozen

from fluxloop.exceptions import TargetError
from fluxloop.tracing.capture import describe
from fluxloop.tracing.groups import first_leaf

_LIBRARY = tuple(path for key in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(key)))
_PACKAGE = str(Path(__file__).parent.parent) + os.sep


@frozen(kw_only=True)
class Target:
    """What is called for each input.

    Example:
        >>> Target.load("operator:neg").function(2)
        -2
    """

    reference: str
    """`module:qualname`, or what comes nearest for an object of Python."""
    function: Callable[..., Any]
    owner: Any = None
    """What was built for this target and is entered if it is a context manager."""
    subject: Any = field(default=None, repr=False)
    """The object the function was found on, which tells the framework it belongs to."""
    rebind: Callable[[Any], Callable[..., Any]] = field(default=lambda owner: owner, repr=False)
    """Finds the function again on what entering the owner gave."""

    @classmethod
    def load(cls, reference: str) -> Target:
        """Import `module:function`, `module:Class.method`, `module:object` or `module:factory()`.

        Raises:
            TargetError: it cannot be imported, found or called; says where and what to do.
        """
        if reference.endswith("()"):
            built = _build(reference, find_object(reference[:-2]))
            return cls._of(reference, built, owner=built)
        names = reference.partition(":")[2].split(".")
        found, names = find_object(reference, depth=1), names[1:]
        while names and not (isinstance(found, type) and not _holds_class(found, names[0])):
            found, names = _find_method(reference, found, names[:1]), names[1:]
        return cls._of_class(reference, found, names) if isinstance(found, type) else cls._of(reference, found)

    @classmethod
    def of(cls, value: Any) -> Target:
        """Take a callable, or an object with `ainvoke`, `invoke` or `run`, as the target.

        Raises:
            TargetError: the value cannot be called.
        """
        if isinstance(value, type):
            return cls._of_class(reference_to(value), value, [])
        if _is_without_instance(value):
            owner, name = value.__qualname__.split(".")[-2:]
            way_out = f"give one of an instance, as {owner}(…).{name}"
            raise TargetError(f"runner.target: {reference_to(value)} is a method without its instance; {way_out}")
        return cls._of(reference_to(value), value)

    @classmethod
    def _of_class(cls, reference: str, kind: type, names: list[str]) -> Target:
        found = partial(_find_method, reference)
        static = inspect.getattr_static(kind, names[0], None) if names else None
        if isinstance(static, staticmethod | classmethod):
            return cls._of(reference, found(kind, names))
        if names:
            found(kind, names)  # a wrong name is told before anything is built
        instance = _build(reference, kind, "".join(f".{name}" for name in names))
        if not names:
            return cls._of(reference, instance, owner=instance)

        def rebind(owner: Any) -> Callable[..., Any]:
            return _callable(reference, found(owner, names))

        return cls(reference=reference, function=rebind(instance), owner=instance, subject=instance, rebind=rebind)

    @classmethod
    def _of(cls, reference: str, value: Any, owner: Any = None) -> Target:
        def rebind(entered: Any) -> Callable[..., Any]:
            return _callable(reference, entered)

        if owner is not None and _is_context_manager(owner) and not _can_be_called(owner):
            # A factory made with `@contextmanager`: what is called exists once it is entered.
            return cls(reference=reference, function=_not_entered, owner=owner, subject=owner, rebind=rebind)
        return cls(
            reference=reference,
            function=_callable(reference, value),
            owner=owner,
            subject=getattr(value, "__self__", value),
            rebind=rebind,
        )

    @property
    def is_async(self) -> bool:
        """True when calling gives a coroutine or an asynchronous generator.

        Of what exists only once an owner is entered, nobody knows; an async owner speaks for async.
        """
        if self.function is _not_entered:
            return hasattr(type(self.owner), "__aenter__")
        candidates = (self.function, getattr(self.function, "__call__", None))  # noqa: B004
        return any(inspect.iscoroutinefunction(c) or inspect.isasyncgenfunction(c) for c in candidates)

    @property
    def is_entered(self) -> bool:
        """False while what is called is not there yet."""
        return self.function is not _not_entered

    def entered(self, value: Any) -> Target:
        """Return the target on what entering its owner gave."""
        owner = self.owner if value is None else value
        return Target(
            reference=self.reference,
            function=self.rebind(owner),
            owner=owner,
            subject=owner,
            rebind=self.rebind,
        )


def find_object(reference: str, *, key: str = "runner.target", depth: int | None = None) -> Any:
    """Import `module:name.name` and return what it names.

    Args:
        reference: the text to follow.
        key: what messages call the place it comes from.
        depth: how many of the names to follow; all by default.

    Raises:
        TargetError: says which part is missing, or where the user's module failed.
    """
    module_name, separator, path = reference.partition(":")
    if not separator or not module_name or not path:
        module, _, last = module_name.removesuffix(".py").rpartition(".")
        hint = f"; did you mean {module}:{last}?" if module and not separator else ""
        raise TargetError(f"{key}: expected module:function, as my_agent:run, got {reference!r}{hint}")
    try:
        return _find(reference, _import(reference, module_name), path.split(".")[:depth])
    except _NotFoundError as error:
        raise TargetError(f"{key}: {error}") from error.__cause__


class _NotFoundError(Exception):
    pass


def _not_entered(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("the target's context manager has not been entered")


def reference_to(value: Any) -> str:
    """Return `module:qualname` of an object, as the configuration would name it."""
    function = getattr(value, "__wrapped__", value)
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None) or getattr(function, "__objclass__", type(value)).__module__
    if name is None:
        return f"{type(value).__module__}:{type(value).__qualname__}"
    return f"{module}:{name}"


def _holds_class(kind: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(kind, name, None), type)


def _is_plain_callable(value: Any) -> bool:
    """Callable, and not only as a decorator, which every context manager of `contextlib` is."""
    call = getattr(type(value), "__call__", None)  # noqa: B004
    return callable(value) and call not in (ContextDecorator.__call__, AsyncContextDecorator.__call__)


def _can_be_called(value: Any) -> bool:
    return _is_plain_callable(value) or any(
        callable(getattr(value, name, None)) for name in ("ainvoke", "invoke", "run")
    )


def _is_context_manager(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__enter__") or hasattr(kind, "__aenter__")


def _callable(reference: str, value: Any) -> Callable[..., Any]:
    """Return the function to call: LangGraph's and LangChain's methods first, then the object itself."""
    if (kind := _class_in_partial(value)) is not None:
        is_named = reference != reference_to(value)
        way_out = f"name what it builds: {reference}()" if is_named else "give what it builds, or a method of that"
        told = f"is a partial of the class {kind.__qualname__}, so each run would only build an instance"
        raise TargetError(f"runner.target: {reference} {told}; {way_out}")
    if not inspect.isroutine(value):
        for name in ("ainvoke", "invoke"):
            if callable(method := getattr(value, name, None)):
                return method  # type: ignore[no-any-return]
    if _is_plain_callable(value):
        return value  # type: ignore[no-any-return]
    if callable(method := getattr(value, "run", None)):
        return method  # type: ignore[no-any-return]
    if callable(getattr(value, "compile", None)):
        raise TargetError(
            f"runner.target: {reference} is {_describe(value)}, which is not compiled; name what its compile() gives"
        )
    methods = [name for name in dir(value) if not name.startswith("_") and callable(getattr(value, name, None))]
    hint = f"; name one of its methods: {', '.join(methods[:8])}" if methods else ""
    raise TargetError(
        f"runner.target: {reference} is {_describe(value)}, "
        f"which cannot be called and has no ainvoke, invoke or run{hint}"
    )


def _class_in_partial(value: Any) -> type | None:
    """The class that a partial builds instances of; what a builtin class builds is an answer."""
    if not isinstance(value, partial):
        return None
    while isinstance(value, partial):
        value = value.func
    return value if isinstance(value, type) and value.__module__ != "builtins" else None


def _is_without_instance(value: Any) -> bool:
    """Tell whether a function is a method that was taken from its class."""
    if not inspect.isfunction(value):
        return False
    owner = value.__qualname__.rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>") and [p.name for p in _parameters(value)][:1] == ["self"]


def _describe(value: Any) -> str:
    return f"an object of class {type(value).__qualname__}" if value is not None else "None"


def _import(reference: str, name: str) -> Any:
    if "/" in name or name.startswith("."):
        raise _NotFoundError(_missing_module(reference, name, name))
    _refuse_other_project(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise _NotFoundError(_missing_module(reference, name, error.name)) from None
        raise _NotFoundError(user_failure(f"importing {name!r} failed", error)) from error
    except KeyboardInterrupt:  # a real one: no experiment runs yet that would take the signal
        raise
    except BaseException as error:  # a module may also call sys.exit
        raise _NotFoundError(user_failure(f"importing {name!r} failed", error)) from error


def _refuse_other_project(name: str) -> None:
    """A module imported earlier from another folder would be run in the place of the one that is meant."""
    top = name.partition(".")[0]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    meant = PathFinder.find_spec(top) if loaded else None
    if meant is None or meant.origin is None or not os.path.exists(meant.origin):
        return
    if not _is_one_folder(os.path.dirname(str(loaded)), os.path.dirname(meant.origin)):
        raise _NotFoundError(
            f"{top!r} is imported from {loaded} already, but {meant.origin} is meant here; "
            "rename one, or use a process for each"
        )


def _is_one_folder(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # the folder of what was imported is gone
        return False


def _missing_module(reference: str, name: str, missing: str) -> str:
    installed = (*_LIBRARY, sys.prefix, sys.base_prefix)
    looked = ", ".join(dict.fromkeys(entry or "." for entry in sys.path if not entry.startswith(installed)))
    hint = ""
    if "/" in name or name.endswith(".py"):
        module = name.removesuffix(".py").lstrip("./").rstrip("/").replace("/", ".")
        hint = f" (write a module, not a path: {module}:{reference.partition(':')[2]})"
    return (
        f"cannot import {name!r}: no module named {missing!r}{hint}; looked in {looked}; "
        "runner.python_path adds folders"
    )


def _find(reference: str, start: Any, names: Sequence[str]) -> Any:
    value = start
    for name in names:
        try:
            value = getattr(value, name)
        except AttributeError:
            where = getattr(value, "__name__", type(value).__name__)
            close = difflib.get_close_matches(name, [n for n in dir(value) if not n.startswith("__")], 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise _NotFoundError(f"{reference}: {where} has no {name!r}{hint}") from None
    return value


def _find_method(reference: str, start: Any, names: Sequence[str]) -> Any:
    try:
        return _find(reference, start, names)
    except _NotFoundError as error:
        raise TargetError(f"runner.target: {error}") from None


def _build(reference: str, factory: Any, method: str = "") -> Any:
    if not callable(factory):
        raise TargetError(f"runner.target: {reference}: {_describe(factory)} is not a factory")
    if needed := _required(factory):
        raise TargetError(f"runner.target: {reference}: {_needing(reference, factory, needed, method)}")
    try:
        built = factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise TargetError(user_failure(f"runner.target: {reference}: building it failed", error)) from error
    if inspect.iscoroutine(built):
        built.close()
        raise TargetError(f"runner.target: {reference}: a factory cannot be async; use a class with __aenter__")
    return built


def _required(factory: Any) -> list[str]:
    """The parameters without which a class or a factory cannot be called."""
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in _parameters(factory) if p.default is p.empty and p.kind not in collecting]


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except Exception:  # a builtin does not tell, and an odd class raises what it likes
        return []


def _needing(reference: str, factory: Any, needed: Sequence[str], method: str) -> str:
    """Say how a class or factory is named that cannot be called without arguments."""
    arguments = [f"{name}=…" for name in needed]
    while isinstance(factory, partial):
        factory, arguments = factory.func, ["…", *arguments]
    name = getattr(factory, "__name__", type(factory).__name__)
    call = f"{name}({', '.join(arguments)}){method}"
    make = f"{reference.partition(':')[0]}:make()"
    way_out = f"write a factory without arguments, `def make(): return {call}`, and name it {make}"
    return f"{name} needs {', '.join(needed)}; {way_out}; or give {call} from Python"


def user_failure(what: str, error: BaseException) -> str:
    """Say what failed in the user's code, with their own file and line."""
    leaf = first_leaf(error).error
    if isinstance(leaf, SyntaxError) and leaf.filename:
        return f"{what}: {leaf.filename}:{leaf.lineno}: {type(leaf).__name__}: {leaf.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    if leaf is not error:
        frames += traceback.extract_tb(leaf.__traceback__)
    own = [f for f in frames if not f.filename.startswith((*_LIBRARY, _PACKAGE, "<frozen"))]
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    name, text = describe(error)
    return f"{what}: {where}{name}{': ' if text else ''}{text}"
