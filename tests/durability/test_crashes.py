"""The process gone at each step it takes on the disk, just before it and just after."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxloop.resuming.earlier import is_completed
from fluxloop.verifying import verify
from tests.durability.faults import CRASHED
from tests.durability.judging import NAMES, runs_of
from tests.durability.lab import Lab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open files are told apart by /proc")

RUN = ("run", "experiment", "--no-progress", "--executor", "inline")
IDS = [f"trace_{number:03d}" for number in range(1, 9)]
# A write is half done before its end; what comes just after a step differs little from the next one's before.
MOMENTS = ["exit before", pytest.param("exit after", marks=pytest.mark.slow)]
HEALED = {"IS_UP": "1"}


def begun(project: Path) -> list[Path]:
    return sorted(path for path in (project / "experiments").glob("[!.]*") if (path / "config.yaml").exists())


def check(path: Path) -> None:
    """It is complete, sound, and nothing is left lying about."""
    assert sorted(run.trace_id for run in runs_of(path)) == IDS
    assert {file.name for file in path.iterdir()} - {"superseded.jsonl"} == {*NAMES, "config.yaml", "summary.json"}
    assert verify(path).findings == ()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("resume", ["auto", pytest.param("the directory", marks=pytest.mark.slow)])
def test_a_crash_at_any_step_is_taken_up(lab: Lab, resume: str, moment: str) -> None:
    """By its directory, once there is an experiment in it, or by `auto` in any case."""
    output = lab.project / "experiments"
    faults: dict[str, Any] = {"under": str(output)}
    steps = lab.run(*RUN, faults=faults).steps
    assert len(steps) > 50
    for number in range(1, len(steps) + 1):
        shutil.rmtree(output)
        crashed = lab.run(*RUN, faults={**faults, "do": moment, "at": number})
        if len(crashed.steps) < number:
            break  # a slow machine syncs once more
        assert crashed.code == CRASHED
        left = begun(lab.project)
        visible = set(output.glob("[!.]*"))
        assert visible == set(left)  # an experiment appears with its configuration
        before = runs_of(left[0]) if left else []
        is_final = bool(left) and is_completed(left[0])
        how = ("--resume", "auto" if resume == "auto" else str(left[0])) if resume == "auto" or left else ()
        done = lab.run(*RUN, *how)
        what = f"{moment} {number}, {steps[number - 1][:2]}: {done.code}: {done.told}"
        assert done.code == 0, what
        path = begun(lab.project)[-1]
        try:
            if left:
                assert (path == left[0]) == (resume != "auto" or not is_final)
                assert runs_of(left[0])[: len(before)] == before
            check(path)
        except AssertionError as failure:
            raise AssertionError(f"{what}\n{failure}") from failure


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_at_any_step_of_a_rewrite_leaves_runs_owed(lab: Lab, moment: str) -> None:
    """Never doubled and never lost; what they replace is kept beside the results once."""
    output, kept = lab.project / "experiments", lab.project / "kept"
    lab.run(*RUN)
    (path,) = begun(lab.project)
    lab.run(*RUN, "--resume", str(path), "--retry-failed=all")
    earlier = (path / "superseded.jsonl").read_bytes().splitlines(keepends=True)
    assert len(earlier) == 2
    first = runs_of(path)
    whole = [run for run in first if b'"status":"ok"' in run.summary]
    failed = [run for run in first if run not in whole]
    assert len(failed) == 2
    shutil.copytree(output, kept)
    resume = (*RUN, "--resume", str(path))
    faults: dict[str, Any] = {"under": str(output)}
    steps = lab.run(*resume, "--retry-failed=all", faults=faults, environment=HEALED).steps
    assert any(where.endswith(".rewrite") for _, where, _ in steps)
    for number in range(1, len(steps) + 1):
        shutil.rmtree(output)
        shutil.copytree(kept, output)
        crashed = lab.run(
            *resume, "--retry-failed=all", faults={**faults, "do": moment, "at": number}, environment=HEALED
        )
        if len(crashed.steps) < number:
            break  # a slow machine syncs once more
        assert crashed.code == CRASHED
        done = lab.run(*resume, environment=HEALED)
        what = f"{moment} {number}, {steps[number - 1][:2]}: {done.code}: {done.told}"
        try:
            assert done.code == 0
            check(path)
            after = runs_of(path)
            assert set(whole) <= set(after)
            superseded = (path / "superseded.jsonl").read_bytes().splitlines(keepends=True)
            assert superseded in (earlier, earlier + [run.trace for run in failed])
            assert set(superseded).isdisjoint(run.trace for run in after)
            assert len(superseded) > len(earlier) or set(failed) <= set(after)
        except AssertionError as failure:
            raise AssertionError(f"{what}\n{failure}") from failure
