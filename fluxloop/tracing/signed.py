"""Coroutine and generator functions with the parameters of another.

A wrapper written with `*args` would take wrong arguments at the call and refuse them only at the
first step, when its body runs. With the function's own parameters Python refuses them at the
call, and what `inspect` calls a coroutine or generator function stays one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

Kind = Literal["coroutine", "generator", "async generator"]

_BODIES: dict[Kind, str] = {
    "coroutine": """
async def wrapper({parameters}):
    return await _fluxloop_call({args}, {kwargs})
""",
    "generator": """
def wrapper({parameters}):
    _fluxloop_steps = _fluxloop_call({args}, {kwargs})
    while _fluxloop_steps.advance():
        try:
            _fluxloop_steps.sent = yield _fluxloop_steps.item
        except BaseException as thrown:
            _fluxloop_steps.thrown = thrown
    return _fluxloop_steps.returned
""",
    "async generator": """
async def wrapper({parameters}):
    _fluxloop_steps = _fluxloop_call({args}, {kwargs})
    while await _fluxloop_steps.advance():
        try:
            _fluxloop_steps.sent = yield _fluxloop_steps.item
        except BaseException as thrown:
            _fluxloop_steps.thrown = thrown
""",
}
# Beside this file, so that tracebacks leave it out with the other frames of fluxloop.
_FILE = str(Path(__file__).with_name("<signed>"))


def signed(function: Any, kind: Kind, call: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> Any:
    """Return a function of the given kind that takes what `function` takes.

    Args:
        function: the one whose parameters, name and documentation it gets.
        kind: what calling it gives.
        call: gets the arguments at the first step, defaults included: what is awaited of a
            coroutine function, the steps of a generator function.
    """
    names = {"_fluxloop_call": call}
    # The names come from a compiled function, so the text holds nothing but its parameters.
    exec(compile(_BODIES[kind].format(**_parameters(function)), _FILE, "exec"), names)
    wrapper: Any = names["wrapper"]
    if isinstance(function, FunctionType):
        wrapper.__defaults__ = function.__defaults__
        wrapper.__kwdefaults__ = function.__kwdefaults__
    return functools.wraps(function)(wrapper)


def _parameters(function: Any) -> dict[str, str]:
    """The parameter list, and the tuple and mapping it is handed on as."""
    if not isinstance(function, FunctionType):  # a partial or an object, which checks for itself
        return {"parameters": "*args, **kwargs", "args": "args", "kwargs": "kwargs"}
    code = function.__code__
    names = list(code.co_varnames)
    positional, names = names[: code.co_argcount], names[code.co_argcount :]
    keyword_only, names = names[: code.co_kwonlyargcount], names[code.co_kwonlyargcount :]
    listed, args = list(positional), [f"{name}, " for name in positional]
    kwargs = [f"{name!r}: {name}, " for name in keyword_only]
    if code.co_posonlyargcount:
        listed.insert(code.co_posonlyargcount, "/")
    if code.co_flags & inspect.CO_VARARGS:
        listed.append(f"*{names[0]}")
        args.append(f"*{names.pop(0)}, ")
    elif keyword_only:
        listed.append("*")
    listed += keyword_only
    if code.co_flags & inspect.CO_VARKEYWORDS:
        listed.append(f"**{names[0]}")
        kwargs.append(f"**{names[0]}, ")
    return {
        "parameters": ", ".join(listed),
        "args": f"({''.join(args)})",
        "kwargs": f"{{{''.join(kwargs)}}}",
    }
