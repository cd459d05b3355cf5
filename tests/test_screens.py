"""Whatever stands in files, and whatever a screen can show: each command tells its result."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import fluxloop
from fluxloop import Experiment
from fluxloop.exceptions import OutputError, Problem
from fluxloop.notices import notice
from fluxloop.visible import visible_line
from fluxloop_cli.main import main

ROOT = Path(__file__).parent.parent
NAME = "naïve ✓ 日本 😀"
AGENT = """
def run(text, style=None):
    if "fail" in text:
        raise ValueError("cannot 😀 ✓ ж 日本")
    return text
"""
ENCODINGS = ["cp932", "gbk", "koi8_r", "cp1252", "ascii", "utf-8"]
COMMANDS = {
    "run": (0, "run experiment --no-progress"),
    "run with progress": (0, "run experiment"),
    "run quietly": (0, "run experiment --quiet"),
    "run in vain": (1, "run experiment --fail-under 100% --quiet"),
    "preview": (0, "run experiment --dry-run"),
    "no target": (2, "run experiment --target 😀:run"),
    "no option": (2, "run experiment --😀"),
    "no command": (2, "😀"),
    "resume": (0, "run experiment --resume EXPERIMENT"),
    "config show": (0, "config show"),
    "config schema": (0, "config schema"),
    "list": (0, "list"),
    "list as JSON": (0, "list --json"),
    "list nothing": (2, "list --output-dir 😀"),
    "verify": (0, "verify EXPERIMENT"),
    "verify damage": (1, "verify DAMAGED"),
    "verify nothing": (2, "verify 😀"),
    "parse": (0, "parse experiment EXPERIMENT --output 😀"),
    "merge": (2, "merge EXPERIMENT --output ✓"),
    "generate": (0, "generate inputs --output 😀.yaml"),
    "generate nothing": (2, "generate inputs --config 😀.yaml"),
    "init": (0, "init 😀"),
}
HELP = ["", "run", "run experiment", "list", "verify", "merge", "parse experiment", "init", "generate inputs"]
HELP += ["config", "config show", "config schema"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose texts few screens can show, with an experiment that is whole and one that is damaged."""
    folder = tmp_path_factory.mktemp("screens") / NAME
    (folder / "configs").mkdir(parents=True)
    (folder / "screens_agent.py").write_text(AGENT)
    lines = [{"id": "😀 ж", "input": "fail 😀"}, {"input": "日本"}]
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "configs/simulation.yaml").write_text(
        "name: 'ж😀'\nrunner: {target: 'screens_agent:run', args: {}}\ninputs: {file: in.jsonl}\n"
    )
    (folder / "configs/input.yaml").write_text("base_inputs:\n  - input: 'Where is my parcel? 😀'\n")
    with contextlib.chdir(folder):
        for name in ("whole", "damaged"):
            code, _, err = told("utf-8", f"run experiment --name {name} --quiet")
            assert code == 0, err
    del sys.modules["screens_agent"]
    (damaged,) = (folder / "experiments").glob("damaged_*")
    text = (damaged / "traces.jsonl").read_text()
    (damaged / "traces.jsonl").write_text(text.replace('"trace_001"', '"trace_😀\\u001b[2J\\u202e"'))
    return folder


def told(encoding: str, command: str) -> tuple[int | str | None, str, str]:
    """The exit code of a command, and what it wrote to streams of an encoding that refuse what they do not have."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(command.split())
    texts = []
    for stream in (out, err):
        stream.flush()
        buffer = stream.buffer
        assert isinstance(buffer, io.BytesIO)
        texts.append(buffer.getvalue().decode(encoding, "surrogateescape"))
    return ended.value.code, texts[0], texts[1]


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, for what a command writes to it."""
    copy = tmp_path / prepared.name
    shutil.copytree(prepared, copy)
    monkeypatch.chdir(copy)
    yield copy
    sys.modules.pop("screens_agent", None)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_result_on_every_screen(name: str, encoding: str, folder: Path) -> None:
    """The exit code is the one that what happened has; what the screen cannot show has a mark in its place."""
    code, command = COMMANDS[name]
    for kind in ("whole", "damaged"):
        (path,) = (folder / "experiments").glob(f"{kind}_*")
        word = {"whole": "EXPERIMENT", "damaged": "DAMAGED"}[kind]
        command = command.replace(word, str(path.relative_to(folder)))

    found, out, err = told(encoding, command)

    assert found == code, err
    assert "Traceback" not in err
    assert out + err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("command", HELP)
def test_help_is_plain(command: str) -> None:
    """It stands in ASCII, which every screen can show."""
    code, out, _ = told("ascii", f"{command} --help")
    assert code == 0
    assert "Usage:" in out


def test_a_real_command_tells_its_result(folder: Path) -> None:
    """As a process of its own, whose streams Python makes."""
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"cannot ? ? ? ??" in done.stdout


def test_only_one_place_writes_to_the_screen() -> None:
    """No command writes past what makes text fit for the screen."""
    for path in (ROOT / "fluxloop_cli").glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {ast.unparse(call) for call in calls}
        assert not names & {"print", "click.echo", "click.secho", "sys.stdout.write"} or path.name == "telling.py"


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u2028\r\x00"
SHOWN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def hostile(result: fluxloop.ExperimentResult, name: str, before: str, after: str) -> None:
    """Write text that means something to a terminal into a file of an experiment."""
    path = result.path / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after.replace("HOSTILE", json.dumps(HOSTILE)[1:-1])))


CHANGES: dict[str, Sequence[tuple[str, str, str]]] = {
    "experiment name": [("summary.json", '"experiment_name": "m"', '"experiment_name": "HOSTILE"')],
    "stop reason": [("summary.json", '"stop_reason": null', '"stop_reason": "HOSTILE"')],
    "remark": [("summary.json", '"remarks": []', '"remarks": ["HOSTILE"]')],
    "from Python": [("summary.json", '"ran_on": {', '"ran_on": {"from_python": ["HOSTILE"],')],
    "config key": [("config.yaml", "iterations: 1", 'iterations: 1\n  "HOSTILE": 1')],
    "config value": [("config.yaml", "iterations: 1", 'iterations: "HOSTILE"')],
    "trace id": [
        (name, '"trace_id":"trace_001"', '"trace_id":"HOSTILE"')
        for name in ("traces.jsonl", "trace_summary.jsonl", "observations.jsonl")
    ],
    "trace id of a summary": [("trace_summary.jsonl", '"trace_id":"trace_001"', '"trace_id":"HOSTILE"')],
    "trace id of an observation": [("observations.jsonl", '"trace_id":"trace_001"', '"trace_id":"HOSTILE"')],
    "parent": [(name, '"parent_id":null', '"parent_id":"HOSTILE"') for name in ("traces.jsonl", "observations.jsonl")],
    "error": [
        ("summary.json", '"message": "cannot"', '"message": "HOSTILE"'),
        *((name, '"message":"cannot"', '"message":"HOSTILE"') for name in ("traces.jsonl", "trace_summary.jsonl")),
    ],
    "observation's type": [("observations.jsonl", '"type":"agent"', '"type":"HOSTILE"')],
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_in_a_file_commands_the_terminal(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, names, types and messages reach it as visible characters."""
    monkeypatch.chdir(tmp_path)

    @fluxloop.agent()
    def agent(text: str) -> str:
        if text == "b":
            raise ValueError("cannot")
        return text

    result = Experiment(target=agent, inputs=["a", "b"], name="m", output_dir="experiments").run()
    for name, before, after in CHANGES[change]:
        hostile(result, name, before, after)

    directory = str(result.path)
    commands = ["list", f"verify {directory}", f"parse experiment {directory} --overwrite"]
    commands += [f"merge {directory} --output merged", f"run experiment --resume {directory}"]
    for command in commands:
        _, out, err = told("utf-8", command)
        assert not SHOWN.search(out + err), command
        assert "Traceback" not in err
    try:
        read = fluxloop.load(directory)
        shown = [repr(read), read.headline(), str(read.verify()), *map(repr, read)]
    except fluxloop.OutputError as error:
        shown = [str(error)]
    assert not any(SHOWN.search(text.replace("\n", "")) for text in shown)


def test_errors_and_notices_are_visible_text(capsys: pytest.CaptureFixture[str]) -> None:
    """What they quote cannot command the terminal that Python writes them to."""
    problem = Problem("a\nb", HOSTILE)
    for text in (str(problem), str(OutputError(Path(HOSTILE), HOSTILE)), visible_line(HOSTILE)):
        assert not SHOWN.search(text)
    assert "\n" not in str(problem)
    notice(HOSTILE)
    assert not SHOWN.search(capsys.readouterr().err)


BAD = os.fsdecode(b"x\xe9")  # no UTF-8, as old archives and foreign disks have it
NAMES = {
    "run": (0, f"run experiment --target screens_agent:run --inputs {BAD}.jsonl --no-progress"),
    "run quietly": (0, f"run experiment --target screens_agent:run --inputs {BAD}.jsonl --output-dir {BAD} --quiet"),
    "a name": (2, f"run experiment --name {BAD}"),
    "a target": (2, f"run experiment --target {BAD}:run"),
    "an input's id": (2, f"run experiment --input-id {BAD}"),
    "a persona": (2, f"run experiment --persona {BAD}"),
    "a value": (2, f"run experiment --set runner.args.model={BAD}"),
    "a description": (0, f"run experiment --set description={BAD}"),
    "an argument": (0, f"run experiment --set runner.args.style={BAD}"),
    "arguments shown": (0, f"config show --set runner.args.style={BAD}"),
    "a key": (2, f"run experiment --set {BAD}=1"),
    "a field": (2, f"run experiment --map input={BAD}"),
    "an option": (2, f"run experiment --{BAD}"),
    "a configuration": (0, f"run experiment --config {BAD}.yaml --dry-run"),
    "resume": (0, f"run experiment --resume {BAD}_20250101_000000"),
    "resume nothing": (2, f"run experiment --resume absent{BAD}"),
    "config show": (0, f"config show --inputs {BAD}.jsonl"),
    "list": (0, "list --output-dir ."),
    "list as JSON": (0, "list --output-dir . --json"),
    "list there": (2, f"list --output-dir absent{BAD}"),
    "verify": (0, f"verify {BAD}_20250101_000000"),
    "parse": (0, f"parse experiment {BAD}_20250101_000000"),
    "parse to": (0, f"parse experiment {BAD}_20250101_000000 --output {BAD}"),
    "merge": (2, f"merge {BAD}_20250101_000000 --output {BAD}"),
    "generate": (0, f"generate inputs --output {BAD}new.jsonl --quiet"),
    "generate YAML": (0, f"generate inputs --output {BAD}new.yaml"),
    "generate for": (2, f"generate inputs --persona {BAD}"),
    "init": (0, f"init {BAD}"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_text_are_names(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command works on files whose names are not UTF-8, or says what it cannot take."""
    folder = tmp_path / BAD / "project"
    shutil.copytree(prepared, folder)
    (folder / "in.jsonl").rename(folder / f"{BAD}.jsonl")
    (folder / "in.jsonl").symlink_to(f"{BAD}.jsonl")
    (folder / f"{BAD}.yaml").write_bytes((folder / "configs/simulation.yaml").read_bytes())
    (whole,) = (folder / "experiments").glob("whole_*")
    whole.rename(folder / f"{BAD}_20250101_000000")
    monkeypatch.chdir(folder)
    code, command = NAMES[name]
    try:
        found, out, err = told("utf-8", command)
    finally:
        sys.modules.pop("screens_agent", None)
    assert found == code, err
    assert "Traceback" not in err
    assert out + err


GONE = {
    **{name: command for name, (_, command) in COMMANDS.items() if "EXPERIMENT" not in command},
    "resume": "run experiment --resume some",
    "resume auto": "run experiment --resume auto --target json:dumps",
    "run with inputs": "run experiment --target json:dumps --inputs /absent.jsonl",
    "run there": "run experiment --target json:dumps --inputs INPUTS --output-dir OUTPUT",
    "verify": "verify some",
    "verify there": "verify WHOLE",
    "parse": "parse experiment some",
    "parse there": "parse experiment WHOLE --output OUTPUT",
    "merge": "merge some others --output merged",
    "merge there": "merge WHOLE WHOLE --output OUTPUT",
    "list there": "list --output-dir FOLDER",
    "list there as JSON": "list --json --output-dir FOLDER",
    "generate there": "generate inputs --output OUTPUT.yaml",
}


@pytest.mark.parametrize("name", GONE)
def test_a_working_directory_that_is_gone_is_told(name: str, prepared: Path, tmp_path: Path) -> None:
    """A command that needs it says so; one that does not does its work."""
    gone = tmp_path / "gone"
    gone.mkdir()
    words = {"INPUTS": prepared / "in.jsonl", "OUTPUT": tmp_path / "output", "FOLDER": prepared / "experiments"}
    words["WHOLE"] = next((prepared / "experiments").glob("whole_*"))
    for word, path in words.items():
        link = tmp_path / word
        link.symlink_to(path)
    command = re.sub("|".join(words), lambda match: str(tmp_path / match[0]), GONE[name])
    before = os.getcwd()
    os.chdir(gone)
    gone.rmdir()
    try:
        code, out, err = told("utf-8", command)
    finally:
        os.chdir(before)
    assert "Traceback" not in err
    assert code in (0, 2), err
    assert out + err
