"""What agents do wrong on a cluster: it costs their own run, and shows nothing of Ray."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import fluxloop
from fluxloop import ExperimentResult, Trace
from tests.ray.conftest import Run, command, is_alive, numbers
from tests.ray.nodes import Nodes
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

FAULTS = {
    "exits": ("crashed", "its worker process ended with exit code 7"),
    "segfaults": ("crashed", "its worker process was killed by signal 11 (SIGSEGV)"),
    "kills_itself": ("crashed", "its worker process was killed by signal 9 (SIGKILL)"),
    "leaves_a_process_and_dies": ("crashed", "its worker process ended with exit code 8"),
    "wants_memory": ("error", ""),
    "raises": ("error", "nothing there"),
    "hangs": ("timeout", "no answer within 1 s (runner.timeout_seconds)"),
    "hangs_deaf": ("timeout", "no answer within 1 s (runner.timeout_seconds)"),
    "holds_the_interpreter": ("timeout", "no answer within 1 s (runner.timeout_seconds); its worker process did not"),
    "returns_what_cannot_be_pickled": ("ok", None),
    "returns_much": ("ok", None),
    "leaves_a_process": ("ok", None),
    "has_threads": ("ok", None),
    "changes_directory": ("ok", None),
}
"""The status of each, and how what is told of it begins."""


def by_input(result: ExperimentResult) -> dict[str, Trace]:
    found = {str(trace.input): trace for trace in result}
    assert len(found) == result.summary.total_traces
    return found


def test_a_fault_costs_its_own_run_and_no_other(two_nodes: Nodes, project: Path) -> None:
    """All the others end well, what died tells how, nothing of it is left, and nothing of Ray is on the screen."""
    place = project.parent / "left"
    inputs = [text for fault in FAULTS for text in (fault, f"fine beside {fault}")]
    (project / "in.csv").write_text("input\n" + "".join(f"{text}\n" for text in inputs))
    options = ["--target", "crew:faulty", "--inputs", "in.csv", "--parallel", "3", "--timeout", "1"]
    options += ["--set", f"runner.args.place={place}", "--set", "runner.max_crash_retries=0"]
    done = subprocess.run(command(two_nodes, *options), capture_output=True, text=True)

    ours = ("[INFO] ", "[WARN] trace_", "[WARN] Further kinds of failure are told at the end.")
    assert [line for line in done.stderr.splitlines() if not line.startswith(ours)] == []
    assert done.stdout.startswith("  runs      28 of 28: 19 passed, 9 failed\n  pass rate 67.9%")
    assert all(line.startswith("  ") for line in done.stdout.splitlines())
    (path,) = project.glob("experiments/*")
    traces = by_input(fluxloop.load(path))
    for text in inputs:
        trace = traces[text]
        status, told = FAULTS.get(text, ("ok", None))
        assert (text, trace.status) == (text, status)
        if told is None:
            assert trace.error is None
        else:
            assert trace.error is not None
            assert trace.error.message.startswith(told)
        if text.startswith("fine"):
            assert trace.output == text
    assert len(str(traces["returns_much"].output)) == 50_000_000
    assert "hangs here" in str(traces["hangs"].error and traces["hangs"].error.traceback)
    left = numbers(place)
    assert len(left) == 2
    wait_until(lambda: not any(map(is_alive, left)))


@pytest.mark.parametrize("how", ["lingers", "blocks"])
def test_an_async_agent_that_does_not_end_costs_its_own_run(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its worker is killed; what else was in flight there runs again and ends well."""
    place = project.parent / "notes"
    (project / "hasty_crew.py").write_text(
        "import os, fluxloop.runner\n"
        "from crew import neighbours\n"
        "if 'CREW_HERE' not in os.environ:\n"  # where the experiment is
        "    fluxloop.open_target.LINGER = 0.2\n"
    )
    monkeypatch.setenv("CREW_HERE", "1")
    shorts = [f"short {number}" for number in range(40)]
    options = {"args": {"place": str(place)}, "overrides": {"runner.ray.num_cpus": 2}}
    traces = by_input(run("hasty_crew:neighbours", how, *shorts, parallel=4, timeout_seconds=1.5, **options))
    assert {text: trace.status for text, trace in traces.items()} == {**dict.fromkeys(shorts, "ok"), how: "timeout"}
    assert {trace.attempts for trace in traces.values()} == {1}
    begun = Counter(place.read_text().splitlines())
    assert begun.pop(how) == 1
    assert set(begun.values()) == {1, 2}


def test_no_time_of_an_attempt_is_spent_on_imports(
    two_nodes: Nodes, project: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module may take longer than an attempt may."""
    (project / "slow_crew.py").write_text(
        "import os, time\n"
        "def run(text):\n"
        "    return text\n"
        "if 'CREW_HERE' not in os.environ:\n"  # where the experiment is
        "    time.sleep(5)\n"
    )
    monkeypatch.setenv("CREW_HERE", "1")
    result = run("slow_crew:run", "a", "b", parallel=1, timeout_seconds=0.5)
    assert result.summary.passed == 2


def test_an_import_that_fails_on_workers_ends_the_experiment(two_nodes: Nodes, project: Path) -> None:
    """The message names what is missing there, once, and the code is 2."""
    (project / "lost_crew.py").write_text("import os\nTOKEN = os.environ['CREW_TOKEN']\ndef run(text): return text\n")
    (project / "in.csv").write_text("input\na\nb\nc\n")
    options = ["--target", "lost_crew:run", "--inputs", "in.csv", "--parallel", "2"]
    environment = {**os.environ, "CREW_TOKEN": "x"}
    done = subprocess.run(command(two_nodes, *options), capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "lost_crew" in done.stderr
    assert "KeyError: 'CREW_TOKEN'" in done.stderr
    assert done.stderr.count("CREW_TOKEN") == 1
    assert "(in a worker process)" in done.stderr


def test_variables_that_are_named_arrive_and_no_other(
    two_nodes: Nodes, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like a secret is masked in the record as it is anywhere."""
    monkeypatch.setenv("CREW_TOKEN", "sk-very-secret-word")
    monkeypatch.setenv("CREW_PLAIN", "plain words")
    monkeypatch.setenv("CREW_OTHER", "other words")
    options = {"runner.ray.env": ["CREW_TOKEN", "CREW_PLAIN"]}
    (trace,) = run("crew:variables", "a", overrides=options, capture_output=True)
    assert trace.output[1:] == ["plain words", None]
    assert "very-secret" not in str(trace)
    assert trace.stdout == f"{trace.output[0]}\n"


def test_ray_does_not_say_how_many_threads_an_agent_has(run: Run) -> None:
    """As it does by a variable for what runs in its actors."""
    (trace,) = run("crew:threads", "a")
    assert trace.output == os.environ.get("OMP_NUM_THREADS")


def test_a_variable_that_is_not_set_is_told_before_anything_starts(run: Run) -> None:
    """By its name and the key."""
    with pytest.raises(fluxloop.ConfigError, match=r"runner\.ray\.env: expected names .* got CREW_NOWHERE"):
        run("crew:nothing", "a", overrides={"runner.ray.env": ["CREW_NOWHERE"]})
