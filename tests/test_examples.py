"""The examples, run as a newcomer runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CANNOT_BE_ANSWERED = {"http-request", "pandas", "weather", "docker"}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quickstart twice in a copy of its own; return the folder."""
    folder = tmp_path_factory.mktemp("examples") / "quickstart"
    shutil.copytree(
        ROOT / "examples/quickstart", folder, ignore=shutil.ignore_patterns("experiments", "__pycache__", ".*")
    )
    for name in ("first", "second"):
        command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--name", name, "--quiet"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def traces(folder: Path, name: str) -> list[dict[str, Any]]:
    (path,) = (folder / "experiments").glob(f"{name}_*")
    return [json.loads(line) for line in (path / "traces.jsonl").read_text().splitlines()]


def test_the_quickstart_answers_what_it_can_and_fails_honestly(quickstart: Path) -> None:
    """Only questions outside the reference fail in every run, with the agent's own exception."""
    runs = traces(quickstart, "first")

    failed = {trace["input_id"] for trace in runs if not trace["passed"]}
    always = {id for id in failed if all(not t["passed"] for t in runs if t["input_id"] == id)}
    assert always == CANNOT_BE_ANSWERED
    assert {trace["error"]["type"] for trace in runs if trace["error"]} == {"agent.NotInReferenceError"}
    assert len({trace["input_id"] for trace in runs}) >= 20
    assert len({trace["persona"] for trace in runs}) >= 3


def test_the_quickstart_shows_its_tools(quickstart: Path) -> None:
    """Each answered run holds the agent and its two tools below it."""
    for trace in traces(quickstart, "first"):
        agent, *tools = trace["observations"]
        assert agent["type"] == "agent"
        assert {tool["parent_id"] for tool in tools} == {agent["id"]}
        assert [tool["name"] for tool in tools] == (["search", "read"] if trace["passed"] else ["search"])


def test_the_quickstart_repeats_itself(quickstart: Path) -> None:
    """The configured seed makes two experiments give the same answers, and runs of one input differ."""
    first, second = (
        [(t["trace_id"], t["output"], t["status"]) for t in traces(quickstart, name)] for name in ("first", "second")
    )
    assert first == second

    outputs: dict[str, set[str]] = {}
    for trace in traces(quickstart, "first"):
        outputs.setdefault(trace["input_id"], set()).add(trace["output"])
    assert any(len(different) > 1 for different in outputs.values())
