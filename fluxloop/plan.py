"""Cases × iterations → planned runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sized
from hashlib import blake2b
from typing import Protocol

from attrs import field, frozen

from fluxloop.records import Case, PlannedRun


class Cases(Protocol):
    """Cases that can be passed over again and again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Case]: ...


_SHARD = re.compile(r" *([0-9]{1,6}) */ *([0-9]{1,6}) *")


_STRETCH = 4096
"""Positions kept together."""


class Positions:
    """Which runs of a plan, by their position from 0; about a bit for each, however far apart they are.

    Example:
        >>> done = Positions()
        >>> done.add(7)
        True
        >>> done.add(7)
        False
        >>> 7 in done, 8 in done, len(done)
        (True, False, 1)
    """

    def __init__(self) -> None:
        self._stretches: dict[int, bytearray] = {}
        self._count = 0

    def add(self, position: int) -> bool:
        """Add a position; return False when it was there already."""
        stretch, place = divmod(position, _STRETCH)
        bits = self._stretches.get(stretch)
        if bits is None:
            bits = self._stretches[stretch] = bytearray(_STRETCH // 8)
        byte, bit = place >> 3, 1 << (place & 7)
        if bits[byte] & bit:
            return False
        bits[byte] |= bit
        self._count += 1
        return True

    def __contains__(self, position: int) -> bool:
        bits = self._stretches.get(position // _STRETCH)
        place = position % _STRETCH
        return bits is not None and bool(bits[place >> 3] & 1 << (place & 7))

    def __len__(self) -> int:
        return self._count

    @property
    def end(self) -> int:
        """One more than the last of them."""
        if not self._stretches:
            return 0
        last = max(self._stretches)
        return last * _STRETCH + int.from_bytes(self._stretches[last], "little").bit_length()


@frozen
class Shard:
    """One of the equal shares a plan is cut into.

    Every stretch of `count` runs of the plan has one for each shard, so that shares differ by one
    run at most. Which of them it is changes from stretch to stretch: no shard has the same inputs
    in every iteration, and one that is lost is missed by all inputs alike.

    Example:
        >>> str(Shard(2, 8))
        '2/8'
    """

    index: int
    """From 1."""
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read what `str` tells, such as `2/8`.

        Raises:
            ValueError: the text is no shard.
        """
        parts = _SHARD.fullmatch(text)
        index, count = (int(parts[1]), int(parts[2])) if parts else (0, 0)
        if not count:
            raise ValueError(f"expected a shard such as 2/8, the second of eight, got {text!r}")
        if not 1 <= index <= count:
            told = f"expected a shard from 1/{count} to {count}/{count}, got {text!r}"
            raise ValueError(f"{told}: shards are counted from 1" if index == 0 else told)
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, position: int) -> bool:
        """Tell whether the run at this position of the plan is one of the shard's."""
        stretch, place = divmod(position, self.count)
        return place == self._place(stretch)

    def share(self, total: int) -> int:
        """Return how many of the plan's first `total` runs are the shard's."""
        whole, rest = divmod(total, self.count)
        return whole + (self._place(whole) < rest)

    def told(self, total: int) -> str:
        """Say which part of so many runs it is."""
        return f"{self.index} of {self.count}: {self.share(total)} of {total} runs"

    def _place(self, stretch: int) -> int:
        """Where in a stretch the shard's run is."""
        turned = int.from_bytes(blake2b(b"%d" % stretch, digest_size=4).digest())
        return (self.index - 1 - turned) % self.count


@frozen(kw_only=True)
class Plan(Sized):
    """The runs of an experiment that are still to happen, in order: one pass over all inputs for each iteration.

    Example:
        >>> plan = Plan(cases=[Case(0, "a", "hi")], iterations=2, seed=1)
        >>> [run.trace_id for run in plan]
        ['trace_001', 'trace_002']
    """

    cases: Cases
    iterations: int
    seed: int
    shard: Shard | None = None
    """The share that is this experiment's; None for all."""
    done: Positions = field(factory=Positions)
    """What has been run before."""
    id_digits: int | None = None
    """Digits of a trace id at least; by default as the number of runs has, and three."""
    first_number: int = 1
    """The number in the trace id of the first run."""

    @property
    def total(self) -> int:
        """How many runs all shards have together."""
        return len(self.cases) * self.iterations

    @property
    def planned(self) -> int:
        """How many runs are this experiment's, with those that are done."""
        return self.total if self.shard is None else self.shard.share(self.total)

    def __len__(self) -> int:
        return self.planned - len(self.done)

    @property
    def digits(self) -> int:
        """How many digits a trace id has at least."""
        return self.id_digits or max(3, len(str(self.total)))

    def __iter__(self) -> Iterator[PlannedRun]:
        digits, shard, done = self.digits, self.shard, self.done
        position = -1
        for iteration in range(self.iterations):
            for case in self.cases:
                position += 1
                if (done and position in done) or (shard is not None and not shard.takes(position)):
                    continue
                trace_id = f"trace_{self.first_number + position:0{digits}d}"
                yield PlannedRun(trace_id, case, iteration, run_seed(self.seed, case.id, iteration))


def seed_of(name: str) -> int:
    """Return the seed that all shards of an experiment of this name draw, each on its own machine."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest())


def run_seed(seed: int, input_id: str, iteration: int) -> int:
    """Return the seed of one run, from 0 to 2**32 - 1, the same wherever and whenever it runs."""
    return int.from_bytes(blake2b(f"{seed}\0{input_id}\0{iteration}".encode(), digest_size=4).digest())
