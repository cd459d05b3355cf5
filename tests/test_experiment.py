"""Experiment: from configuration to results."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fluxloop
from fluxloop import (
    Attempt,
    ConfigError,
    Experiment,
    ExperimentResult,
    InlineExecutor,
    MemorySink,
    OutputError,
    Schedule,
    TargetError,
    Task,
)
from tests.noticing import noticed

FILES = {"summary.json", "trace_summary.jsonl", "traces.jsonl", "observations.jsonl", "config.yaml"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def echo(text: str) -> str:
    return f"echo: {text}"


@fluxloop.tool()
def shout(text: str) -> str:
    return text.upper()


@fluxloop.agent()
def shouting(text: str) -> str:
    return shout(text)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_callable_and_a_list_are_an_experiment(folder: Path) -> None:
    """`Experiment(target=..., inputs=[...], iterations=...)` runs and leaves exactly the five files."""
    result = Experiment(target=shouting, inputs=["hi", "bye"], iterations=5).run()

    assert {path.name for path in result.path.iterdir()} == FILES
    assert result.path.parent == folder / "experiments"
    assert [trace.output for trace in result] == ["HI", "BYE"] * 5
    assert (result.summary.total_traces, result.summary.successful, len(result)) == (10, 10, 10)
    assert result.exit_code == 0


def test_the_three_line_files_list_the_runs_in_the_same_order() -> None:
    """Observations, traces and summaries of the runs stand in one order."""
    path = Experiment(target=shouting, inputs=list("abc"), iterations=4).run().path

    ids = [line["trace_id"] for line in lines(path / "traces.jsonl")]
    assert ids == [f"trace_{number:03d}" for number in range(1, 13)]
    assert ids == [line["trace_id"] for line in lines(path / "trace_summary.jsonl")]
    seen = dict.fromkeys(line["trace_id"] for line in lines(path / "observations.jsonl"))
    assert list(seen) == ids


def test_one_pass_over_all_inputs_for_each_iteration() -> None:
    """An experiment cut short has seen every input."""
    sink = MemorySink()
    Experiment(target=echo, inputs=["a", "b"], iterations=2, sinks=[sink]).run()

    assert [(t.input_id, t.iteration) for t in sink.traces] == [
        ("input_001", 0),
        ("input_002", 0),
        ("input_001", 1),
        ("input_002", 1),
    ]


def test_a_failing_agent_is_a_record_and_the_experiment_goes_on() -> None:
    """A run that raises is in every file, with its observations so far, and the others run."""

    @fluxloop.agent()
    def fragile(text: str) -> str:
        shout(text)
        if text == "bad":
            raise ValueError("not this one")
        return text

    result = Experiment(target=fragile, inputs=["good", "bad", "fine"]).run()

    (failed,) = result.failures
    assert (failed.input, failed.status, failed.passed) == ("bad", "error", False)
    assert failed.error is not None
    assert (failed.error.kind, failed.error.type, failed.error.message) == ("agent", "ValueError", "not this one")
    assert [o.name for o in failed.observations] == ["fragile", "shout"]
    assert result.summary.failed == 1
    assert result.summary.errors[0].place is not None
    assert result.summary.errors[0].place.startswith(__file__)
    assert result.exit_code == 0


def test_exit_code_1_when_every_run_failed() -> None:
    """An agent that never succeeds gives exit code 1."""

    def broken(text: str) -> str:
        raise RuntimeError(text)

    assert Experiment(target=broken, inputs=["a", "b"]).run().exit_code == 1


@pytest.mark.parametrize(("gate", "code"), [(0.5, 0), ("50%", 0), (0.51, 1), ("100%", 1), (0, 0)])
def test_the_gate_is_on_the_pass_rate(gate: Any, code: int) -> None:
    """`fail_under` compares the share of passed runs, and is met by equality."""

    def half(text: str) -> str:
        if text == "bad":
            raise RuntimeError
        return text

    assert Experiment(target=half, inputs=["good", "bad"], fail_under=gate).run().exit_code == code


def test_a_file_gives_the_configuration_and_arguments_win(folder: Path) -> None:
    """`Experiment("configs/simulation.yaml", iterations=...)` reads the file relative to its project."""
    (folder / "configs").mkdir()
    (folder / "inputs").mkdir()
    (folder / "configs/simulation.yaml").write_text("runner: {target: 'agent_of_file:run', iterations: 2}\n")
    (folder / "inputs/generated.yaml").write_text("generated_inputs: [a, b]\n")
    (folder / "agent_of_file.py").write_text("def run(x):\n    return x * 2\n")

    experiment = Experiment("configs/simulation.yaml", iterations=3)

    assert experiment.config.runner.iterations == 3
    assert [case.id for case in experiment.cases] == ["input_001", "input_002"]
    assert len(experiment.plan()) == 6
    result = experiment.run()
    assert result.path.name.startswith("agent_of_file_")
    assert {trace.output for trace in result} == {"aa", "bb"}


def test_looking_at_an_experiment_writes_nothing(folder: Path) -> None:
    """`cases`, `plan()` and `preview()` leave no trace on the disk."""
    experiment = Experiment(target=echo, inputs=["a"], iterations=3)

    assert (len(experiment.cases), len(experiment.plan())) == (1, 3)
    preview = str(experiment.preview())
    assert "input → text" in preview
    assert "runs        3" in preview
    assert list(folder.iterdir()) == []


def test_an_experiment_may_run_twice() -> None:
    """A second run makes a second directory, also in the same second."""
    experiment = Experiment(target=echo, inputs=["a"], name="twice", seed=3)

    first, second = experiment.run(), experiment.run()

    assert first.path != second.path
    assert [t.seed for t in first] == [t.seed for t in second]


def test_seeds_are_the_same_for_the_same_seed_and_drawn_otherwise() -> None:
    """A run's seed depends on the experiment's seed, the input's id and the iteration alone."""

    def seeded(text: str) -> float:
        run = fluxloop.current_run()
        assert run is not None
        return random.Random(run.seed).random()

    def outputs(seed: int | None) -> list[Any]:
        return [t.output for t in Experiment(target=seeded, inputs=["a", "b"], iterations=2, seed=seed).run()]

    assert outputs(5) == outputs(5)
    assert len(set(outputs(5))) == 4
    assert outputs(None) != outputs(None)


def test_the_drawn_seed_is_saved() -> None:
    """A seed that was drawn stands in config.yaml and in summary.json."""
    experiment = Experiment(target=echo, inputs=["a"])
    path = experiment.run().path

    assert json.loads((path / "summary.json").read_text())["ran_on"]["seed"] == experiment.config.seed
    assert f"seed: {experiment.config.seed}" in (path / "config.yaml").read_text()


def test_run_async_leaves_the_loop_free() -> None:
    """While `await run_async()` waits, other tasks of the loop go on."""
    beside = threading.Event()

    def agent(text: str) -> bool:
        return beside.wait(10)

    async def main() -> ExperimentResult:
        async def set_it() -> None:
            beside.set()

        waiting = asyncio.create_task(Experiment(target=agent, inputs=["a"]).run_async())
        await asyncio.sleep(0)
        await set_it()
        return await waiting

    assert [trace.output for trace in asyncio.run(main())] == [True]


def test_cancelling_run_async_keeps_what_is_done(folder: Path) -> None:
    """A cancelled `run_async()` lets the run in flight finish and leaves a whole directory."""
    started = threading.Event()
    go_on = threading.Event()

    def agent(text: str) -> str:
        started.set()
        go_on.wait(10)
        return text

    async def main() -> None:
        task = asyncio.create_task(Experiment(target=agent, inputs=["a", "b", "c"]).run_async())
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (path,) = (folder / "experiments").iterdir()
    result = fluxloop.load(path)
    assert (result.summary.status, result.summary.stop_reason) == ("interrupted", "cancelled")
    assert (result.summary.total_traces, result.summary.not_run) == (1, 2)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_run_works_inside_a_running_loop(kind: str) -> None:
    """`run()` may be called where an event loop runs, as in a notebook."""

    async def slow(text: str) -> str:
        await asyncio.sleep(0)
        return text

    async def main() -> ExperimentResult:
        return Experiment(target=echo if kind == "sync" else slow, inputs=["a"], iterations=3).run()

    assert asyncio.run(main()).summary.successful == 3


def test_off_the_main_thread_no_handler_is_installed() -> None:
    """An experiment in another thread leaves the signals alone."""
    seen: list[Any] = []

    def agent(text: str) -> str:
        seen.append(signal.getsignal(signal.SIGINT))
        return text

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: Experiment(target=agent, inputs=["a"]).run())
    thread.start()
    thread.join()
    assert seen == [before]


def test_handlers_streams_and_import_path_are_put_back(folder: Path) -> None:
    """After a run the process is as it was."""
    (folder / "elsewhere").mkdir()
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), list(sys.path), os.getcwd())
    streams = (sys.stdout, sys.stderr, sys.breakpointhook)

    Experiment(
        target=echo, inputs=["a"], overrides={"runner": {"working_directory": "elsewhere", "python_path": ["lib"]}}
    ).run()

    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), list(sys.path), os.getcwd())
    assert streams == (sys.stdout, sys.stderr, sys.breakpointhook)


def test_the_working_directory_is_the_agents(folder: Path) -> None:
    """The agent runs in `runner.working_directory`, and results go where they went without it."""
    (folder / "place").mkdir()
    result = Experiment(
        target=lambda text: os.getcwd(), inputs=["a"], settings=["runner.working_directory=place"]
    ).run()

    assert [trace.output for trace in result] == [str(folder / "place")]
    assert result.path.parent == folder / "experiments"


def test_a_missing_working_directory_is_a_configuration_error(folder: Path) -> None:
    """It is told with its key, before anything is written."""
    with pytest.raises(ConfigError, match=r"runner\.working_directory: .*nowhere: No such file"):
        Experiment(target=echo, inputs=["a"], settings=["runner.working_directory=nowhere"]).run()
    assert list(folder.iterdir()) == []


def test_a_target_that_cannot_be_entered_leaves_nothing_behind(folder: Path) -> None:
    """A context manager that fails on entering stops the experiment before its first run."""

    class Closed:
        def __enter__(self) -> Closed:
            raise ConnectionError("no database")

        def __exit__(self, *error: object) -> None: ...

        def run(self, text: str) -> str:
            return text

    with pytest.raises(TargetError, match=r"entering it failed: .*test_experiment\.py:\d+: ConnectionError"):
        Experiment(target=Closed, inputs=["a"]).run()
    assert list((folder / "experiments").iterdir()) == []


def test_a_target_that_cannot_be_left_costs_no_result() -> None:
    """What goes wrong on leaving is a warning; the runs are done and recorded."""

    class Sticky:
        def __enter__(self) -> Sticky:
            return self

        def __exit__(self, *error: object) -> None:
            raise ConnectionError("already gone")

        def run(self, text: str) -> str:
            return text

    with noticed("leaving the target failed: .*ConnectionError: already gone"):
        result = Experiment(target=Sticky, inputs=["a"]).run()
    assert result.summary.status == "completed"


class Backwards:
    """An executor of a user's own."""

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        taken = []
        while planned := schedule.take():
            taken.append(planned)
        with task.open() as runner:
            yield [runner.run(*one) for one in reversed(taken)]


def test_a_users_own_executor() -> None:
    """Results stand in the files in the order the executor yields them."""
    result = Experiment(target=echo, inputs=["a", "b"], executor=Backwards()).run()

    assert [trace.trace_id for trace in result] == ["trace_002", "trace_001"]


class Broken:
    """An executor with a fault."""

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        planned = schedule.take()
        assert planned is not None
        with task.open() as runner:
            yield [runner.run(*planned)]
        raise ZeroDivisionError("a fault of the executor")


def test_our_own_fault_is_never_silent(folder: Path) -> None:
    """A fault in the machinery is raised, and the directory says failed with what was done."""
    with pytest.raises(ZeroDivisionError):
        Experiment(target=echo, inputs=["a", "b"], executor=Broken()).run()

    (path,) = (folder / "experiments").iterdir()
    summary = fluxloop.load(path).summary
    assert (summary.status, summary.total_traces, summary.not_run) == ("failed", 1, 1)
    assert summary.stop_reason == "ZeroDivisionError: a fault of the executor"


def test_config_yaml_runs_the_same_again_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written configuration is enough to run again, from any directory."""
    (folder / "agent_again.py").write_text("def run(x):\n    return x * 2\n")
    (folder / "in.jsonl").write_text('{"input": "a"}\n{"input": "b", "persona": "p"}\n')
    first = Experiment(target="agent_again:run", inputs="in.jsonl", iterations=2, personas=["p"]).run()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    second = Experiment(first.path / "config.yaml").run()

    assert second.path.parent == first.path.parent
    assert [(t.input, t.output, t.seed) for t in first] == [(t.input, t.output, t.seed) for t in second]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("examples.my_agent:run", "my_agent"),
        ("agent:run", "agent"),
        (echo, "test_experiment"),
        ("__main__:answer", "answer"),
        ("__main__:build()", "build"),
        (None, "experiment"),
    ],
)
def test_the_name_comes_from_the_target(target: Any, name: str) -> None:
    """Without a name the last part of the target's module gives it, for a script the function."""
    assert Experiment(target=target).config.name == name


def test_a_lambda_gives_a_name_that_is_a_directory() -> None:
    """What cannot name a directory falls back to `experiment`."""
    agent = lambda text: text  # noqa: E731
    agent.__module__ = "__main__"
    assert Experiment(target=agent, inputs=["a"]).run().path.name.startswith("experiment_")


def test_no_target_is_told_with_the_option() -> None:
    """Running without an agent says which key and which option give it."""
    with pytest.raises(ConfigError, match=r"runner\.target: .*--target"):
        Experiment(inputs=["a"]).run()


def test_what_the_agent_prints_is_kept_with_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Output of a run is in its trace and not on the screen."""

    def talking(text: str) -> str:
        print("said", text)
        print("warned", file=sys.stderr)
        return text

    (trace,) = Experiment(target=talking, inputs=["a"]).run()

    assert (trace.stdout, trace.stderr) == ("said a\n", "warned\n")
    assert capsys.readouterr() == ("", "")


def test_a_console_made_by_a_preview_writes_to_the_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The target is imported once, and what took the streams then serves every experiment on it."""
    (folder / "consoles.py").write_text(
        "import functools, sys\n"
        "from sys import stdout\n"
        "say = functools.partial(print, file=sys.stderr)\n"
        "say('imported')\n"
        "def run(text):\n"
        "    say('said', text)\n"
        "    stdout.write('written')\n"
        "    stdout.buffer.write(b' as bytes')\n"
    )
    experiment = Experiment(target="consoles:run", inputs=["a"])
    experiment.preview()
    traces = [*experiment.run(), *Experiment(target="consoles:run", inputs=["a"]).run()]
    sys.modules["consoles"].say("afterwards")

    assert [(trace.stdout, trace.stderr) for trace in traces] == [("written as bytes", "said a\n")] * 2
    assert capsys.readouterr() == ("", "imported\nafterwards\n")


def test_output_that_is_not_captured_is_left_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """With `capture_output=False` what an agent prints goes where it goes without fluxloop."""

    def talking(text: str) -> str:
        print("said", text)
        print("warned", file=sys.stderr)
        return text

    (trace,) = Experiment(target=talking, inputs=["a"], capture_output=False).run()

    assert (trace.stdout, trace.stderr) == (None, None)
    assert capsys.readouterr() == ("said a\n", "warned\n")


class Undecided(list[str]):
    """Inputs of which one may not ask whether there are any, as of a pandas series."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")


def test_inputs_are_any_iterable() -> None:
    """Nothing but iterating over them is asked of them."""
    assert Experiment(target=echo, inputs=Undecided(["a", "b"])).run().summary.passed == 2


SUGGESTION = r"\[INFO\] The rest will take \d+s; with --parallel 8 about \d+s"


def waiting(text: str) -> str:
    """Wait, as for a model, in the first runs."""
    if text == "slow":
        time.sleep(0.03)
    return text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, 1),
        ({"parallel": 2}, 0),
        ({"executor": "threads"}, 1),
        ({"executor": InlineExecutor()}, 0),
        ({"limit": 11}, 0),
    ],
)
def test_after_ten_runs_one_line_says_what_more_at_a_time_would_save(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any], told: int
) -> None:
    """Once, where nobody has asked for it yet, and where there is more than a second to gain."""
    Experiment(target=waiting, inputs=["slow"] * 10 + ["fast"] * 190, progress=True, **options).run()
    assert len(re.findall(SUGGESTION, capsys.readouterr().err)) == told


def test_an_agent_that_computes_would_gain_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More at a time is suggested where the agent waits, not where it has the processor all the time."""
    monkeypatch.setattr("fluxloop.execution.process_time", time.monotonic)  # a real one varies with the machine
    Experiment(target=waiting, inputs=["slow"] * 10 + ["fast"] * 190, progress=True).run()
    assert "--parallel" not in capsys.readouterr().err


def test_without_a_terminal_progress_is_silent_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A script in a log prints nothing by itself; `progress=True` gives plain lines on stderr."""
    Experiment(target=echo, inputs=["a", "b"], iterations=5).run()
    assert capsys.readouterr() == ("", "")

    Experiment(target=echo, inputs=["a", "b"], iterations=5, progress=True).run()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "[INFO] Starting experiment...",
        "[INFO] Loaded 2 inputs",
        "[INFO] Running 5 iterations per input (10 total runs)",
    ]


def test_results_are_on_disk_while_the_experiment_runs(folder: Path) -> None:
    """Each run reads the lines of all runs before it, and a summary that says running."""

    def counting(text: str) -> list[Any]:
        (path,) = (folder / "experiments").iterdir()
        done = (path / "traces.jsonl").read_bytes().count(b"\n")
        return [done, json.loads((path / "summary.json").read_text())["status"]]

    result = Experiment(target=counting, inputs=["a", "b"], iterations=2).run()

    assert [trace.output for trace in result] == [[number, "running"] for number in range(4)]


def test_a_process_that_dies_loses_no_finished_run(folder: Path) -> None:
    """After `os._exit` in the fourth run the first three are whole, and `load` counts them."""
    (folder / "dying.py").write_text(
        "import os\ndef run(text):\n    if text == 'd':\n        os._exit(9)\n    return text\n"
    )
    code = "from fluxloop import Experiment; Experiment(target='dying:run', inputs=list('abcde')).run()"
    died = subprocess.run([sys.executable, "-c", code], cwd=folder, check=False)

    assert died.returncode == 9
    (path,) = (folder / "experiments").iterdir()
    result = fluxloop.load(path)
    assert [trace.output for trace in result] == ["a", "b", "c"]
    assert (result.summary.status, result.summary.total_traces, result.summary.not_run) == ("running", 3, 2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fates=st.lists(st.sampled_from(["ok", "raise", "exit"]), min_size=1, max_size=6), iterations=st.integers(1, 4))
def test_the_summary_adds_up_to_the_records(fates: list[str], iterations: int) -> None:
    """Counts in summary.json are those of the lines, whatever the runs came to."""

    def agent(text: str) -> str:
        if text == "raise":
            raise ValueError
        if text == "exit":
            sys.exit(3)
        return text

    result = Experiment(target=agent, inputs=fates, iterations=iterations).run()

    told = lines(result.path / "trace_summary.jsonl")
    summary = json.loads((result.path / "summary.json").read_text())
    assert len(told) == len(fates) * iterations == summary["total_traces"] == summary["planned"]
    assert summary["successful"] == sum(line["status"] == "ok" for line in told)
    assert summary["failed"] == sum(line["status"] != "ok" for line in told)
    assert sum(summary["by_status"].values()) == len(told)
    assert sum(group["count"] for group in summary["errors"]) == summary["failed"]


def test_the_repr_says_what_it_is() -> None:
    """An experiment shows its name and target."""
    assert repr(Experiment(target="a.b:run")) == "<Experiment b of a.b:run>"


@pytest.mark.parametrize("end", ["return text", "sys.exit(0)", "raise ValueError", "os._exit(0)"])
def test_a_process_the_agent_forks_does_not_go_on_with_the_experiment(folder: Path, end: str) -> None:
    """However the child's call ends, each run is in the files once."""
    (folder / "forking.py").write_text(
        "import os, sys\n"
        "def run(text):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        f"        {end}\n"
        "    os.waitpid(child, 0)\n"
        "    return text\n"
    )
    code = "from fluxloop import Experiment; Experiment(target='forking:run', inputs=list('abcd')).run()"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)

    (path,) = (folder / "experiments").iterdir()
    assert [line["input"] for line in lines(path / "trace_summary.jsonl")] == list("abcd")


def test_an_agent_may_stop_its_event_loop() -> None:
    """The loop goes on for the runs that follow."""

    async def stopping(text: str) -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return text

    assert Experiment(target=stopping, inputs=["a", "b"]).run().summary.successful == 2


def test_two_experiments_at_once_share_the_import_path(folder: Path) -> None:
    """One that ends does not take away what the other still imports from."""
    (folder / "late_sibling.py").write_text("value = 1\n")
    first_done = threading.Event()
    second_runs = threading.Event()

    def late(text: str) -> int:
        second_runs.set()
        first_done.wait(10)
        import late_sibling  # type: ignore[import-not-found]

        return int(late_sibling.value)

    def early(text: str) -> bool:
        return second_runs.wait(10)

    results: list[ExperimentResult] = []
    thread = threading.Thread(target=lambda: results.append(Experiment(target=late, inputs=["a"]).run()))
    one = threading.Thread(target=lambda: Experiment(target=early, inputs=["a"], name="early").run())
    one.start()
    thread.start()
    one.join()
    first_done.set()
    thread.join()
    assert [trace.output for trace in results[0]] == [1]
    assert str(folder) not in sys.path


def test_an_agent_that_closes_or_wraps_its_streams_closes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The process's own streams outlive what agents do to `sys.stdout`."""

    def closing_it(text: str) -> str:
        import io

        print("before")
        wrapped = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
        wrapped.write("wrapped\n")
        wrapped.close()
        sys.stdout.close()
        sys.stderr.close()
        return text

    result = Experiment(target=closing_it, inputs=["a", "b"], capture_output=True).run()
    print("still here")
    assert [trace.stdout for trace in result] == ["before\nwrapped\n"] * 2
    assert capsys.readouterr().out == "still here\n"


def test_the_agents_directory_changes_do_not_outlive_the_experiment(folder: Path) -> None:
    """Also when it removes the directory it has gone to."""

    def wandering(text: str) -> str:
        place = folder / "gone"
        place.mkdir(exist_ok=True)
        os.chdir(place)
        place.rmdir()
        return text

    result = Experiment(target=wandering, inputs=["a"]).run()
    assert os.getcwd() == str(folder)
    assert "1 of 1" in repr(result)


class Forgetful:
    """An executor that loses runs."""

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        with task.open() as runner:
            first = schedule.take()
            schedule.take()
            if first:
                yield [runner.run(*first)]


def test_runs_an_executor_loses_are_not_passed_over() -> None:
    """An experiment with runs that did not come back is not completed, and its code is 1."""
    result = Experiment(target=echo, inputs=["a", "b"], executor=Forgetful()).run()

    assert (result.summary.status, result.summary.not_run, result.exit_code) == ("stopped", 1, 1)
    assert "Forgetful gave back 1 of 2 runs" in str(result.summary.stop_reason)


@pytest.mark.parametrize("executor", [Forgetful, 4])
def test_what_is_no_executor_is_refused(executor: Any) -> None:
    """A class, or anything without `run`, is told at once."""
    with pytest.raises(TypeError, match=r"executor: expected a name, or an object with run\(task, schedule\)"):
        Experiment(target=echo, inputs=["a"], executor=executor)


def test_what_is_no_sink_is_refused() -> None:
    """A class or a text in the place of a sink is told at once."""
    with pytest.raises(TypeError, match=r"sinks: expected objects of subclasses of fluxloop\.TraceSink"):
        Experiment(target=echo, inputs=["a"], sinks=[MemorySink])  # type: ignore[list-item]


def test_the_import_time_directory_is_the_runs(folder: Path) -> None:
    """Looking at a plan imports the agent where running it would."""
    (folder / "place").mkdir()
    (folder / "place" / "data.txt").write_text("here")
    (folder / "place" / "reads_at_import.py").write_text(
        "import pathlib\ntext = pathlib.Path('data.txt').read_text()\ndef run(x):\n    return text\n"
    )
    experiment = Experiment(target="reads_at_import:run", inputs=["a"], settings=["runner.working_directory=place"])

    assert "reads_at_import:run" in str(experiment.preview())
    assert [trace.output for trace in experiment.run()] == ["here"]


def test_a_result_whose_file_was_cut_is_not_read_in_silence(folder: Path) -> None:
    """Iterating over fewer traces than the summary counts says where they end."""
    result = Experiment(target=echo, inputs=["a", "b", "c"]).run()
    whole = (result.path / "traces.jsonl").read_bytes()
    (result.path / "traces.jsonl").write_bytes(whole[: whole.index(b"\n") + 1])

    with pytest.raises(OutputError, match=r"traces\.jsonl: ends after 1 of the 3 runs"):
        list(fluxloop.load(result.path / "summary.json"))


def test_containers_of_every_kind_are_the_runs_own() -> None:
    """What an agent does to its input does not reach the next iteration."""

    def growing(input: Any) -> int:
        input.append(1)
        return len(input)

    cyclic: list[Any] = []
    cyclic.append(cyclic)
    for value in ([], deque(), cyclic):
        result = Experiment(target=growing, inputs=[{"input": value}], iterations=3).run()
        assert len({trace.output for trace in result}) == 1
