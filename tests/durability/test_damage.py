"""Damage that no crash leaves: refused with file and line, and nothing on the disk changed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fluxloop import MergeError, OutputError, load, merge
from fluxloop.store.layout import SUPERSEDED
from fluxloop.verifying import verify
from tests.durability.judging import NAMES, Run, read, runs_of, whole
from tests.durability.small import begun, check_resumed, resumed
from tests.noticing import noticed


class Damaged(NamedTuple):
    """The content of a damaged file, and what of it is still said of the end."""

    content: bytes
    line: int
    """Where the damage is, from 1."""
    is_torn: bool
    """Whether nothing whole follows in the file, so that it may be a crash's."""


Lines = list[bytes]


def flipped(lines: Lines, at: int) -> Damaged:
    """The high bit of a byte, which is no UTF-8 any more wherever it is."""
    line = bytearray(lines[at])
    line[len(line) // 3] ^= 0x80
    return Damaged(b"".join([*lines[:at], bytes(line), *lines[at + 1 :]]), at + 1, at == len(lines) - 1)


def flipped_end(lines: Lines, at: int) -> Damaged:
    line = lines[at][:-1] + b"\x8a"
    return Damaged(b"".join([*lines[:at], line, *lines[at + 1 :]]), at + 1, at >= len(lines) - 2)


def removed(lines: Lines, at: int) -> Damaged:
    return Damaged(b"".join([*lines[:at], *lines[at + 1 :]]), at + 1, at == len(lines) - 1)


def doubled(lines: Lines, at: int) -> Damaged:
    return Damaged(b"".join([*lines[: at + 1], *lines[at:]]), at + 2, at == len(lines) - 1)


def swapped(lines: Lines, at: int) -> Damaged:
    if at == len(lines) - 1:
        return swapped(lines, at - 1)
    return Damaged(b"".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]), at + 1, False)


def zeroed(lines: Lines, at: int) -> Damaged:
    """As a page that never reached the disk; it takes the end of the line with it."""
    return Damaged(b"".join([*lines[:at], b"\0" * len(lines[at]), *lines[at + 1 :]]), at + 1, at >= len(lines) - 2)


def foreign(lines: Lines, at: int) -> Damaged:
    """The line of another run in its place."""
    other = lines[0] if at >= len(lines) // 2 else lines[-1]
    return Damaged(b"".join([*lines[:at], other, *lines[at + 1 :]]), at + 1, False)


DAMAGES = (flipped, flipped_end, removed, doubled, swapped, zeroed, foreign)


def everything(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def refusals(path: Path, damaged: dict[str, bytes]) -> Iterator[str]:
    """What a resume says against it; nothing when it goes on."""
    before = everything(path)
    assert before.items() >= damaged.items()
    try:
        resumed(path).run()
    except OutputError as error:
        yield str(error)
        assert everything(path) == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_damage_in_any_line_is_refused(
    cut: Path, whole_one: Path, name: str, damage: Callable[[Lines, int], Damaged]
) -> None:
    """With the file and line it is in; what may be a crash's, at the very end, is repaired, as is what is one run's."""
    contents = read(whole_one)
    documents = {file: (whole_one / file).read_bytes() for file in ("summary.json", "config.yaml")}
    lines = contents[name].splitlines(keepends=True)
    for at in range(len(lines)):
        done = damage(lines, at)
        damaged = {**contents, **documents, name: done.content}
        for file, content in damaged.items():
            (cut / file).write_bytes(content)
        finding = verify(cut)
        where = f"{cut / name}:{done.line}"
        for told in refusals(cut, damaged):
            assert told.startswith(f"{where}: "), f"{damage.__name__} line {at + 1}: expected {where}, got {told}"
            assert "truncate" in told
            assert finding.findings[0].where == where
            break
        else:
            told = finding.findings[0]
            is_owed = told.where == where and "a resume runs it again" in told.message
            assert done.is_torn or is_owed, f"{damage.__name__} line {at + 1} of {name} was not refused"
            for file, content in documents.items():
                (cut / file).write_bytes(content)
            check_resumed(cut, {**contents, name: done.content}, whole_one)


class Differing(NamedTuple):
    """A run that one file tells otherwise than the others, and where that is found."""

    name: str
    old: bytes
    new: bytes
    found_in: str


DIFFERENCES = {
    "observation": Differing("observations.jsonl", b'"output":', b'"output":1,"metadata":', "observations.jsonl"),
    "all observations": Differing("observations.jsonl", b'"attempt":1', b'"attempt":2', "observations.jsonl"),
    "observation in the trace": Differing("traces.jsonl", b'"name":"look"', b'"name":"Look"', "observations.jsonl"),
    "trace": Differing("traces.jsonl", b'"attempts":1', b'"attempts":2', "trace_summary.jsonl"),
    "summary": Differing("trace_summary.jsonl", b'"attempts":1', b'"attempts":2', "trace_summary.jsonl"),
}


def make_differ(path: Path, number: int, differing: Differing) -> Run:
    """Change one run of a directory in one file; return the run as it was."""
    runs = runs_of(path)
    run = runs[number]
    part = NAMES.index(differing.name) + 1
    lines = run[part].replace(differing.old, differing.new, -1 if differing.new.endswith(b"2") else 1)
    assert lines != run[part]
    changed = [*(one[part] for one in runs[:number]), lines, *(one[part] for one in runs[number + 1 :])]
    (path / differing.name).write_bytes(b"".join(changed))
    return run._replace(trace=lines) if part == 2 else run


@pytest.mark.parametrize("number", [0, 3, 7])
@pytest.mark.parametrize("kind", DIFFERENCES)
def test_a_run_that_the_files_tell_differently_costs_that_run(
    cut: Path, whole_one: Path, kind: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named by verify and parse and run again on resume; all others stay, and its trace is kept."""
    differing = DIFFERENCES[kind]
    run = make_differ(cut, number, differing)
    before = runs_of(whole_one)

    found = verify(cut)
    (problem,) = found.findings
    assert problem.where.startswith(f"{cut / differing.found_in}:")
    assert run.trace_id in problem.message
    assert "truncate" not in problem.message
    assert (found.runs, found.resume.partition(";")[0]) == (7, "run 1 of 8 runs")

    result = load(cut)
    assert len(list(result)) == 8
    with noticed(re.escape(problem.where)):
        result.to_markdown(cut / "report")

    resumed(cut, progress=True).run()
    assert f"Running again 1 run that the files tell differently ({SUPERSEDED} keeps" in capsys.readouterr().err
    after = runs_of(cut)
    assert after[:-1] == [*before[:number], *before[number + 1 :]]
    assert whole(after[-1]) == whole(before[number])
    assert (cut / SUPERSEDED).read_bytes() == run.trace
    shutil.rmtree(cut / "report")
    assert verify(cut).is_sound


def test_runs_that_differ_are_run_again_with_those_that_failed(cut: Path) -> None:
    """Both go to superseded.jsonl, and the summary counts both."""
    make_differ(cut, 2, DIFFERENCES["observation"])
    result = resumed(cut, retry_failed="all").run()
    assert (result.summary.total_traces, result.summary.superseded) == (8, 3)
    assert verify(cut).is_sound


def test_a_shard_with_a_run_that_differs_lacks_that_run(quick: Path) -> None:
    """Merge says which, and how to finish the shard; a gap that is accepted is that run."""
    shards = [begun(quick, shard=f"{number}/2").run().path for number in (1, 2)]
    run = make_differ(shards[0], 1, DIFFERENCES["observation"])
    with pytest.raises(MergeError, match=rf"lacks 1 of its 4 runs \(.*{run.trace_id}.*--resume"):
        merge(shards, quick / "merged")
    merged = merge(shards, quick / "merged", allow_partial=True)
    assert len(merged) == 7
    assert merged.verify().is_sound


def test_observations_that_are_missing_cost_more_than_their_run(cut: Path) -> None:
    """Which belong to which cannot be told any more: refused, at the first that is not as its trace has it."""
    (cut / NAMES[0]).write_bytes(b"".join((cut / NAMES[0]).read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(OutputError, match=r"observations\.jsonl:1: an observation of trace_001 that differs"):
        resumed(cut).run()


def test_a_run_that_stands_there_twice_is_refused(cut: Path, whole_one: Path) -> None:
    """Though all three files agree on it; at the second place."""
    runs = runs_of(whole_one)
    doubled = [*runs[:5], runs[2], *runs[5:]]
    for name, parts in zip(NAMES, zip(*(run[1:] for run in doubled), strict=True), strict=True):
        (cut / name).write_bytes(b"".join(parts))
    before = everything(cut)
    with pytest.raises(OutputError, match=r"traces\.jsonl:6: trace_003 stands here a second time"):
        resumed(cut).run()
    assert everything(cut) == before


def test_a_run_that_is_gone_from_all_files_is_owed(cut: Path, whole_one: Path) -> None:
    """Nothing tells it from one that was never run."""
    runs = runs_of(whole_one)
    left = [*runs[:2], *runs[3:]]
    contents = dict(
        zip(NAMES, (b"".join(parts) for parts in zip(*(run[1:] for run in left), strict=True)), strict=True)
    )
    check_resumed(cut, contents, whole_one)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_flip_of_any_byte_is_refused(cut: Path, whole_one: Path, name: str) -> None:
    """With the file and line; in the last two lines it may be torn."""
    contents = read(whole_one)
    content = contents[name]
    count = content.count(b"\n")
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x80
        (cut / name).write_bytes(changed)
        line = content[:place].count(b"\n") + 1
        finding = verify(cut).findings[0]
        if line < count - 1:
            assert finding.where == f"{cut / name}:{line}"
            assert "truncate" in finding.message


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_line_file_is_refused(cut: Path, name: str) -> None:
    """Which one, and nothing is made in its place."""
    (cut / name).unlink()
    before = everything(cut)
    with pytest.raises(OutputError, match=rf"{name}: No such file"):
        resumed(cut).run()
    assert everything(cut) == before
    assert not verify(cut).is_sound


def test_the_cure_a_refusal_tells_is_one(cut: Path, whole_one: Path) -> None:
    """Cut off there, the experiment can go on; what was before stays."""
    contents = read(whole_one)
    lines = contents[NAMES[1]].splitlines(keepends=True)
    (cut / NAMES[1]).write_bytes(flipped(lines, 3).content)
    with pytest.raises(OutputError) as refused:
        resumed(cut).run()
    size = int(str(refused.value).rpartition("truncate -s ")[2].split()[0])
    assert size == sum(map(len, lines[:3]))
    check_resumed(cut, {**contents, NAMES[1]: contents[NAMES[1]][:size]}, whole_one)
    assert runs_of(cut)[:3] == runs_of(whole_one)[:3]
