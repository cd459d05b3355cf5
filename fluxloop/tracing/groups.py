"""What stands behind an exception group: its leaves, the exceptions in it that are no groups themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_UNFOLDED = 10_000
"""Exceptions that a traceback is made of; it shows a hundred at most."""
MAX_FOLDED_DEPTH = 100
"""Groups in groups, and causes of causes, that are followed in one that tells more."""

# As Python itself holds them, whatever a subclass or its metaclass makes of the names.
_members: Any = BaseExceptionGroup.exceptions
_cause: Any = BaseException.__cause__
_context: Any = BaseException.__context__
_mro, _name = type.__dict__["__mro__"], type.__dict__["__name__"]
_CANCELLED = frozenset({"CancelledError", "Cancelled"})  # of asyncio, and of trio
_LINKS = ("__cause__", "__context__", "exceptions", "__getattribute__")


class Leaf(NamedTuple):
    """The exception that stands for all of a group; of any other exception, that exception."""

    error: BaseException
    others: int
    """How many further leaves there are."""
    before: int
    """How many exceptions, groups included, stand before it in the tree."""


def first_leaf(error: BaseException) -> Leaf:
    """Return the first leaf of a group, in the order of its exceptions and depth first.

    A cancellation stands for the group only if every leaf is one: a task that failed has cancelled
    its siblings. An exception that stands in the tree more than once counts once.
    """
    if not issubclass(type(error), BaseExceptionGroup):
        return Leaf(error, 0, 0)
    found: Leaf | None = None
    cancelled: Leaf | None = None
    leaves, seen = 0, set[int]()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        before = len(seen)
        seen.add(id(one))
        if issubclass(type(one), BaseExceptionGroup):
            waiting.extend(reversed(_members.__get__(one)))
            continue
        leaves += 1
        if found is None and not _is_cancellation(one):
            found = Leaf(one, 0, before)
        cancelled = cancelled or Leaf(one, 0, before)
    leaf = found or cancelled
    assert leaf is not None  # Python makes no empty group
    return leaf._replace(others=leaves - 1)


def _is_cancellation(error: BaseException) -> bool:
    return any(_name.__get__(kind) in _CANCELLED for kind in _mro.__get__(type(error)))


def printable(error: BaseException) -> BaseException:
    """Return the exception, or one that prints as it does where it stands for too many.

    Python writes out an exception at each place it has in a group, and a group of groups that share their
    members has more places than time. In what is returned instead each exception stands once.
    """
    return _folded(error, set(), 0) if _unfolds_too_far(error) else error


def _unfolds_too_far(error: BaseException) -> bool:
    waiting, count, linked = [error], 0, set[int]()
    while waiting:
        one = waiting.pop()
        count += 1
        if count > MAX_UNFOLDED or _makes_its_links(type(one)):
            return True
        waiting.extend(_members_of(one))
        for link in (_cause.__get__(one), _context.__get__(one)):
            if link is not None and id(link) not in linked:  # as Python follows them
                linked.add(id(link))
                waiting.append(link)
    return False


def _makes_its_links(kind: type[BaseException]) -> bool:
    """Tell whether a type of exceptions answers itself what is in them or behind them, perhaps without end."""
    plain = BaseExceptionGroup if issubclass(kind, BaseExceptionGroup) else BaseException
    return any(getattr(kind, name, None) is not getattr(plain, name, None) for name in _LINKS)


def _members_of(error: BaseException) -> tuple[BaseException, ...]:
    return tuple(_members.__get__(error)) if issubclass(type(error), BaseExceptionGroup) else ()


def _folded(error: BaseException, seen: set[int], depth: int) -> BaseException:
    """A double that prints as the exception, with what is in it and behind it that was not seen before."""
    seen.add(id(error))
    kind = type(error)

    def follow(links: tuple[BaseException | None, ...]) -> list[BaseException]:
        found = []
        for one in links:
            if one is not None and id(one) not in seen and len(seen) < MAX_UNFOLDED and depth < MAX_FOLDED_DEPTH:
                found.append(_folded(one, seen, depth + 1))
        return found

    there = _members_of(error)
    members = follow(there)
    base = BaseExceptionGroup if members else BaseException
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__str__": lambda self: str(error)}
    double: Any = type(_name.__get__(kind), (base,), names)
    folded: BaseException = double("", members) if members else double()
    folded.__traceback__ = error.__traceback__
    (folded.__cause__,) = follow((_cause.__get__(error),)) or (None,)
    (folded.__context__,) = follow((_context.__get__(error),)) or (None,)
    folded.__suppress_context__ = error.__suppress_context__
    for note in getattr(error, "__notes__", ()):
        folded.add_note(str(note))
    if left_out := len(there) - len(members):
        folded.add_note(f"({left_out} of the exceptions in it are not shown: they stand elsewhere, or are too many)")
    return folded
