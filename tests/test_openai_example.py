"""examples/openai_agent, against a service on loopback that is now and then overloaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.model_service import INPUT_TOKENS, OUTPUT_TOKENS, Chat, model_service, overloaded
from tests.serving import Answer

FOLDER = Path(__file__).parent.parent / "examples" / "openai_agent"
RUNS = 12
TOOLS = {"where": "find_order", "chair": "find_order", "to-france": "shipping_cost", "hello": None}
"""What the model below uses for each input."""


class Desk:
    """A model that looks before it answers; every fifth request finds it overloaded."""

    def __init__(self) -> None:
        self.asked = 0
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, chat: Chat) -> Answer | str | dict[str, Any]:
        with self._lock:
            self.asked += 1
            if self.asked % 5 == 1 and self.refused < 8:  # else a run may meet it at each of its attempts
                self.refused += 1
                return overloaded()
        *_, last = chat["messages"]
        if last["role"] == "tool":
            return f"I looked: {last['content']}"
        if order := re.search(r"A-\d+", last["content"]):
            return {"find_order": {"order_id": order[0]}}
        if "3 kg" in last["content"]:
            return {"shipping_cost": {"country": "fr", "kilograms": 3}}
        return "Orders and shipping."


def fluxloop(folder: Path, url: str, *command: str) -> str:
    environment = {
        **os.environ,
        "OPENAI_MODEL": "gpt-4o-mini",
        "OPENAI_API_KEY": "sk-of-nobody-at-all",
        "OPENAI_BASE_URL": f"{url}/v1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "fluxloop_cli", *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "openai_agent"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("experiments", "__pycache__"))
    return folder


def test_the_openai_agent_answers_through_overload(folder: Path) -> None:
    """Every run ends well; each 429 is an attempt more, and no retry asks sooner than the service wants."""
    desk = Desk()
    with model_service(desk) as service:
        path = fluxloop(folder, service.url, "run", "experiment", "--set", "runner.retry_delay_seconds=0", "--quiet")

    traces = [json.loads(line) for line in (folder / path.strip() / "traces.jsonl").read_text().splitlines()]
    summary = json.loads((folder / path.strip() / "summary.json").read_text())
    assert (len(traces), summary["passed"], summary["infrastructure"]) == (RUNS, RUNS, 0)
    assert desk.refused == sum(trace["attempts"] - 1 for trace in traces) > 0
    assert {error["type"] for trace in traces for error in trace["errors"]} == {"openai.RateLimitError"}
    answers = {trace["input_id"]: trace["output"] for trace in traces}
    assert answers["where"].startswith('I looked: {"item": "desk lamp"')
    assert answers["to-france"] == 'I looked: {"euros": 8.4}'


def test_the_openai_agent_shows_its_tokens_and_tools(folder: Path) -> None:
    """Each call of the model has its name and usage, each tool what it was given, below the agent."""
    with model_service(Desk()) as service:
        path = fluxloop(folder, service.url, "run", "experiment", "--set", "runner.retry_delay_seconds=0", "--quiet")
    traces = [json.loads(line) for line in (folder / path.strip() / "traces.jsonl").read_text().splitlines()]
    summary = json.loads((folder / path.strip() / "summary.json").read_text())

    answered = 0
    for trace in traces:
        agent, *inner = [one for one in trace["observations"] if one["attempt"] == trace["attempts"]]
        assert (agent["type"], agent["input"]) == ("agent", {"question": trace["input"]})
        used = TOOLS[trace["input_id"]]
        assert [one["name"] for one in inner] == (["ask", used, "ask"] if used else ["ask"])
        assert {one["parent_id"] for one in inner} == {agent["id"]}
        for one in inner:
            if one["type"] == "generation":
                assert one["model"] == "gpt-4o-mini"
                assert one["usage"] == {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    for trace in traces:
        answered += sum(1 for one in trace["observations"] if one["usage"])
    assert summary["usage"] == {"input_tokens": answered * INPUT_TOKENS, "output_tokens": answered * OUTPUT_TOKENS}
    assert "sk-of-nobody-at-all" not in "".join(map(json.dumps, traces))


def test_the_openai_agents_inputs_can_be_multiplied(folder: Path) -> None:
    """The README's commands make inputs, by rule and by the model, and the agent runs on them."""
    with model_service(lambda chat: f"other words {len(chat['messages'][1]['content'])}") as service:
        for line in (folder / "README.md").read_text().splitlines():
            if line.startswith("    fluxloop generate"):
                fluxloop(folder, service.url, *line.split()[1:])
        path = fluxloop(
            folder, service.url, "run", "experiment", "--inputs", "inputs/written.yaml", "--limit", "5", "--quiet"
        )
    summary = json.loads((folder / path.strip() / "summary.json").read_text())
    assert summary["passed"] == 15
    assert summary["pass_rate"]["clusters"] == 3
    assert (folder / "inputs/more.yaml").read_text().count("- id:") == 50
