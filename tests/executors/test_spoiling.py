"""An agent spoils what a process has in common: the other runs, and what is recorded, do not suffer from it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.executors import spoiling_agents
from tests.executors.spoiling_agents import CLOSING, SPOILING

HERE = [("inline", "agent"), ("inline", "async_agent"), ("threads", "agent"), ("asyncio", "async_agent")]
"""Where agents share their process with what records them."""
ELSEWHERE = [
    ("freezes time", "agent"),
    ("travels in time", "async_agent"),
    ("patches clocks", "agent"),
    ("patches sleeping", "async_agent"),
    ("patches processes", "agent"),
    ("patches files", "async_agent"),
    ("has a failing task factory", "async_agent"),
]


@pytest.fixture(scope="module", params=HERE, ids="-".join)
def spoiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of experiments, each with one such agent among its runs."""
    executor, kind = request.param
    folder = tmp_path_factory.mktemp(executor)
    command = [sys.executable, "-m", spoiling_agents.__name__, json.dumps([executor, kind, str(folder)])]
    root = Path(__file__).parent.parent.parent
    subprocess.run(command, cwd=root, check=True, stdin=subprocess.DEVNULL)
    return folder


def traces(place: Path) -> list[dict[str, Any]]:
    (file,) = place.glob("spoiled_*/traces.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_all_is_well(place: Path, text: str) -> None:
    """Every run is recorded once, as it was, at the time and for as long as it was."""
    recorded = traces(place)
    assert sorted(trace["input"] for trace in recorded) == sorted([text, *"abcd"])
    (file,) = place.glob("spoiled_*/summary.json")
    summary = json.loads(file.read_text())
    assert summary["status"] == "completed"
    now = datetime.now(UTC)
    for at in (summary["completed_at"], *(trace[key] for trace in recorded for key in ("start_time", "end_time"))):
        assert now - timedelta(minutes=10) < datetime.fromisoformat(at) <= now + timedelta(seconds=1)
    for trace in recorded:
        assert (trace["status"], trace["output"], trace["error"]) == ("ok", trace["input"], None)
        assert 0 <= trace["duration_ms"] < 60_000
        assert [one["duration_ms"] >= 0 for one in trace["observations"]] == [True] * len(trace["observations"])
        named = [one["input"]["text"] for one in trace["observations"]]
        assert (named[0], named[-1]) == (trace["input"], trace["input"])
        assert trace["stdout"] == f"at {trace['input']}\n"


@pytest.mark.parametrize("text", SPOILING)
def test_a_process_that_an_agent_spoils_costs_no_run(spoiled: Path, text: str) -> None:
    """Its own run and all others pass, each recorded once, with its real times and durations."""
    assert (spoiled / text / "outcome").read_text() == "completed, 0"
    assert_all_is_well(spoiled / text, text)


@pytest.mark.parametrize("text", CLOSING)
def test_an_agent_that_closes_the_results_is_told_so(spoiled: Path, text: str) -> None:
    """No run is missing without a word, and nothing is written into files of others."""
    outcome = (spoiled / text / "outcome").read_text()
    assert outcome.startswith("SinkError: ")
    assert "the agent has closed the files of its process; run it with executor processes" in outcome


@pytest.mark.parametrize(("text", "kind"), ELSEWHERE)
def test_a_worker_that_an_agent_spoils_costs_no_run(text: str, kind: str, tmp_path: Path) -> None:
    """Nor do the runs that follow in the same worker, though their time is kept there."""
    result = spoiling_agents.run(text, "processes", kind, tmp_path).run()
    assert (result.summary.status, result.exit_code) == ("completed", 0)
    assert_all_is_well(tmp_path, text)
