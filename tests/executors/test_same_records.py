"""The same experiment gives the same records, wherever its runs happen."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment, ExperimentResult
from fluxloop.store.layout import OBSERVATIONS, SUMMARY, TRACE_SUMMARY, TRACES

EXECUTORS = {
    "inline": {"executor": "inline"},
    "asyncio": {"executor": "asyncio", "parallel": 4},
    "threads": {"executor": "threads", "parallel": 4},
    "processes": {"executor": "processes", "parallel": 4},
}
"""Every executor, as options of an experiment; one that is new joins here."""
ASYNC_ONLY = {"asyncio"}

Files = dict[str, Any]

AGENTS = {"sync": "mixed_agent:answer", "async": "mixed_agent:answer_async"}

INPUTS = [
    {"input": "plain", "persona": "novice", "expected": "PLAIN"},
    {"input": "broken", "persona": "expert", "expected": None},
    {"input": "reset", "persona": "novice", "source_id": "s1", "colour": "red"},
    {"input": "cause", "metadata": {"level": 2}},
    {"input": "down"},
    {"input": "exit", "persona": "expert"},
]

# Of a line or a summary: what no two experiments share.
TIMES = {"start_time", "end_time", "duration_ms", "total_ms", "avg_duration_ms", "started_at", "completed_at"}
# Of a group of errors: which run was the first of it.
FIRST = {"trace_id", "input_id"}


def run(folder: Path, executor: str, agent: str) -> ExperimentResult:
    return Experiment(
        target=AGENTS[agent],
        inputs=INPUTS,
        iterations=3,
        name="mixed",
        seed=7,
        output_dir=folder,
        max_retries=1,
        capture_output=True,
        overrides={"runner.python_path": [str(Path(__file__).parent)], "runner.retry_delay_seconds": 0},
        **EXECUTORS[executor],
    ).run()


def comparable(result: ExperimentResult) -> Files:
    """All files of an experiment without times, with observation ids by position, in the order of the plan."""
    traces = sorted(lines(result.path / TRACES), key=itemgetter("trace_id"))
    names = {
        observation["id"]: f"{trace['trace_id']}/{position}"
        for trace in traces
        for position, observation in enumerate(trace["observations"])
    }
    summary = json.loads((result.path / SUMMARY).read_text())
    summary["errors"] = sorted(
        ({key: value for key, value in group.items() if key not in FIRST} for group in summary["errors"]), key=str
    )
    for rows, key in (("personas", "persona"), ("failing_inputs", "input_id")):
        summary[rows].sort(key=itemgetter(key))
    summary["ran_on"] = {key: summary["ran_on"][key] for key in ("seed", "inputs_digest")}
    short = sorted(lines(result.path / TRACE_SUMMARY), key=itemgetter("trace_id"))
    observed = sorted(lines(result.path / OBSERVATIONS), key=lambda line: names[line["id"]])
    return {
        TRACES: timeless(traces, names),
        TRACE_SUMMARY: timeless(short, names),
        OBSERVATIONS: timeless(observed, names),
        SUMMARY: timeless(summary, names),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(value: Any, names: dict[str, str]) -> Any:
    """The value without times, and with the names of observations in place of their ids."""
    if isinstance(value, dict):
        return {key: timeless(item, names) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [timeless(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Files]:
    """The files of an agent's experiment, run inline."""

    @functools.cache
    def files(agent: str) -> Files:
        return comparable(run(tmp_path_factory.mktemp(agent), "inline", agent))

    return files


@pytest.mark.parametrize(
    ("executor", "agent"),
    [(name, kind) for name in EXECUTORS for kind in AGENTS if kind == "async" or name not in ASYNC_ONLY],
)
def test_the_records_are_the_same_under_every_executor(
    executor: str, agent: str, inline: Callable[[str], Files], tmp_path: Path
) -> None:
    """Up to times, observation ids and the order of lines, all four files say the same."""
    assert comparable(run(tmp_path, executor, agent)) == inline(agent)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_experiment_compared_has_something_of_everything(agent: str, inline: Callable[[str], Files]) -> None:
    """Successes, failures of both kinds, retries, printed text, nested observations and seeds."""
    files = inline(agent)
    by_input = {trace["input"]: trace for trace in files[TRACES]}
    assert {name: trace["status"] for name, trace in by_input.items()} == {
        **dict.fromkeys(["broken", "cause", "down", "exit"], "error"),
        **dict.fromkeys(["plain", "reset"], "ok"),
    }
    kinds = {name: trace["error"]["kind"] for name, trace in by_input.items() if trace["error"]}
    assert kinds == {"broken": "agent", "cause": "agent", "down": "infrastructure", "exit": "agent"}
    assert {name for name, trace in by_input.items() if trace["attempts"] == 2} == {"reset", "down"}

    reset = by_input["reset"]
    assert [error["type"] for error in reset["errors"]] == ["ConnectionResetError"]
    assert {observation["attempt"] for observation in reset["observations"]} == {1, 2}
    assert reset["stdout"] == "reset begins\nreset begins\nreset ends\n"
    assert reset["stderr"] == "reset goes on\n" * 2
    assert all(trace["output"]["memory"] == "nothing" for trace in files[TRACES] if trace["output"])
    assert len({trace["output"]["drawn"] for trace in files[TRACES] if trace["output"]}) == 6

    observed = by_input["plain"]["observations"]
    parents = {observation["name"]: observation["parent_id"] for observation in observed}
    assert parents["generate"] == parents["doubt"] == next(o["id"] for o in observed if o["name"] == "second thoughts")
    assert files[SUMMARY]["retries"] == 6
