"""The examples, run as a newcomer runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
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


KEY = "k-of-the-customer"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Start the order desk on loopback, ask it twice while it records, and stop it; return its folder."""
    folder = tmp_path_factory.mktemp("examples") / "record_replay"
    shutil.copytree(ROOT / "examples/record_replay", folder, ignore=shutil.ignore_patterns("recordings", "__pycache__"))
    switch = {"FLUXLOOP_RECORD_ARGS": "true", "FLUXLOOP_RECORDING_FILE": "recordings/args.jsonl"}
    command = [sys.executable, "-u", "server.py", "0"]
    with subprocess.Popen(command, cwd=folder, env=os.environ | switch, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().split()[-1]
            assert asked(url, "hello") == ["Hello Ann!", "Which order is it about? Its number looks like A-17."]
            with pytest.raises(urllib.error.HTTPError, match="404"):
                asked(url, "Z-99?")
        finally:
            server.terminate()
    return folder


def asked(url: str, content: str) -> Any:
    payload = {"customer": {"name": "Ann", "api_key": KEY}, "message": {"content": content}}
    request = urllib.request.Request(url, json.dumps(payload).encode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, whatever proxy there is
    with opener.open(request) as answer:
        return json.load(answer)["answers"]


def replay(folder: Path, *options: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--quiet", *options]
    environment = os.environ if key is None else os.environ | {"DESK_API_KEY": key}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_desk_records_its_requests(desk: Path) -> None:
    """Payload and callback of each, the customer's key masked."""
    lines = [json.loads(line) for line in (desk / "recordings/args.jsonl").read_text().splitlines()]
    assert [line["target"] for line in lines] == ["server:handle"] * 2
    assert lines[0]["args"] == [{"customer": {"name": "Ann", "api_key": "***"}, "message": {"content": "hello"}}]
    assert lines[0]["kwargs"] == {"send": {"$callable": "builtins:list.append"}}


def test_the_desk_is_replayed_with_new_inputs(desk: Path) -> None:
    """Each input is answered as the recorded customer's, through a collector; only the unknown order fails."""
    assert replay(desk, "--name", "new").returncode == 0
    runs = traces(desk, "new")
    outputs = {trace["input_id"]: trace["output"] for trace in runs}
    assert outputs["two"] == ["Hello Ann!", "Order A-17: shipped on Monday.", "Order B-42: waiting for a part."]
    assert {trace["input_id"] for trace in runs if trace["error"]} == {"unknown"}
    assert len(runs) == 8
    sent = [one["input"] for one in runs[0]["observations"] if one["type"] == "event"]
    assert sent == outputs["known"]
    assert KEY not in json.dumps(runs)


def test_the_desk_is_not_replayed_without_the_key(desk: Path) -> None:
    """The masked value is asked for by name, before the first run."""
    done = replay(desk, "--name", "keyless", "--set", "replay_args.values={}", key=None)
    assert done.returncode == 2
    assert "data.customer.api_key is masked in the recording" in done.stderr
