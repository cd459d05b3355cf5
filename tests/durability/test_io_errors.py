"""A disk that refuses: at each write, sync, rename and creation of a small experiment."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxloop.verifying import verify
from tests.durability.judging import NAMES, Run, runs_of
from tests.durability.lab import Done, Lab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open files are told apart by /proc")

RUN = ("run", "experiment", "--no-progress", "--executor", "inline")
IDS = [f"trace_{number:03d}" for number in range(1, 9)]


def only_directory(project: Path) -> Path | None:
    made = [path for path in (project / "experiments").glob("*") if (path / "config.yaml").exists()]
    assert len(made) < 2
    return made[0] if made else None


def check_stop(done: Done, path: Path | None, before: list[Run]) -> list[Run]:
    """A stop is told, and what is on the disk is no less than was there and what the summary counts."""
    assert "Traceback" not in done.told
    assert done.code in (0, 1, 2), done.told
    runs = [] if path is None else runs_of(path)
    assert runs[: len(before)] == before
    if done.code:
        assert "Error: " in done.told
    if path is not None and (path / "summary.json").exists():
        told = json.loads((path / "summary.json").read_text())
        assert told["total_traces"] <= len(runs)
        if done.code == 1 and len(runs) > len(before):
            assert "finished" in done.told  # what is safe, in words
        if done.code == 0:
            assert (told["status"], told["total_traces"], len(runs)) == ("completed", 8, 8)
    return runs


def check_syncs(done: Done) -> None:
    """No file whose sync has failed is asked again, and results are not written any more."""
    for number, (what, where, is_done) in enumerate(done.steps):
        if is_done or what not in ("fsync", "fdatasync") or not where.endswith(NAMES):
            continue
        later = done.steps[number + 1 :]
        assert [step for step in later if step[1] == where and step[0] in ("fsync", "fdatasync", "write")] == []
        if ".rewrite" not in where:
            assert [step for step in later if step[1].endswith(NAMES)] == []


def complete(lab: Lab, path: Path | None, runs: list[Run]) -> None:
    """What is left is run, and nothing else, once the disk takes all again."""
    done = lab.run(*RUN) if path is None else lab.run(*RUN, "--resume", str(path))
    path = only_directory(lab.project)
    assert path is not None
    assert done.code == 0, done.told
    after = runs_of(path)
    assert after[: len(runs)] == runs
    assert sorted(run.trace_id for run in after) == IDS
    assert json.loads((path / "summary.json").read_text())["total_traces"] == 8
    assert verify(path).findings == ()
    left = {entry.name for entry in path.iterdir()} - {"superseded.jsonl"}
    assert left == {*NAMES, "config.yaml", "summary.json"}


def check_superseded(path: Path, failed: list[Run]) -> None:
    """What had failed stands in the results or beside them, and once."""
    file = path / "superseded.jsonl"
    superseded = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    traces = (path / NAMES[1]).read_bytes().splitlines(keepends=True)
    assert [(traces + superseded).count(run.trace) for run in failed] == [1] * len(failed)
    assert len(superseded) <= len(failed)


FAULTS = [
    (errno.ENOSPC, False),
    pytest.param(errno.EIO, True, marks=pytest.mark.slow),
    pytest.param(errno.EIO, False, marks=pytest.mark.slow),
    pytest.param(errno.ENOSPC, True, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("error", "lasts"), FAULTS)
def test_a_disk_that_refuses_any_one_step_costs_nothing(lab: Lab, error: int, lasts: bool) -> None:
    """The experiment stops with 1, or with 2 before its first run; a resume completes it."""
    output = lab.project / "experiments"
    faults: dict[str, Any] = {"under": str(output)}
    steps = lab.run(*RUN, faults=faults).steps
    assert len(steps) > 50
    for number in range(1, len(steps) + 1):
        shutil.rmtree(output)
        done = lab.run(*RUN, faults={**faults, "do": "fail", "at": number, "error": error, "lasts": lasts})
        what = f"{number}: {steps[number - 1][:2]} refused: exit code {done.code}: {done.told}"
        try:
            path = only_directory(lab.project)
            runs = check_stop(done, path, [])
            check_syncs(done)
            wrote = any(is_done and what == "write" and where.endswith(NAMES) for what, where, is_done in done.steps)
            assert done.code < 2 or not wrote
            complete(lab, path, runs)
        except AssertionError as failure:
            raise AssertionError(f"{what}\n{failure}") from failure


@pytest.mark.parametrize(("error", "lasts"), FAULTS)
def test_a_disk_that_refuses_any_one_step_of_a_resume_costs_nothing(lab: Lab, error: int, lasts: bool) -> None:
    """The same of one that repairs a torn end and runs failed runs again."""
    output, kept = lab.project / "experiments", lab.project / "kept"
    lab.run(*RUN)
    path = only_directory(lab.project)
    assert path is not None
    with (path / NAMES[1]).open("ab") as file:
        file.write(b'{"trace_id": "tor')
    whole = [run for run in runs_of(path) if b'"status":"ok"' in run.summary]
    failed = [run for run in runs_of(path) if run not in whole]
    assert len(failed) == 2
    shutil.copytree(output, kept)
    resume = (*RUN, "--resume", str(path), "--retry-failed=all")
    faults: dict[str, Any] = {"under": str(output)}
    steps = lab.run(*resume, faults=faults, environment={"IS_UP": "1"}).steps
    for number in range(1, len(steps) + 1):
        shutil.rmtree(output)
        shutil.copytree(kept, output)
        done = lab.run(
            *resume,
            faults={**faults, "do": "fail", "at": number, "error": error, "lasts": lasts},
            environment={"IS_UP": "1"},
        )
        what = f"{number}: {steps[number - 1][:2]} refused: exit code {done.code}: {done.told}"
        try:
            assert "Traceback" not in done.told
            assert done.code in (0, 1, 2)
            check_syncs(done)
            complete(lab, path, [])
            after = runs_of(path)
            assert set(whole) <= set(after)
            check_superseded(path, failed)
        except AssertionError as failure:
            raise AssertionError(f"{what}\n{failure}") from failure
