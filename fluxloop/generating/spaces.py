"""Variations by number: each strategy says how many it may have and what the n-th is.

So they can be drawn in a seeded order without being listed, none twice, and it is known when there
are no more.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import TypeVar

from attrs import frozen

T = TypeVar("T")


@frozen
class Space:
    """So many variations, and the one at each place from 0; None where there is none."""

    size: int
    at: Callable[[int], str | None]


def drawn(space: Space, seed: object) -> Iterator[str]:
    """Yield what is in a space, each place once, in an order that follows from the seed's `repr`."""
    size = space.size
    if not size:
        return
    # Not of `random.Random`, which keeps 2.5 kB: each base input has a few of these at a time.
    chance = blake2b(repr(seed).encode("utf-8", "surrogatepass"), digest_size=64).digest()
    place = int.from_bytes(chance[:32]) % size
    step = int.from_bytes(chance[32:]) % size or 1
    while math.gcd(step, size) > 1:
        step += 1
    for _ in range(size):
        if (text := space.at(place)) is not None:
            yield text
        place = (place + step) % size


def in_turn(streams: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yield from each stream in turn, until all have ended."""
    live = list(streams)
    while live:
        going = []
        for stream in live:
            for item in stream:
                yield item
                going.append(stream)
                break
        live = going


def combination(index: int, count: int, chosen: int) -> list[int]:
    """Return the index as so many different places out of `count`, in order.

    Example:
        >>> [combination(index, 4, 2) for index in range(6)]
        [[0, 1], [0, 2], [1, 2], [0, 3], [1, 3], [2, 3]]
    """
    places = []
    for size in range(chosen, 0, -1):
        count = bisect_right(range(count), index, key=lambda place: math.comb(place, size)) - 1
        places.append(count)
        index -= math.comb(count, size)
    return places[::-1]


def choice(index: int, *counts: int) -> tuple[int, ...]:
    """Return the index as one choice out of each of the counts."""
    chosen = []
    for count in counts:
        index, one = divmod(index, count)
        chosen.append(one)
    return tuple(chosen)
