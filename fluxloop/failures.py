"""Whose failure an error is, and whether another attempt may help."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import FunctionType
from typing import Any, NamedTuple

from fluxloop.client_errors import is_key_refused, is_lost, is_of_tls, is_spent, origins, package_of, status_of, wait_of
from fluxloop.interrupt import Abandoned

TRANSIENT = "transient"
"""What stands in `retry_on` for every error recognised here."""

_UNREACHED = frozenset(
    {
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
# As the class has it: an exception of an agent's may have put something else in its place.
_EXCEPTIONS: Any = vars(BaseExceptionGroup)["exceptions"]
_MAX_DEPTH = 30
"""Errors of which each comes from the next."""
_MAX_LOOKED_AT = 10_000


class Outages(NamedTuple):
    """What counts as infrastructure, beyond what is recognised, and what is not to be recognised."""

    names: tuple[str, ...] = ()
    """`runner.infrastructure`: names of exceptions."""
    own: str = ""
    """The agent's package, whose exceptions are its own failures even where it is installed."""


RECOGNISED = Outages()
"""Nothing but what is recognised."""


def own_package(target: object) -> str:
    """Return the package of the agent, as far as its target tells.

    Args:
        target: `module:qualname` or a callable. A method tells nothing: its object may be a library's.
    """
    if isinstance(target, str):
        return package_of(target.partition(":")[0])
    return package_of(target.__module__ or "") if isinstance(target, FunctionType) else ""


def infrastructure(error: BaseException, outages: Outages = RECOGNISED) -> BaseException | None:
    """Return the error of a connection or a service that this error is or comes from, or None.

    These count:

    - Connections lost or refused, and answers that did not come in time: Python's own errors, and
      those whose class, or a base class, an installed package defines and calls so.
    - The statuses 408, 409, 429 and 5xx, gRPC's codes and AWS's words for the same, in an error whose
      class an installed package defines. One that the agent's own code defines is the agent's failure,
      whatever its attributes are; so are those of packages that answer requests or steer a browser.
    - Errors that `outages` names.
    - An error raised `from` such a one, or that keeps it as its library does.
    - A group all of whose members count.
    """
    try:
        return _Look(outages).at(error, _MAX_DEPTH)
    except Abandoned:
        raise
    except BaseException:  # an exception may be as hostile as any object
        return None


class _Look:
    """One look at an error and all it comes from; each is looked at once."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        self._seen: dict[int, tuple[BaseException, BaseException | None]] = {}

    def at(self, error: BaseException, depth: int) -> BaseException | None:
        if id(error) not in self._seen:
            if depth == 0 or len(self._seen) >= _MAX_LOOKED_AT:
                return None
            self._seen[id(error)] = (error, None)  # what comes from itself comes from nothing
            self._seen[id(error)] = (error, self._found(error, depth))
        return self._seen[id(error)][1]

    def _found(self, error: BaseException, depth: int) -> BaseException | None:
        if self._outages.names and is_named(error, self._outages.names):
            return error
        if isinstance(error, BaseExceptionGroup):
            members = [self.at(member, depth - 1) for member in _members(error)]
            found = [member for member in members if member is not None]
            # The member that decides about another attempt stands for all.
            return max(found, key=_gravity) if len(found) == len(members) else None
        if self._is_outage(error):
            return error
        for origin in origins(error):
            if (cause := self.at(origin, depth - 1)) is not None:
                return cause
        return None

    def _is_outage(self, error: BaseException) -> bool:
        own = self._outages.own
        status = status_of(error, own)
        if status is not None:
            return status in (408, 409, 429) or status >= 500
        if is_lost(error, own) or _is_unreached(error):
            return not any(is_of_tls(one) for one in _chain(error))
        return False


def _members(error: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    members: tuple[BaseException, ...] = _EXCEPTIONS.__get__(error)
    return members


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it comes from, what that comes from, and so on; each once."""
    seen = {id(error): error}
    waiting = [error]
    while waiting and len(seen) < _MAX_LOOKED_AT:
        error = waiting.pop(0)
        yield error
        members = _members(error) if isinstance(error, BaseExceptionGroup) else ()
        for one in (*origins(error), *members):
            if id(one) not in seen:
                seen[id(one)] = one
                waiting.append(one)


def _gravity(error: BaseException) -> tuple[bool, float]:
    return not may_pass(error), retry_after(error) or 0.0


def _is_unreached(error: BaseException) -> bool:
    if not isinstance(error, OSError):
        return False
    # asyncio tells only in words that none of a name's addresses could be reached.
    several = error.errno is None and str(error).startswith("Multiple exceptions: ")
    numbers = re.findall(r"\[Errno (\d+)\]", str(error)) if several else [error.errno or 0]
    return bool(numbers) and all(int(number) in _UNREACHED for number in numbers)


def retry_after(error: BaseException) -> float | None:
    """Return for how many seconds the service asks to be left alone, from 0 to a day, or None."""
    with suppress(Exception):
        waits = (wait_of(one) for one in _chain(error))
        return next((wait for wait in waits if wait is not None), None)
    return None


def is_overload(error: BaseException) -> bool:
    """Return whether a service has answered 429: too many requests, whoever they came from."""
    try:
        return any(status_of(one) == 429 for one in _chain(error))
    except Exception:
        return False


def may_pass(error: BaseException) -> bool:
    """Return whether the service leaves hope for another attempt: not when the quota is used up."""
    try:
        return not any(is_spent(one) for one in _chain(error))
    except BaseException:
        return True


def is_refusal(error: BaseException, own: str = "") -> bool:
    """Return whether the error comes from a service that has refused its caller: 401 or 403.

    Args:
        own: the package of the agent.
    """
    try:
        return any(is_key_refused(one, own) for one in _chain(error))
    except Abandoned:
        raise
    except BaseException:
        return False


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
