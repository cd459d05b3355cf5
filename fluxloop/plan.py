"""Cases × iterations → planned runs."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from hashlib import blake2b
from typing import Protocol

from attrs import frozen

from fluxloop.records import Case, PlannedRun


class Cases(Protocol):
    """Cases that can be passed over again and again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Case]: ...


@frozen(kw_only=True)
class Plan(Sized):
    """Every run of an experiment, in order: one pass over all inputs for each iteration.

    Example:
        >>> plan = Plan(cases=[Case(0, "a", "hi")], iterations=2, seed=1)
        >>> [run.trace_id for run in plan]
        ['trace_001', 'trace_002']
    """

    cases: Cases
    iterations: int
    seed: int

    def __len__(self) -> int:
        return len(self.cases) * self.iterations

    def __iter__(self) -> Iterator[PlannedRun]:
        width = max(3, len(str(len(self))))
        number = 0
        for iteration in range(self.iterations):
            for case in self.cases:
                number += 1
                yield PlannedRun(f"trace_{number:0{width}d}", case, iteration, run_seed(self.seed, case.id, iteration))


def run_seed(seed: int, input_id: str, iteration: int) -> int:
    """Return the seed of one run, from 0 to 2**32 - 1, the same wherever and whenever it runs."""
    return int.from_bytes(blake2b(f"{seed}\0{input_id}\0{iteration}".encode(), digest_size=4).digest())
