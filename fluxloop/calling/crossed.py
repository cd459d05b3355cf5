"""Each input with each recorded call: cases of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from fluxloop.plan import Cases
from fluxloop.records import Case


@frozen
class CrossedCases:
    """Pairs of inputs and lines of a recording; all inputs with one line, then with the next.

    A pair's id is `input_001@7` for line 7, its index the position among the pairs. Its source is
    the input, for pairs of one input say less than as many inputs.

    Example:
        >>> [case.id for case in CrossedCases([Case(0, "a", "hi"), Case(1, "b", "ho")], [3, 7])]
        ['a@3', 'b@3', 'a@7', 'b@7']
    """

    cases: Cases
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.cases) * len(self.lines)

    def __iter__(self) -> Iterator[Case]:
        index = 0
        for line in self.lines:
            for case in self.cases:
                metadata = {"source_id": case.id, **(case.metadata or {})}
                yield Case(index, f"{case.id}@{line}", case.input, case.persona, case.expected, metadata)
                index += 1


def line_of(case_id: str) -> int:
    """Return the line of the recording that a pair is run with."""
    return int(case_id.rpartition("@")[2])
