"""Which runs make one cluster of the interval: those of one input, and of all inputs of one source."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluxloop
from fluxloop import Experiment
from fluxloop.clusters import Clusters

MOST = 12
"""Ids in a generated experiment: few, so that they name each other."""


class Run(NamedTuple):
    index: int
    id: str
    source: str | None
    judged: bool
    passed: bool


def counted(runs: list[Run]) -> list[tuple[int, int]]:
    """The clusters that have judged runs, each with how many of them there are and how many passed."""
    clusters = Clusters()
    for run in runs:
        clusters.add(run.index, run.id, run.source, judged=run.judged, passed=run.passed)
    return sorted((judged, passed) for judged, passed in zip(*clusters.counts(), strict=True) if judged)


def reference(runs: list[Run]) -> list[tuple[int, int]]:
    """The same from all runs at once: ids that are reached from each other by `source_id`, either way."""
    family = {id: {id} for run in runs for id in (run.id, run.source) if id is not None}
    for run in runs:
        if run.source is not None:
            both = family[run.id] | family[run.source]
            family.update(dict.fromkeys(both, both))
    found: dict[int, tuple[int, int]] = {}
    for run in runs:
        key = id(family[run.id])
        judged, passed = found.get(key, (0, 0))
        found[key] = (judged + run.judged, passed + run.passed)
    return sorted(counts for counts in found.values() if counts[0])


@st.composite
def experiments(draw: st.DrawFn) -> list[Run]:
    """Runs of inputs that name each other, themselves, in circles, or what is not there; in any order."""
    ids = [f"i{number}" for number in range(draw(st.integers(1, MOST)))]
    sources = [draw(st.none() | st.sampled_from([*ids, "absent"])) for _ in ids]
    runs = []
    for _ in range(draw(st.integers(0, 40))):
        index = draw(st.integers(0, len(ids) - 1))
        judged = draw(st.booleans())
        runs.append(Run(index, ids[index], sources[index], judged, judged and draw(st.booleans())))
    return runs


@given(experiments(), st.randoms(use_true_random=False))
def test_clusters_are_those_of_all_runs_seen_at_once(runs: list[Run], rng: random.Random) -> None:
    """In whatever order they come, a base's runs before its variations' or after."""
    expected = reference(runs)
    assert counted(runs) == expected
    rng.shuffle(runs)
    assert counted(runs) == expected


@given(experiments(), st.randoms(use_true_random=False))
def test_an_input_that_moved_is_one_input(runs: list[Run], rng: random.Random) -> None:
    """Where an experiment went on by force with other inputs, a position may be of two inputs, an id at two."""
    runs = [run._replace(index=rng.randrange(MOST)) for run in runs]
    runs += [Run(0, "new", None, True, True), Run(0, "old", None, True, False)]
    expected = reference(runs)
    assert counted(runs) == expected
    rng.shuffle(runs)
    assert counted(runs) == expected


@pytest.mark.parametrize(
    ("sources", "clusters"),
    [
        ({"a": None, "b": None}, 2),
        ({"a": None, "a.1": "a", "a.2": "a"}, 1),
        ({"a": "a", "a.1": "a"}, 1),
        ({"a.1": "a", "a.2": "a", "b.1": "b"}, 2),
        ({"a": None, "a.1": "a", "a.1.1": "a.1"}, 1),
        ({"a": "b", "b": "a", "c": None}, 2),
        ({"a": None, "a.1.1": "a.1"}, 2),
    ],
    ids=["apart", "derived", "base names itself", "no base", "derived twice", "a circle", "a link not run"],
)
def test_an_inputs_source_is_what_it_names_else_itself_when_it_is_named(
    sources: dict[str, str | None], clusters: int, tmp_path: Path
) -> None:
    """Over several steps, as far as the inputs that were run say so; the files of the experiment say the same."""
    inputs = [{"id": id, "input": id, **({"source_id": source} if source else {})} for id, source in sources.items()]
    for ordered in (inputs, inputs[::-1]):
        result = Experiment(target=str.upper, inputs=ordered, iterations=2, output_dir=tmp_path).run()
        assert result.summary.pass_rate is not None
        assert result.summary.pass_rate.clusters == clusters
        assert result.verify().is_sound


def test_shards_merged_have_the_clusters_of_the_whole(tmp_path: Path) -> None:
    """Though a base and its variations ran in different shards."""
    inputs = [{"id": "a", "input": 0}, *({"id": f"a.{k}", "input": k, "source_id": "a"} for k in range(3)), "other"]

    def run(name: str, shard: str | None) -> fluxloop.ExperimentResult:
        options = {"inputs": inputs, "iterations": 3, "output_dir": tmp_path / name, "name": "n", "seed": 1}
        return Experiment(target=repr, shard=shard, **options).run()

    shards = [run(f"{index}", f"{index}/4").path for index in (4, 2, 3, 1)]
    whole = run("whole", None).summary.pass_rate
    assert whole is not None
    assert whole.clusters == 2
    assert fluxloop.merge(shards, tmp_path / "merged").summary.pass_rate == whole


@given(experiments(), st.randoms(use_true_random=False))
def test_it_makes_no_difference_how_far_inputs_are_apart(runs: list[Run], rng: random.Random) -> None:
    """One whose place is far beyond the number of runs, as in a shard of many inputs, is counted as any."""
    places = [rng.choice([index, index * 10**9, index + 16_400]) for index in range(MOST)]
    far = [run._replace(index=places[run.index]) for run in runs]
    filled = far + [run for _ in range(40) for run in far]  # so that places which were far no longer are
    assert counted(far) == reference(runs)
    assert counted(filled) == [(41 * judged, 41 * passed) for judged, passed in reference(runs)]


def test_what_is_far_takes_no_more_than_a_run() -> None:
    """Memory grows with the runs, not with the places of their inputs."""
    clusters = Clusters()
    tracemalloc.start()
    try:
        for number in range(1000):
            clusters.add(number * 10**12, f"i{number}", None, judged=True, passed=True)
        assert tracemalloc.get_traced_memory()[1] < 1000 * 1000
    finally:
        tracemalloc.stop()
    assert sum(clusters.counts()[0]) == 1000


def test_an_input_takes_a_few_bytes() -> None:
    """Whatever its id, however many runs it has, and whether it names a source or not."""
    count = 50_000
    clusters = Clusters()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2):
            for index in range(count):
                source = f"{'source' * 20}{index // 10 * 10}" if index % 10 else None
                clusters.add(index, f"{'source' * 20}{index}", source, judged=True, passed=True)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 28 * count
    assert sorted(clusters.counts()[0]) == [20] * (count // 10)
