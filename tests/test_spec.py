"""The documentation of `fluxloop run experiment`, followed word for word by a newcomer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = """\
runner:
  target: "examples.my_agent:run"
  iterations: 10

output:
  directory: "experiments"
  format: jsonl
"""
INPUTS = """\
generated_inputs:
  - input: "How do I start?"
    persona: novice_user
  - input: "What are advanced options?"
    persona: expert_user
"""
AGENT = """\
# Your agent (examples/my_agent.py)
import fluxloop

@fluxloop.agent()
def run(input_text: str) -> str:
    return process(input_text)
"""
PROCESS = """
def process(text):
    return text.upper()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in {
        "configs/simulation.yaml": CONFIG,
        "inputs/generated.yaml": INPUTS,
        "examples/my_agent.py": AGENT + PROCESS,
        "my-custom-inputs.yaml": "- only this one\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def fluxloop(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fluxloop_cli", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)


def only_experiment(project: Path) -> Path:
    (path,) = (project / "experiments").iterdir()
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_snippets_run_as_they_stand(project: Path) -> None:
    """Pasted into a new folder they give the five files, with the fields the documentation names."""
    fluxloop(project, "run", "experiment")

    path = only_experiment(project)
    assert re.fullmatch(r"my_agent_\d{8}_\d{6}", path.name)
    assert {file.name for file in path.iterdir()} == {
        "summary.json",
        "trace_summary.jsonl",
        "traces.jsonl",
        "observations.jsonl",
        "config.yaml",
    }
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["total_traces"], summary["successful"], summary["failed"]) == (20, 20, 0)
    assert summary["avg_duration_ms"] > 0
    assert summary["started_at"] < summary["completed_at"]
    first = lines(path / "trace_summary.jsonl")[0]
    assert (first["trace_id"], first["input"], first["output"]) == ("trace_001", "How do I start?", "HOW DO I START?")
    assert first["duration_ms"] > 0
    assert len(lines(path / "observations.jsonl")) == 20
    assert all(len(trace["observations"]) == 1 for trace in lines(path / "traces.jsonl"))


def test_progress_reads_as_documented(project: Path) -> None:
    """The lines on screen are those of the documentation."""
    done = fluxloop(project, "run", "experiment")

    assert done.stderr.startswith(
        "[INFO] Starting experiment...\n"
        "[INFO] Loaded 2 inputs\n"
        "[INFO] Running 10 iterations per input (20 total runs)\n"
    )


@pytest.mark.parametrize(
    ("options", "runs", "name"),
    [
        (("--iterations", "20"), 40, "my_agent_"),
        (("--name", "baseline-test"), 20, "baseline-test_"),
        (("--inputs", "my-custom-inputs.yaml"), 10, "my_agent_"),
        (("--inputs", "my-custom-inputs.yaml", "--name", "batch1"), 10, "batch1_"),
    ],
)
def test_the_documented_examples(project: Path, options: tuple[str, ...], runs: int, name: str) -> None:
    """Each example command of the documentation does what it says."""
    fluxloop(project, "run", "experiment", *options)

    path = only_experiment(project)
    assert path.name.startswith(name)
    assert len(lines(path / "traces.jsonl")) == runs


def test_output_dir(project: Path) -> None:
    """`--output-dir` is where the experiment's own directory is made."""
    fluxloop(project, "run", "experiment", "--output-dir", "results")

    assert not (project / "experiments").exists()
    assert len(list((project / "results").iterdir())) == 1


def test_a_failing_run_is_captured_and_the_experiment_continues(project: Path) -> None:
    """Graceful failures: the error is in the trace and the summary counts it."""
    broken = (
        AGENT + "\ndef process(text):\n    if 'advanced' in text:\n        raise RuntimeError('no')\n    return text\n"
    )
    (project / "examples/my_agent.py").write_text(broken)
    fluxloop(project, "run", "experiment")

    path = only_experiment(project)
    assert json.loads((path / "summary.json").read_text())["failed"] == 10
    failed = [trace for trace in lines(path / "traces.jsonl") if trace["error"]]
    assert {trace["error"]["message"] for trace in failed} == {"no"}
    assert failed[0]["observations"][0]["error"] == {"type": "RuntimeError", "message": "no"}


def test_an_invalid_configuration_stops_at_once(project: Path) -> None:
    """Critical failures: the message shows what to fix, and nothing is written."""
    (project / "configs/simulation.yaml").write_text(CONFIG.replace("10", "ten"))
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    expected = "configs/simulation.yaml:3:15: runner.iterations: expected an integer >= 1, got 'ten'"
    assert expected in done.stderr
    assert not (project / "experiments").exists()
