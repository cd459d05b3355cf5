"""A real small disk that fills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.judging import NAMES, runs_of
from tests.durability.lab import Lab

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting takes root on Linux")

RUN = ("run", "experiment", "--no-progress", "--target", "durable_agent:wordy", "--iterations", "20")
RUNS = 160
# A summary that does not fit into the little that a run had no room in.
LARGE = ("--set", f'tags=["{"t" * 40_000}"]')


@pytest.fixture
def small_disk(quick: Path) -> Iterator[Path]:
    """A disk that has no room for all runs, mounted where results go."""
    disk = quick / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_a_disk_that_fills_loses_nothing(lab: Lab, small_disk: Path, executor: str) -> None:
    """The experiment stops with 1 and says what is safe; with room made, a resume completes it."""
    where = ("--executor", executor, "--parallel", "1" if executor == "inline" else "4")
    stopped = lab.run(*RUN, *LARGE, *where, "--output-dir", str(small_disk))
    assert stopped.code == 1
    (path,) = small_disk.iterdir()
    before = runs_of(path)
    assert 5 < len(before) < RUNS
    last = stopped.told.splitlines()[-1]
    assert last.startswith("Error: the results cannot be written: OSError: [Errno 28] No space left on device; ")
    assert f"the {len(before)} runs finished before are safe in {path}" in last
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["total_traces"], summary["planned"]) == ("failed", len(before), RUNS)
    assert "No space left" in summary["stop_reason"]
    for name in NAMES:
        content = (path / name).read_bytes()
        assert content.endswith(b"\n") or not content
        assert name == NAMES[0] or content.count(b"\n") == len(before)
    verified = lab.run("verify", str(path))
    assert (verified.code, f"run {RUNS - len(before)} of {RUNS} runs" in verified.said) == (0, True), verified.said

    again = lab.run(*RUN, *where, "--resume", str(path))
    assert again.code in (1, 2)
    assert "No space left" in again.told
    assert "Traceback" not in again.told
    assert runs_of(path)[: len(before)] == before

    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = lab.run(*RUN, *where, "--resume", str(path))
    assert done.code == 0, done.told
    after = runs_of(path)
    assert after[: len(before)] == before
    assert len({run.trace_id for run in after}) == len(after) == RUNS
    assert lab.run("verify", str(path)).code == 0
