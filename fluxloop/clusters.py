"""Runs counted by input, and inputs of one source counted together."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

_Entry = tuple[int, int, int, int]
"""Of an input: its id and its source, each as a hash and 0 for none; its runs and how many of them passed."""


_SPREAD, _FIRST = 16, 1024
"""How far the places of inputs may be apart, so that a place for each is less than what one far away takes."""


class Clusters:
    """Count the runs of each input; what comes from one source is one cluster.

    An input's source is what it names as `source_id`, else itself when another input names it. That holds over
    several steps: what was made of a variation belongs to the source of the variation.

    Runs may come in any order. An input takes 24 bytes, whatever its id: of ids only the hash is kept. One that stands
    far beyond the others, as in a shard or a damaged file, takes more, and nothing is kept for those between.

    Example:
        >>> clusters = Clusters()
        >>> clusters.add(0, "a", None, judged=True, passed=True)
        >>> clusters.add(1, "a.1", "a", judged=True, passed=False)
        >>> clusters.counts()
        ([2], [1])
    """

    def __init__(self) -> None:
        self._ids = array("q")
        self._sources = array("q")
        self._runs = array("I")
        self._passes = array("I")
        self._added = 0
        # A position has a second input where an experiment went on by force with other inputs.
        self._others: dict[tuple[int, int, int], list[int]] = {}

    def add(self, index: int, input_id: str, source_id: str | None, judged: bool, passed: bool) -> None:
        """Count a finished run; one that is not judged only tells what its input comes from.

        Args:
            index: the position of its input.
            input_id: the id of its input.
            source_id: what the input says it was derived from.
            judged: whether the run counts in the pass rate.
            passed: whether it counts as passed.
        """
        # A hash is 8 bytes; 0 is kept for none.
        id, source = hash(input_id) or 1, 0 if source_id is None else hash(source_id) or 1
        self._added += 1
        is_far = index >= len(self._ids) and index >= _SPREAD * (self._added + _FIRST)
        if is_far or (self._others and (index, id, source) in self._others):
            self._count_other((index, id, source), judged, passed)
            return
        if index >= len(self._ids):
            for column in (self._ids, self._sources, self._runs, self._passes):
                column.frombytes(bytes((index + 1 - len(column)) * column.itemsize))
        known = self._ids[index]
        if not known:
            self._ids[index], self._sources[index] = id, source
        elif known != id or self._sources[index] != source:
            self._count_other((index, id, source), judged, passed)
            return
        self._runs[index] += judged
        self._passes[index] += passed

    def _count_other(self, key: tuple[int, int, int], judged: bool, passed: bool) -> None:
        counts = self._others.setdefault(key, [0, 0])
        counts[0] += judged
        counts[1] += passed

    def counts(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the judged runs of each cluster, and how many of them passed; some clusters may have none."""
        if not self._others and not any(self._sources):
            return self._runs, self._passes
        sources = _Sources(source for _, source, _, _ in self._entries() if source)
        if self._others:  # an input may stand at two positions
            sources.include(id for id, _, _, _ in self._entries())
        for id, source, _, _ in self._entries():
            if source and id in sources:
                sources.join(id, source)
        runs: list[int] = []
        passes: list[int] = []
        places: dict[int, int] = {}
        for id, source, judged, passed in self._entries():
            place = len(runs)
            if key := source or (id if id in sources else 0):
                place = places.setdefault(sources.root(key), place)
            if place == len(runs):
                runs.append(0)
                passes.append(0)
            runs[place] += judged
            passes[place] += passed
        return runs, passes

    def _entries(self) -> Iterator[_Entry]:
        yield from zip(self._ids, self._sources, self._runs, self._passes, strict=True)
        yield from ((id, source, runs, passes) for (_, id, source), (runs, passes) in self._others.items())


class _Sources:
    """Which sources are one: a disjoint-set forest."""

    def __init__(self, keys: Iterable[int]) -> None:
        self._parents = {key: key for key in keys}

    def include(self, keys: Iterable[int]) -> None:
        for key in keys:
            self._parents.setdefault(key, key)

    def __contains__(self, key: int) -> bool:
        return key in self._parents

    def root(self, key: int) -> int:
        parents = self._parents
        while (parent := parents[key]) != key:
            parents[key] = parents[parent]
            key = parents[key]
        return key

    def join(self, one: int, other: int) -> None:
        self._parents[self.root(one)] = self.root(other)
