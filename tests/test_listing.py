"""`fluxloop list` and what is behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import fluxloop
from fluxloop import ConfigError, Experiment, OutputError
from fluxloop.listing import experiments_folder, list_experiments
from fluxloop.reports.experiments import experiments_table
from fluxloop_cli.main import main
from tests.waiting import wait_until


def agent(text: str) -> str:
    if text == "bad":
        raise ValueError("cannot")
    if text == "down":
        raise ConnectionError("no server")
    return text


def run(name: str, *inputs: Any, **options: Any) -> Path:
    return Experiment(target=agent, inputs=list(inputs) or ["good"], name=name, **options).run().path


def begun(path: Path, seconds: int) -> None:
    """Let an experiment have begun at another time."""
    told = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(told | {"started_at": f"2026-01-01T00:00:{seconds:02d}.000000Z"}))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["list", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_newest_come_first() -> None:
    """By the time they began, not by name; a limit takes the newest."""
    for name, seconds in {"b": 2, "c": 3, "a": 1}.items():
        begun(run(name), seconds)
    assert [one.name for one in list_experiments()] == ["c", "b", "a"]
    assert [one.name for one in list_experiments(limit=2)] == ["c", "b"]


def test_an_experiment_is_told_in_a_line(folder: Path) -> None:
    """Time, status, runs, the pass rate of the summary, and the bytes of all its files, those of a report too."""
    path = run("demo", "good", "bad", "down", "good", iterations=2)
    (path / "folder").mkdir()
    (path / "folder/notes").write_bytes(b"x" * 12345)
    (one,) = list_experiments()
    summary = fluxloop.load(path).summary

    assert (one.path, one.name, one.status, one.writer) == (path.relative_to(folder), "demo", "completed", None)
    assert (one.runs, one.planned, one.passed, one.pass_rate) == (8, 8, 4, 4 / 6)
    assert (one.started_at, one.completed_at) == (summary.started_at, summary.completed_at)
    assert one.size_bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

    heading, line = invoke().output.splitlines()
    assert heading.split() == ["started", "(UTC)", "status", "runs", "pass", "rate", "size", "experiment"]
    assert line.split()[:5] == [*summary.started_at[:19].split("T"), "completed", "8", "66.7%"]
    assert line.endswith(f"kB  {path.relative_to(folder)}")
    assert heading.index("experiment") == line.index("experiments/")


def test_running_and_killed_are_told_apart(folder: Path) -> None:
    """By the lock of its writer, and both by the runs on the disk; a torn last line is no run."""
    (folder / "slow.py").write_text(
        "import pathlib, time\n"
        "def run(text):\n"
        "    if text == 'wait':\n"
        "        pathlib.Path('waits').touch()\n"
        "        time.sleep(600)\n"
        "    if text == 'bad': raise ValueError\n"
        "    if text == 'down': raise ConnectionError\n"
    )
    program = "from fluxloop import Experiment\n" + (
        "Experiment(target='slow:run', inputs=['good', 'bad', 'down', 'good', 'wait', 'good'], name='slow').run()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=folder, start_new_session=True)
    try:
        wait_until(lambda: (folder / "waits").exists() and [one.runs for one in list_experiments()] == [4])
        (running,) = list_experiments()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (running.status, running.passed, running.planned, running.pass_rate) == ("running", 2, 6, 2 / 3)
    assert running.writer is not None
    assert f"pid {process.pid} on " in running.writer

    with (folder / running.path / "trace_summary.jsonl").open("ab") as file:
        file.write(b'{"trace_id":"trace_005","passed":true,')
    (killed,) = list_experiments()
    assert (killed.status, killed.writer, killed.runs, killed.pass_rate) == ("killed", None, 4, 2 / 3)
    assert "killed  4 of 6" in invoke().output


def test_a_stopped_experiment_is_told_as_that() -> None:
    """With how many of its runs were run; without a judged run there is no rate."""
    run("stopped", "bad", "good", "good", max_failures=1)
    run("outage", "down")
    found = {one.name: one for one in list_experiments()}
    assert found["stopped"].status == "stopped"
    assert (found["outage"].status, found["outage"].pass_rate) == ("completed", None)
    table = experiments_table(list(found.values()))
    assert "1 of 3" in table
    assert " -  " in table


def test_what_cannot_be_read_is_listed_as_damaged(folder: Path) -> None:
    """What is no experiment is not listed; one that was killed before its first summary is."""
    path = run("broken")
    (path / "summary.json").write_text('{"status": ')
    (folder / "experiments/folder").mkdir()
    (folder / "experiments/file").touch()
    other = folder / "experiments/other"
    other.mkdir()
    (other / "config.yaml").touch()
    early = folder / "experiments/early_20260101_000000"
    early.mkdir()
    (early / "config.yaml").touch()
    found = {one.name: one for one in list_experiments()}
    assert {name: one.status for name, one in found.items()} == {path.name: "damaged", early.name: "killed"}
    assert {(one.runs, one.pass_rate) for one in found.values()} == {(None, None)}


def deep(path: Path) -> None:
    """JSON that is deeper than any stack."""
    text = (path / "summary.json").read_text()
    (path / "summary.json").write_text(text.replace('"tags": []', f'"tags": {"[" * 50_000}{"]" * 50_000}'))


def with_told(path: Path, **told: Any) -> None:
    """Other values in the summary."""
    summary = path / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | told))


def in_the_place_of(name: str, make: Callable[[Path], object], **told: Any) -> Callable[[Path], None]:
    """Something that is no file."""

    def damage(path: Path) -> None:
        with_told(path, **told)
        (path / name).unlink(missing_ok=True)
        make(path / name)

    return damage


def deep_lines(path: Path) -> None:
    """Lines that are deeper than any stack, of an experiment that was killed."""
    with_told(path, status="running")
    line = f'{{"passed": true, "error": null, "output": {"[" * 50_000}{"]" * 50_000}}}\n'
    for name in ("trace_summary.jsonl", "superseded.jsonl"):
        (path / name).write_text(line)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deep summary": (deep, "damaged"),
    "deep lines": (deep_lines, "killed"),
    "FIFO for the lock": (in_the_place_of(".lock", os.mkfifo), "damaged"),
    "FIFO for the summary": (in_the_place_of("summary.json", os.mkfifo), "damaged"),
    "FIFO for the records": (in_the_place_of("trace_summary.jsonl", os.mkfifo, status="running"), "damaged"),
    "FIFO for what was superseded": (in_the_place_of("superseded.jsonl", os.mkfifo, status="running"), "damaged"),
    "folder for the summary": (in_the_place_of("summary.json", Path.mkdir), "damaged"),
    "device for the summary": (in_the_place_of("summary.json", lambda path: path.symlink_to("/dev/zero")), "damaged"),
    "summary that links to itself": (in_the_place_of("summary.json", lambda path: path.symlink_to(path)), "damaged"),
    "lock that links to itself": (in_the_place_of(".lock", lambda path: path.symlink_to(path)), "damaged"),
    "summary that links to nothing": (in_the_place_of("summary.json", lambda path: path.symlink_to("no")), "damaged"),
    "negative runs": (lambda path: with_told(path, total_traces=-1), "damaged"),
    "negative plan": (lambda path: with_told(path, planned=-(2**70)), "damaged"),
    "negative passes": (lambda path: with_told(path, passed=-1), "damaged"),
    "more passes than runs": (lambda path: with_told(path, passed=10**30), "damaged"),
    "a rate of 7": (lambda path: with_told(path, pass_rate={"value": 7}), "damaged"),
    "a date that is none": (lambda path: with_told(path, started_at="\ud800"), "damaged"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_one_bad_directory_takes_no_other_away(kind: str) -> None:
    """It is named, whatever is in it, and the list goes on; nothing is waited for."""
    damage, status = DAMAGES[kind]
    good, bad = run("good"), run("bad")
    damage(bad)
    command = [sys.executable, "-m", "fluxloop_cli", "list", "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = {Path(one["path"]).name: one["status"] for one in json.loads(shown.stdout)}
    assert found == {good.name: "completed", bad.name: status}


def test_a_folder_with_a_bad_lock_is_no_experiment_for_that(folder: Path) -> None:
    """Only the name tells that it is one."""
    (folder / "experiments/other").mkdir(parents=True)
    (folder / "experiments/other/config.yaml").touch()
    os.mkfifo(folder / "experiments/other/.lock")
    assert list_experiments() == []


def test_a_name_cannot_write_to_the_terminal(folder: Path) -> None:
    """Nor a summary that somebody else has made."""
    path = run("demo")
    told = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(told | {"started_at": "\x1b[31m\n"}))
    path.rename(path.parent / "\x1b[31mred\nline")
    output = invoke().output
    assert "\x1b" not in output
    assert len(output.splitlines()) == 2


def test_json_has_every_field() -> None:
    """An array, also when there is nothing to list."""
    path = run("demo")
    (one,) = json.loads(invoke("--json").output)
    assert list(one) == [
        *("path", "name", "status", "writer", "started_at", "completed_at", "runs", "planned", "passed", "pass_rate"),
        *("is_biased", "size_bytes"),
    ]
    assert (one["path"], one["runs"], one["pass_rate"]) == (f"experiments/{path.name}", 1, 1.0)
    assert json.loads(invoke("--json", "--output-dir", path / "..", "--limit", 1).output) == [one]
    (path.parent / "empty").mkdir()
    assert json.loads(invoke("--json", "--output-dir", path.parent / "empty").output) == []
    nothing = invoke("--output-dir", path.parent / "empty")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "No experiments in" in nothing.stderr


def test_the_folder_is_the_configurations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to its project; a key that the agent needs, and nobody gave, is not missed here."""
    assert experiments_folder() == folder / "experiments"
    (folder / "configs").mkdir()
    config = folder / "configs/simulation.yaml"
    config.write_text("runner: {target: 'a:b', args: {key: '${NO_SUCH_KEY}'}}\noutput: {directory: results}\n")
    assert experiments_folder() == folder / "results"
    run("demo", output_dir="results")
    assert "results/demo_" in invoke().output
    monkeypatch.chdir(folder / "results")
    assert "demo_" in invoke("--config", config).output
    monkeypatch.setenv("FLUXLOOP_OUTPUT__DIRECTORY", "others")
    assert experiments_folder(config) == folder / "others"
    monkeypatch.delenv("FLUXLOOP_OUTPUT__DIRECTORY")
    config.write_text("output: {directory: 5}\n")
    with pytest.raises(ConfigError, match=r"output\.directory"):
        experiments_folder(config)


def test_a_folder_that_is_not_there_is_a_usage_error() -> None:
    """With what makes one."""
    told = invoke()
    assert told.exit_code == 2
    assert "there is no such folder; fluxloop run experiment makes it" in told.stderr
    with pytest.raises(OutputError, match="no folder of experiments"):
        list_experiments(__file__)


def test_one_experiment_is_a_list_too() -> None:
    """Where its own directory is named instead of the folder."""
    path = run("demo")
    assert [one.name for one in list_experiments(path)] == ["demo"]
