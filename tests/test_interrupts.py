"""Ctrl-C and other signals, with real processes in a real terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest

import fluxloop

# Another test may have left a thread behind.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")

AGENTS = """
import asyncio, os, pathlib, time, urllib.error

def mark(name):
    pathlib.Path(name).touch()

def wait_for_go():
    while not os.path.exists("go"):
        time.sleep(0.01)

def gate(text):
    mark("started-" + text)
    wait_for_go()
    return text

async def gate_async(text):
    mark("started-" + text)
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    return text

def hang_at_c(text):
    mark("started-" + text)
    if text == "c":
        time.sleep(1000)
    return text

async def hang_at_c_async(text):
    mark("started-" + text)
    if text == "c":
        await asyncio.sleep(1000)
    return text

async def stubborn(text):
    mark("started-" + text)
    while text == "c":
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
    return text

async def blocking(text):
    mark("started-" + text)
    if text == "c":
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        mark("blocked")
        time.sleep(1000)
    return text

def swallowing(text):
    mark("started-" + text)
    while text == "c":
        try:
            time.sleep(1000)
        except BaseException:
            mark("swallowed")
    return text

def answering(text):
    mark("started-" + text)
    try:
        if text == "c":
            time.sleep(1000)
    except BaseException:
        return "sorry"
    return text

def complaining(text):
    if answering(text) == "sorry":
        raise RuntimeError("interrupted")
    return text

def own_interrupt(text):
    raise KeyboardInterrupt("my own")

def echo(text):
    return text

async def echo_async(text):
    return text

def lost_at_a(text):
    if text == "a":
        raise ConnectionResetError("try again")
    return text

def throttled(text):
    raise urllib.error.HTTPError("http://here", 429, "too many", {"Retry-After": "1000"}, None)

async def throttled_async(text):
    throttled(text)

class Slow:
    def __enter__(self):
        mark("entering")
        wait_for_go()
        return self

    def __exit__(self, *error):
        mark("left")

    def run(self, text):
        return text

class SlowAsync:
    async def __aenter__(self):
        mark("entering")
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *error):
        mark("left")

    async def run(self, text):
        return text

class SlowToBuild:
    def __init__(self):
        mark("building")
        time.sleep(1000)

    def run(self, text):
        return text
"""
INLINE = ("--executor", "inline")
ASYNCIO = ("--executor", "asyncio", "--parallel", "3")
THREADS = ("--executor", "threads", "--parallel", "3")
AGAIN = "Press Ctrl-C again to stop at once."


class Terminal:
    """`fluxloop run experiment` on the inputs a to e, in a terminal and a folder of its own."""

    def __init__(self, folder: Path, target: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir()
        (folder / "agents.py").write_text(AGENTS)
        (folder / "slow_import.py").write_text("import agents, time\nagents.mark('importing')\ntime.sleep(1000)\n")
        (folder / "in.jsonl").write_text('"a"\n"b"\n"c"\n"d"\n"e"\n')
        target = target if ":" in target else f"agents:{target}"
        arguments = ["-m", "fluxloop_cli", "run", "experiment", "--target", target, "--inputs", "in.jsonl", *options]
        self.what = shlex.join([target, *options])
        self.folder = folder
        self.process = pexpect.spawn(
            sys.executable,
            arguments,
            cwd=str(folder),
            env={**os.environ, **(environment or {})},
            timeout=20,
            encoding="utf-8",
            echo=False,
            dimensions=(40, 240),
        )
        self.shown = self.process.logfile_read = io.StringIO()
        self.process.delaybeforesend = None
        self.process.ptyproc.delayafterclose = self.process.ptyproc.delayafterterminate = 0.01

    def wait_until(self, holds: Callable[[], bool]) -> None:
        for _ in range(1000):
            if holds():
                return
            assert self.process.isalive(), (self.what, self.process.read())
            self.process.expect([pexpect.TIMEOUT, "x^"], timeout=0.02)
        raise AssertionError(f"{self.what}: waited in vain, shown: {self.shown.getvalue()}")

    def wait_for(self, *names: str) -> None:
        self.wait_until(lambda: all((self.folder / name).exists() for name in names))

    def wait_for_lines(self, count: int) -> None:
        """Wait until so many runs are on disk."""

        def lines() -> int:
            return sum(file.read_bytes().count(b"\n") for file in self.files("trace_summary.jsonl"))

        self.wait_until(lambda: lines() >= count)

    def files(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"experiments/*/{name}"))

    def press_ctrl_c(self, told: str | None = None) -> None:
        self.process.sendintr()
        if told:
            self.process.expect_exact(told)

    def go(self) -> None:
        (self.folder / "go").touch()

    def end(self) -> int:
        self.process.expect(pexpect.EOF)
        self.process.close()
        return int(-1 if self.process.exitstatus is None else self.process.exitstatus)

    @property
    def last_line(self) -> str:
        """What stands below everything else once it has ended."""
        return self.shown.getvalue().rstrip().splitlines()[-1].strip()

    @property
    def started(self) -> str:
        return "".join(sorted(path.name.removeprefix("started-") for path in self.folder.glob("started-*")))

    def assert_interrupted(self, done: str, by: str = "SIGINT") -> None:
        """The files hold the runs that are done, the summary counts them, and the last line says how to go on."""
        (path,) = self.folder.glob("experiments/*")
        result = fluxloop.load(path)
        summary = result.summary
        outputs = "".join(sorted(str(trace.output) for trace in result))
        found = (outputs, summary.status, summary.stop_reason, summary.passed, summary.not_run)
        assert found == (done, "interrupted", by, len(done), 5 - len(done)), self.what
        assert [line.trace_id for line in result.summaries()] == [trace.trace_id for trace in result]
        again = f"to go on: fluxloop run experiment --resume {path.relative_to(self.folder)}"
        left = f"{5 - len(done)} of 5 runs were not run; "
        where = f"the results are in {path}, and a resume goes on from there"
        assert self.last_line in (f"remaining {left}{again}", f"[WARN] {left}{where}"), self.what
        assert "Traceback" not in self.shown.getvalue(), self.what


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """Open terminals, as many as a test likes to run side by side."""
    opened: list[Terminal] = []

    def open_one(target: str, *options: str, **more: Any) -> Terminal:
        opened.append(Terminal(tmp_path / str(len(opened)), target, *options, **more))
        return opened[-1]

    yield open_one
    for one in opened:
        one.process.close(force=True)


@pytest.mark.parametrize(
    ("target", "options", "in_flight"),
    [
        ("gate", INLINE, "a"),
        ("gate_async", INLINE, "a"),
        ("gate", THREADS, "abc"),
        ("gate_async", ASYNCIO, "abc"),
    ],
)
def test_the_first_ctrl_c_lets_those_in_flight_finish(
    terminal: Open, target: str, options: tuple[str, ...], in_flight: str
) -> None:
    """It is told on screen, what is in flight is recorded, nothing more starts, and the code is 130."""
    opened = terminal(target, *options)
    opened.wait_for(*(f"started-{text}" for text in in_flight))
    runs = "1 run" if len(in_flight) == 1 else f"{len(in_flight)} runs"
    opened.press_ctrl_c(f"Stopping: {runs} in flight may take another 30s. {AGAIN}")
    opened.go()

    assert opened.end() == 130
    opened.assert_interrupted(done=in_flight)
    assert opened.started == in_flight


def test_the_second_ctrl_c_leaves_what_does_not_end(terminal: Open) -> None:
    """Whatever the agent does, the process ends, what was done before is on disk, and the code is 130."""
    hanging = [
        ("hang_at_c", INLINE),
        ("hang_at_c_async", INLINE),
        ("blocking", INLINE),
        ("answering", INLINE),
        ("complaining", INLINE),
        ("hang_at_c", THREADS),
        ("hang_at_c_async", ASYNCIO),
        ("stubborn", ASYNCIO),
        ("blocking", ASYNCIO),
    ]
    opened = [terminal(target, *options) for target, options in hanging]
    for one, (target, options) in zip(opened, hanging, strict=True):
        one.wait_for("started-c")
        one.wait_for_lines(2 if options == INLINE else 4)
        if target == "blocking":
            one.go()
            one.wait_for("blocked")
        one.press_ctrl_c(f"Stopping: 1 run in flight may take another 30s. {AGAIN}")
        one.press_ctrl_c()

    for one, (_, options) in zip(opened, hanging, strict=True):
        assert one.end() == 130, one.what
        one.assert_interrupted(done="ab" if options == INLINE else "abde")
        assert "Left unfinished: trace_003 (input_003)" in one.shown.getvalue()


def test_one_more_ctrl_c_ends_an_agent_that_swallows_everything(terminal: Open) -> None:
    """The process goes with it, the runs done before on disk and the summary written."""
    opened = terminal("swallowing", *INLINE)
    opened.wait_for("started-c")
    opened.press_ctrl_c(AGAIN)
    opened.press_ctrl_c()
    opened.wait_for("swallowed")
    while opened.process.isalive() and opened.process.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=0.1):
        opened.press_ctrl_c()

    assert opened.end() == 130
    opened.assert_interrupted(done="ab")


def test_what_is_in_flight_is_left_when_its_grace_is_over(terminal: Open) -> None:
    """Nobody needs to press Ctrl-C again."""
    opened = [
        terminal(target, *options, "--set", "runner.grace_seconds=0.3")
        for target, options in [
            ("hang_at_c", INLINE),
            ("hang_at_c_async", INLINE),
            ("hang_at_c", THREADS),
            ("hang_at_c_async", ASYNCIO),
            ("stubborn", ASYNCIO),
        ]
    ]
    for one in opened:
        one.wait_for("started-c")
        one.wait_for_lines(2 if "inline" in one.what else 4)
        one.press_ctrl_c(AGAIN)

    for one in opened:
        assert one.end() == 130, one.what
        one.assert_interrupted(done="ab" if "inline" in one.what else "abde")


def test_ctrl_c_is_heeded_while_nothing_is_in_flight(terminal: Open) -> None:
    """While a retry waits, and while starts are paced."""
    retried = ("--max-retries", "2", "--set", "runner.retry_delay_seconds=1000")
    paced = ("--set", "runner.start_rate=1/h")
    waiting = [
        ("lost_at_a", (*INLINE, *retried), 4, "bcde"),
        ("lost_at_a", (*THREADS, *retried), 4, "bcde"),
        ("echo", (*INLINE, *paced), 1, "a"),
        ("echo_async", (*ASYNCIO, *paced), 1, "a"),
    ]
    opened = [terminal(target, *options) for target, options, _, _ in waiting]
    for one, (_, _, lines, _) in zip(opened, waiting, strict=True):
        one.wait_for_lines(lines)
        one.press_ctrl_c(f"Stopping. {AGAIN}")

    for one, (_, _, _, done) in zip(opened, waiting, strict=True):
        assert one.end() == 130, one.what
        one.assert_interrupted(done)


def test_ctrl_c_is_heeded_while_a_service_wants_to_be_left_alone(terminal: Open) -> None:
    """The runs that met its 429 are failures of infrastructure; the rest is not run."""
    opened = [terminal("throttled", *INLINE), terminal("throttled", *THREADS), terminal("throttled_async", *ASYNCIO)]
    for one in opened:
        one.process.expect_exact("A service asks to be left alone for 16m 40s; nothing starts until then.")
        one.wait_for_lines(1 if "inline" in one.what else 3)
        one.press_ctrl_c(f"Stopping. {AGAIN}")

    for one in opened:
        assert one.end() == 130, one.what
        summary = json.loads(one.files("summary.json")[0].read_text())
        failed = 1 if "inline" in one.what else 3
        assert (summary["status"], summary["infrastructure"], summary["not_run"]) == ("interrupted", failed, 5 - failed)


def test_ctrl_c_while_the_target_is_entered_starts_nothing(terminal: Open) -> None:
    """The target is entered to its end, and left; a second Ctrl-C leaves one that is never entered."""
    patient = [terminal("Slow.run", *INLINE), terminal("SlowAsync.run", *ASYNCIO)]
    hasty = [terminal("Slow.run", *INLINE), terminal("SlowAsync.run", *ASYNCIO), terminal("Slow.run", *THREADS)]
    for one in patient + hasty:
        one.wait_for("entering")
        one.press_ctrl_c(AGAIN)
    for one in patient:
        one.go()
    for one in hasty:
        one.press_ctrl_c()

    for one in patient + hasty:
        assert one.end() == 130, one.what
        one.assert_interrupted(done="")
    assert [(one.folder / "left").exists() for one in patient] == [True, True]


def test_ctrl_c_before_the_first_run_writes_nothing(terminal: Open, tmp_path: Path) -> None:
    """While the target is imported or built, or git is asked for the commit: one line, no directory, and 130."""
    slow_git = tmp_path / "bin" / "git"
    slow_git.parent.mkdir()
    slow_git.write_text("#!/bin/sh\ntouch asking-git\nexec sleep 1000\n")
    slow_git.chmod(0o755)
    (tmp_path / ".git").mkdir()  # the folders of the terminals are in a repository
    path = f"{slow_git.parent}{os.pathsep}{os.environ['PATH']}"
    begun = [
        (terminal("slow_import:run"), "importing"),
        (terminal("SlowToBuild.run"), "building"),
        (terminal("echo", environment={"PATH": path}), "asking-git"),
    ]
    for one, started in begun:
        one.wait_for(started)
        one.press_ctrl_c()

    for one, _ in begun:
        assert one.end() == 130, one.what
        assert one.last_line == "Interrupted before the first run; nothing was written."
        assert "Traceback" not in one.shown.getvalue()
        assert not list(one.folder.glob("experiments/*"))


def test_sigterm_is_heeded_as_ctrl_c_is(terminal: Open) -> None:
    """Those in flight finish, the code is 143, and no key is named that would send no SIGTERM."""
    opened = [terminal("gate", *INLINE), terminal("gate", *THREADS), terminal("gate_async", *ASYNCIO)]
    for one in opened:
        in_flight = "a" if "inline" in one.what else "abc"
        one.wait_for(*(f"started-{text}" for text in in_flight))
        one.process.kill(signal.SIGTERM)
        one.process.expect(re.escape("in flight may take another 30s.") + "\r\n")
        one.go()

    for one in opened:
        assert one.end() == 143, one.what
        one.assert_interrupted(done="a" if "inline" in one.what else "abc", by="SIGTERM")


def test_a_second_sigterm_ends_at_once(terminal: Open) -> None:
    """What hangs is left, and the code is 143."""
    opened = [terminal("hang_at_c", *INLINE), terminal("hang_at_c_async", *ASYNCIO)]
    for one in opened:
        one.wait_for("started-c")
        one.wait_for_lines(2 if "inline" in one.what else 4)
        one.process.kill(signal.SIGTERM)
        one.process.expect_exact("Stopping: 1 run in flight may take another 30s.")
        one.process.kill(signal.SIGTERM)

    for one in opened:
        assert one.end() == 143, one.what
        one.assert_interrupted(done="ab" if "inline" in one.what else "abde", by="SIGTERM")


def test_a_closed_terminal_stops_the_experiment(terminal: Open) -> None:
    """What is in flight finishes and is recorded though nobody can be told, and the code is 129."""
    opened = [terminal("gate_async", *ASYNCIO), terminal("gate", *INLINE, "--quiet")]
    for one in opened:
        one.wait_for("started-a" if "inline" in one.what else "started-c")
        one.process.ptyproc.fileobj.close()
        one.go()

    for one in opened:
        for _ in range(1000):
            if not one.process.isalive():
                break
            time.sleep(0.02)  # waits for another process
        assert one.process.exitstatus == 129, one.what
        summary = json.loads(one.files("summary.json")[0].read_text())
        in_flight = 1 if "inline" in one.what else 3
        told = (summary["status"], summary["stop_reason"], summary["passed"], summary["not_run"])
        assert told == ("interrupted", "SIGHUP", in_flight, 5 - in_flight)


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """A signal that was ignored when the experiment began, as under nohup, stops nothing."""
    code = (
        "import os, signal\n"
        "from fluxloop import Experiment\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "def agent(text):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return text\n"
        "print(Experiment(target=agent, inputs=['a', 'b']).run().summary.status)\n"
    )
    assert run_python(code, tmp_path) == "completed\n"


def test_one_more_signal_is_enough_after_the_grace(tmp_path: Path) -> None:
    """Where the end of the grace has not got an agent out of its run, the second signal ends the process."""
    code = (
        "import os, signal, threading\n"
        "from fluxloop import interrupt\n"
        "interrupt.HEED_SECONDS = 0\n"
        "asked = interrupt.Interrupt()\n"
        "asked.last_words = lambda held: print('last words', flush=True)\n"
        "with asked.listening():\n"
        "    asked.release()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    try:\n"
        "        threading.Thread(target=asked.insist).start()\n"
        "        threading.Event().wait()\n"
        "    except interrupt.Abandoned:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('lived on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "last words\n", "")


@pytest.mark.parametrize("method", ["write", "close"])
def test_a_sink_that_hangs_cannot_hold_up_the_end(tmp_path: Path, method: str) -> None:
    """Pressing on ends the process; what was done is on disk, and the summary is written without the sink."""
    code = (
        "import sys, threading\n"
        "from fluxloop import Experiment, TraceSink\n"
        "class Hanging(TraceSink):\n"
        f"    def {method}(self, told):\n"
        "        print('hanging', flush=True)\n"
        "        threading.Event().wait()\n"
        "Experiment(target=str.upper, inputs=['a', 'b'], sinks=[Hanging()]).run()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        for _ in range(100):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                break
        process.kill()
    assert process.returncode == 130
    (path,) = (tmp_path / "experiments").iterdir()
    result = fluxloop.load(path)
    done = {"write": ("interrupted", 1, 1), "close": ("completed", 2, 0)}[method]
    assert (result.summary.status, len(list(result)), result.summary.not_run) == done


def test_an_agents_own_handler_does_not_disarm_ctrl_c(tmp_path: Path) -> None:
    """Where an agent takes SIGINT for itself, the first Ctrl-C fails a run and the next ends the experiment."""
    code = (
        "import os, signal\n"
        "from fluxloop import Experiment\n"
        "def agent(text):\n"
        "    if text == 'a':\n"
        "        signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return text\n"
        "result = Experiment(target=agent, inputs=['a', 'b', 'c']).run()\n"
        "print(result.summary.status, [trace.status for trace in result])\n"
    )
    assert run_python(code, tmp_path) == "interrupted ['error', 'ok']\n"


def test_an_agent_that_ignores_ctrl_c_does_so_for_its_own_run_only(tmp_path: Path) -> None:
    """What it has put in the place of our handler is taken away again, and Ctrl-C ends the experiment."""
    code = (
        "import os, signal, time\n"
        "from fluxloop import Experiment\n"
        "def agent(text):\n"
        "    if text == 'a':\n"
        "        signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    elif signal.getsignal(signal.SIGINT) is signal.SIG_IGN:\n"
        "        time.sleep(0.01)\n"
        "    else:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return text\n"
        "result = Experiment(target=agent, inputs=['a', *'b' * 1000]).run()\n"
        "print(result.summary.status, result.exit_code)\n"
    )
    assert run_python(code, tmp_path) == "interrupted 130\n"


def test_an_agents_own_interrupt_is_its_error(tmp_path: Path) -> None:
    """A KeyboardInterrupt that the agent raises is recorded and stops nothing."""
    (tmp_path / "agents.py").write_text(AGENTS)
    result = fluxloop.Experiment(
        {"runner": {"target": "agents:own_interrupt", "python_path": [str(tmp_path)]}},
        inputs=["a", "b"],
        output_dir=tmp_path / "experiments",
    ).run()

    assert [trace.error.type for trace in result.failures if trace.error] == ["KeyboardInterrupt"] * 2
    assert result.summary.status == "completed"


FORKING = """
import os, signal
from fluxloop import Experiment

def agent(text):
    ends = []
    for _ in range(20):
        child = os.fork()
        if not child:
            signal.pause()
        os.kill(child, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, 20)  # ends all when a child does not
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return ends

result = Experiment(target=agent, inputs=["a"]).run()
print([trace.output for trace in result])
"""


def test_a_signal_just_after_a_fork_is_not_lost(tmp_path: Path) -> None:
    """A child that is ended as soon as it is there ends by that signal."""
    told = tmp_path / "told"
    with told.open("wb") as file:  # a pipe would be held open by a child that stays
        forking = subprocess.Popen([sys.executable, "-c", FORKING], cwd=tmp_path, stdout=file, start_new_session=True)
        try:
            forking.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(forking.pid, signal.SIGKILL)
    assert told.read_text() == f"[{[-15] * 20}]\n"
