"""Hundreds of hostile agents in one experiment: each run is recorded once, in time, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.executors.faulty_agents import DEADLY
from tests.executors.hostile_agents import CHANGING, COROUTINES, HANGING, LOOP_BREAKING, SYNC
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is left of a process is seen in /proc")

ROOT = Path(__file__).parent.parent.parent
LIMIT = 1.0
GRACE = 20.0
"""Seconds a run may take beyond its limit where the machine is busy; the hostile ones would take a thousand."""


def left(mark: str) -> dict[int, str]:
    """The processes that go on, by the variable they inherit."""
    found = {}
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """What every process of a test has in its environment; whatever agents leave behind ends with the test."""
    mark = f"HOSTILE={tmp_path}"
    yield mark
    for process in left(mark):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def with_plain_runs(names: list[str], every: int = 12) -> list[str]:
    """Put three plain runs at the beginning and after each few of the others."""
    inputs = []
    for at in range(0, len(names), every):
        inputs += [f"plain {at} {letter}" for letter in "abc"] + names[at : at + every]
    return [*inputs, *(f"plain {len(names)} {letter}" for letter in "abc")]


def run(target: str, executor: str, names: list[str], parallel: int, folder: Path, mark: str) -> Any:
    """Run them in one experiment of a command line of its own; return the process and what was recorded."""
    inputs = with_plain_runs(names)
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(name)}\n" for name in inputs))
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--inputs", "in.jsonl", "--no-progress"]
    command += ["--target", f"tests.executors.hostile_agents:{target}", "--set", f"runner.python_path=[{ROOT}]"]
    command += ["--executor", executor, "--parallel", str(parallel), "--name", "hostile"]
    if (executor, target) != ("inline", "agent"):  # which has no timeouts
        command += ["--timeout", str(LIMIT)]
    key, _, value = mark.partition("=")
    with open(folder / "shown", "wb") as shown:
        ended = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=shown,
            env={**os.environ, key: value, "IN_HASTE": "1", "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
    (file,) = folder.glob("experiments/hostile_*/traces.jsonl")
    traces = [json.loads(line) for line in file.read_text().splitlines()]
    return ended.returncode, inputs, traces


def assert_all_is_well(code: int, inputs: list[str], traces: list[dict[str, Any]], folder: Path) -> None:
    """Every run is recorded once and in time, the plain ones passed, and the command ended as they say."""
    shown = (folder / "shown").read_text(errors="replace")[-3000:]
    recorded = Counter(trace["input"] for trace in traces)
    assert recorded == Counter(inputs), shown
    (file,) = folder.glob("experiments/hostile_*/summary.json")
    assert json.loads(file.read_text())["status"] == "completed", shown
    assert code == 0, shown  # nobody asked for more than records
    plain = {trace["input"]: trace for trace in traces if trace["input"].startswith("plain")}
    assert {name: (one["status"], one["output"], one["error"]) for name, one in plain.items()} == {
        name: ("ok", name, None) for name in plain
    }
    slow = {trace["input"]: trace["duration_ms"] for trace in traces if trace["duration_ms"] > (LIMIT + GRACE) * 1000}
    assert slow == {}


FAILING_STREAM = "has failing standard output"
"""A global of Python's that an agent replaces stays so: what others print fails as it says, in their own runs."""
BORNE = [name for name in SYNC if name not in CHANGING and name != FAILING_STREAM]
UNIMPORTABLE = ("forgets modules", "imports nothing more")
"""What leaves nobody in the process an import, the command's own table included; every run is recorded all the same."""
CHANGED = [name for name in CHANGING if name not in UNIMPORTABLE]
HERE = {
    "inline": ("inline", "agent", [name for name in BORNE if name not in HANGING], 1),
    "threads": ("threads", "agent", BORNE, 4),
    "threads, changed": ("threads", "agent", CHANGED, 1),
    "inline, changed": ("inline", "agent", CHANGED, 1),
    "asyncio": ("asyncio", "agent_on_loop", BORNE, 1),
    "asyncio, changed": ("asyncio", "agent_on_loop", CHANGED, 1),
    "coroutines inline": ("inline", "coroutine", [*COROUTINES, *LOOP_BREAKING], 1),
    "coroutines under threads": ("threads", "coroutine", [*COROUTINES], 4),
    "coroutines": ("asyncio", "coroutine", [*COROUTINES], 4),
    "coroutines that break their loop": ("asyncio", "coroutine", [*LOOP_BREAKING], 1),
}
ELSEWHERE = {
    "agents": ("agent", [*BORNE, *CHANGED, *DEADLY]),
    "coroutines": ("coroutine", [*COROUTINES, *LOOP_BREAKING]),
}


@pytest.mark.parametrize("experiment", HERE)
def test_hostile_agents_cost_their_own_runs(experiment: str, tmp_path: Path, mark: str) -> None:
    """In the process that records them; of what they start, nothing but processes of their own may go on."""
    executor, target, names, parallel = HERE[experiment]
    code, inputs, traces = run(target, executor, names, parallel, tmp_path, mark)
    assert_all_is_well(code, inputs, traces, tmp_path)
    wait_until(lambda: not any("fluxloop" in command for command in left(mark).values()))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ELSEWHERE)
def test_hostile_agents_leave_nothing_where_they_have_workers(experiment: str, tmp_path: Path, mark: str) -> None:
    """What ends a process is one of their kinds there, and not even their own processes go on."""
    target, names = ELSEWHERE[experiment]
    code, inputs, traces = run(target, "processes", names, 3, tmp_path, mark)
    assert_all_is_well(code, inputs, traces, tmp_path)
    assert {trace["status"] for trace in traces if trace["input"] in DEADLY} <= {"crashed"}
    wait_until(lambda: left(mark) == {})


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_a_stream_that_fails_changes_no_exit_code(executor: str, tmp_path: Path, mark: str) -> None:
    """Runs after it fail where they print, and are recorded; the command takes its own streams back."""
    code, inputs, traces = run("agent", executor, [FAILING_STREAM], 1, tmp_path, mark)
    shown = (tmp_path / "shown").read_text()
    assert Counter(trace["input"] for trace in traces) == Counter(inputs)
    assert code == 0, shown
    assert "results" in shown
    assert "Traceback" not in shown
