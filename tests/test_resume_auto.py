"""`--resume auto`: one line for CI that goes on with what is unfinished, whatever else lies in the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult
from fluxloop.store.lock import DirectoryLock
from fluxloop.verifying import verify

LINES = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
CLOSER = """
import os
class Agent:
    def __enter__(self):
        with open("entered.log", "a") as log:
            log.write("x")
        return self
    def __exit__(self, *_):
        if os.path.exists("dies"):
            os.kill(os.getpid(), 9)
    def run(self, text):
        with open("calls.log", "a") as log:
            log.write(text)
        return text
"""


def fails(text: str) -> str:
    raise ValueError(text)


@pytest.fixture
def nightly(tmp_path: Path) -> Callable[..., ExperimentResult]:
    """Run one experiment of the same plan; with `stops` only its first two runs."""

    def nightly(*, stops: bool = False, **options: Any) -> ExperimentResult:
        options = {"resume": "auto", **options}
        if stops:
            options = {**options, "max_failures": 2, "resume": None}
        given: dict[str, Any] = {"inputs": ["x", "y"], "iterations": 3, "output_dir": tmp_path, "progress": True}
        return Experiment(target=fails, name="nightly", seed=1, **{**given, **options}).run()

    return nightly


def ruin(path: Path) -> None:
    """Put a folder in the place of each line file, so that whoever reads one fails."""
    for name in LINES:
        (path / name).unlink()
        (path / name).mkdir()


def test_of_a_completed_experiment_only_the_summary_is_read(
    nightly: Callable[..., ExperimentResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """However many runs it has, and whatever became of its other files since, it costs and says nothing."""
    first = nightly()
    ruin(first.path)
    (first.path / "config.yaml").write_text("{")
    second = nightly()
    assert second.path != first.path
    assert len(second) == 6
    assert first.path.name not in capsys.readouterr().err.replace(second.path.name, "")


def test_what_is_damaged_is_named_and_passed_over(
    nightly: Callable[..., ExperimentResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line, whichever file it is; an older one that is sound is taken up."""
    oldest = nightly(stops=True)
    damaged = [nightly(stops=True).path for _ in range(4)]
    ruin(damaged[0])
    content = (damaged[1] / "traces.jsonl").read_bytes()
    (damaged[1] / "traces.jsonl").write_bytes(b"\0" + content[1:])
    (damaged[2] / "config.yaml").write_text("runner: [\n")
    (damaged[3] / "summary.json").write_text("{")
    before = {path: sorted(path.iterdir()) for path in damaged}
    preview = str(
        Experiment(
            target=fails,
            inputs=["x", "y"],
            iterations=3,
            name="nightly",
            seed=1,
            resume="auto",
            output_dir=oldest.path.parent,
        ).preview()
    )
    capsys.readouterr()
    assert nightly().path == oldest.path
    told = capsys.readouterr().err
    for path in damaged:
        for text in (told, preview):
            (line,) = [line for line in text.splitlines() if f"{path}, which may be unfinished: " in line]
            assert "Passed over" in line
    assert before == {path: sorted(path.iterdir()) for path in damaged}


def test_what_is_being_written_is_named_and_passed_over(
    nightly: Callable[..., ExperimentResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second job of the same plan begins its own experiment beside the first."""
    first = nightly(stops=True)
    with DirectoryLock(first.path):
        second = nightly()
    assert second.path != first.path
    told = capsys.readouterr().err
    assert f"{first.path}, which may be unfinished: another process writes to it (pid {os.getpid()} on " in told
    assert nightly().path == first.path


def test_an_experiment_of_another_plan_is_passed_over_without_a_word(
    nightly: Callable[..., ExperimentResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is nothing that could be gone on with, though it be damaged or running."""
    first = nightly(stops=True, iterations=2)
    ruin(first.path)
    with DirectoryLock(first.path):
        second = nightly()
    assert second.path != first.path
    assert "Passed over" not in capsys.readouterr().err


@pytest.fixture
def closer(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command on an agent that is killed when it is closed, after the last run, while `dies` is there."""
    (tmp_path / "closer.py").write_text(CLOSER)
    (tmp_path / "inputs.jsonl").write_text('"a"\n"b"\n"c"\n')
    (tmp_path / "dies").touch()
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--target", "closer:Agent.run"]

    def closer(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = [*command, "--inputs", "inputs.jsonl", "--resume", "auto", *arguments]
        return subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, check=False)

    return closer


def test_killed_after_the_last_run_it_only_gets_its_summary(
    tmp_path: Path, closer: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Without its final summary an experiment is unfinished; no run happens twice."""
    assert closer().returncode == -signal.SIGKILL
    (path,) = (tmp_path / "experiments").iterdir()
    assert fluxloop.load(path).summary.status == "running"
    (tmp_path / "dies").unlink()
    assert "resumes     3 of 3 runs are done, 0 are left\n" in closer("--dry-run").stdout
    done = closer()
    assert (done.returncode, list((tmp_path / "experiments").iterdir())) == (0, [path])
    assert "3 of 3 runs are done, 0 are left" in done.stderr
    assert (tmp_path / "calls.log").read_text() == "abc"
    assert (tmp_path / "entered.log").read_text() == "x"
    assert fluxloop.load(path).summary.status == "completed"
    assert verify(path).is_sound
    closer()
    assert len(list((tmp_path / "experiments").iterdir())) == 2


def test_shards_killed_after_their_last_run_are_merged(
    tmp_path: Path, closer: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """All their runs are there, so that nothing is to be finished first."""
    for shard in ("1/2", "2/2"):
        assert closer("--shard", shard).returncode == -signal.SIGKILL
    shards = sorted((tmp_path / "experiments").iterdir())
    merged = fluxloop.merge(shards, tmp_path / "merged")
    assert (merged.summary.status, len(merged)) == ("completed", 3)
    assert verify(merged.path).is_sound
