"""Every way out of `run experiment`: 0 means that each planned run is on disk, and whatever is not there is counted."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest

from tests.durability.judging import runs_of
from tests.durability.lab import ROOT, Done, Lab
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="command lines are forked")

README = ROOT / "README.md"
INPUTS = "abcdefgh"
AGENTS = """
import asyncio, atexit, concurrent.futures, functools, glob, os, pathlib, shutil, signal, sys, time, _thread

import click
import fluxloop
import fluxloop.open_target

RAISED = {
    "b": SystemExit(0), "c": KeyboardInterrupt(), "d": GeneratorExit(), "e": asyncio.CancelledError(),
    "f": click.exceptions.Exit(0), "g": fluxloop.UsageError("mine"), "h": concurrent.futures.CancelledError(),
}

def echo(text):
    return text

def failing(text):
    raise ValueError(text)

def half(text):
    return failing(text) if text < "e" else text

def raising(text):
    if text in RAISED:
        raise RAISED[text]
    return text

def slow(text):
    time.sleep(0.05)
    return text

def lost(text):
    if text == "c":
        raise ConnectionResetError("try again")
    return text

def forking(text):
    if text == "c":
        os.fork()
    return text

def forking_and_leaving(text):
    if text == "c" and os.fork() == 0:
        raise SystemExit(0)
    return text

def removing(text):
    if text == "c":
        shutil.rmtree(glob.glob("experiments/*")[0])
    return slow(text)

def removing_last(text):
    if text == "h":
        shutil.rmtree(glob.glob("experiments/*")[0])
    return text

def cutting_last(text):
    if text == "h":
        os.truncate(glob.glob("experiments/*/traces.jsonl")[0], 10)
    return text

def closing(text):
    if text == "c":
        for _ in range(1000):  # else nothing would be recorded, and the directory go with the files
            if any(os.path.getsize(file) for file in glob.glob("experiments/*/trace_summary.jsonl")):
                break
            time.sleep(0.01)
        for number in range(3, 64):
            try:
                os.close(number)
            except OSError:
                pass
    return text

def closing_its_screen(text):
    if text == "c":
        sys.stdout.close()
        sys.stderr.close()
        os.close(1)
    return text

def interrupting_main(text):
    if text == "c":
        _thread.interrupt_main()
    return text

def ending_by_sigkill(text):
    if text == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return text

def leaving(text):
    if text == "c":
        os._exit(0)
    return text

def wordy(text):
    return text * 60_000

def hanging(text):
    if text == "c":
        pathlib.Path("started").touch()
        time.sleep(1000)
    return text

def swallowing(text):
    while text == "c":
        try:
            pathlib.Path("started").touch()
            time.sleep(1000)
        except BaseException:
            pass
    return text

def as_coroutine(agent):
    async def awaited(text):
        await asyncio.sleep(0)
        return agent(text)

    return awaited

for name, agent in list(globals().items()):
    if type(agent) is type(echo) and agent.__code__.co_varnames[:1] == ("text",):
        globals()[f"{name}_async"] = as_coroutine(agent)

async def hanging_async(text):
    if text == "c":
        pathlib.Path("started").touch()
        await asyncio.sleep(1000)
    return text

class Refused:
    def __enter__(self):
        raise ValueError("no")

    def run(self, text):
        return text

class Once:
    entered = 0

    async def __aenter__(self):
        fluxloop.open_target.LINGER = 0.1
        Once.entered += 1
        if Once.entered > 1:
            raise ConnectionError("too many clients")
        return self

    async def __aexit__(self, *error):
        pass

    async def run(self, text):
        time.sleep(1000 if text == "c" else 0)
        return text

class Leaving:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        sys.exit(0)

    def run(self, text):
        return text

class Raising(fluxloop.TraceSink):
    def write(self, trace):
        raise ValueError("no")

class Exiting(fluxloop.TraceSink):
    def write(self, trace):
        sys.exit(0)

class Unclosed(fluxloop.TraceSink):
    def write(self, trace):
        pass

    def close(self, summary):
        sys.exit(0)

class Unopened(fluxloop.TraceSink):
    def open(self, context):
        raise ValueError("no")

    def write(self, trace):
        pass
"""

EXECUTORS = {
    "inline": ("", "inline", "1"),
    "threads": ("", "threads", "2"),
    "asyncio": ("_async", "asyncio", "2"),
    "processes": ("", "processes", "2"),
    "processes, async": ("_async", "processes", "2"),
}
HERE = ("inline", "threads", "asyncio")
ELSEWHERE = ("processes", "processes, async")
ALL = (*HERE, "processes")


def run_line(agent: str, executor: str, *options: str) -> list[str]:
    """The command's arguments for an agent that is a function."""
    suffix, name, parallel = EXECUTORS[executor]
    return [*line(f"{agent}{suffix}"), "--executor", name, "--parallel", parallel, *options]


def line(agent: str, *options: str) -> list[str]:
    target = ["run", "experiment", "--target", f"agents:{agent}", "--inputs", "in.jsonl"]
    return [*target, "--iterations", "1", "--no-progress", "--set", "runner.grace_seconds=0.2", *options]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with these agents and inputs."""
    (tmp_path / "agents.py").write_text(AGENTS)
    (tmp_path / "in.jsonl").write_text("".join(f'"{text}"\n' for text in INPUTS))
    return tmp_path


class Left(NamedTuple):
    """What an experiment has left behind."""

    recorded: int
    """Whole runs, counted without the code under test."""
    summary: dict[str, Any]


def left_in(folder: Path) -> Left | None:
    """The newest experiment below a folder, if there is one."""
    found = sorted(path for path in folder.glob("*/[!.]*") if (path / "config.yaml").exists())
    if not found:
        return None
    return Left(len(runs_of(found[-1])), json.loads((found[-1] / "summary.json").read_text()))


def check(done: Done, folder: Path, *, code: int, planned: int = len(INPUTS)) -> Left:
    """The law: what is planned is recorded or counted as not run, and for 0 all of it is recorded."""
    assert done.code == code, done.told
    assert "Traceback" not in done.told, done.told
    left = left_in(folder)
    assert left is not None, done.told
    summary = left.summary
    counts = [summary[key] for key in ("planned", "total_traces", "not_run")]
    assert counts == [planned, left.recorded, planned - left.recorded]
    assert (summary["status"] == "completed") == (left.recorded == planned)
    if code == 0:
        assert left.recorded == planned
    return left


class Way(NamedTuple):
    """A way out."""

    agent: str
    options: str
    code: int
    recorded: range
    """How many runs may be on disk."""
    executors: tuple[str, ...] = ALL


EIGHT, SOME, FEWER = range(8, 9), range(1, 9), range(8)
WAYS = {
    "completed": Way("echo", "", 0, EIGHT, (*HERE, *ELSEWHERE)),
    "quiet": Way("echo", "--quiet", 0, EIGHT, HERE),
    "some failed": Way("half", "", 0, EIGHT, HERE),
    "all failed": Way("failing", "", 1, EIGHT),
    "all failed, quiet": Way("failing", "--quiet", 1, EIGHT, HERE),
    "gate met": Way("half", "--fail-under 50%", 0, EIGHT, HERE),
    "gate missed": Way("half", "--fail-under 51%", 1, EIGHT, HERE),
    "max_failures": Way("failing", "--max-failures 2", 1, range(2, 5)),
    "max_failures with the last": Way("failing", "--max-failures 8", 1, EIGHT, HERE),
    "max_failures, gate met": Way("half", "--max-failures 2 --fail-under 0", 1, range(2, 5), HERE),
    "max_time": Way("slow", "--max-time 0.01", 1, FEWER),
    "stop_when_all_fail": Way("failing", "--set runner.stop_when_all_fail=2", 1, range(2, 5), HERE),
    "stopped while a retry waits": Way(
        "lost", "--max-retries 1 --set runner.retry_delay_seconds=1000 --max-time 0.2", 1, FEWER, HERE
    ),
    "timeout": Way("hanging", "--timeout 0.1", 0, EIGHT, ("threads", "asyncio", "processes")),
    "whatever can be raised": Way("raising", "", 0, EIGHT),
    "a fork that returns": Way("forking", "", 0, EIGHT),
    "a fork that leaves": Way("forking_and_leaving", "", 0, EIGHT, HERE),
    "the results' files closed": Way("closing", "", 1, FEWER, HERE),
    "its screen closed": Way("closing_its_screen", "--no-capture-output", 0, EIGHT, HERE),
    "its screen closed, quiet": Way("closing_its_screen", "--no-capture-output --quiet", 0, EIGHT, HERE),
    "its main thread interrupted": Way("interrupting_main", "", 130, FEWER, HERE),
    "a worker killed": Way("ending_by_sigkill", "", 0, EIGHT, ELSEWHERE),
    "a worker left": Way("leaving", "", 0, EIGHT, ELSEWHERE),
    "a worker's files closed": Way("closing", "", 0, EIGHT, ("processes",)),
    "a sink that raises": Way("echo", "--set output.sinks=[agents:Raising]", 0, EIGHT, HERE),
    "a sink that exits": Way("echo", "--set output.sinks=[agents:Exiting]", 0, EIGHT, HERE),
    "a sink that exits at its end": Way("echo", "--set output.sinks=[agents:Unclosed]", 0, EIGHT, HERE),
}


@pytest.mark.parametrize(
    ("way", "executor"),
    [pytest.param(way, executor, id=f"{name}-{executor}") for name, way in WAYS.items() for executor in way.executors],
)
def test_a_way_out_is_told_by_its_code(forking: Lab, folder: Path, way: Way, executor: str) -> None:
    """0 only where each planned run is on disk; what is not is counted as not run."""
    done = forking.run(*run_line(way.agent, executor, *shlex.split(way.options)), cwd=folder)
    assert check(done, folder, code=way.code).recorded in way.recorded


@pytest.mark.parametrize(("agent", "code", "recorded"), [("Once", 1, FEWER), ("Leaving", 0, EIGHT)])
def test_a_target_that_is_entered_is_no_way_around(
    forking: Lab, folder: Path, agent: str, code: int, recorded: range
) -> None:
    """Neither where it cannot be entered again, nor where its exit would be the command's."""
    done = forking.run(*line(agent), "--timeout", "0.2" if agent == "Once" else "0", cwd=folder)
    assert check(done, folder, code=code).recorded in recorded


SIGNALS = {
    "Ctrl-C": ("hanging", signal.SIGINT, 1, 130),
    "Ctrl-C twice": ("hanging", signal.SIGINT, 2, 130),
    "Ctrl-C until it ends": ("swallowing", signal.SIGINT, 3, 130),
    "SIGTERM": ("hanging", signal.SIGTERM, 1, 143),
    "SIGHUP": ("hanging", signal.SIGHUP, 1, 129),
}


@pytest.mark.parametrize(
    ("name", "executor"),
    [
        *((name, executor) for name in SIGNALS for executor in HERE),
        *((name, "processes") for name in ("Ctrl-C twice", "SIGTERM")),
    ],
)
def test_a_signal_is_told_by_its_code(forking: Lab, folder: Path, name: str, executor: str) -> None:
    """However often it comes, and whatever the agent makes of it."""
    agent, number, times, code = SIGNALS[name]
    grace = "0.2" if times == 1 else "1000"
    command = forking.start(*run_line(agent, executor, "--set", f"runner.grace_seconds={grace}"), cwd=folder)
    wait_until((folder / "started").exists)
    os.kill(command.pid, number)
    if times > 1:
        wait_until(lambda: "Press Ctrl-C again" in command.told_so_far())
        os.kill(command.pid, number)
    while times > 2 and not command.has_ended_or(lambda: False):
        os.kill(command.pid, number)
        Event().wait(0.1)
    assert check(command.wait(), folder, code=code).recorded in FEWER


NOTHING_BEGUN = {
    "no target": ("gone", ()),
    "not entered": ("Refused", ()),
    "no such persona": ("echo", ("--persona", "nobody")),
    "no such input": ("echo", ("--input-id", "nothing")),
    "none of the inputs": ("echo", ("--limit", "0")),
    "no inputs": ("echo", ("--inputs", "gone.jsonl")),
    "no iterations": ("echo", ("--iterations", "0")),
    "no such key": ("echo", ("--set", "runner.itertions=1")),
    "no such shard": ("echo", ("--shard", "3/2")),
    "no such experiment": ("echo", ("--resume", "gone")),
    "nothing to resume": ("echo", ("--resume", "last")),
    "a sink that does not open": ("echo", ("--set", "output.sinks=[agents:Unopened]")),
    "no such option": ("echo", ("--nothing",)),
}


@pytest.mark.parametrize("name", NOTHING_BEGUN)
def test_what_cannot_begin_is_2(forking: Lab, folder: Path, name: str) -> None:
    """There is no experiment, and the code says that something is to be mended."""
    agent, options = NOTHING_BEGUN[name]
    done = forking.run(*line(agent, *options), cwd=folder)
    assert (done.code, left_in(folder), "Traceback" in done.told) == (2, None, False), done.told


def test_a_resume_with_nothing_left_is_0(forking: Lab, folder: Path) -> None:
    """All is on disk already; so it is when runs are added, and those that were stopped are run."""
    for options, code in (("--max-time=0.01", 1), ("--resume=last", 0), ("--resume=last", 0)):
        check(forking.run(*line("slow", options), cwd=folder), folder, code=code)
    done = forking.run(*line("slow", "--resume=last", "--iterations=2"), cwd=folder)
    check(done, folder, code=0, planned=16)


def test_a_resume_with_nothing_left_of_what_failed_is_1(forking: Lab, folder: Path) -> None:
    """The code is the result's, whoever made it."""
    for options in ((), ("--resume", "last"), ("--resume", "last", "--retry-failed")):
        check(forking.run(*line("failing", *options), cwd=folder), folder, code=1)


@pytest.mark.parametrize(("shard", "planned"), [("1/2", 4), ("3/3", 2)])
def test_a_shard_has_all_of_its_own(forking: Lab, folder: Path, shard: str, planned: int) -> None:
    """What is planned is its share."""
    check(forking.run(*line("echo", "--shard", shard), cwd=folder), folder, code=0, planned=planned)


@pytest.mark.parametrize("executor", HERE)
@pytest.mark.parametrize("agent", ["removing", "removing_last", "cutting_last"])
def test_results_taken_away_are_1(forking: Lab, folder: Path, agent: str, executor: str) -> None:
    """Also where nothing is written after that, and whatever is counted no more than what is there."""
    done = forking.run(*run_line(agent, executor), cwd=folder)
    assert (done.code, "Traceback" in done.told) == (1, False), done.told
    left = left_in(folder)
    assert left is None or left.summary["status"] != "completed"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
@pytest.mark.parametrize("executor", HERE)
def test_a_full_disk_is_1(forking: Lab, folder: Path, executor: str) -> None:
    """What had no room is counted as not run."""
    (folder / "experiments").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder / "experiments")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        done = forking.run(*run_line("wordy", executor), cwd=folder)
        assert check(done, folder, code=1).recorded in FEWER
    finally:
        subprocess.run(["umount", str(folder / "experiments")], check=True)


FAULTY_EXECUTOR = """
import sys
from fluxloop.executors.inline import InlineExecutor

right = InlineExecutor.run
fault = sys.argv.pop(1)

def run(self, task, schedule):
    for number, batch in enumerate(right(self, task, schedule)):
        if fault == "stops" and number == 3:
            return
        yield batch
        if fault == "doubles" and number == 3:
            yield batch
        if fault == "exits" and number == 3:
            sys.exit(0)

InlineExecutor.run = run

from fluxloop_cli.main import main

main()
"""


@pytest.mark.parametrize("fault", ["stops", "doubles", "exits"])
def test_an_executor_that_loses_runs_is_told(forking: Lab, folder: Path, fault: str) -> None:
    """What it never gave back is not run, and what it gives back twice makes up for nothing."""
    done = forking.run(fault, *run_line("echo", "inline"), script=FAULTY_EXECUTOR, cwd=folder)
    assert done.code == 1, done.told
    left = left_in(folder)
    assert left is not None
    counts = [left.summary[key] for key in ("planned", "total_traces", "not_run")]
    assert counts == [8, left.recorded, 8 - left.recorded]
    assert left.summary["status"] != "completed"
    assert left.recorded in FEWER


STREAMS = {
    "a pipe that is read by one line": "{} | head -1",
    "a pipe that nobody reads": "{} 2>&1 | true",
    "no stdout": "{} >&-",
    "no streams": "{} --quiet <&- >&- 2>&-",
    "a full stdout": "{} >/dev/full",
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(("agent", "code"), [("echo", 0), ("failing", 1)])
def test_who_listens_changes_no_code(folder: Path, name: str, agent: str, code: int) -> None:
    """It is the result's, whatever becomes of what is said."""
    command = shlex.join([sys.executable, "-m", "fluxloop_cli", *line(agent, "--max-failures", "2")])
    shell = ["bash", "-o", "pipefail", "-c", STREAMS[name].format(command)]
    ended = subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=False)
    check(Done(ended.returncode, ended.stderr, ended.stdout), folder, code=code)


@pytest.mark.parametrize("executor", HERE)
def test_a_process_that_an_agent_ends_is_not_told_by_its_code(forking: Lab, folder: Path, executor: str) -> None:
    """The one way out where 0 says nothing, as the README does: what is left says that it was not completed."""
    done = forking.run(*run_line("leaving", executor), cwd=folder)
    left = left_in(folder)
    assert left is not None
    assert (done.code, left.summary["status"], left.summary["completed_at"]) == (0, "running", None)
    assert left.recorded in FEWER
    assert "ends the command with the agent's own code" in " ".join(README.read_text().split())
