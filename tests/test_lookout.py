"""What looks after a command from outside, when C code of an agent holds its interpreter or an agent its signals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

import fluxloop
from fluxloop.store.layout import STALLS

# Another test may have left a thread behind.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")

AGENTS = """
import glob, os, re, signal, time
from pathlib import Path

def written():
    return sum(len(Path(path).read_bytes().splitlines()) for path in glob.glob("experiments/*/trace_summary.jsonl"))

def holding(text):
    if text == "holds":
        while not written():
            time.sleep(0.01)
        re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter lock for years
    return text

def ignoring(text):
    if text == "holds":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Path("ignores").touch()
        time.sleep(1000)
    return text

def swallowing(text):
    while text == "holds":
        try:
            Path("swallows").touch()
            time.sleep(1000)
        except BaseException:
            pass
    return text

def waiting_for_all(text):
    children = 0
    if text == "holds":
        if not os.fork():
            os._exit(0)
        try:
            while True:
                os.wait()
                children += 1
        except ChildProcessError:
            pass
    return min(children, 1)
"""

Spawned = pexpect.spawn  # of texts
Start = Callable[..., Spawned]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run the command in a terminal, on an input that ends and one that holds."""
    opened: list[Spawned] = []

    def start_one(target: str, *options: str) -> Spawned:
        (tmp_path / "agents.py").write_text(AGENTS)
        (tmp_path / "in.jsonl").write_text('"a"\n"holds"\n')
        command = ["-m", "fluxloop_cli", "run", "experiment", "--target", f"agents:{target}", "--inputs", "in.jsonl"]
        arguments = [*command, "--iterations", "1", *options]
        opened.append(
            Spawned(sys.executable, arguments, cwd=str(tmp_path), timeout=30, encoding="utf-8", dimensions=(40, 400))
        )
        return opened[0]

    yield start_one
    for process in opened:
        process.close(force=True)


def wait_for(file: Path, process: Spawned) -> None:
    while not file.exists():
        assert process.isalive(), process.read()
        process.expect([pexpect.TIMEOUT, "x^"], timeout=0.02)


def ended(process: Spawned) -> tuple[int | None, int | None]:
    """Its exit code or the signal that ended it."""
    process.expect(pexpect.EOF)
    process.close()
    return process.exitstatus, process.signalstatus


def outputs(folder: Path) -> list[object]:
    """What is on disk, in files that are whole as far as they go."""
    (path,) = (folder / "experiments").iterdir()
    return [trace.output for trace in fluxloop.load(path)]


def press_until_ended_from_outside(process: Spawned) -> None:
    for told in ("Press it 2 more times", "Press it once more", "Ended by Ctrl-C, from outside"):
        process.sendintr()
        process.expect_exact(told)
    assert ended(process) == (None, 9)


def test_an_agent_that_holds_the_interpreter_lock(start: Start, tmp_path: Path) -> None:
    """Where it holds it is written and told while it does, the third Ctrl-C ends it, and what was done is on disk."""
    limits = ("--executor", "threads", "--parallel", "2", "--timeout", "1", "--set", "runner.stall_seconds=1")
    process = start("holding", *limits)
    process.expect_exact("The agent holds the interpreter lock")
    (stalls,) = tmp_path.glob(f"experiments/*/{STALLS}")
    assert 'agents.py", line 12 in holding' in stalls.read_text()
    press_until_ended_from_outside(process)
    assert outputs(tmp_path) == ["a"]


def test_an_agent_that_ignores_ctrl_c_for_the_whole_process(start: Start, tmp_path: Path) -> None:
    """The key of the terminal reaches what stands beside the process, and the third ends it."""
    process = start("ignoring", "--executor", "inline")
    wait_for(tmp_path / "ignores", process)
    press_until_ended_from_outside(process)
    assert outputs(tmp_path) == ["a"]


def test_an_agent_that_swallows_every_interrupt(start: Start, tmp_path: Path) -> None:
    """After the second Ctrl-C a line says that one more ends the process, and it does, with the code of Ctrl-C."""
    process = start("swallowing", "--executor", "inline")
    wait_for(tmp_path / "swallows", process)
    process.sendintr()
    process.expect_exact("Press Ctrl-C again to stop at once.")
    process.sendintr()
    process.expect_exact("The agent does not end. Press Ctrl-C again to end the process")
    process.sendintr()
    assert ended(process) == (130, None)
    assert outputs(tmp_path) == ["a"]


def test_an_agent_that_waits_for_all_its_children(start: Start, tmp_path: Path) -> None:
    """It waits for its own alone: what stands beside the process is not a child of it."""
    process = start("waiting_for_all", "--executor", "inline")
    assert ended(process) == (0, None)
    assert outputs(tmp_path) == [0, 1]


def test_an_experiment_from_python_has_nothing_beside_it(tmp_path: Path) -> None:
    """Neither a process nor a timer of `faulthandler`, which others may use."""
    script = (
        "import faulthandler, os, sys\n"
        "from fluxloop import Experiment\n"
        "faulthandler.dump_traceback_later = None\n"
        "def agent(text):\n"
        "    try:\n"
        "        os.waitpid(-1, os.WNOHANG)\n"
        "    except ChildProcessError:\n"
        "        return 'none'\n"
        "print([trace.output for trace in Experiment(target=agent, inputs=['a'], iterations=1).run()])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "['none']\n", done.stderr
