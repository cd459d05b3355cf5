"""What agents do to the process they run in: it costs their own run, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment, ExperimentResult, TargetError, Trace
from fluxloop.executors.remote.staff import MAX_FAILED_STARTS
from tests.executors.faulty_agents import DEADLY, FAILING, HANGING, MEGABYTE, ODD
from tests.noticing import noticed
from tests.test_interrupts import Terminal
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="what is left of a process is seen in /proc"),
    # Another test may have left a thread behind.
    pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning"),
]

HERE = Path(__file__).parent
LIMIT = 0.4
"""Seconds an attempt may take where one hangs: long for those that do not."""
ORPHAN_SECONDS = 5.0
"""How long anything may live once the experiment is killed."""
FINE = [f"fine {number}" for number in range(8)]
LARGE = "i" * (50 * MEGABYTE)


class Place:
    """A folder for an experiment and what its agents note; its processes are told by a variable they inherit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        self.environment = {"NOTES": str(self.notes), "IN_HASTE": "1"}

    def run(self, target: str, inputs: list[str], *, parallel: int = 2, **options: Any) -> ExperimentResult:
        overrides = {
            "runner.python_path": [str(HERE), str(self.folder)],
            "runner.retry_delay_seconds": 0,
            **{key: options.pop(key) for key in list(options) if "." in key},
        }
        target = target if ":" in target else f"faulty_agents:{target}"
        options = {"timeout_seconds": 0, **options}
        result = Experiment(
            target=target,
            inputs=inputs,
            output_dir=self.folder / "experiments",
            executor="processes",
            parallel=parallel,
            overrides=overrides,
            **options,
        ).run()
        wait_until(lambda: self.left() == [])
        return result

    def noted(self) -> Counter[str]:
        """How often each agent was called."""
        return Counter(path.name.rpartition("-")[0] for path in self.notes.glob("*-*"))

    def left(self) -> list[str]:
        """The command lines of all processes that go on."""
        mark = f"NOTES={self.notes}".encode()
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


@contextmanager
def at(folder: Path) -> Iterator[Place]:
    """Be in a place, as all that is started in it."""
    place = Place(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environment.items():
            patch.setenv(name, value)
        patch.setattr("fluxloop.executors.remote.executor.LINGER", 0.1)
        patch.setattr("fluxloop.executors.remote.dispatch.SILENCE_SECONDS", 0.4)
        patch.setattr("fluxloop.executors.remote.local.CLOSING_SECONDS", 1.0)
        yield place
    for process in place.notes.glob("*-*"):  # whatever a failed test has left
        with suppress(OSError, ValueError):
            if f"NOTES={place.notes}".encode() in Path(f"/proc/{process.read_text()}/environ").read_bytes():
                os.killpg(int(process.read_text()), signal.SIGKILL)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with at(tmp_path) as place:
        yield place


def by_input(result: ExperimentResult) -> dict[str, Trace]:
    traces = list(result)
    found = {trace.input[:30]: trace for trace in traces}
    assert len(found) == len(traces), "a run has ended twice"
    return found


class Broken:
    """An experiment with every fault in it."""

    def __init__(self, agent: str, place: Place) -> None:
        self.agent = agent
        self.result = place.run(agent, [*mixed([*DEADLY, *FAILING, *ODD], FINE), LARGE], parallel=4)
        self.traces = by_input(self.result)
        self.calls = place.noted()


def mixed(some: list[str], others: list[str]) -> list[str]:
    """Of both in turn."""
    every = -(-len(some) // len(others))
    return [one for at, other in enumerate(others) for one in (other, *some[at * every : (at + 1) * every])]


@pytest.fixture(scope="module", params=["behave", "behave_async"])
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    with at(tmp_path_factory.mktemp("broken")) as place:
        yield Broken(request.param, place)


# What ends a worker


@pytest.mark.parametrize("fault", DEADLY)
def test_a_worker_that_dies_is_in_the_record_of_its_run(broken: Broken, fault: str) -> None:
    """With its exit code or signal."""
    trace = broken.traces[fault]
    assert trace.error is not None
    assert (trace.status, trace.passed, trace.output) == ("crashed", False, None)
    assert (trace.error.kind, trace.error.type, trace.error.traceback) == ("agent", "WorkerDied", None)
    assert trace.error.message.startswith(f"its worker process {DEADLY[fault][1]}"), trace.error.message
    assert trace.error.message.endswith("; what it had observed is lost")


def test_a_worker_that_dies_costs_no_other_run(broken: Broken) -> None:
    """All others end as they would alone, and once; a sync agent is not even called again."""
    crashed = {name for name, trace in broken.traces.items() if trace.status == "crashed"}
    assert crashed == DEADLY.keys()
    assert {trace.status for name, trace in broken.traces.items() if name in FINE} == {"ok"}
    assert [broken.traces[name].output for name in FINE] == [len(name) for name in FINE]
    assert broken.traces.keys() == broken.calls.keys()
    if broken.agent == "behave":
        assert set(broken.calls.values()) == {1}


def test_crashes_are_counted(broken: Broken) -> None:
    """Apart from other failures, and as the agent's."""
    summary = broken.result.summary
    assert summary.status == "completed"
    assert (summary.by_status["crashed"], summary.by_status["error"]) == (len(DEADLY), len(FAILING))
    assert summary.infrastructure == 0


# What a run survives, or fails of


@pytest.mark.parametrize("fault", FAILING)
def test_what_would_end_a_process_is_an_error_of_its_run(broken: Broken, fault: str) -> None:
    """Its type is told, and where it was raised."""
    trace = broken.traces[fault]
    assert trace.error is not None
    assert (trace.status, trace.error.kind, trace.error.type) == ("error", "agent", FAILING[fault][1])
    assert "faulty_agents.py" in str(trace.error.traceback)


@pytest.mark.parametrize("odd", ODD)
def test_odd_behaviour_is_borne(broken: Broken, odd: str) -> None:
    """What is returned is in the record, whatever it is, and what is left behind costs nothing."""
    trace = broken.traces[odd]
    assert (trace.status, trace.error) == ("ok", None)
    expected = {
        "starts others": "started",
        "forks": "parent",
        "changes directory": "changed",
        "returns a generator": "abc",
        "returns 50 MB": "x" * (50 * MEGABYTE),
    }
    if odd in expected:
        assert trace.output == expected[odd]
    else:
        assert "lock" in str(trace.output) or "lambda" in str(trace.output) or "Hostile" in str(trace.output)


def test_a_large_input_arrives(broken: Broken) -> None:
    """Whole, and it is in the record."""
    trace = broken.traces[LARGE[:30]]
    assert (trace.status, trace.output, trace.input) == ("ok", len(LARGE), LARGE)


# What does not end


def test_a_sync_agent_that_hangs_is_ended_with_its_worker(place: Place) -> None:
    """Its record tells the line and what it did before; who holds the interpreter is killed; all others are well."""
    result = place.run("dawdle", [*HANGING, *FINE], parallel=3, timeout_seconds=LIMIT)
    traces = by_input(result)
    assert {name: trace.status for name, trace in traces.items()} == {
        **dict.fromkeys(HANGING, "timeout"),
        **dict.fromkeys(FINE, "ok"),
    }
    for name, line in (("hangs", "# hangs here"), ("hangs deaf", "# hangs deaf here")):
        error = traces[name].error
        assert error is not None
        assert (error.kind, error.type) == ("timeout", "TimeoutError")
        assert error.message == "no answer within 0.4 s (runner.timeout_seconds)"
        assert line in str(error.traceback)
        assert [observation.output for observation in traces[name].observations] == [name]
    killed = traces["holds the interpreter"].error
    assert killed is not None
    assert killed.message == (
        "no answer within 0.4 s (runner.timeout_seconds); its worker process did not answer either"
        " and was killed: what it had observed is lost"
    )
    assert killed.traceback is None
    assert traces["holds the interpreter"].duration_ms >= LIMIT * 1000
    assert result.left_running == 0
    assert set(place.noted().values()) == {1}


def test_an_async_agent_that_hangs_is_ended_and_its_neighbours_run_again(place: Place) -> None:
    """One that waits is cancelled; one that cannot be is ended with its worker."""
    inputs = mixed(["waits", "is stubborn", *HANGING], FINE)
    result = place.run("dawdle_async", inputs, parallel=4, timeout_seconds=LIMIT)
    traces = by_input(result)
    hanging = ["waits", "is stubborn", *HANGING]
    assert {name: trace.status for name, trace in traces.items()} == {
        **dict.fromkeys(hanging, "timeout"),
        **dict.fromkeys(FINE, "ok"),
    }
    lines = {name: f"# {name} here" for name in ("waits", "is stubborn", "hangs", "hangs deaf")}
    for name, line in lines.items():
        assert line in str(traces[name].error and traces[name].error.traceback)
        assert [observation.output for observation in traces[name].observations] == [name]
    remarks = {
        "waits": "",
        "is stubborn": "; it went on in spite of its cancellation",
        "hangs": "; it blocks the event loop, where only `await` may wait",
        "hangs deaf": "; it blocks the event loop, where only `await` may wait",
        "holds the interpreter": "; its worker process did not answer either and was killed:"
        " what it had observed is lost",
    }
    assert {name: traces[name].error.message for name in hanging if traces[name].error} == {
        name: f"no answer within 0.4 s (runner.timeout_seconds){remark}" for name, remark in remarks.items()
    }
    assert result.left_running == 0


@pytest.mark.parametrize("agent", ["behave", "behave_async"])
def test_a_worker_that_lost_its_connection_does_not_stay(place: Place, agent: str) -> None:
    """Though it has no time limit, and nobody sends it anything more."""
    (trace,) = place.run(agent, ["closes all files and stays"], parallel=1)
    assert trace.status == "crashed"


# What is counted


def test_crashes_are_tried_again_apart_from_failures(place: Place) -> None:
    """Each kind has retries of its own, and the record tells them all."""
    inputs = ["unlucky", "a", "b"]
    result = place.run("crashes_and_fails", inputs, max_retries=1, **{"runner.max_crash_retries": 2})
    unlucky = by_input(result)["unlucky"]
    assert unlucky.error is not None
    assert [error.type for error in (*unlucky.errors, unlucky.error)] == ["WorkerDied", "ConnectionError"] * 2
    assert (unlucky.status, unlucky.attempts) == ("error", 4)
    assert result.summary.by_status == {"ok": 2, "error": 1, "timeout": 0, "crashed": 0}
    assert (result.summary.infrastructure, result.summary.left_out_after_failure) == (1, 1)


def test_crashed_runs_are_run_again_on_request(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what infrastructure has failed; but a crash is a failure of the agent, so it is a re-roll."""
    inputs = ["a", "crashes", "b"]
    result = place.run("crashes_unless_well", inputs)
    assert by_input(result)["crashes"].status == "crashed"
    monkeypatch.setenv("IS_WELL", "1")
    again = Experiment.resume(result.path, retry_failed="failed", inputs=inputs).run()
    assert {trace.status for trace in again} == {"ok"}
    assert again.summary.by_status.get("crashed", 0) == 0
    assert again.summary.rerolled == 1


def test_a_worker_that_dies_idle_costs_no_run(place: Place) -> None:
    """Another takes its place."""
    traces = by_input(place.run("dies_idle", ["dies later", "other"], max_retries=1))
    assert [(trace.status, len(trace.errors)) for trace in traces.values()] == [("ok", 0), ("ok", 1)]


# How workers begin and end


def module(place: Place, name: str, code: str) -> str:
    (place.folder / f"{name}.py").write_text(f"import os, sys, time\n{code}\ndef run(text):\n    return text\n")
    return f"{name}:run"


IN_A_WORKER = f"if os.getpid() != {os.getpid()}:"


def test_a_slow_import_is_not_the_time_of_a_run(place: Place) -> None:
    """A worker may take longer to begin than an attempt may take."""
    target = module(place, "slow_import", f"{IN_A_WORKER}\n    time.sleep({4 * LIMIT})")
    result = place.run(target, ["a", "b", "c"], timeout_seconds=LIMIT)
    assert {trace.status for trace in result} == {"ok"}


@pytest.mark.parametrize(
    ("name", "fault", "told"),
    [
        ("it_raises", "raise ImportError('no licence here')", "ImportError: no licence here (in a worker process)"),
        ("it_dies", "os._exit(9)", "its worker process ended with exit code 9 while it loaded the target"),
        ("it_exits", "sys.exit('not here')", "SystemExit: not here (in a worker process)"),
    ],
)
def test_an_import_that_fails_in_workers_alone_is_one_error(place: Place, name: str, fault: str, told: str) -> None:
    """It says so, and leaves nothing behind, neither files nor processes."""
    target = module(place, name, f"{IN_A_WORKER}\n    {fault}")
    with pytest.raises(TargetError) as raised:
        place.run(target, ["a", "b", "c"], parallel=3)
    assert told in str(raised.value)
    assert list((place.folder / "experiments").iterdir()) == []
    wait_until(lambda: place.left() == [])


def test_workers_that_cannot_take_the_place_of_another_are_a_warning(place: Place) -> None:
    """After some, one after the other; those there are do the work."""
    (place.folder / "licensed.py").write_text(
        f"""
import os, pathlib, time
notes = pathlib.Path(os.environ["NOTES"])
{IN_A_WORKER}
    if len(list(notes.iterdir())) >= 2:
        (notes / str(os.getpid())).touch()
        raise ImportError("only two licences")
    (notes / str(os.getpid())).touch()

def run(text):
    while len(list(notes.iterdir())) < 2:
        time.sleep(0.01)
    if text == "exits":
        os._exit(3)
    while len(list(notes.iterdir())) < 2 + {MAX_FAILED_STARTS}:
        time.sleep(0.01)
    return text
"""
    )
    with noticed(r"no more than 1 at a time: .*ImportError: only two licences"):
        traces = by_input(place.run("licensed:run", ["exits", *FINE]))
    assert Counter(trace.status for trace in traces.values()) == {"crashed": 1, "ok": len(FINE)}


def test_a_worker_ends_as_any_process_does(place: Place) -> None:
    """It leaves the target and runs what was registered for the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place.run("LeavesThings.run", ["a"], parallel=1)
    assert place.noted() == {"left": 1, "atexit": 1}


def test_a_thread_left_behind_holds_up_nothing(place: Place) -> None:
    """Its worker is ended, and it is told."""
    with noticed("leaving the target took too long"):
        result = place.run("LeavesThings.run", ["leaves a thread", "a"], parallel=1)
    assert result.summary.successful == 2


def test_a_module_named_like_pythons_own_does_not_hinder_workers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the working directory is not on a worker's path when it is not on the experiment's."""
    (place.folder / "json.py").write_text("raise ImportError('not the real one')\n")
    monkeypatch.chdir(place.folder)
    (place.folder / "agents").mkdir()
    (place.folder / "agents" / "plain.py").write_text("def run(text):\n    return text\n")
    result = Experiment(
        target="plain:run",
        inputs=["a"],
        output_dir=place.folder / "experiments",
        executor="processes",
        overrides={"runner.python_path": [str(place.folder / "agents")]},
    ).run()
    assert [trace.output for trace in result] == ["a"]


# Signals


def command(place: Place, target: str, inputs: list[str], *options: str) -> list[str]:
    (place.folder / "in.jsonl").write_text("".join(f"{json.dumps(text)}\n" for text in inputs))
    (place.folder / "configs").mkdir(exist_ok=True)
    more = ["--executor", "processes", "--set", f"runner.python_path=[{HERE}, {place.folder}]", "--no-progress"]
    target = target if ":" in target else f"faulty_agents:{target}"
    start = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--target", target]
    return [*start, "--inputs", "in.jsonl", *more, *options]


def test_the_command_line_tells_of_an_import_that_fails_in_workers(place: Place) -> None:
    """In one line, with the exit code of what the user can mend, and without a directory."""
    fault = "if '-c' in sys.orig_argv:\n    raise ImportError('no licence on this machine')"
    target = module(place, "elsewhere", fault)
    done = subprocess.run(
        command(place, target, ["a", "b"], "--parallel", "2"), cwd=place.folder, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "ImportError: no licence on this machine (in a worker process)" in line
    assert list((place.folder / "experiments").iterdir()) == []
    wait_until(lambda: place.left() == [])


def test_nothing_outlives_an_experiment_that_is_killed(place: Place) -> None:
    """Neither workers, whatever they do, nor what their agents have started."""
    inputs = ["sleeps", "computes", "holds"]
    parent = subprocess.Popen(
        command(place, "endless", inputs, "--parallel", "3"), cwd=place.folder, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: place.noted().keys() == set(inputs))
        assert len(place.left()) >= 1 + 2 * len(inputs)
    finally:
        parent.kill()
        parent.wait()
    latest = time.monotonic() + ORPHAN_SECONDS
    while place.left() and time.monotonic() < latest:
        time.sleep(0.05)
    wait_until(lambda: place.left() == [])


PROCESSES = ("--executor", "processes", "--parallel", "3")


@pytest.fixture
def terminals(place: Place) -> Iterator[list[Terminal]]:
    """Two, with a sync and an async agent, waiting in three runs each."""
    opened = [Terminal(place.folder / target, target, *PROCESSES) for target in ("gate", "gate_async")]
    for one in opened:
        one.wait_for("started-a", "started-b", "started-c")
    yield opened
    for one in opened:
        one.process.close(force=True)
    wait_until(lambda: place.left() == [])


def test_the_first_ctrl_c_lets_workers_finish(terminals: list[Terminal]) -> None:
    """They do not hear of it themselves; nothing more starts, and the code is 130."""
    for one in terminals:
        one.press_ctrl_c("Stopping: 3 runs in flight may take another 30s. Press Ctrl-C again to stop at once.")
        one.go()
    for one in terminals:
        assert one.end() == 130
        one.assert_interrupted(done="abc")
        assert one.started == "abc"


def test_the_second_ctrl_c_ends_all_workers(terminals: list[Terminal], place: Place) -> None:
    """At once, and the command with them."""
    for one in terminals:
        one.press_ctrl_c("Press Ctrl-C again to stop at once.")
        one.press_ctrl_c()
    for one in terminals:
        assert one.end() == 130
        one.assert_interrupted(done="")
        assert "Left unfinished: trace_001 (input_001)" in one.shown.getvalue()
    wait_until(lambda: place.left() == [])


def test_sigterm_to_all_lets_workers_finish(terminals: list[Terminal], place: Place) -> None:
    """As a service manager sends it, to each process there is."""
    for one in terminals:
        for process in processes_of(one):
            os.kill(process, signal.SIGTERM)
        one.process.expect_exact("Stopping: 3 runs in flight may take another 30s.")
        one.go()
    for one in terminals:
        assert one.end() == 143
        one.assert_interrupted(done="abc", by="SIGTERM")


def processes_of(terminal: Terminal) -> list[int]:
    """All that runs in the folder of a terminal."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cwd").readlink() == terminal.folder:
                found.append(int(process.name))
    return found


def test_a_worker_that_could_not_be_started_is_tried_again(place: Place) -> None:
    """One start that fails, in the middle, costs no run but the one that crashed."""
    (place.folder / "moody.py").write_text(
        f"""
import os, pathlib
notes = pathlib.Path(os.environ["NOTES"])
{IN_A_WORKER}
    (notes / str(os.getpid())).touch()
    if len(list(notes.iterdir())) == 2:
        os._exit(1)

def run(text):
    if text == "exits":
        os._exit(3)
    return text
"""
    )
    traces = by_input(place.run("moody:run", ["exits", *FINE], parallel=1))
    assert Counter(trace.status for trace in traces.values()) == {"crashed": 1, "ok": len(FINE)}
