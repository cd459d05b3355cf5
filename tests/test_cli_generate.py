"""`fluxloop generate inputs`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fluxloop
from fluxloop_cli.main import main
from tests.model_service import Chat, model_service

CONFIG = """\
personas:
  - name: novice_user
    description: New to all this
    goals: [find the guide]
base_inputs:
  - How do I start?
  - input: What are the advanced options of the command line?
    persona: expert_user
"""
AGENT = "import fluxloop\n@fluxloop.agent()\ndef run(input_text):\n    return input_text[::-1]\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    (tmp_path / "examples").mkdir()
    (tmp_path / "configs" / "input.yaml").write_text(CONFIG)
    (tmp_path / "configs" / "simulation.yaml").write_text('runner:\n  target: "examples.my_agent:run"\n')
    (tmp_path / "examples" / "my_agent.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def generate(*options: str) -> Result:
    return CliRunner().invoke(main, ["generate", "inputs", *options])


def test_the_batches_of_the_documentation_run(project: Path) -> None:
    """The specification's batch block, line by line; the batches differ, and each is the same every time."""
    block = """
    fluxloop generate inputs --limit 100 --output inputs/batch1.yaml
    fluxloop generate inputs --limit 100 --output inputs/batch2.yaml
    fluxloop run experiment --inputs inputs/batch1.yaml --name batch1
    fluxloop run experiment --inputs inputs/batch2.yaml --name batch2
    """
    for line in block.split("\n")[1:-1]:
        subprocess.run([sys.executable, "-m", "fluxloop_cli", *line.split()[1:]], check=True, capture_output=True)
    results = {result.summary.experiment_name: result for result in map(fluxloop.load, Path("experiments").iterdir())}
    assert {name: result.summary.passed for name, result in results.items()} == {"batch1": 100, "batch2": 100}
    assert results["batch1"].summary.pass_rate.clusters == 2  # all counts as the two base inputs it was made of
    first, second = ({trace.input for trace in results[name]} for name in ("batch1", "batch2"))
    assert len(first | second) > 150

    written = Path("inputs/batch1.yaml").read_bytes()
    assert generate("--limit", "100", "--output", "inputs/batch1.yaml", "--overwrite").exit_code == 0
    assert Path("inputs/batch1.yaml").read_bytes() == written


def test_the_default_output_is_where_a_run_looks(project: Path) -> None:
    """Without --output and --limit there are a hundred inputs in inputs/generated.yaml."""
    result = generate()
    assert result.exit_code == 0
    assert result.output.startswith("100 inputs (2 base, ")
    assert " in inputs/generated.yaml; seed " in result.output


def test_nothing_is_overwritten_unasked(project: Path) -> None:
    """Exit code 2, and the file is as it was; --overwrite replaces it."""
    Path("mine.jsonl").write_text("mine\n")
    refused = generate("--output", "mine.jsonl")
    assert (refused.exit_code, refused.output) == (
        2,
        "Error: mine.jsonl: is there already; --overwrite replaces it, --output names another\n",
    )
    assert Path("mine.jsonl").read_text() == "mine\n"
    assert generate("--output", "mine.jsonl", "--overwrite", "--quiet").output == "mine.jsonl\n"
    assert Path("mine.jsonl").read_text().count("\n") == 100


def test_material_that_is_too_little_is_told(project: Path) -> None:
    """With how many there could be, on the error stream; what there is is written, and that is no error."""
    result = generate("--limit", "50", "--strategy", "persona", "--output", "few.jsonl")
    assert result.exit_code == 0
    assert "[WARN] the material gives 6 distinct inputs, not 50; more base_inputs, personas or" in result.stderr
    assert Path("few.jsonl").read_text().count("\n") == 6


def test_material_that_is_nothing_leaves_no_file(project: Path) -> None:
    """Exit code 2: never an empty file called done."""
    Path("configs/input.yaml").write_text("base_inputs: [hi]")
    result = generate("--strategy", "persona")
    assert (result.exit_code, "the material gives no input by persona" in result.output) == (2, True)
    assert not Path("inputs").exists() or not list(Path("inputs").iterdir())


def test_a_limit_that_the_base_inputs_fill_is_told(project: Path) -> None:
    """Nothing was varied, which nobody wants."""
    result = generate("--limit", "2", "--output", "two.jsonl")
    assert (result.exit_code, "none is varied; raise --limit" in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--limit", "0"], "Error: --limit: expected an integer >= 1, got 0\n"),
        (["--mode", "magic"], "Error: --mode: expected one of deterministic, llm, got 'magic'\n"),
        (["--output", "a.csv"], "Error: a.csv: expected a file that ends in .yaml, .yml, .jsonl, .ndjson, got .csv\n"),
        (["--output", "configs"], "Error: configs: expected a file that ends in .yaml, .yml, .jsonl, .ndjson, got no"),
        (["-c", "no.yaml"], "Error: no.yaml: no such file; it holds base_inputs and personas; see --config\n"),
        (
            ["--persona", "novice"],
            "Error: --persona: configs/input.yaml has no persona 'novice'; did you mean 'novice_user'",
        ),
        (["--mode", "llm"], "Error: mode llm needs a key, and there is none. "),
        (["--strategy", "rephrase"], "Error: --strategy: expected one of base, error_prone, surface, persona in mode"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(project: Path, options: list[str], told: str) -> None:
    """Exit code 2, with what to do."""
    result = generate(*options)
    assert (result.exit_code, result.output[: len(told)]) == (2, told)
    assert not Path("inputs").exists()


def test_a_persona_can_be_chosen(project: Path) -> None:
    """Its own inputs, and those that are nobody's."""
    assert generate("--persona", "novice_user", "--output", "a.jsonl", "--limit", "40").exit_code == 0
    cases = [line for line in Path("a.jsonl").read_text().splitlines() if "expert_user" in line]
    assert cases == []
    assert generate("--persona", "expert_user", "--output", "b.jsonl", "--limit", "400").exit_code == 0
    assert '"persona":"expert_user"' in Path("b.jsonl").read_text()
    assert "novice_user" not in Path("b.jsonl").read_text()


def test_ctrl_c_keeps_what_the_model_has_written(project: Path) -> None:
    """Exit code 130, with how many are kept and how to go on; the same command then asks for the rest only."""
    written, go_on = threading.Event(), threading.Event()
    asked = []

    def reply(chat: Chat) -> str:
        asked.append(chat)
        if len(asked) == 4 and not go_on.is_set():
            written.set()
            go_on.wait()
        return f"words {len(asked)}"

    with model_service(reply) as service:
        command: Any = [sys.executable, "-m", "fluxloop_cli", "generate", "inputs", "--mode", "llm", "--limit", "8"]
        command += ["--output", "a.jsonl", "--parallel", "1", "--base-url", f"{service.url}/v1"]
        environment = {**os.environ, "OPENAI_API_KEY": "none"}
        running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert written.wait(60)
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=60)
            assert running.returncode == 130
            assert said == (
                "Interrupted; 3 inputs of the model are kept in a.jsonl.partial,"
                " and the same command goes on from there.\n"
            )
            assert not Path("a.jsonl").exists()
        finally:
            go_on.set()
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert len(asked) == 4 + 3
    assert Path("a.jsonl").read_text().count("\n") == 8
    assert not Path("a.jsonl.partial").exists()
