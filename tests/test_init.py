"""`fluxloop init`: a project that runs at once, and never overwrites."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

import fluxloop
from fluxloop.config import ExperimentConfig, load_config
from fluxloop.config.convert import structure
from fluxloop.config.model import RayConfig
from fluxloop.exceptions import OutputError
from fluxloop.generating.settings import GenerationConfig, load_material
from fluxloop.scaffold.create import PURPOSES, create_project
from fluxloop.scaffold.schemas import schema_text
from fluxloop_cli.main import main

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "fluxloop/scaffold/project"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of fluxloop in a process of its own, which can open no connection."""
    code = "import socket; socket.socket.connect = None; from fluxloop_cli.main import main; main(prog_name='fluxloop')"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    create_project("demo")
    monkeypatch.chdir("demo")
    return tmp_path / "demo"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_runs_offline(tmp_path: Path) -> None:
    """`fluxloop init demo && cd demo && fluxloop run experiment` ends with passes, failures and what to look at."""
    made = run(tmp_path, "init", "demo")
    assert (made.returncode, made.stderr) == (0, "")
    ran = run(tmp_path / "demo", "run", "experiment")

    assert ran.returncode == 0, ran.stderr
    (path,) = (tmp_path / "demo/experiments").iterdir()
    result = fluxloop.load(path)
    assert len(result) == 70
    assert 0.7 < result.summary.pass_rate.value < 0.9
    assert len({trace.input_id for trace in result.failures}) > 1, "one input always fails, others now and then"
    assert {trace.persona for trace in result} == {"novice_user", "expert_user"}
    trace = next(iter(result))
    assert [one.type for one in trace.observations] == ["agent", "tool"]
    assert "examples/my_agent.py:" in ran.stdout


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    """As they stand, in a shell of their own."""
    (block,) = re.findall(r"^```bash init\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    shell = f'set -e; fluxloop() {{ {sys.executable} -m fluxloop_cli "$@"; }}; {block}'
    ran = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pass rate" in ran.stdout


def test_the_same_project_gives_the_same_result(demo: Path) -> None:
    """Its seed is written down."""
    first, second = (fluxloop.Experiment("configs/simulation.yaml", limit=3).run() for _ in range(2))
    assert [trace.output for trace in first] == [trace.output for trace in second]


def test_the_batches_of_the_documentation_run(demo: Path) -> None:
    """Generate in batches, run separately, word for word."""
    for command in (
        "generate inputs --limit 100 --output inputs/batch1.yaml",
        "generate inputs --limit 100 --output inputs/batch2.yaml",
        "run experiment --inputs inputs/batch1.yaml --name batch1",
        "run experiment --inputs inputs/batch2.yaml --name batch2",
    ):
        ran = run(demo, *command.split())
        assert ran.returncode == 0, ran.stderr
    results = [fluxloop.load(path) for path in sorted(Path("experiments").iterdir())]
    assert [(one.summary.experiment_name, len(one)) for one in results] == [("batch1", 1000), ("batch2", 1000)]


REPLAY = """
replay_args:
  enabled: true
  recording_file: "recordings/args.jsonl"
  override_param_path: "data.content"
"""
SERVICE = """
import fluxloop

@fluxloop.record()
def handle(data, send):
    send(data["content"].upper())
"""


def test_the_replay_block_of_the_documentation_runs(demo: Path) -> None:
    """Word for word, at the end of the configuration, with a recording of the project's own service."""
    Path("examples/service.py").write_text(SERVICE)
    record = "from examples.service import handle; handle({'content': 'hi', 'user': 'Ann'}, send=print)"
    environment = {**os.environ, "FLUXLOOP_RECORD_ARGS": "true", "FLUXLOOP_RECORDING_FILE": "recordings/args.jsonl"}
    subprocess.run([sys.executable, "-c", record], env=environment, check=True, capture_output=True)
    with Path("configs/simulation.yaml").open("a") as file:
        file.write(REPLAY)
    ran = run(demo, "run", "experiment", "--target", "examples.service:handle", "--iterations", "1")

    assert ran.returncode == 0, ran.stderr
    (path,) = Path("experiments").iterdir()
    assert [trace.output for trace in fluxloop.load(path)][:2] == ["HOW DO I START?", "WHAT ARE ADVANCED OPTIONS?"]


def test_the_agent_runs_by_itself(demo: Path) -> None:
    """As any script does."""
    command = [sys.executable, "-W", "error", "examples/my_agent.py"]
    ran = subprocess.run(command, cwd=demo, capture_output=True, text=True, check=True)
    assert "fluxloop run experiment" in ran.stdout


def test_it_says_what_it_made_and_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file with what it is for, and commands that work as they stand."""
    monkeypatch.chdir(tmp_path)
    told = invoke("my demo").output
    assert told.startswith("Made in my demo:\n")
    assert [line.split("  ")[1] for line in told.splitlines()[1:8]] == list(PURPOSES)
    assert "\nNext:\n  cd 'my demo'\n  fluxloop run experiment " in told
    assert set(files(tmp_path / "my demo")) == set(PURPOSES)


def test_without_a_folder_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is nothing to change to."""
    monkeypatch.chdir(tmp_path)
    told = invoke().output
    assert told.startswith("Made in this folder:\n")
    assert "cd " not in told
    assert set(files(tmp_path)) == set(PURPOSES)


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there stays, is named, and the rest is written; done again, nothing is."""
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/input.yaml").write_text("mine")
    Path(".gitignore").symlink_to("elsewhere")  # leads nowhere, and is somebody's all the same
    result = invoke()

    assert result.exit_code == 0
    assert "Kept as they are, since they were there:\n  configs/input.yaml\n  .gitignore\n" in result.output
    assert Path("configs/input.yaml").read_text() == "mine"
    assert not Path("elsewhere").exists()
    assert set(files(tmp_path)) == set(PURPOSES) - {".gitignore"}

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = invoke()
    assert again.exit_code == 0
    assert "Made in" not in again.output
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("in_the_way", "told"),
    [
        ("demo", "demo: this is no folder; move it, or name another folder"),
        ("demo/examples", "demo/examples: this is no folder; move it, or name another folder"),
        (
            "demo/inputs/generated.yaml/",
            "demo/inputs/generated.yaml: a folder stands where a file belongs; move it, or",
        ),
    ],
)
def test_what_is_in_the_way_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_the_way: str, told: str
) -> None:
    """With exit code 2; half a project helps nobody."""
    monkeypatch.chdir(tmp_path)
    if in_the_way.endswith("/"):
        Path(in_the_way).mkdir(parents=True)
    else:
        Path(in_the_way).parent.mkdir(exist_ok=True)
        Path(in_the_way).write_text("mine")
    before = files(tmp_path)
    result = invoke("demo")

    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {told}")
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_told() -> None:
    """By the operating system's own word."""
    with pytest.raises(OutputError, match=r"xxx: cannot be made: File name too long"):
        create_project("x" * 300)
    with pytest.raises(OutputError, match=r"simulation.yaml: cannot be written: "):
        create_project("/proc/demo" if os.path.isdir("/proc") else "/dev/demo")


def keys(kind: type[Any]) -> list[str]:
    return [field.name for field in attrs.fields(kind)]


def uncommented(text: str) -> str:
    """The text with every key that is commented out put in force."""
    return re.sub(r"^( *)# ( *\w+:( |$))", r"\1\2", text, flags=re.M)


def test_every_key_of_the_configuration_is_explained() -> None:
    """Each stands in the template, commented out with the default it has, or in force, and with a word on it."""
    text = (TEMPLATES / "configs/simulation.yaml").read_text()
    yaml = YAML(typ="safe", pure=True)
    in_force, whole = yaml.load(text), yaml.load(uncommented(text))
    defaults = ExperimentConfig()
    assert [*whole] == keys(ExperimentConfig)
    for section in ("runner", "inputs", "replay_args", "output"):
        assert set(whole[section]) == set(keys(type(getattr(defaults, section))))
    assert set(whole["runner"]["ray"]) == set(keys(RayConfig))
    config, faults = structure(whole)
    assert config is not None, faults
    for section in ("runner", "inputs", "replay_args", "output"):
        for key in set(whole[section]) - set(in_force.get(section, ())):
            assert getattr(getattr(config, section), key) == getattr(getattr(defaults, section), key), key
    for key in set(whole) - set(in_force) - {"replay_args"}:
        assert getattr(config, key) == getattr(defaults, key), key
    for line in text.splitlines():
        if re.match(r" *(# +)?\w+: \S", line):
            assert re.search(r"\S +# \S", line), line


def test_every_key_of_generating_is_explained() -> None:
    """Likewise, in `configs/input.yaml`."""
    path = TEMPLATES / "configs/input.yaml"
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load(uncommented(path.read_text()))
    assert [*whole] == keys(GenerationConfig)
    section = load_material(whole, overrides={}).config.input_generation
    assert set(whole["input_generation"]) == set(keys(type(section)))
    assert section == type(section)()
    assert set(whole["personas"][0]) == {"name", "description", "goals", "knowledge"}
    assert len(load_material(path, overrides={}).sources) == 4


def test_the_words_of_the_documentation_are_there(demo: Path) -> None:
    """Its target, its inputs and its personas."""
    config = load_config(Path("configs/simulation.yaml"), environment={}).config
    assert (config.runner.target, config.runner.iterations) == ("examples.my_agent:run", 10)
    assert (config.output.directory, config.output.format) == ("experiments", "jsonl")
    entries = YAML(typ="safe", pure=True).load(Path("inputs/generated.yaml").read_text())["generated_inputs"]
    assert entries[:2] == [
        {"input": "How do I start?", "persona": "novice_user"},
        {"input": "What are advanced options?", "persona": "expert_user"},
    ]


@pytest.mark.parametrize("name", ["simulation", "input"])
def test_editors_find_the_schema_beside_the_file(demo: Path, name: str) -> None:
    """The first line of a configuration names it, and it is what `config schema` prints."""
    first = Path(f"configs/{name}.yaml").read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found
    printed = CliRunner().invoke(main, ["config", "schema", name]).output
    assert (Path("configs") / found[1]).read_text() == printed == schema_text(name)


def test_results_stay_out_of_git(demo: Path) -> None:
    """As git itself understands the file."""
    subprocess.run(["git", "init", "-q"], check=True)
    fluxloop.Experiment("configs/simulation.yaml", limit=1, iterations=1).run()
    told = subprocess.run(["git", "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True).stdout
    assert {line[3:] for line in told.splitlines()} == set(PURPOSES)


def test_the_wheel_holds_the_templates(tmp_path: Path) -> None:
    """All of them, so that an installed fluxloop can make a project."""
    source = tmp_path / "source"
    copied = "fluxloop fluxloop_cli pyproject.toml README.md LICENSE"
    source.mkdir()
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in copied.split()), str(source)], check=True)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("fluxloop/scaffold/project/")}
    there = {
        str(path.relative_to(ROOT))
        for path in TEMPLATES.rglob("*")
        if path.is_file() and "__pycache__" not in str(path)
    }
    assert held == there
    assert len(held) == 5
