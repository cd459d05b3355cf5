"""Two processes and one directory: one works, the other is told who does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.judging import runs_of
from tests.durability.lab import Command, Done, Lab
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process does is seen in /proc")

RUN = ("run", "experiment", "--no-progress", "--executor", "inline", "--target")
IDS = [f"trace_{number:03d}" for number in range(1, 9)]


def has_ended(command: Command) -> bool:
    return command.has_ended_or(lambda: False)


def only_directory(project: Path) -> Path:
    (path,) = (project / "experiments").iterdir()
    return path


@pytest.fixture
def hold(project: Path) -> Iterator[Path]:
    """While it is there, agents wait."""
    (project / "hold").touch()
    (project / "alive").touch()
    yield project / "hold"
    (project / "hold").unlink(missing_ok=True)
    (project / "alive").unlink(missing_ok=True)


def check_refused(done: Done, pid: int) -> None:
    assert done.code == 2
    assert done.told.startswith("Error: ")
    assert f"pid {pid} on " in done.told


def check_complete(lab: Lab, done: Done) -> None:
    assert done.code == 0, done.told
    path = only_directory(lab.project)
    assert [run.trace_id for run in runs_of(path)] == IDS
    assert lab.run("verify", str(path)).code == 0
    assert not (path / ".lock").exists()


def test_of_two_that_resume_at_once_one_works(lab: Lab, hold: Path, quick: Path) -> None:
    """The other is refused with exit code 2 and the pid of the first; what was torn is repaired once."""
    hold.unlink()
    faults = {"under": str(lab.project / "experiments"), "do": "exit after", "at": 29}
    lab.run(*RUN, "durable_agent:waiting", faults=faults)
    for number in range(5):
        gate = quick / f"gate_{number}"
        gate.touch()
        path = only_directory(lab.project)
        with (path / "traces.jsonl").open("ab") as file:
            file.write(b'{"torn')
        hold.touch()
        command = (*RUN, "durable_agent:waiting", "--resume", str(path), "--iterations", str(number + 1))
        both = [lab.start(*command, gate=gate) for _ in range(2)]
        wait_until(lambda both=both: all(command.ready.exists() for command in both))
        gate.unlink()
        wait_until(lambda both=both: any(map(has_ended, both)))
        loser, winner = sorted(both, key=has_ended, reverse=True)
        check_refused(loser.wait(), winner.pid)
        assert not has_ended(winner)
        hold.unlink()
        done = winner.wait()
        assert done.code == 0, done.told
        assert len(runs_of(path)) == 8 * (number + 1)
        assert lab.run("verify", str(path)).code == 0


def test_an_experiment_that_runs_cannot_be_resumed(lab: Lab, hold: Path) -> None:
    """Nor does verify take it for broken; once it has ended there is nothing left to run."""
    running = lab.start(*RUN, "durable_agent:waiting")
    wait_until((lab.project / f"ready_{running.pid}").exists)
    path = only_directory(lab.project)
    check_refused(lab.run(*RUN, "durable_agent:waiting", "--resume", str(path)), running.pid)
    verified = lab.run("verify", str(path))
    assert f"refused while pid {running.pid} " in verified.said
    hold.unlink()
    check_complete(lab, running.wait())


def test_a_killed_writer_frees_the_directory(lab: Lab, hold: Path) -> None:
    """At once, also while a process that its agent has forked lives on."""
    running = lab.start(*RUN, "durable_agent:forking")
    wait_until((lab.project / "child").exists)
    path = only_directory(lab.project)
    command = (*RUN, "durable_agent:forking", "--resume", str(path))
    check_refused(lab.run(*command), running.pid)
    running.kill()
    assert running.wait().code == -9
    child = int((lab.project / "child").read_text())
    assert "(python" in Path(f"/proc/{child}/stat").read_text()
    hold.unlink()
    check_complete(lab, lab.run(*command))
    assert Path(f"/proc/{child}").exists()
