"""Whose failure an error is, and whether another attempt may help.

Errors of client libraries are told by the names of their classes, so that none is imported.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fluxloop.clock import time_ns
from fluxloop.interrupt import Abandoned

TRANSIENT = "transient"
"""What stands in `retry_on` for every error recognised here."""

_HTTPX = frozenset({"NetworkError", "TimeoutException", "RemoteProtocolError", "ProxyError"})
_API = frozenset({"APIConnectionError"})

# By package: a connection that was lost or not made, or an answer that did not come in time.
_LOST = {
    "builtins": frozenset({"ConnectionError", "TimeoutError"}),
    "asyncio": frozenset({"IncompleteReadError"}),
    "http": frozenset({"IncompleteRead", "BadStatusLine"}),
    "socket": frozenset({"gaierror"}),
    "ssl": frozenset({"SSLEOFError", "SSLZeroReturnError", "SSLSyscallError"}),
    "httpx": _HTTPX,
    "httpx2": _HTTPX,
    "httpcore": _HTTPX,
    "httpcore2": _HTTPX,
    "requests": frozenset({"ConnectionError", "Timeout", "ChunkedEncodingError"}),
    "urllib3": frozenset({"ProtocolError", "TimeoutError", "ProxyError"}),
    "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
    "openai": _API,
    "anthropic": _API,
}
_UNREACHED = frozenset(
    {
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
# An answer with a status: where the status is found.
_ANSWERED = {
    "openai": "status_code",
    "anthropic": "status_code",
    "httpx": "response.status_code",
    "httpx2": "response.status_code",
    "requests": "response.status_code",
    "aiohttp": "status",
    "urllib": "code",
}
# What openai and anthropic call the same in a stream, whose status has long been 200.
_PASSING = frozenset(
    {"rate_limit_error", "rate_limit_exceeded", "timeout_error", "overloaded_error", "server_error", "api_error"}
)
# A 429 of openai that waiting does not end.
_SPENT = frozenset(
    {
        *("insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
    }
)
# The packages whose errors tell what they come from without `from`.
_HOLDING = frozenset({"urllib", "urllib3", "requests", "httpcore", "httpcore2"})
_MAX_DEPTH = 10
_MAX_WAIT = 86_400.0


def infrastructure(error: BaseException) -> BaseException | None:
    """Return the transient error of a connection or a service that this error is or comes from.

    Connections lost or refused, answers that did not come in time, and the statuses 408, 409, 429
    and 5xx, of openai, anthropic, httpx, requests, aiohttp, urllib3 and the standard library. An
    error raised `from` such a one counts, and a group all of whose members do.
    """
    try:
        return _transient(error, _MAX_DEPTH)
    except Abandoned:
        raise
    except BaseException:  # an exception may be as hostile as any object
        return None


def _transient(error: BaseException, depth: int) -> BaseException | None:
    if depth == 0:
        return None
    if isinstance(error, BaseExceptionGroup):
        members = [_transient(member, depth - 1) for member in error.exceptions]
        found = [member for member in members if member is not None]
        # The member that decides about another attempt stands for all.
        return max(found, key=_gravity) if len(found) == len(members) else None
    if _is_lost(error) or _is_passing(error):
        return None if _is_refused(error, depth) else error
    for origin in _origins(error):
        if (cause := _transient(origin, depth - 1)) is not None:
            return cause
    return None


def _gravity(error: BaseException) -> tuple[bool, float]:
    return not may_pass(error), retry_after(error) or 0.0


def _names(error: BaseException) -> Iterator[tuple[str, str]]:
    """The packages and names of the error's classes."""
    for kind in type(error).__mro__:
        yield kind.__module__.partition(".")[0], kind.__name__


def _is_lost(error: BaseException) -> bool:
    if any(name in _LOST.get(package, ()) for package, name in _names(error)):
        return True
    if not isinstance(error, OSError):
        return False
    # asyncio tells only in words that none of a name's addresses could be reached.
    several = error.errno is None and str(error).startswith("Multiple exceptions: ")
    numbers = re.findall(r"\[Errno (\d+)\]", str(error)) if several else [error.errno or 0]
    return bool(numbers) and all(int(number) in _UNREACHED for number in numbers)


def _is_refused(error: BaseException, depth: int) -> bool:
    """Tell whether TLS cannot be agreed on: a certificate that is refused once is refused again."""
    if type(error).__module__ == "ssl":
        return type(error).__name__ not in _LOST["ssl"]
    return depth > 0 and any(_is_refused(origin, depth - 1) for origin in _origins(error))


def _origins(error: BaseException) -> Iterator[BaseException]:
    """What the error comes from: by `from`, or as its library keeps it."""
    kept = [error.__cause__]
    if any(package in _HOLDING for package, _ in _names(error)):
        kept += [getattr(error, "reason", None), *error.args]
    return (origin for origin in kept if isinstance(origin, BaseException))


def _status(error: BaseException) -> Any:
    for package, name in _names(error):
        if package in _ANSWERED:
            value: Any = error
            for part in _ANSWERED[package].split("."):
                value = getattr(value, part, None)
            return value
        if (package, name) == ("urllib3", "ResponseError"):  # its `Retry` has seen one too many
            match = re.fullmatch(r"too many (\d{3}) error responses", str(error))
            return int(match[1]) if match else None
    return None


def _is_passing(error: BaseException) -> bool:
    status = _status(error)
    if isinstance(status, int) and status >= 400:
        return status in (408, 409, 429) or 500 <= status <= 599
    if not any(package in ("openai", "anthropic") for package, _ in _names(error)):
        return False
    body = getattr(error, "body", None)
    told = body.get("error", body) if isinstance(body, Mapping) else None
    return isinstance(told, Mapping) and (told.get("type") in _PASSING or told.get("code") in _PASSING)


def retry_after(error: BaseException) -> float | None:
    """Return for how many seconds the service asks to be left alone, from 0 to a day, or None."""
    for name, read in (("retry-after-ms", _milliseconds), ("retry-after", _seconds)):
        try:
            text = _header(error, name)
            seconds = math.nan if text is None else read(text)
        except BaseException:  # nonsense, or an exception as hostile as any object
            continue
        if not math.isnan(seconds):
            return min(max(seconds, 0.0), _MAX_WAIT)
    return None


def _milliseconds(text: str) -> float:
    return float(text) / 1000


def _seconds(text: str) -> float:
    """A `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3)."""
    try:
        return float(text)
    except ValueError:
        from datetime import UTC
        from email.utils import parsedate_to_datetime

        date = parsedate_to_datetime(text)
        # In the oldest of its three forms a date names no zone; it is always GMT.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time_ns() / 1e9


def _header(error: BaseException, name: str) -> str | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    if headers is None:
        return None
    for key in (name, name.title()):
        if (value := headers.get(key)) is not None:
            return str(value)
    return None


def is_overload(error: BaseException) -> bool:
    """Return whether a service has answered 429: too many requests, whoever they came from."""
    try:
        return bool(_status(error) == 429)
    except Exception:
        return False


def may_pass(error: BaseException) -> bool:
    """Return whether the service leaves hope for another attempt: not when the quota is used up."""
    try:
        # Only openai's: the `code` of aiohttp's errors is deprecated, and warns.
        spent = any(package == "openai" for package, _ in _names(error)) and getattr(error, "code", None) in _SPENT
        return not spent and _header(error, "x-should-retry") != "false"
    except BaseException:
        return True


def is_named(error: BaseException, names: Sequence[str]) -> bool:
    """Return whether one of the names is that of the error's class or of a base class.

    Args:
        names: as `TimeoutError` or, with the module or its package, `openai.RateLimitError`.
    """
    with suppress(Exception):  # a class may be hostile too
        for kind in type(error).__mro__:
            module, name = kind.__module__, kind.__qualname__
            if not {kind.__name__, f"{module}.{name}", f"{module.partition('.')[0]}.{name}"}.isdisjoint(names):
                return True
    return False


def wants_retry(error: BaseException, transient: BaseException | None, names: Sequence[str]) -> bool:
    """Return whether an attempt that ended with this error is to be tried again.

    Args:
        transient: what `infrastructure` found.
        names: `retry_on`: names of exceptions, and `transient`.
    """
    if transient is not None and TRANSIENT in names and may_pass(transient):
        return True
    return is_named(error, names)


# What asyncio says of an object that is used on another loop than the one it was first used on.
_OTHER_LOOP = re.compile(
    r"bound to a different event loop|attached to a different loop|belongs to a different loop"
    r"|^Event loop is closed$|event loop other than the current one"
)
OTHER_LOOP = (
    "what it uses belongs to another event loop than the one that agents run on: make it in the agent or in a class "
    "target, and do not use it elsewhere before, as in asyncio.run or with a notebook's await"
)
"""What such an error means, and what to do."""


def is_of_another_loop(error: BaseException) -> bool:
    """Return whether an error comes from an object that belongs to another event loop, which says nothing of the agent.

    Clients, locks and queues belong to the loop they are first used on. An error that has come from such a one by
    `from`, or while it was handled, counts, and a group all of whose members do.
    """
    try:
        return _is_of_another_loop(error, _MAX_DEPTH)
    except Abandoned:
        raise
    except BaseException:  # an exception may be as hostile as any object
        return False


def _is_of_another_loop(error: BaseException | None, depth: int) -> bool:
    if error is None or depth == 0:
        return False
    if isinstance(error, BaseExceptionGroup):
        return all(_is_of_another_loop(member, depth - 1) for member in error.exceptions)
    if type(error) in (RuntimeError, ValueError) and _OTHER_LOOP.search(str(error)):
        return True
    return _is_of_another_loop(error.__cause__ or error.__context__, depth - 1)
