"""The README, held against the program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from ruamel.yaml import YAML

import fluxloop
from fluxloop.config import ExperimentConfig
from fluxloop.config.load import load_config
from fluxloop.generating.settings import GenerationConfig, GenerationSettings, Persona, load_material
from fluxloop_cli.generate import inputs as generate_inputs
from fluxloop_cli.listing import list as list_command
from fluxloop_cli.parse import experiment as parse_experiment
from fluxloop_cli.run import experiment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)(?: ([^\n]*))?\n(.*?)^```$", README, re.M | re.S)

FILES = {info.removeprefix("file="): code for _, info, code in BLOCKS if info.startswith("file=")}
SCRIPTS = [code for language, info, code in BLOCKS if language == "python" and not info]
SNIPPETS = [code for language, info, code in BLOCKS if language == "yaml" and not info]
SHELL = [code for language, info, code in BLOCKS if language == "bash" and not info]


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows[2:]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)


def newest(project: Path) -> Path:
    return max((project / "experiments").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_the_first_two_shell_blocks_set_everything_up() -> None:
    """One installs and runs the quickstart, one installs and runs the tests, each in an environment of its own."""
    first, second = SHELL[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "-m venv .venv" in first
    assert "fluxloop run experiment" in first
    assert "-m venv .venv" in second
    assert "pytest" in second


def test_the_newcomers_project_runs(project: Path) -> None:
    """The files of "Your own agent" and its commands work as they stand."""
    for command in SHELL[2].splitlines():
        run(project, sys.executable, "-m", "fluxloop_cli", *command.split()[1:])

    results = [fluxloop.load(path) for path in (project / "experiments").iterdir()]
    assert sorted((len(result), result.summary.experiment_name) for result in results) == [
        (20, "my_agent"),
        (20, "my_agent"),
        (40, "baseline-test"),
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.strip().splitlines()[-1][:40])
def test_python_blocks_run(project: Path, script: str) -> None:
    """Each Python block is a script that runs as it stands."""
    (project / "script.py").write_text(script, encoding="utf-8")
    run(project, sys.executable, "-W", "error", "script.py")


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_yaml_blocks_are_configurations(project: Path, snippet: str) -> None:
    """Each YAML block without a file name is a valid configuration."""
    (project / "snippet.yaml").write_text(snippet, encoding="utf-8")
    assert load_config(project / "snippet.yaml", environment={}).config.runner.target


@pytest.mark.parametrize("sample", ["summary.json", "trace_summary.jsonl", "observations.jsonl"])
def test_samples_show_keys_that_are_there(project: Path, sample: str) -> None:
    """The samples of files have the keys, and the types, of what a run writes."""
    (shown,) = [json.loads(code) for _, info, code in BLOCKS if info == f"sample={sample}"]
    run(project, sys.executable, "-m", "fluxloop_cli", "run", "experiment")
    lines = (
        [json.loads(line) for line in (newest(project) / sample).read_text().splitlines()] if "l" in sample[-1] else []
    )
    written = lines[-1] if lines else json.loads((newest(project) / sample).read_text())

    if lines:
        assert list(shown) == list(written)
    for key, value in shown.items():
        assert key in written
        assert type(value) in (type(written[key]), int, float, type(None)), key


def test_the_sample_of_traces_has_every_key_in_order(project: Path) -> None:
    """Of the trace, its error and its observations."""
    (shown,) = [json.loads(code) for _, info, code in BLOCKS if info == "sample=traces.jsonl"]
    (project / "failing.py").write_text(
        "import fluxloop\n@fluxloop.agent\ndef run(text):\n    print('looking')\n    raise KeyError('options')\n"
    )
    run(
        project,
        sys.executable,
        "-c",
        "from fluxloop import Experiment; Experiment(target='failing:run', inputs=['a']).run()",
    )
    written = json.loads((newest(project) / "traces.jsonl").read_text())

    assert list(shown) == list(written)
    assert list(shown["error"]) == list(written["error"])
    assert list(shown["observations"][0]) == list(written["observations"][0])
    assert list(shown["observations"][0]["error"]) == list(written["observations"][0]["error"])


def test_the_sample_of_the_configuration_has_every_key_in_order(project: Path) -> None:
    """Down to the keys of each section."""
    (text,) = [code for _, info, code in BLOCKS if info == "sample=config.yaml"]
    run(project, sys.executable, "-m", "fluxloop_cli", "run", "experiment")
    yaml = YAML(typ="safe", pure=True)
    shown, written = yaml.load(text), yaml.load((newest(project) / "config.yaml").read_text())

    assert list(shown) == list(written)
    for section in ("runner", "inputs", "replay_args", "output"):
        assert list(shown[section]) == list(written[section])
    assert list(shown["runner"]["ray"]) == list(written["runner"]["ray"])


def keys_of(kind: type[Any], prefix: str = "") -> set[str]:
    hints = typing.get_type_hints(kind)
    found: set[str] = set()
    for field in attrs.fields(kind):
        below = hints[field.name]
        found |= keys_of(below, f"{prefix}{field.name}.") if attrs.has(below) else {prefix + field.name}
    return found


def test_the_configuration_reference_names_every_key() -> None:
    """The table of keys and the configuration classes name the same."""
    assert {key.strip("`") for key in table("Configuration")} == keys_of(ExperimentConfig)


def test_the_configuration_reference_tells_the_defaults() -> None:
    """A default in the table is the one the classes have."""
    defaults = ExperimentConfig()
    for key, (_, told) in table("Configuration").items():
        value: Any = defaults
        for part in key.strip("`").split("."):
            value = getattr(value, part)
        if told.startswith("`") or told.isdigit():
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            assert (shown.lower() if isinstance(value, bool) else shown) == told.strip("`")
        else:
            assert value in (None, (), {}, ("transient",))


def test_the_option_table_is_that_of_help() -> None:
    """The table of options and `--help` name the same."""
    told = {name.strip("` ") for key in table("The command") for name in key.split(",")}
    real = {option for parameter in experiment.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert told == real


@pytest.mark.parametrize(
    ("heading", "command"),
    [
        ("Generating inputs", generate_inputs),
        ("Reading results as Markdown", parse_experiment),
        ("Listing experiments", list_command),
    ],
)
def test_each_option_table_is_that_of_help(heading: str, command: click.Command) -> None:
    """Of the commands beside `run`, each with a help text and a section of its own."""
    told = {name.strip("` ") for key in table(heading) for name in key.split(",")}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert told == {option for parameter in options for option in (*parameter.opts, *parameter.secondary_opts)}
    assert all(parameter.help for parameter in options)


def test_the_batches_of_generated_inputs_run(project: Path) -> None:
    """The commands of "Generating inputs" work as they stand, on the configuration above them."""
    (commands,) = [code for _, info, code in BLOCKS if info == "generate"]
    for command in commands.splitlines():
        run(project, sys.executable, "-m", "fluxloop_cli", *command.split()[1:])
    results = [fluxloop.load(path) for path in (project / "experiments").iterdir()]
    assert sorted((result.summary.experiment_name, len(result)) for result in results) == [
        ("batch1", 1000),
        ("batch2", 1000),
    ]


def test_the_reference_of_generation_has_every_key_and_its_default(project: Path) -> None:
    """The sample of `configs/input.yaml` names each key there is, and shows the defaults of `input_generation`."""
    (text,) = [code for _, info, code in BLOCKS if info == "input"]
    (project / "input.yaml").write_text(text, encoding="utf-8")
    assert load_material(project / "input.yaml", overrides={}).config.input_generation == GenerationSettings()
    shown = YAML(typ="safe", pure=True).load(text)
    for kind, there in (
        (GenerationConfig, shown),
        (Persona, shown["personas"][0]),
        (GenerationSettings, shown["input_generation"]),
    ):
        assert list(there) == [field.name for field in attrs.fields(kind)]


def test_the_options_the_documentation_names_are_there() -> None:
    """Every option has a help text a newcomer can read."""
    for parameter in experiment.params:
        assert isinstance(parameter, click.Option)
        assert parameter.help
        assert parameter.help.endswith(".") or "E.g. --" in parameter.help or "E.g. -" in parameter.help


def test_exit_codes_are_those_of_the_result() -> None:
    """The table of exit codes lists just the codes there are."""
    assert set(table("Errors and exit codes")) == {"0", "1", "2", "129", "130", "143"}


def test_the_layout_names_what_is_there() -> None:
    """Each file and folder in "How the code is laid out" exists, and none is left out."""
    section = README.split("\n## How the code is laid out\n", 1)[1].split("\n## ", 1)[0]
    told = set(re.findall(r"^  (\w+(?:\.py|/))", section, re.M))
    real = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "fluxloop").iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    }
    small = {"arguments.py", "background.py", "exceptions.py", "interrupt.py", "provenance.py"}
    assert told == real - small
