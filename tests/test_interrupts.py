"""Ctrl-C and SIGTERM, with real processes in a real terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

import fluxloop

AGENTS = """
import asyncio, os, pathlib, time

def mark(name):
    pathlib.Path(name).touch()

def gate(text):
    # Runs until the test makes the file `go`.
    mark("started")
    while not os.path.exists("go"):
        time.sleep(0.01)
    return text

async def gate_async(text):
    mark("started")
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    return text

def hang(text):
    mark("started")
    time.sleep(1000)

async def hang_async(text):
    mark("started")
    await asyncio.sleep(1000)

async def stubborn(text):
    mark("started")
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass

def own_interrupt(text):
    raise KeyboardInterrupt("my own")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agents.py").write_text(AGENTS)
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n"c"\n')
    return tmp_path


class Terminal:
    """`fluxloop run experiment` in a terminal of its own."""

    def __init__(self, folder: Path, target: str, *options: str) -> None:
        arguments = ["-m", "fluxloop_cli", "run", "experiment", "--target", target, "--inputs", "in.jsonl", *options]
        self.process = pexpect.spawn(
            sys.executable, arguments, cwd=str(folder), timeout=30, encoding="utf-8", dimensions=(40, 120)
        )
        self.folder = folder

    def wait_for(self, name: str) -> None:
        while not (self.folder / name).exists():
            assert self.process.isalive(), self.process.read()
            self.process.expect([pexpect.TIMEOUT, "x^"], timeout=0.02)

    def end(self) -> int:
        self.process.expect(pexpect.EOF)
        self.process.close()
        return int(self.process.exitstatus if self.process.exitstatus is not None else -1)

    def result(self) -> Any:
        (path,) = (self.folder / "experiments").iterdir()
        return fluxloop.load(path)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.process.close(force=True)


@pytest.mark.parametrize("target", ["agents:gate", "agents:gate_async"])
def test_the_first_ctrl_c_lets_the_run_in_flight_finish(folder: Path, terminals: list[Terminal], target: str) -> None:
    """It is told on screen, the run in flight is recorded, the rest is not run, and the code is 130."""
    terminal = Terminal(folder, target)
    terminals.append(terminal)
    terminal.wait_for("started")
    terminal.process.sendintr()
    terminal.process.expect("Stopping after the run in flight. Press Ctrl-C again to stop at once.")
    (folder / "go").touch()

    assert terminal.end() == 130
    result = terminal.result()
    assert [trace.output for trace in result] == ["a"]
    summary = result.summary
    assert (summary.status, summary.stop_reason, summary.not_run) == ("interrupted", "SIGINT", 2)


@pytest.mark.parametrize("target", ["agents:hang", "agents:hang_async", "agents:stubborn"])
def test_the_second_ctrl_c_leaves_a_run_that_does_not_end(folder: Path, terminals: list[Terminal], target: str) -> None:
    """The process ends, the unfinished run is not in the files, and the code is 130."""
    terminal = Terminal(folder, target)
    terminals.append(terminal)
    terminal.wait_for("started")
    terminal.process.sendintr()
    terminal.process.expect("Press Ctrl-C again")
    terminal.process.sendintr()

    assert terminal.end() == 130
    assert "Traceback" not in (terminal.process.before or "")
    assert (terminal.result().summary.status, list(terminal.result())) == ("interrupted", [])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_with_their_code(folder: Path, number: signal.Signals, code: int) -> None:
    """A terminated experiment finishes the run in flight and says so in its code and summary."""
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--target", "agents:gate"]
    with subprocess.Popen([*command, "--inputs", "in.jsonl", "--quiet"], cwd=folder, stdout=subprocess.PIPE) as process:
        while not (folder / "started").exists():
            assert process.poll() is None
        process.send_signal(number)
        # The handler tells by a line on stderr; the flag is set before the gate opens in any case.
        (folder / "go").touch()
        output, _ = process.communicate(timeout=30)

    assert process.returncode == code
    summary = json.loads((folder / output.decode().strip() / "summary.json").read_text())
    assert (summary["status"], summary["stop_reason"], summary["total_traces"]) == ("interrupted", number.name, 1)


def test_an_ignored_signal_stays_ignored(folder: Path) -> None:
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
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "completed\n"


def test_an_agents_own_handler_does_not_disarm_ctrl_c(folder: Path) -> None:
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
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "interrupted ['error', 'ok']\n"


def test_an_agents_own_interrupt_is_its_error(folder: Path) -> None:
    """A KeyboardInterrupt that the agent raises is recorded and stops nothing."""
    result = fluxloop.Experiment(
        {"runner": {"target": "agents:own_interrupt", "python_path": [str(folder)]}},
        inputs=["a", "b"],
        output_dir=folder / "experiments",
    ).run()

    assert [trace.error.type for trace in result.failures if trace.error] == ["KeyboardInterrupt"] * 2
    assert result.summary.status == "completed"


def test_ctrl_c_before_the_first_run_writes_nothing(folder: Path, terminals: list[Terminal]) -> None:
    """While the target is imported Ctrl-C ends the command with one line and 130."""
    (folder / "slow_import.py").write_text("import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(1000)\n")
    terminal = Terminal(folder, "slow_import:run")
    terminals.append(terminal)
    terminal.wait_for("started")
    terminal.process.sendintr()

    assert terminal.end() == 130
    assert "Interrupted before the first run; nothing was written." in terminal.process.before
    assert "Traceback" not in terminal.process.before
    assert not (folder / "experiments").exists()
