"""A cluster that the experiment starts on this machine: it ends with it, however it ends."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pexpect
import pytest

import fluxloop
from tests.ray.conftest import Run, command, is_alive, numbers
from tests.ray.nodes import Nodes, descendants
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")]


OURS = (
    r"\[INFO\] |\[WARN\] (trace_|Stopping: |Left unfinished: |Interrupted )|\[.{10}\] \d/\d |\^C|"
    r"(runs|pass rate|duration|errors|failing|hint|remaining|results) "
)
"""How lines begin that fluxloop shows."""


class Terminal:
    """`fluxloop run experiment` in a terminal of its own."""

    def __init__(self, nodes: Nodes | None, place: Path, target: str, *options: str) -> None:
        program, *arguments = command(nodes, "--target", target, "--inputs", "in.csv", *options)
        arguments += ["--set", f"runner.args.place={place}", "--parallel", "2"]
        self.process = pexpect.spawn(program, arguments, encoding="utf-8", echo=False, dimensions=(40, 240), timeout=60)
        self.process.delaybeforesend = None
        self.shown = ""

    def expect(self, text: str) -> None:
        self.process.expect_exact(text)
        self.shown += self.process.before + text

    def end(self) -> int:
        self.process.expect(pexpect.EOF)
        self.shown += self.process.before
        self.process.close()
        return int(-1 if self.process.exitstatus is None else self.process.exitstatus)

    def assert_ours(self) -> None:
        """Whatever was shown is fluxloop's."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self.shown))]
        assert [line for line in lines if line and not re.match(OURS, line)] == []


def inputs(project: Path, *texts: str) -> None:
    (project / "in.csv").write_text("input\n" + "".join(f"{text}\n" for text in texts))


def test_ctrl_c_lets_what_is_in_flight_finish(two_nodes: Nodes, project: Path) -> None:
    """On a cluster elsewhere as anywhere: nothing more starts, the code is 130, and all of it is told."""
    inputs(project, "a", "b", "c", "d")
    place = project.parent / "notes"
    opened = Terminal(two_nodes, place, "crew:gate")
    wait_until(lambda: place.exists() and len(place.read_text().split()) == 2)
    opened.process.sendintr()
    opened.expect("Press Ctrl-C again to stop at once.")
    place.with_suffix(".go").touch()
    assert opened.end() == 130
    opened.assert_ours()
    (path,) = project.glob("experiments/*")
    summary = fluxloop.load(path).summary
    assert (summary.status, summary.stop_reason, summary.passed, summary.not_run) == ("interrupted", "SIGINT", 2, 2)


def test_a_second_ctrl_c_leaves_nothing_of_a_local_cluster(nodes: Nodes, project: Path) -> None:
    """What hangs is given up, what was done is on disk, and no process is left that was started for it."""
    inputs(project, "a", "dies", "hangs", "b")
    place = project.parent / "notes"
    opened = Terminal(None, place, "crew:hangs")
    wait_until(lambda: len(numbers(place)) == 2 and lines(project) == 3)
    started = descendants(opened.process.pid)
    assert len(started) > 5
    opened.process.sendintr()
    opened.expect("Press Ctrl-C again to stop at once.")
    opened.process.sendintr()
    assert opened.end() == 130
    opened.assert_ours()
    (path,) = project.glob("experiments/*")
    result = fluxloop.load(path)
    assert (result.summary.status, result.summary.not_run) == ("interrupted", 1)
    assert {trace.input: (trace.status, trace.attempts) for trace in result} == {
        "a": ("ok", 1),
        "b": ("ok", 1),
        "dies": ("crashed", 2),
    }
    wait_until(lambda: not any(map(is_alive, {*started, *numbers(place)})))


def lines(project: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in project.glob("experiments/*/trace_summary.jsonl"))


def test_nothing_outlives_a_local_cluster_whose_experiment_is_killed(nodes: Nodes, project: Path) -> None:
    """No worker, though it holds the interpreter, nothing it has started, no relay and no agent of Ray's."""
    inputs(project, "a", "b")
    place = project.parent / "notes"
    arguments = ["--target", "crew:holds_the_interpreter", "--inputs", "in.csv", "--parallel", "2"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command(None, *arguments, "--no-progress", "--set", f"runner.args.place={place}"),
        stdout=pipe,
        stderr=pipe,
        text=True,
        process_group=0,
    )
    wait_until(lambda: len(numbers(place)) == 4)
    started = descendants(process.pid)
    process.kill()
    assert process.communicate() == ("", "")
    assert set(numbers(place)) <= started
    wait_until(lambda: not any(map(is_alive, started)))


def test_handlers_of_signals_are_kept(run: Run) -> None:
    """Ray puts one of its own in the place of that for SIGTERM, which would end the program."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert run("crew:nothing", "a", parallel=1).summary.passed == 1
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_termination_lets_what_is_in_flight_finish(two_nodes: Nodes, project: Path) -> None:
    """As on one machine; the code is 143."""
    inputs(project, "a", "b")
    place = project.parent / "notes"
    arguments = ["--target", "crew:gate", "--inputs", "in.csv", "--parallel", "1"]
    process = subprocess.Popen(
        command(two_nodes, *arguments, "--no-progress", "--set", f"runner.args.place={place}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: place.exists())
    process.terminate()
    assert process.stderr is not None
    while "in flight may take another 30s" not in process.stderr.readline():
        assert process.poll() is None
    place.with_suffix(".go").touch()
    process.communicate()
    assert process.returncode == 143
