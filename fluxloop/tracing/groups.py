"""What stands behind an exception group: its leaves, the exceptions in it that are no groups themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

# As Python itself holds them, whatever a subclass or its metaclass makes of the names.
_members: Any = BaseExceptionGroup.exceptions
_mro, _name = type.__dict__["__mro__"], type.__dict__["__name__"]
_CANCELLED = frozenset({"CancelledError", "Cancelled"})  # of asyncio, and of trio


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
