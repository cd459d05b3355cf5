"""The command from its first instruction to its last: Ctrl-C while it imports, and what an agent leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fluxloop

AGENTS = """
import atexit, concurrent.futures, multiprocessing, pathlib, threading, time

pool = concurrent.futures.ThreadPoolExecutor(2)
kept = []

def hang():
    time.sleep(1000)

def mark():
    pathlib.Path("flushed").touch()

def slow_tool(text):
    atexit.register(mark)
    try:
        return pool.submit(hang).result(timeout=0.1)
    except TimeoutError:
        return "the tool was too slow"

def thread(text):
    atexit.register(mark)
    threading.Thread(target=hang, name="poller", daemon=False).start()

def at_exit(text):
    atexit.register(mark)
    atexit.register(hang)

def child(text):
    atexit.register(mark)
    process = multiprocessing.get_context("spawn").Process(target=hang, name="server")
    process.start()
    pathlib.Path("pid").write_text(str(process.pid))

def raising(text):
    def boom():
        raise SystemExit(9)
    atexit.register(mark)
    atexit.register(boom)

def unflushed(text):
    kept.append(open("flushed", "w"))
    kept[0].write("written at the end")

def ending(text):
    idle = concurrent.futures.ThreadPoolExecutor(1)
    idle.submit(int).result()
    def work():
        pathlib.Path("waits").read_text()  # until the test lets it go
        mark()
    threading.Thread(target=work, daemon=False).start()

def failing(text):
    thread(text)
    raise ValueError("no")

class Refused:
    def __enter__(self):
        thread("")
        raise ValueError("no")

    def run(self, text):
        return text
"""

COMMAND = [sys.executable, "-m", "fluxloop_cli"]


def run(folder: Path, target: str, *options: str) -> list[str]:
    """The command line of an experiment on one input, in a folder with these agents."""
    (folder / "agents.py").write_text(AGENTS)
    (folder / "in.jsonl").write_text('"a"\n')
    return [*COMMAND, "run", "experiment", "--target", f"agents:{target}", "--inputs", "in.jsonl", *options]


def done(folder: Path, target: str, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, with nobody left who holds them open."""
    command = run(folder, target, "--iterations", "1", "--no-progress", *options)
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("slow_tool", "thread ThreadPoolExecutor-0_0 in hang at agents.py:8"),
        ("thread", "thread poller in hang at agents.py:8"),
        ("at_exit", "the main thread in hang at agents.py:8"),
        ("child", "process {pid}, server"),
    ],
)
def test_nothing_an_agent_leaves_keeps_the_command(tmp_path: Path, target: str, named: str) -> None:
    """After its last line it names what it waits for and ends with its code; handlers of `atexit` have their turn."""
    code, out, err = done(tmp_path, target, "--quiet")

    (path,) = (tmp_path / "experiments").iterdir()
    assert (code, out) == (0, f"{path}\n")
    named = named.format(pid=(tmp_path / "pid").read_text() if target == "child" else "")
    assert err == f"[WARN] Still running: {named}. The command ends in 2 s at the latest; Ctrl-C ends it now.\n"
    assert (tmp_path / "flushed").exists()
    assert fluxloop.load(path).summary.passed == 1


def test_what_ends_in_time_is_awaited(tmp_path: Path) -> None:
    """A thread that has something to finish does, and an idle pool is nothing to wait for."""
    os.mkfifo(tmp_path / "waits")
    with subprocess.Popen(run(tmp_path, "ending", "--quiet", "--iterations", "1"), cwd=tmp_path) as process:
        (tmp_path / "waits").open("w").close()  # as soon as the thread reads
    assert process.returncode == 0
    assert (tmp_path / "flushed").exists()


@pytest.mark.parametrize("target", ["raising", "unflushed"])
def test_python_ends_as_ever_where_nothing_hangs(tmp_path: Path, target: str) -> None:
    """A handler that raises changes no exit code, and a file that was not closed is whole."""
    code, _, err = done(tmp_path, target)
    assert (code, "Still running" in err) == (0, False)
    assert (tmp_path / "flushed").exists()


@pytest.mark.parametrize(
    ("target", "options", "code"),
    [("failing", [], 1), ("thread", ["--fail-under", "1"], 0), ("Refused", [], 2), ("gone", [], 2)],
)
def test_the_exit_code_is_the_results(tmp_path: Path, target: str, options: list[str], code: int) -> None:
    """Whatever an agent has left behind, also one that could not be entered."""
    assert done(tmp_path, target, *options)[0] == code


def test_from_python_nothing_is_ended(tmp_path: Path) -> None:
    """A script has its threads to itself: it goes on for as long as they do."""
    (tmp_path / "agents.py").write_text(AGENTS)
    os.mkfifo(tmp_path / "waits")
    script = (
        "import agents, threading, time\n"
        "from fluxloop import Experiment\n"
        "Experiment(target=agents.ending, inputs=['a'], iterations=1).run()\n"
        "print([thread.name for thread in threading.enumerate() if 'exit' in thread.name], flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "[]\n"
        (tmp_path / "waits").open("w").close()
    assert (process.returncode, (tmp_path / "flushed").exists()) == (0, True)


def test_ctrl_c_ends_a_command_that_waits_for_its_end(tmp_path: Path) -> None:
    """With the code of its result and without a traceback."""
    command = run(tmp_path, "failing", "--quiet", "--iterations", "1")
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not (lines and "Still running" in lines[-1]):
            lines.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 1


IMPORTS = ["click", "fluxloop_cli.run", "msgspec", "fluxloop.config", "fluxloop.experiment"]
HOLDING = """
import importlib.abc, os, sys

class Holding(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["HELD"]:
            with open("held", "w"):  # until the test reads
                pass
            try:
                while True:
                    pass
            except BaseException:  # as many a module takes what fails in another's import
                raise ImportError(name)

sys.meta_path.insert(0, Holding())
"""


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A folder in which Python waits when it imports the module that `HELD` names."""
    (tmp_path / "sitecustomize.py").write_text(HOLDING)
    os.mkfifo(tmp_path / "held")
    return tmp_path


@pytest.mark.parametrize("module", IMPORTS)
def test_ctrl_c_while_the_command_imports(held: Path, module: str) -> None:
    """It ends with 130 and one line, whatever is being imported."""
    environment = {**os.environ, "PYTHONPATH": str(held), "HELD": module}
    command = run(held, "thread")
    with subprocess.Popen(command, cwd=held, env=environment, stderr=subprocess.PIPE, text=True) as process:
        (held / "held").read_text()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "Interrupted before anything was done.\n")
    assert not (held / "experiments").exists()


def test_an_ignored_interrupt_stays_ignored(held: Path) -> None:
    """As under nohup: the signal changes nothing, and the command runs to its end."""
    environment = {**os.environ, "PYTHONPATH": str(held), "HELD": "agents"}
    script = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", script, *run(held, "ending", "--no-progress")]
    with subprocess.Popen(command, cwd=held, env=environment, stderr=subprocess.PIPE, text=True) as process:
        (held / "held").read_text()
        process.send_signal(signal.SIGINT)
        process.terminate()
        _, err = process.communicate()
    assert (process.returncode, err) == (-signal.SIGTERM, "")
