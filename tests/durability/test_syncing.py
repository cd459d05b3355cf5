"""In which order results reach the disk, and how often it is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.durability.judging import NAMES
from tests.durability.lab import Lab
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open files are told apart by /proc")

RUN = ("run", "experiment", "--no-progress", "--executor", "inline")
SYNCS = ("fsync", "fdatasync")


def steps_of(lab: Lab, *arguments: str) -> list[tuple[str, str]]:
    """What was done, and where in the experiment directory."""
    done = lab.run(*RUN, *arguments, faults={"under": str(lab.project / "experiments")})
    assert done.code == 0, done.told
    return [(what, where.partition("/")[2]) for what, where, _ in done.steps]


def last(steps: list[tuple[str, str]], *wanted: tuple[str, str]) -> int:
    return max(number for number, step in enumerate(steps) if step in wanted)


def first(steps: list[tuple[str, str]], *wanted: tuple[str, str]) -> int:
    return min(number for number, step in enumerate(steps) if step in wanted)


def test_the_end_is_on_the_disk_before_the_summary_says_so(lab: Lab) -> None:
    """Each line file is synced after its last write, and before `summary.json` takes its last form."""
    steps = steps_of(lab)
    replaced = last(steps, ("replace", "summary.json"))
    for name in NAMES:
        written, synced = last(steps, ("write", name)), last(steps, *((sync, name) for sync in SYNCS))
        assert written < synced < replaced


def test_a_run_reaches_the_files_in_one_order(lab: Lab) -> None:
    """Observations, trace, summary line, one write for each: what is whole in the last is whole in all."""
    written = [where for what, where in steps_of(lab) if what == "write" and where in NAMES]
    ends = [number for number, where in enumerate(written) if where == NAMES[2]]
    assert len(ends) == 8
    runs = [written[start:end] for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]
    assert sorted({tuple(run) for run in runs}) == [NAMES[:2], NAMES[1:2]]


def test_names_reach_the_disk_too(lab: Lab) -> None:
    """The directory is synced after the files were made, before the first run, and after every replacement."""
    steps = steps_of(lab)
    directory = [number for number, step in enumerate(steps) if step in [(sync, "") for sync in SYNCS]]
    made = max(first(steps, ("create", name)) for name in NAMES)
    assert any(made < number < first(steps, ("write", NAMES[1])) for number in directory)
    for number, (what, _) in enumerate(steps):
        if what == "replace":
            assert number + 1 in directory


def test_a_replacement_is_on_the_disk_before_it_has_the_name(lab: Lab) -> None:
    """Its content is synced first, so that no loss of power leaves an empty file."""
    steps = steps_of(lab)
    replacements = [number for number, (what, _) in enumerate(steps) if what == "replace"]
    assert len(replacements) == 3
    for number in replacements:
        name = f".{steps[number][1]}."
        mine = [what for what, where in steps[:number] if where.startswith(name) and what != "chmod"]
        assert mine[-2] == "write"
        assert mine[-1] in SYNCS


def test_many_writes_share_few_syncs(lab: Lab) -> None:
    """A write does not wait for the disk."""
    steps = steps_of(lab, "--iterations", "100")
    for name in NAMES[1:]:
        writes = steps.count(("write", name))
        syncs = sum(steps.count((sync, name)) for sync in SYNCS)
        assert writes == 800
        assert 0 < syncs < writes / 2


def test_what_is_written_follows_to_the_disk_by_itself(lab: Lab) -> None:
    """A first run is synced while the second goes on and nothing else is written."""
    (lab.project / "hold").touch()
    (lab.project / "one.jsonl").write_text('{"input": "hello"}\n{"input": "hold on"}\n')
    command = lab.start(
        *RUN,
        *("--target", "durable_agent:holding", "--inputs", "one.jsonl"),
        faults={"under": str(lab.project / "experiments")},
    )

    def synced() -> set[str]:
        steps = (line.split("\t") for line in command.journal.read_text().splitlines())
        return {Path(where).name for _, what, where, _ in steps if what in SYNCS} & set(NAMES)

    try:
        wait_until(lambda: synced() == set(NAMES))
        assert not command.has_ended_or(lambda: False)
    finally:
        (lab.project / "hold").unlink()
    done = command.wait()
    assert done.code == 0
    writes = [number for number, step in enumerate(done.steps) if step[0] == "write" and step[1].endswith(NAMES[2])]
    syncs = [number for number, step in enumerate(done.steps) if step[0] in SYNCS and step[1].endswith(NAMES[2])]
    assert writes[0] < syncs[0] < writes[1] < syncs[1]
