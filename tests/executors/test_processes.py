"""The same experiment in worker processes: only the executor is another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Case, Experiment, ExperimentResult, ProcessesExecutor, TargetError, Trace
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.local import LocalWorkers
from fluxloop.executors.remote.staff import MAX_FAILED_STARTS, Staff
from fluxloop.rates import _queues, moment
from fluxloop.store.layout import STALLS
from fluxloop.tracing.redaction import MASK
from tests.executors import process_agents
from tests.executors.process_agents import Point, Spoiled, Unreadable, noted
from tests.noticing import noticed
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
GAP = 0.02


def experiment(agent: Any, folder: Path, inputs: Any, *, parallel: int = 2, **options: Any) -> Experiment:
    """An experiment of an agent of `process_agents`, or another; keys with a dot are settings."""
    overrides = {key: value for key, value in options.items() if "." in key}
    options = {key: value for key, value in options.items() if "." not in key}
    return Experiment(
        target=f"tests.executors.process_agents:{agent}" if isinstance(agent, str) and ":" not in agent else agent,
        inputs=inputs,
        output_dir=folder / "experiments",
        overrides={"runner.python_path": [str(ROOT)], "runner.retry_delay_seconds": 0, **overrides},
        **{"executor": "processes", "parallel": parallel, "name": "x", "progress": False, **options},
    )


def run(agent: Any, folder: Path, inputs: Any, **options: Any) -> ExperimentResult:
    return experiment(agent, folder, inputs, **options).run()


def outputs(result: ExperimentResult) -> list[Any]:
    assert [trace.error for trace in result] == [None] * len(result)
    return [trace.output for trace in result]


def by_input(result: ExperimentResult) -> dict[Any, Trace]:
    return {trace.input: trace for trace in result}


def running(processes: set[int]) -> set[int]:
    """Those of the processes that have not ended."""

    def is_running(process: int) -> bool:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        return True

    return {process for process in processes if is_running(process)}


def keep_the_rate(times: Sequence[float], began: float, gap: float) -> bool:
    """Whether each came no sooner than a rate allows that has begun then: a worker may be late, never early."""
    return all(at >= began + number * gap - 1e-6 for number, at in enumerate(sorted(times)))


class Granted:
    """When this process answered a worker that a call may go on now; no worker decides that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times: list[tuple[float, float]] = []
        """Before and after."""

        def noting(*asked: Any) -> float:
            before = time.monotonic()
            if not (wait := moment(*asked)):
                self.times.append((before, time.monotonic()))
            return wait

        monkeypatch.setattr("fluxloop.executors.remote.granting.moment", noting)

    @property
    def began(self) -> float:
        return self.times[0][0]


@pytest.fixture
def granted(monkeypatch: pytest.MonkeyPatch) -> Granted:
    """What was granted of the rates of services, which nobody has used before."""
    for name in ("service", "disputed"):
        _queues.pop(name, None)
    return Granted(monkeypatch)


# Retries, rates, stops


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    """In whichever worker is free, as often as is asked for."""
    traces = by_input(run("attempt", tmp_path, ["0", "1", "2", "3"], max_retries=2))
    assert {text: (trace.status, trace.attempts, trace.output) for text, trace in traces.items()} == {
        "0": ("ok", 1, 1),
        "1": ("ok", 2, 2),
        "2": ("ok", 3, 3),
        "3": ("error", 3, None),
    }
    assert [error.type for error in traces["2"].errors] == ["ConnectionResetError"] * 2


def test_nothing_starts_until_a_service_may_be_called_again(tmp_path: Path) -> None:
    """`Retry-After` holds for all workers."""
    place = tmp_path / "starts"
    result = run(
        "limited",
        tmp_path,
        list("abcdef"),
        parallel=1,
        max_retries=1,
        **{"runner.args": {"place": str(place)}},
    )
    assert [trace.status for trace in result] == ["ok"] * 6
    first, *others = [at for _, _, _, at in noted(place)]
    assert len(others) == 6
    assert min(others) >= first + 0.4


@pytest.mark.parametrize(
    ("agent", "key", "value"),
    [
        ("begins", "runner.start_rate", "50/s"),
        ("begins", "runner.run_delay_seconds", GAP),
        ("begins_async", "runner.start_rate", "50/s"),
    ],
)
def test_starts_keep_to_their_rate(
    agent: str, key: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, though a worker could take several at a time, and those at first wait for workers."""
    sent: list[tuple[float, int]] = []
    encode = messages.encode_orders

    def noting(orders: Sequence[messages.Order]) -> bytes:
        sent.append((time.monotonic(), len(orders)))
        return encode(orders)

    monkeypatch.setattr(messages, "encode_orders", noting)
    started = time.monotonic()
    times = outputs(run(agent, tmp_path, list(map(str, range(20))), parallel=4, **{key: value}))
    assert [count for _, count in sent] == [1] * 20
    assert all(later - at >= GAP - 1e-3 for (at, _), (later, _) in pairwise(sent))
    assert keep_the_rate(times, started, GAP)


def test_too_many_failures_stop_it(tmp_path: Path) -> None:
    """At once: nothing that was sent ahead to a worker runs after the last failure that is allowed."""
    result = run("fails_late", tmp_path, [{"input": n} for n in range(200)], parallel=1, max_failures=2)
    assert (result.summary.status, result.summary.passed, result.summary.failed) == ("stopped", 40, 2)
    assert "2 failed runs" in str(result.summary.stop_reason)


def test_nothing_runs_after_the_first_that_all_fail(tmp_path: Path) -> None:
    """Sent ahead or not."""
    inputs = [{"input": n} for n in range(40, 240)]
    result = run("fails_late", tmp_path, inputs, parallel=1, **{"runner.stop_when_all_fail": 50})
    assert (result.summary.status, result.summary.failed) == ("stopped", 50)


def test_its_time_stops_it(tmp_path: Path) -> None:
    """What is in flight by then is recorded."""
    result = run("slow", tmp_path, ["a"], iterations=1000, max_time=1)
    assert result.summary.status == "stopped"
    assert result.summary.passed == len(result) < 1000


def test_what_is_in_flight_is_left_when_its_grace_is_over(tmp_path: Path) -> None:
    """Its worker is ended with it, the other leaves by itself."""
    place = tmp_path / "seen"
    options = {"runner.args": {"place": str(place)}, "runner.grace_seconds": 0.2}
    result = run("waits", tmp_path, ["hangs", *"abc", "fails"], max_failures=1, **options)
    assert (result.summary.status, result.summary.passed, result.left_running) == ("stopped", 3, 0)
    workers = {worker for worker, *_ in noted(place)}
    assert len(workers) == 2
    wait_until(lambda: not running(workers))


def test_an_interrupt_lets_those_in_flight_finish(tmp_path: Path) -> None:
    """The signal is for the process that was started; its workers go on with what they have."""
    place = tmp_path / "seen"

    def interrupt() -> None:
        wait_until(lambda: len(noted(place)) == 2)
        os.kill(os.getpid(), signal.SIGINT)
        Path(f"{place}.go").touch()

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = run("waits", tmp_path, [f"hangs {n}" for n in range(20)], **{"runner.args": {"place": str(place)}})
    thread.join()
    assert (result.summary.status, result.summary.stop_reason) == ("interrupted", "SIGINT")
    assert result.summary.passed == len(noted(place)) / 2 < 20


@pytest.mark.parametrize("agent", ["waits", "waits_async"])
def test_where_a_worker_hangs_is_told(agent: str, tmp_path: Path) -> None:
    """When nothing finishes, the line it hangs at is written down, with the run it belongs to."""
    place = tmp_path / "seen"

    def told() -> str:
        return "".join(file.read_text() for file in tmp_path.glob(f"experiments/*/{STALLS}"))

    def is_told() -> bool:
        names = all(f"A worker process with trace_00{n}:" in told() for n in (1, 2))
        return names and told().count("# waits here") >= 2

    def release() -> None:
        wait_until(is_told)
        Path(f"{place}.go").touch()

    thread = threading.Thread(target=release)
    thread.start()
    options = {"runner.args": {"place": str(place)}, "runner.stall_seconds": 0.4}
    result = run(agent, tmp_path, ["hangs 1", "hangs 2"], **options)
    thread.join()
    assert result.summary.passed == 2
    assert "trace_001 of input_001, attempt 1" in told()


# The whole of an experiment


def test_an_experiment_goes_on_under_another_executor(tmp_path: Path) -> None:
    """Begun with threads, it goes on in processes, and back: each run once, with the seed it has in the plan."""
    inputs = tmp_path / "in.jsonl"
    inputs.write_text("".join(f'"{text}"\n' for text in "abcd"))
    result = run("seeded", tmp_path, str(inputs), executor="threads", seed=3)
    for iterations, executor in ((2, "processes"), (3, "threads"), (4, "processes")):
        result = Experiment.resume(result.path, iterations=iterations, executor=executor, progress=False).run()
    assert result.summary.passed == 16
    assert len({trace.trace_id for trace in result}) == 16
    assert len({trace.output["worker"] for trace in result}) >= 3
    assert all(trace.output["seed"] == trace.seed for trace in result)
    whole = experiment("seeded", tmp_path, str(inputs), iterations=4, seed=3)
    assert sorted((trace.trace_id, trace.seed) for trace in result) == [
        (one.trace_id, one.seed) for one in whole.plan()
    ]


def test_shards_share_the_rates(tmp_path: Path, granted: Granted) -> None:
    """The workers of the second of two shards have half of a rate, and the runs of its shard alone."""
    options = {"runner.args": {"rate": "100/s"}, "shard": "2/2"}
    result = run("calls", tmp_path, list("abcdefgh"), iterations=3, **options)
    times = [at for _, at in outputs(result)]
    assert len(times) == len(granted.times) == 12
    assert keep_the_rate(times, granted.began, 2 * 0.01)


@pytest.mark.parametrize("agent", ["process", "process_async"])
@pytest.mark.parametrize("way", ["run", "run_async"])
def test_it_works_inside_a_running_loop(agent: str, way: str, tmp_path: Path) -> None:
    """As in a notebook."""

    async def main() -> ExperimentResult:
        one = experiment(agent, tmp_path, ["a", "b", "c"])
        return one.run() if way == "run" else await one.run_async()

    found = outputs(asyncio.run(main()))
    assert len(found) == 3
    assert os.getpid() not in found


def test_what_is_printed_stays_with_its_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also what is logged, and written as bytes; none of it is on the screen."""
    result = run("says", tmp_path, ["a", "b"], iterations=5, capture_output=True)
    assert {trace.input: trace.stdout for trace in result} == {
        text: f"printed {text}\nwritten {text}\n" for text in "ab"
    }
    assert {trace.input: trace.stderr for trace in result} == {text: f"told {text}\nlogged {text}\n" for text in "ab"}
    assert capfd.readouterr() == ("", "")


def test_what_is_printed_is_shown_when_it_is_not_kept(tmp_path: Path) -> None:
    """Where the program would have shown it, redirected as it is."""
    code = (
        "import contextlib, sys\n"
        "from fluxloop import Experiment\n"
        "options = dict(target='tests.executors.process_agents:writes', executor='processes')\n"
        "def run(text):\n"
        "    (trace,) = Experiment(inputs=[text], capture_output=False, progress=False, **options).run()\n"
        "    assert (trace.stdout, trace.stderr) == (None, None), trace.stdout\n"
        "run('here')\n"
        "with contextlib.redirect_stdout(sys.stderr):\n"
        "    run('there')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sorted(done.stdout.splitlines()) == ["printed here", "raw here", "written here"]
    assert sorted(done.stderr.splitlines()) == sorted(
        ["told here", "logged here", "printed there", "told there", "logged there", "written there", "raw there"]
    )


def test_the_run_id_is_fresh_in_each_attempt(tmp_path: Path) -> None:
    """As a LangGraph thread needs it."""
    options = {"runner.args": {"thread": "{run_id}"}}
    assert len(set(outputs(run("threads", tmp_path, ["a", "b"], iterations=10, **options)))) == 20


@pytest.mark.parametrize("agent", ["remembers", "remembers_async"])
def test_context_variables_are_the_runs_own(agent: str, tmp_path: Path) -> None:
    """What one sets no other sees; the caller's stay behind, unlike anywhere else."""
    token = process_agents.memory.set("the caller's")
    try:
        assert outputs(run(agent, tmp_path, list("abc"), iterations=4)) == ["nothing"] * 12
    finally:
        process_agents.memory.reset(token)


# Targets and inputs


@pytest.mark.parametrize("target", ["SyncOfSync", "AsyncOfSync", "SyncOfAsync", "AsyncOfAsync"])
def test_a_target_is_built_and_entered_once_by_each_worker(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one of its own for all its runs and leaves it at the end, where it entered it."""
    place = tmp_path / "kept"
    monkeypatch.setenv("KEPT_PLACE", str(place))
    monkeypatch.setattr(process_agents.Kept, "place", str(place))
    result = run(target, tmp_path, list("abcdefgh"), iterations=3)
    used = Counter(outputs(result))
    events: dict[int, list[tuple[str, int]]] = {}
    for worker, what, thread in noted(place):
        events.setdefault(worker, []).append((what, thread))
    assert [what for what, _ in events.pop(os.getpid())] == ["built"]  # to prove the target
    assert set(used) <= set(events)
    assert len(events) == 2
    for worker, told in events.items():
        assert [what for what, _ in told] == ["built", "entered", *["run"] * used[worker], "left"]
        assert told[1][1] == told[-1][1]


def test_leaving_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are done and recorded; what a worker cannot close is told, without secrets."""
    monkeypatch.setenv("SERVICE_API_KEY", "sk-live-0123456789")
    with noticed() as told:
        result = run("Leaving", tmp_path, ["a"])
    assert outputs(result) == ["a"]
    texts = told
    assert any(
        "leaving the target failed" in text and f"ConnectionError: cannot close {MASK}" in text for text in texts
    )
    assert "on the way out" in texts
    assert "sk-live" not in " ".join(texts)


def test_leaving_that_hangs_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is ended, and the experiment goes on to its end."""
    monkeypatch.setenv("LEAVES", "hanging")
    monkeypatch.setattr("fluxloop.executors.remote.local.CLOSING_SECONDS", 0.3)
    with noticed("leaving the target took too long, and was given up"):
        result = run("Leaving", tmp_path, ["a"])
    assert outputs(result) == ["a"]


@pytest.mark.parametrize(
    ("target", "text", "output"),
    [
        ("graph()", {"text": "hi"}, "HI"),
        (process_agents.Graph(), {"text": "hi"}, "HI"),
        ("streams", "hi", "hi"),
        ("streams_async", "hi", "hi"),
        (process_agents.streams, "hi", "hi"),
        (str.upper, "hi", "HI"),
    ],
)
def test_agents_of_every_kind(target: Any, text: Any, output: Any, tmp_path: Path) -> None:
    """What a factory makes, graphs, generators and what a program hands over give what they give anywhere."""
    options = {"runner.output_path": "messages.-1.content"} if output == "HI" and text != "hi" else {}
    assert outputs(run(target, tmp_path, [{"input": text}], **options)) == [output]


def test_inputs_may_be_objects(tmp_path: Path) -> None:
    """They are pickled, with what is expected of them."""
    cases = [Case(n, f"i{n}", Point(n), expected=n, metadata={"at": Point(0)}) for n in range(4)]
    result = run("doubles", tmp_path, cases)
    assert sorted(outputs(result)) == [0, 2, 4, 6]
    assert {trace.input_id: trace.input for trace in result} == {f"i{n}": f"Point({n})" for n in range(4)}
    assert {trace.expected for trace in result} == set(range(4))


def test_an_input_that_cannot_be_sent_costs_its_own_run(tmp_path: Path) -> None:
    """What no check before the first run could find, when sending it or making it again, holds up no other run."""
    odd: list[Point] = [Spoiled(1), Unreadable(1), Unreadable(2)]
    cases = [Case(n, f"i{n}", point, expected=point.x) for n, point in enumerate([Point(0), *odd, Point(4)])]
    chosen = experiment("doubles", tmp_path, cases)
    assert len(chosen.cases) == 5  # checked
    Spoiled.is_spoiled = True
    try:
        traces = {trace.input_id: trace for trace in chosen.run()}
    finally:
        Spoiled.is_spoiled = False
    assert {id: trace.output for id, trace in traces.items()} == {"i0": 0, "i1": None, "i2": None, "i3": None, "i4": 8}
    shown = {id: (trace.input, trace.expected) for id, trace in traces.items()}
    assert shown == {f"i{n}": (f"Point({x})", x) for n, x in enumerate([0, 1, 1, 2, 4])}
    told = {id: f"{trace.error.type}: {trace.error.message}" for id, trace in traces.items() if trace.error}
    assert told["i1"] == "TypeError: the input cannot be sent to another process: ValueError: it is spoiled"
    assert told["i2"] == "LookupError: no point 1"
    assert told["i3"] == "SystemExit: 4"


def test_a_signal_handler_may_print_while_its_thread_prints() -> None:
    """Nothing waits for itself, and every piece is sent once."""
    code = """
import signal
from fluxloop.executors.remote.messages import decode_printed
from fluxloop.executors.remote.printing import printed_there

rung, sent = [], []

def ring(*signal):
    rung.append(signal)
    print("rung")

with printed_there(lambda kind, data: sent.append(decode_printed(data)[1])):
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    for _ in range(100_000):
        print("line")
    signal.setitimer(signal.ITIMER_REAL, 0)
text = "".join(sent)
assert len(rung) > 10
found = [text.count(piece) for piece in ("line", "rung", chr(10))]
assert found == [100_000, len(rung), 100_000 + len(rung)], found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Rates


@pytest.mark.parametrize("agent", ["calls", "calls_async"])
def test_workers_share_a_rate(agent: str, tmp_path: Path, granted: Granted) -> None:
    """All calls of a name keep its rate, whichever process they come from, and several processes have some."""
    result = run(agent, tmp_path, ["a"], iterations=60, parallel=4, **{"runner.args": {"rate": "100/s"}})
    called = outputs(result)
    times = [at for _, at in called]
    assert len(granted.times) == 60
    assert all(later[1] - one[0] >= 0.01 for one, later in pairwise(granted.times))
    assert keep_the_rate(times, granted.began, 0.01)
    assert len({worker for worker, _ in called}) > 1


@pytest.mark.usefixtures("granted")
@pytest.mark.parametrize(("agent", "workers"), [("queues", 5), ("queues_async", 3)])
def test_calls_of_all_workers_are_let_through_in_the_order_in_which_they_ask(
    agent: str, workers: int, tmp_path: Path
) -> None:
    """While one waits, about as many others go first as waited before it: nobody is passed over."""
    executor = ProcessesExecutor(5, workers=workers)
    options = {"executor": executor, "runner.args": {"rate": "7/s"}}
    spans = outputs(run(agent, tmp_path, ["a"], iterations=30, parallel=1, **options))
    assert len(spans) == 30
    before = [sum(asked < other < through for _, other in spans) for asked, through in spans]
    assert max(before) <= 2 * 5


@pytest.mark.usefixtures("granted")
def test_who_gives_up_in_a_worker_takes_no_moment(tmp_path: Path) -> None:
    """Not even when it was given one that it does not use: the first that goes on need not wait."""
    options = {"runner.args": {"rate": "1/h", "first": False}, "timeout_seconds": 20}
    assert outputs(run("gives_up", tmp_path, ["a"], **options)) == [None]


def test_who_gives_up_in_a_worker_leaves_the_queue(tmp_path: Path, granted: Granted) -> None:
    """Those behind it need not wait for its moment."""
    assert outputs(run("gives_up", tmp_path, ["a"], **{"runner.args": {"rate": "5/s", "first": True}})) == [None]
    assert 2 <= len(granted.times) < 30


@pytest.mark.usefixtures("granted")
def test_a_name_has_one_rate_in_all_workers(tmp_path: Path) -> None:
    """Another one is an error of the run that uses it, wherever it is."""
    result = run("contests", tmp_path, ["a", "b"])
    assert sorted(trace.status for trace in result) == ["error", "ok"]
    (error,) = [trace.error for trace in result if trace.error]
    assert "ValueError" in error.type
    assert "the name has another rate, one in 0.0" in error.message


# Workers


@pytest.mark.parametrize(
    ("agent", "parallel", "workers"), [("meets", 3, 3), ("meets_async", 6, 2), ("meets_async", 5, 3)]
)
def test_as_many_as_parallel_are_in_flight(agent: str, parallel: int, workers: int, tmp_path: Path) -> None:
    """Sync runs have a process each, async ones share a few."""
    place = tmp_path / "met"
    executor = ProcessesExecutor(parallel, workers=workers)
    options = {"executor": executor, "runner.args": {"place": str(place), "count": parallel}}
    met = outputs(run(agent, tmp_path, ["a"], iterations=30, parallel=1, **options))
    assert max(inside for inside, _ in met) == parallel
    assert len({worker for _, worker in met}) == workers


def test_short_runs_that_are_sent_together_run_one_by_one(tmp_path: Path) -> None:
    """However many a worker has, it runs one at a time."""
    found = outputs(run("spans", tmp_path, ["short", "long"], iterations=200))
    assert len(found) == 400
    for worker in {worker for worker, *_ in found}:
        spans = sorted((began, ended) for process, began, ended in found if process == worker)
        assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))


def test_a_long_run_does_not_hold_up_short_ones(tmp_path: Path) -> None:
    """What was sent to its worker with it goes to the other, and is done before it."""
    result = run("mostly_short", tmp_path, [{"input": n} for n in range(200)])
    times = {trace.input: trace.output for trace in result}
    long, ended = times[60]
    assert result.summary.passed == 200
    others = {text: (worker, at) for text, (worker, at) in times.items() if text != 60}
    assert {worker for worker, at in others.values() if at > ended - 1} == {*(w for w, _ in others.values())} - {long}


def test_more_places_than_runs_start_no_more_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each run that could start at once."""
    place = tmp_path / "kept"
    monkeypatch.setenv("KEPT_PLACE", str(place))
    monkeypatch.setattr(process_agents.Kept, "place", str(place))
    result = run("SyncOfSync", tmp_path, ["a", "b"], parallel=20)
    assert result.summary.passed == 2
    assert len({worker for worker, *_ in noted(place)} - {os.getpid()}) <= 2


# Secrets


def test_no_secret_comes_back_from_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a run ends: in answers, errors, what was printed and seen, and in what is said of a dead worker."""
    secret = "sk-live-in-the-source"
    monkeypatch.setenv("SERVICE_API_KEY", secret)
    inputs = ["answers", "raises", "crashes", "hangs"]
    result = run("shows", tmp_path, inputs, timeout_seconds=2, capture_output=True)
    statuses = {text: trace.status for text, trace in by_input(result).items()}
    assert statuses == {"answers": "ok", "raises": "error", "crashes": "crashed", "hangs": "timeout"}
    assert by_input(result)["answers"].output == MASK
    assert f"# {MASK}" in str(by_input(result)["hangs"].error)
    for file in result.path.iterdir():
        assert secret not in file.read_text(), file


def test_no_secret_is_told_when_no_worker_can_load_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the worker's, with the secret masked; nothing is left behind."""
    monkeypatch.setenv("SERVICE_API_KEY", "sk-live-0123456789")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "here_only.py").write_text(
        f"import os\nif os.getpid() != {os.getpid()}: raise LookupError(os.environ['SERVICE_API_KEY'])\n"
        "def agent(text): return text\n"
    )
    import here_only  # type: ignore[import-not-found]

    for target in ("here_only:agent", here_only.agent):
        with pytest.raises(TargetError) as error:
            run(target, tmp_path, ["a"], **{"runner.python_path": [str(tmp_path)]})
        assert f"LookupError: {MASK}" in str(error.value)
        assert "(in a worker process)" in str(error.value)
        assert "sk-live" not in str(error.value)
    assert list((tmp_path / "experiments").iterdir()) == []


def test_workers_that_cannot_load_the_target_are_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other does the work; why is told, without secrets."""
    monkeypatch.setenv("SERVICE_API_KEY", "sk-live-0123456789")
    (tmp_path / "only_once.py").write_text(
        "import os, pathlib\n"
        "from tests.executors.test_processes import running\n"
        "from tests.waiting import wait_until\n"
        "here = pathlib.Path(__file__).parent\n"
        f"if os.getpid() != {os.getpid()}:\n"
        "    try:\n"
        "        (here / 'first').touch(exist_ok=False)\n"
        "    except FileExistsError:\n"
        "        wait_until((here / 'runs').exists)\n"
        "        (here / f'failed_{os.getpid()}').touch()\n"
        "        raise LookupError(os.environ['SERVICE_API_KEY'])\n"
        "def agent(text):\n"
        "    (here / 'runs').touch()\n"
        f"    wait_until(lambda: len(list(here.glob('failed_*'))) >= {MAX_FAILED_STARTS})\n"
        "    wait_until(lambda: not running({int(file.name[7:]) for file in here.glob('failed_*')}))\n"
        "    return text\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_once  # type: ignore[import-not-found]

    with noticed("no more than 1 at a time") as told:
        result = run(only_once.agent, tmp_path, ["a", "b"])
    assert sorted(outputs(result)) == ["a", "b"]
    assert [f"LookupError: {MASK}" in one for one in told] == [True]


def test_workers_start_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the first is soon ready, and there are as many as were asked for in the end."""
    monkeypatch.setattr(LocalWorkers, "starts", 2)
    starting = []
    hire = Staff.hire

    def counted(staff: Staff, waiting: int, suspects: int) -> None:
        hire(staff, waiting, suspects)
        starting.append(sum(member.is_starting for member in staff.members.values()))

    monkeypatch.setattr(Staff, "hire", counted)
    (tmp_path / "meeting.py").write_text(
        "import os, pathlib\n"
        "from tests.waiting import wait_until\n"
        "here = pathlib.Path(__file__).parent\n"
        "def agent(text):\n"
        "    (here / f'here_{os.getpid()}').touch()\n"
        "    wait_until(lambda: len(list(here.glob('here_*'))) == 6)\n"
        "    return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import meeting  # type: ignore[import-not-found]

    result = run(meeting.agent, tmp_path, list("abcdef"), parallel=6)
    assert len(set(outputs(result))) == 6
    assert max(starting) == 2


def test_what_ran_it_is_kept(tmp_path: Path) -> None:
    """In the configuration beside the results."""
    result = run("process", tmp_path, ["a"])
    assert "executor: processes" in (result.path / "config.yaml").read_text()
    assert json.loads((result.path / "summary.json").read_text())["passed"] == 1
