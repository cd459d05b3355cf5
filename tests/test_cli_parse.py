"""`fluxloop parse experiment`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fluxloop import Experiment
from fluxloop_cli.main import main


def agent(text: str) -> str:
    if text == "bad":
        raise ValueError("cannot")
    return text


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment below the working directory."""
    monkeypatch.chdir(tmp_path)
    return Experiment(target=agent, inputs=["good", "bad"], name="demo").run().path.relative_to(tmp_path)


def parse(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["parse", "experiment", *map(str, arguments)], catch_exceptions=False)


def test_it_tells_where_it_wrote(path: Path) -> None:
    """The index, on standard output, as seen from here; the exit code is 0 although a run failed."""
    told = parse(path)
    assert (told.exit_code, told.output) == (0, f"{path}/index.md\n")
    assert {file.name for file in (path / "per_trace_analysis").iterdir()} == {"trace_001.md", "trace_002.md"}


def test_the_options_do_what_they_say(path: Path) -> None:
    """--output, --only and --overwrite; without the last an earlier report stays."""
    assert parse(path, "--output", "report", "--only", "failed").output == "report/index.md\n"
    assert [file.name for file in Path("report/per_trace_analysis").iterdir()] == ["trace_002.md"]

    again = parse(path, "--output", "report")
    assert again.exit_code == 2
    assert again.stderr == (
        "Error: report/index.md: is there already; --overwrite replaces a report, --output names another folder\n"
    )
    assert parse(path, "--output", "report", "--overwrite").exit_code == 0
    assert len(list(Path("report/per_trace_analysis").iterdir())) == 2


@pytest.mark.parametrize("arguments", [["nowhere"], []])
def test_what_is_no_experiment_is_a_usage_error(path: Path, arguments: list[str]) -> None:
    """Exit code 2, in words."""
    told = parse(*arguments)
    assert told.exit_code == 2
    assert "Error: " in told.stderr


def test_the_command_works_as_a_program(path: Path) -> None:
    """In a process of its own, the summary file named instead of its directory."""
    command = [sys.executable, "-m", "fluxloop_cli", "parse", "experiment", str(path / "summary.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{path}/index.md\n", "")
