"""Line files cut anywhere: a resume ends in the complete result."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import attrs
import pytest

from fluxloop import Experiment
from fluxloop.plan import Plan
from fluxloop.resuming.continuing import TakenUp, take_up
from fluxloop.resuming.earlier import Earlier, read_earlier
from fluxloop.store.runs import StoredRuns
from fluxloop.summary import SummaryBuilder
from fluxloop.verifying import verify
from tests.durability.judging import NAMES, Run, read, runs_of, whole_runs
from tests.durability.small import INPUTS, agent, begun, check_resumed

JUNK = (b"", b'{"text without', b'{"text": "with"}\n', b"\0" * 7, b"\0" * 4096 + b"\n\0")


def boundaries(content: bytes) -> list[int]:
    """Two bytes about every end of a record."""
    ends = [0, *(place + 1 for place, byte in enumerate(content) if byte == 10)]
    return sorted({end + by for end in ends for by in range(-2, 3) if 0 <= end + by <= len(content)})


def torn_at_boundaries(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Where it is cut, and what follows the cut."""
    return product(boundaries(content), JUNK)


@cache
def looked_at(whole_one: Path) -> tuple[Earlier, Plan]:
    """What a resume reads before it looks at the line files."""
    return read_earlier(whole_one), begun(whole_one.parent).plan()


def take_up_cut(path: Path, whole_one: Path) -> TakenUp:
    """Do all that a resume does before its first run."""
    earlier, plan = looked_at(whole_one)
    builder = SummaryBuilder(experiment_name="cut", planned=8, started_at="", ran_on={})
    taken = take_up(attrs.evolve(earlier, path=path), plan, builder, retry=None, is_same=True)
    assert builder.total + len(taken.plan) == 8
    return taken


def check_cut(path: Path, contents: dict[str, bytes], whole_one: Path) -> None:
    """The files end with the last run that is whole in all, and every other run is owed."""
    for name, content in contents.items():
        (path / name).write_bytes(content)
    kept = whole_runs(contents)
    taken = take_up_cut(path, whole_one)
    assert read(path) == {
        NAMES[0]: b"".join(run.observations for run in kept),
        NAMES[1]: b"".join(run.trace for run in kept),
        NAMES[2]: b"".join(run.summary for run in kept),
    }
    owed = [run.trace_id for run in taken.plan]
    assert sorted([*owed, *(run.trace_id for run in kept)]) == [f"trace_{number:03d}" for number in range(1, 9)]


def told(name: str, offset: int, junk: bytes, failure: AssertionError) -> AssertionError:
    return AssertionError(f"{name} cut at {offset}, followed by {junk[:20]!r}\n{failure}")


def test_the_whole_one_is_worth_cutting(whole_one: Path) -> None:
    """It has failures, runs of several observations, and more than ASCII."""
    runs = runs_of(whole_one)
    assert len(runs) == 8
    assert {len(run.observations.splitlines()) for run in runs} == {2, 3}
    assert {b'"status":"ok"' in run.summary for run in runs} == {True, False}
    assert all(any(byte > 127 for byte in content) for content in read(whole_one).values())


def test_there_are_many_torn_states(whole_one: Path) -> None:
    """More than 500 that differ are cut at boundaries alone, before those drawn by chance."""
    contents = read(whole_one)
    states = {
        (name, contents[name][:offset] + junk) for name in NAMES for offset, junk in torn_at_boundaries(contents[name])
    }
    assert len(states - set(contents.items())) > 500, len(states)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_at_any_boundary_is_repaired(cut: Path, whole_one: Path, name: str) -> None:
    """At every end of a record and two bytes about it, whatever stands behind the cut."""
    contents = read(whole_one)
    for offset, junk in torn_at_boundaries(contents[name]):
        try:
            check_cut(cut, {**contents, name: contents[name][:offset] + junk}, whole_one)
        except AssertionError as failure:
            raise told(name, offset, junk, failure) from failure


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_anywhere_is_repaired(cut: Path, whole_one: Path, name: str) -> None:
    """At 200 places drawn by chance."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    contents = read(whole_one)
    for number in range(200):
        offset, junk = chance.randrange(len(contents[name])), JUNK[number % len(JUNK)]
        try:
            check_cut(cut, {**contents, name: contents[name][:offset] + junk}, whole_one)
        except AssertionError as failure:
            raise told(name, offset, junk, failure) from failure


def test_all_three_cut_are_repaired(cut: Path, whole_one: Path) -> None:
    """Each at another place, as after a loss of power."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    contents = read(whole_one)
    for _ in range(100):
        torn = {
            name: content[: chance.randrange(len(content) + 1)] + chance.choice(JUNK)
            for name, content in contents.items()
        }
        check_cut(cut, torn, whole_one)


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_after_a_cut_ends_as_if_nothing_had_happened(cut: Path, whole_one: Path, name: str) -> None:
    """The whole way, for some cuts: at boundaries and anywhere, with each kind of what may follow."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    contents = read(whole_one)
    offsets = [
        0,
        len(contents[name]),
        *chance.sample(boundaries(contents[name]), 8),
        *(chance.randrange(len(contents[name])) for _ in range(5)),
        len(contents[name]),  # with nothing behind it: whole again after what was cut before
        *(chance.randrange(len(contents[name])) for _ in range(3)),
    ]
    for number, offset in enumerate(offsets):
        junk = JUNK[number % len(JUNK)]
        try:
            check_resumed(cut, {**contents, name: contents[name][:offset] + junk}, whole_one)
        except AssertionError as failure:
            raise told(name, offset, junk, failure) from failure


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_at_every_byte_is_repaired(cut: Path, whole_one: Path, name: str) -> None:
    """The sweep: every byte of every file, the whole way for some."""
    contents = read(whole_one)
    for offset in range(len(contents[name]) + 1):
        for number, junk in enumerate(JUNK):
            check = check_resumed if (offset + number) % 211 == 0 else check_cut
            try:
                check(cut, {**contents, name: contents[name][:offset] + junk}, whole_one)
            except AssertionError as failure:
                raise told(name, offset, junk, failure) from failure


def test_more_than_the_last_run_may_be_torn(cut: Path, whole_one: Path) -> None:
    """A batch is one write for each file, so that a crash may leave observations of many runs without traces."""
    contents = read(whole_one)
    check_resumed(cut, {**contents, NAMES[1]: b"", NAMES[2]: b""}, whole_one)
    check_resumed(cut, dict.fromkeys(NAMES, b""), whole_one)


def test_what_is_torn_is_told(cut: Path, whole_one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By verify as a finding with file and line, by resume as a warning."""
    with (cut / NAMES[1]).open("ab") as file:
        file.write(b'{"trace')
    (problem,) = verify(cut).findings
    assert problem.where == f"{cut / NAMES[1]}:9"
    Experiment.resume(cut, target=agent, inputs=INPUTS, progress=True).run()
    assert "7 bytes of traces.jsonl from line 9" in capsys.readouterr().err


def test_tails_are_where_files_are_to_be_cut(cut: Path, whole_one: Path) -> None:
    """Told after the last run, for the files that are longer."""
    contents = read(whole_one)
    (cut / NAMES[2]).write_bytes(contents[NAMES[2]][:-1])
    runs: list[Run] = runs_of(cut)
    stored = StoredRuns(cut)
    assert [run.trace_line for run in stored] == [run.trace for run in runs]
    sizes = [
        sum(len(one) for one in part)
        for part in zip(*((r.observations, r.trace, r.summary) for r in runs), strict=True)
    ]
    assert [(tail.path.name, tail.offset) for tail in stored.tails] == list(zip(NAMES, sizes, strict=True))
