"""Taking up an experiment where it stopped: the same as one that never stopped, or a plain refusal."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

import fluxloop
from fluxloop import ConfigError, Experiment, MemorySink, OutputError, ResumeError
from fluxloop.plan import Shard
from fluxloop.store.lock import DirectoryLock
from fluxloop.verifying import verify
from fluxloop_cli.main import main
from tests.durability.lab import Lab

AGENT = """\
import os
import signal
import threading
from pathlib import Path

import fluxloop

HERE = Path(__file__).parent


@fluxloop.tool
def look_up(text):
    return text.upper()


@fluxloop.agent
def run(text, style="plain", api_key=None):
    trace_id = fluxloop.current_run().id
    with open(HERE / "calls.log", "a") as calls:
        calls.write(trace_id + "\\n")
    stop = HERE / "stop"
    if stop.exists() and trace_id == "trace_006":
        how = stop.read_text()
        if how == "time":
            threading.Event().wait(0.3)
        else:
            os.kill(os.getpid(), getattr(signal, how))
    if text == "fail" and not (HERE / "learned").exists():
        raise ValueError("cannot")
    if text == "down" and not (HERE / "up").exists():
        raise ConnectionError("no server")
    return f"{style} {look_up(text)}"
"""
INPUTS = """\
{"input": "hello", "persona": "novice"}
{"input": "fail", "persona": "expert"}
{"input": "down"}
{"input": "naïve", "metadata": {"note": 7}, "expected": "NAÏVE"}
"""
CONFIG = """\
name: demo
seed: 42
runner:
  target: resumed_agent:run
  iterations: 5
inputs:
  file: inputs.jsonl
"""
TOTAL = 20
LINES = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
TIMES = {"start_time", "end_time", "duration_ms", "total_ms", "traceback"}

Invoke = Callable[..., Result]
LAB: list[Lab] = []


@pytest.fixture(scope="module", autouse=True)
def lab(forking: Lab) -> None:
    """What `command` forks its processes from."""
    LAB[:] = [forking]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: a project with an agent that may stop its experiment."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (project / "resumed_agent.py").write_text(AGENT)
    (project / "inputs.jsonl").write_text(INPUTS)
    (project / "configs").mkdir()
    (project / "configs/simulation.yaml").write_text(CONFIG)
    yield project
    sys.modules.pop("resumed_agent", None)


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """Call `fluxloop run experiment`; what it does not catch fails the test."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["run", "experiment", *map(str, arguments)], catch_exceptions=False)

    return invoke


def command(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which the agent may kill."""
    line = ["run", "experiment", *map(str, arguments)]
    done = LAB[0].run(*line, cwd=cwd, environment=environment)
    return subprocess.CompletedProcess(line, done.code, done.said, done.told)


def begun(folder: Path, how: str = "SIGINT", *options: object, cwd: Path | None = None) -> Path:
    """An experiment that was stopped in its sixth run."""
    before = set((folder / "experiments").iterdir()) if (folder / "experiments").exists() else set()
    (folder / "stop").write_text(how)
    done = command(*options, cwd=cwd or folder)
    (folder / "stop").unlink()
    assert done.returncode == {"SIGINT": 130, "SIGKILL": -9, "time": 1}[how], done.stderr
    (path,) = set((folder / "experiments").iterdir()) - before
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def summary(path: Path) -> dict[str, Any]:
    return json.loads((path / "summary.json").read_text())  # type: ignore[no-any-return]


def config(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path / "config.yaml")  # type: ignore[no-any-return]


def calls(folder: Path) -> list[str]:
    """The trace ids of all runs that were begun, in order."""
    file = folder / "calls.log"
    return file.read_text().split() if file.exists() else []


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def timeless(value: Any, ids: dict[str, str]) -> Any:
    """The same without times, and with observations named by their order."""
    if isinstance(value, dict):
        return {key: timeless(item, ids) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [timeless(item, ids) for item in value]
    return ids.get(value, value) if isinstance(value, str) else value


def alike(path: Path) -> dict[str, Any]:
    """What two directories of the same experiment have alike."""
    told: dict[str, Any] = {}
    ids: dict[str, str] = {}
    place: Counter[str] = Counter()
    for one in records(path / "observations.jsonl"):
        place[one["trace_id"]] += 1
        ids[one["id"]] = f"{one['trace_id']}/{place[one['trace_id']]}"
    assert len(ids) == place.total(), "two observations have one id"
    for name in LINES:
        told[name] = sorted((timeless(one, ids) for one in records(path / name)), key=json.dumps)
    counts = summary(path)
    for key in ("started_at", "completed_at", "avg_duration_ms", "duration_ms"):
        assert counts.pop(key)
    told["summary.json"] = counts
    told["config.yaml"] = config(path)
    assert {file.name for file in path.iterdir()} == {*LINES, "summary.json", "config.yaml"}
    return told


def test_a_stopped_experiment_ends_as_one_that_never_stopped(folder: Path) -> None:
    """By Ctrl-C, by its time, or killed: up to times, observation ids and order all five files are the same."""
    command("--output-dir", "whole", cwd=folder)
    (whole,) = (folder / "whole").iterdir()
    expected = alike(whole)
    expected["config.yaml"]["output"]["directory"] = str(folder / "experiments")
    for how, options in (("SIGINT", []), ("SIGKILL", []), ("time", ["--max-time", "0.2s"])):
        path = begun(folder, how, *options)
        done = len(records(path / "traces.jsonl"))
        assert done < TOTAL
        kept = {name: (path / name).read_bytes() for name in LINES}
        began = summary(path)["started_at"]
        (folder / "calls.log").unlink()

        told = command("--resume", path, *(["--max-time", "1h"] if options else []), cwd=folder)

        assert told.returncode == 0, told.stderr
        assert (
            f"[INFO] Resuming experiments/{path.name}: {done} of 20 runs are done, {20 - done} are left" in told.stderr
        )
        assert len(calls(folder)) == TOTAL - done
        found = alike(path)
        found["config.yaml"]["runner"]["max_time"] = None
        assert found == expected
        assert all((path / name).read_bytes().startswith(before) for name, before in kept.items())
        assert verify(path).is_sound
        assert (summary(path)["status"], summary(path)["started_at"]) == ("completed", began)


def test_an_experiment_that_stopped_on_failures_goes_on(folder: Path, invoke: Invoke) -> None:
    """Given again, `--max-failures` counts anew."""
    assert invoke("--max-failures", "3").exit_code == 1
    (path,) = (folder / "experiments").iterdir()
    assert summary(path)["total_traces"] == 6
    assert invoke("--resume", path, "--max-failures", "3").exit_code == 1
    assert summary(path)["status"] == "stopped"
    assert summary(path)["total_traces"] == 11
    told = invoke("--resume", path, "--max-failures", "100")
    assert told.exit_code == 0
    assert "[INFO] Changed: runner.max_failures was 3, is 100" in told.output
    assert (summary(path)["status"], summary(path)["stop_reason"]) == ("completed", None)
    assert sorted(calls(folder)) == [f"trace_{number:03d}" for number in range(1, 21)]


def stopped(folder: Path, *options: str) -> Path:
    """An experiment that one of its limits has stopped."""
    if "--max-time" in options:
        return begun(folder, "time", *options)
    assert command(*options, cwd=folder).returncode == 1
    (path,) = (folder / "experiments").iterdir()
    return path


LIMITED = (
    (("--max-time", "0.2s"), "runner.max_time 0.2"),
    (("--max-failures", "3"), "runner.max_failures 3"),
    (("--set", "runner.stop_when_all_fail=1", "--input-id", "input_002"), "runner.stop_when_all_fail 1"),
)


@pytest.mark.parametrize(("options", "lifted"), LIMITED, ids=[lifted for _, lifted in LIMITED])
def test_the_hint_after_a_limit_goes_on_to_the_end(folder: Path, options: tuple[str, ...], lifted: str) -> None:
    """The limits of an ended session do not bind the next, which says so; a variable may have named them."""
    path = stopped(folder, *options)
    assert summary(path)["status"] == "stopped"
    hint = re.search(r"fluxloop run experiment (--resume .*)", fluxloop.load(path).remaining())
    assert hint
    done = command(*shlex.split(hint[1]), cwd=folder)
    assert done.returncode == int("all_fail" in lifted), done.stderr
    line = f"[INFO] The limits of the session before do not bind this one: {lifted}; give them again to keep them\n"
    assert line in done.stderr
    assert "Changed: " not in done.stderr
    assert summary(path)["status"] == "completed"
    key = lifted.split()[0].partition(".")[2]
    assert not config(path)["runner"][key]
    assert "do not bind" not in command(*shlex.split(hint[1]), cwd=folder).stderr


@pytest.mark.parametrize("source", ["option", "set", "environment", "file", "python"])
def test_a_limit_that_is_given_again_binds(folder: Path, source: str) -> None:
    """Typed again, in the environment, in a configuration that is named, or in a program."""
    path = stopped(folder, "--max-failures", "3")
    if source == "python":
        Experiment.resume(path, max_failures=3).run()
    else:
        (folder / "own.yaml").write_text(CONFIG.replace("iterations: 5", "iterations: 5\n  max_failures: 3"))
        options = {
            "option": ["--max-failures", "3"],
            "set": ["--set", "runner.max_failures=3"],
            "environment": [],
            "file": ["--config", "own.yaml"],
        }[source]
        environment = {"FLUXLOOP_RUNNER__MAX_FAILURES": "3"} if source == "environment" else {}
        done = command("--resume", path, *options, cwd=folder, **environment)
        assert (done.returncode, "do not bind" in done.stderr) == (1, False)
    assert (summary(path)["status"], summary(path)["total_traces"]) == ("stopped", 11)


def test_a_limit_that_a_variable_named_is_lifted(folder: Path) -> None:
    """Nothing of it is left, not its name in the configuration either."""
    path = stopped(folder, "--set", "runner.max_failures=3")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("max_failures: 3", "max_failures: ${MOST}"))
    assert command("--resume", path, cwd=folder, MOST="3").returncode == 0
    assert config(path)["runner"]["max_failures"] is None


def test_many_at_once_and_stopped_again_and_again(folder: Path) -> None:
    """Killed in the middle of runs in flight, and resumed with other executors, no run is lost or doubled."""
    path = begun(folder, "SIGKILL", "--parallel", "4")
    (folder / "stop").write_text("SIGKILL")
    assert command("--resume", path, cwd=folder).returncode == -9
    (folder / "stop").unlink()
    assert command("--resume", path, "--parallel", "3", "--executor", "threads", cwd=folder).returncode == 0
    ids = [one["trace_id"] for one in records(path / "traces.jsonl")]
    assert sorted(ids) == [f"trace_{number:03d}" for number in range(1, 21)]
    assert verify(path).is_sound


def test_a_completed_experiment_is_left_as_it_is(folder: Path, invoke: Invoke) -> None:
    """Nothing runs, no byte changes, it is said so, and the exit code is what it was."""
    for gate, code in (("0", 0), ("90%", 1)):
        assert invoke("--fail-under", gate, "--name", f"gate{code}").exit_code == code
        (path,) = (folder / "experiments").glob(f"gate{code}_*")
        before, ran = content(path), len(calls(folder))
        table = invoke("--resume", path)
        assert table.exit_code == code
        assert "[INFO] Nothing is left to run, and nothing was changed" in table.output
        assert f"20 of 20: {summary(path)['passed']} passed" in table.output
        assert (content(path), len(calls(folder))) == (before, ran)


def test_a_completed_experiment_is_left_as_it_is_by_other_code(folder: Path, invoke: Invoke) -> None:
    """A commit made since is no reason to write that earlier runs are of other code: nothing runs on it."""

    def git(*arguments: str) -> None:
        line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(line, cwd=folder, check=True, capture_output=True)

    git("init")
    (folder / ".gitignore").write_text("experiments\n*.log\n")
    git("add", ".")
    git("commit", "-m", "one")
    path = begun(folder)
    assert "remarks" in summary(path)
    git("commit", "--allow-empty", "-m", "two")
    invoke("--resume", path)
    (remark,) = summary(path)["remarks"]
    assert re.fullmatch(
        r"earlier runs are of other code: the code was at git \w{12}( with.*)?, is at \w{12}( .*)?", remark
    )
    git("commit", "--allow-empty", "-m", "three")
    before = content(path)
    assert "nothing was changed" in invoke("--resume", path).output
    assert content(path) == before
    commit = summary(path)["ran_on"]["git"]
    invoke("--resume", path, "--parallel", "2")
    assert summary(path)["remarks"] == [remark]
    assert summary(path)["ran_on"]["git"] == commit


def test_last_is_the_newest_of_the_name(folder: Path, invoke: Invoke) -> None:
    """By time, then by the number that tells experiments of one second apart; of another name it is none."""
    first = begun(folder)
    for name in ("demo_20990101_000000", "demo_20990101_000000_2", "demo_20990101_000000_10", "demo2_20991231_000000"):
        shutil.copytree(first, folder / "experiments" / name)
    (folder / "experiments/demo_20990102_000000").mkdir()  # killed before anything was in it
    told = invoke("--resume", "last")
    assert told.exit_code == 0
    assert "Resuming experiments/demo_20990101_000000_10: 6 of 20" in told.output
    told = invoke("--resume", "last", "--name", "other")
    assert told.exit_code == 2
    assert told.output.endswith(
        f"Error: {folder}/experiments: holds no experiment other to resume; name its directory,"
        " or another name with --name\n"
    )


def test_last_without_a_configuration_file(folder: Path, invoke: Invoke) -> None:
    """The name, or the target that gives it, is enough; what the experiment was begun with is in its directory."""
    shutil.rmtree(folder / "configs")
    path = begun(folder, "SIGINT", "--target", "resumed_agent:run", "--inputs", "inputs.jsonl", "--iterations", "5")
    assert path.name.startswith("resumed_agent_")
    assert "6 of 20 runs are done" in invoke("--resume", "last", "--name", "resumed_agent", "--dry-run").output.replace(
        "  ", " "
    )
    assert invoke("--resume", "last", "--target", "resumed_agent:run").exit_code == 0
    assert summary(path)["status"] == "completed"


def test_last_goes_on_as_begun_unless_a_file_is_named(folder: Path, invoke: Invoke) -> None:
    """The options of the command that began it hold; a configuration that is named is compared."""
    path = begun(folder, "SIGINT", "--iterations", "4", "--set", "runner.args.style=loud")
    told = invoke("--resume", "last", "--config", "configs/simulation.yaml")
    assert told.exit_code == 2
    assert "runner.args.style: was 'loud', is nothing" in told.output
    assert invoke("--resume", "last").exit_code == 0
    assert {one["output"] for one in records(path / "traces.jsonl")} == {"loud HELLO", "loud NAÏVE", None}


def test_auto_goes_on_or_begins(folder: Path) -> None:
    """One line for CI: what is unfinished is completed, and then a new experiment begins."""
    path = begun(folder)
    for count in (1, 2):
        assert command("--resume", "auto", cwd=folder).returncode == 0
        assert len(list((folder / "experiments").iterdir())) == count
        assert summary(path)["status"] == "completed"
    assert len(calls(folder)) == 2 * TOTAL


def test_auto_needs_no_seed(folder: Path) -> None:
    """A seed that was drawn is that of what goes on, in every file."""
    (folder / "configs/simulation.yaml").write_text(CONFIG.replace("seed: 42\n", ""))
    path = begun(folder)
    seed = config(path)["seed"]
    assert command("--resume", "auto", cwd=folder).returncode == 0
    assert summary(path)["status"] == "completed"
    assert (config(path)["seed"], summary(path)["ran_on"]["seed"]) == (seed, seed)
    assert verify(path).is_sound


@pytest.mark.parametrize(
    "options",
    [
        ["--iterations", "6"],
        ["--iterations", "4"],
        ["--name", "other"],
        ["--set", "runner.args.style=loud"],
        ["--set", "seed=7"],
        ["--limit", "3"],
        ["--shard", "1/2"],
    ],
    ids=" ".join,
)
def test_auto_passes_over_what_is_another_experiment(folder: Path, invoke: Invoke, options: list[str]) -> None:
    """Another plan, name, argument, seed, inputs or a shard begins anew, and leaves the other as it is."""
    path = begun(folder)
    before = content(path)
    assert invoke("--resume", "auto", *options).exit_code == 0
    assert content(path) == before
    assert len(list((folder / "experiments").iterdir())) == 2


def test_auto_knows_iterations_of_the_environment(folder: Path) -> None:
    """A configuration that only names a variable is compared by what the variable holds."""
    text = CONFIG.replace("iterations: 5", "iterations: ${TIMES}").replace("seed: 42", "seed: ${SEED}")
    (folder / "configs/simulation.yaml").write_text(text)
    (folder / "stop").write_text("SIGINT")
    assert command(cwd=folder, TIMES="5", SEED="42").returncode == 130
    (folder / "stop").unlink()
    (path,) = (folder / "experiments").iterdir()
    assert verify(path).is_sound

    def refused(times: str, seed: str) -> str:
        done = command("--resume", path, cwd=folder, TIMES=times, SEED=seed)
        assert done.returncode == 2
        return done.stderr

    assert "runner.iterations: was 5, is 3" in refused("3", "42")
    assert "seed: was 42, is 43" in refused("5", "43")
    assert command("--resume", "auto", cwd=folder, TIMES="5", SEED="42").returncode == 0
    assert command("--resume", path, cwd=folder, TIMES="6", SEED="42").returncode == 0
    assert command("--resume", path, "--iterations", "7", cwd=folder, TIMES="6", SEED="42").returncode == 0
    assert summary(path)["total_traces"] == 28
    assert verify(path).is_sound


def test_a_shard_goes_on_as_the_shard(folder: Path, invoke: Invoke) -> None:
    """It is the newest of its share alone, and its ids are those it would have had."""
    paths = [begun(folder, "SIGINT", "--shard", f"{index}/2") for index in (1, 2) if takes_sixth(index)]
    (path,) = paths
    index = re.search(r"_([12])of2_", path.name)
    assert index
    other = 3 - int(index[1])
    assert "holds no experiment demo to resume" in invoke("--resume", "last").output
    assert invoke("--resume", "last", "--shard", f"{other}/2").exit_code == 2
    assert invoke("--resume", "auto", "--shard", f"{other}/2").exit_code == 0
    assert summary(path)["status"] == "interrupted"
    told = invoke("--resume", "last", "--shard", f"{index[1]}/2")
    assert told.exit_code == 0
    assert re.search(r"\d of 10 runs are done, \d are left", told.output)
    assert (summary(path)["total_traces"], summary(path)["planned"]) == (10, 10)
    assert sorted(calls(folder)) == [f"trace_{number:03d}" for number in range(1, 21)]
    assert verify(path).is_sound


def test_a_shard_that_a_variable_names_goes_on_as_that_shard(folder: Path) -> None:
    """Where the configuration only names the variable, the directory of one shard takes no runs of another."""
    text = CONFIG.replace("  iterations", "  shard: ${SHARD}\n  iterations")
    (folder / "configs/simulation.yaml").write_text(text)
    assert command("--max-time", "0.000001", cwd=folder, SHARD="1/2").returncode == 1
    (path,) = (folder / "experiments").iterdir()
    assert verify(path).is_sound, str(verify(path))
    assert verify(path).resume.startswith("run 10 of 10 runs")
    told = command("--resume", path, "--max-time", "60", cwd=folder, SHARD="2/2")
    assert (told.returncode, summary(path)["total_traces"]) == (2, 0)
    assert "runner.shard: was '1/2', is '2/2'" in told.stderr
    assert command("--resume", path, "--max-time", "60", cwd=folder, SHARD="1/2").returncode == 0
    assert summary(path)["total_traces"] == 10
    assert verify(path).is_sound, str(verify(path))


def test_other_inputs_for_an_experiment_without_runs(folder: Path, invoke: Invoke) -> None:
    """Forced upon it before its first run, they get the ids of a first run."""
    assert command("--max-time", "0.000001", cwd=folder).returncode == 1
    (path,) = (folder / "experiments").iterdir()
    other_inputs(folder, "hello", "hallo")
    assert invoke("--resume", path, "--max-time", "60", "--force").exit_code == 0
    assert min(trace["trace_id"] for trace in records(path / "traces.jsonl")) == "trace_001"
    assert verify(path).is_sound, str(verify(path))


def takes_sixth(index: int) -> bool:
    """Whether the run in which the agent stops its experiment is this half's."""
    return Shard(index, 2).takes(5)


def test_from_another_working_directory(folder: Path, tmp_path: Path) -> None:
    """The project is found where it was, from anywhere."""
    path = begun(folder)
    (tmp_path / "elsewhere").mkdir()
    done = command("--resume", f"../project/experiments/{path.name}", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert summary(path)["status"] == "completed"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_after_the_directory_was_moved(folder: Path, tmp_path: Path) -> None:
    """It goes on where it is now."""
    moved = begun(folder).rename(tmp_path / "renamed")
    done = command("--resume", moved / "summary.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert summary(moved)["status"] == "completed"
    assert list((folder / "experiments").iterdir()) == []


def test_after_the_project_was_moved(folder: Path, tmp_path: Path) -> None:
    """Run from the project's new folder, its agent, inputs and results are those below it."""
    (folder / "agents").mkdir()
    (folder / "resumed_agent.py").rename(folder / "agents/resumed_agent.py")
    (folder / "agents/stop").symlink_to(folder / "stop")
    path = begun(folder, "SIGINT", "--set", "runner.python_path=[agents]")
    os.chdir(tmp_path)
    new = folder.rename(tmp_path / "moved")
    done = command("--resume", f"experiments/{path.name}", cwd=new)
    assert done.returncode == 0, done.stderr
    path = new / "experiments" / path.name
    assert summary(path)["status"] == "completed"
    told = config(path)
    assert told["inputs"]["file"] == str(new / "inputs.jsonl")
    assert told["output"]["directory"] == str(new / "experiments")
    assert (told["runner"]["python_path"], told["runner"]["working_directory"]) == (
        [str(new), str(new / "agents")],
        str(new),
    )


def test_from_python(folder: Path) -> None:
    """What only a program can give is given again; the result says how, and so does the one read back."""

    def agent(text: str) -> str:
        if asked.append(text) or len(asked) == 3:
            raise ValueError(text)
        return text

    asked: list[str] = []
    first = Experiment(target=agent, inputs=["a", "b"], iterations=3, max_failures=1).run()
    call = f"Experiment.resume('experiments/{first.path.name}', target=…, inputs=…).run()"
    told = f"3 of 6 runs were not run; to go on: {call}"
    assert (first.remaining(), fluxloop.load(first.path).remaining()) == (told, told)

    with pytest.raises(ConfigError, match=r"inputs\.file: expected a file of inputs"):
        Experiment.resume(first.path, agent).run()
    with pytest.raises(ResumeError, match="input_002 was 'b', is 'c'"):
        Experiment.resume(first.path, agent, ["a", "c"]).run()
    sink = MemorySink()
    result = Experiment.resume(first.path, target=agent, inputs=["a", "b"], sinks=[sink], iterations=4).run()

    assert (asked, result.path) == (["a", "b"] * 4, first.path)
    assert [trace.trace_id for trace in result] == [f"trace_{number:03d}" for number in range(1, 9)]
    assert [trace.trace_id for trace in sink.traces] == [f"trace_{number:03d}" for number in range(4, 9)]
    assert (result.summary.status, result.summary.passed) == ("completed", 7)
    assert result.verify().is_sound
    again = Experiment.resume(result.path, target=agent, inputs=["a", "b"])
    assert again.run().summary == result.summary
    assert len(asked) == 8


class Client:
    """What no file holds."""


def test_an_object_among_the_arguments_is_given_again(folder: Path) -> None:
    """Its text in the file is never passed to the agent for it, and another one of its kind is no change."""

    def agent(text: str, client: Any = None, tools: Any = ()) -> str:
        if text == "b":
            raise ValueError
        return f"{type(client).__name__} {[type(one).__name__ for one in tools]}"

    kept = [Client(), Client()]
    arguments = {"runner.args": {"client": kept[0], "tools": [kept[1]]}}
    path = Experiment(target=agent, inputs=["a", "b"], iterations=2, max_failures=1, overrides=arguments).run().path
    before = content(path)
    with pytest.raises(ConfigError) as caught:
        Experiment.resume(path, agent, ["a", "b"])
    where, told = f"{path}/config.yaml: runner.args", "was an object of Python's, which no file holds; give it again"
    assert [str(one).split(", in")[0] for one in caught.value.problems] == [
        f"{where}.client: {told}",
        f"{where}.tools: {told}",
    ]
    with pytest.raises(ResumeError, match=r"runner\.args\.client: was '<.*Client object.*>', is 'me'"):
        Experiment.resume(path, agent, ["a", "b"], overrides={**arguments, "runner.args.client": "me"}).run()
    assert content(path) == before
    told = "target=…, inputs=…, overrides=…).run()"
    assert fluxloop.load(path).remaining().endswith(told)

    others = {"runner.args.client": Client(), "runner.args.tools": [Client()]}
    result = Experiment.resume(path, agent, ["a", "b"], max_failures=9, overrides=others).run()
    assert [trace.output for trace in result] == ["Client ['Client']", None] * 2
    assert result.summary.remarks == ()


def test_a_function_of_a_script_is_asked_for(folder: Path) -> None:
    """The command line, which cannot have it, says how it is given again; the script itself has it."""
    script = """
import sys
from fluxloop import Experiment
def agent(text):
    if text == "fail" and len(sys.argv) == 1:
        raise ValueError
    return text
if len(sys.argv) == 1:
    Experiment(target=agent, inputs="inputs.jsonl", max_failures=1).run()
else:
    Experiment.resume(sys.argv[1], max_failures=9).run()
"""
    (folder / "script.py").write_text(script)
    subprocess.run([sys.executable, "script.py"], cwd=folder, check=True)
    (path,) = (folder / "experiments").iterdir()
    done = command("--resume", path, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "Error: runner.target: __main__:agent: __main__ has no 'agent'; a program gave it; give it again:"
        f" Experiment.resume('experiments/{path.name}', target=…)\n"
    )
    subprocess.run([sys.executable, "script.py", str(path)], cwd=folder, check=True)
    assert summary(path)["total_traces"] == 4


def test_an_experiment_object_may_run_again(folder: Path) -> None:
    """A second `run()` of what was taken up finds all done, and changes nothing."""
    path = Experiment("configs/simulation.yaml", max_failures=1).run().path
    taken = Experiment.resume(path, max_failures=1000)
    assert taken.run().summary.total_traces == TOTAL
    before = content(path)
    assert taken.run().summary.total_traces == TOTAL
    assert content(path) == before


def test_the_command_on_the_screen_goes_on(folder: Path) -> None:
    """Copied from the table, it completes the experiment; so does the one for what infrastructure failed."""
    path = begun(folder, "SIGINT", "--name", "with space")
    pattern = r"fluxloop run experiment (--resume .*)"

    def follow(label: str) -> str:
        table = dict(fluxloop.load(path).table())
        found = re.search(pattern, table[label])
        assert found, table
        done = command(*shlex.split(found[1]), cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "20 of 20" in follow("remaining")
    (folder / "up").touch()
    assert "infrastructure" not in follow("hint")
    assert summary(path)["infrastructure"] == 0


def test_the_hint_of_a_shown_result_works_from_python(folder: Path) -> None:
    """Also where the experiment was complete and nothing was run."""

    def down(text: str) -> str:
        raise ConnectionError

    first = Experiment(target=down, inputs=["a"]).run()
    again = Experiment.resume(first.path, down, ["a"]).run()
    for one in (first, again, fluxloop.load(first.path)):
        hint = dict(one.table())["hint"]
        given = f"'experiments/{first.path.name}', target=…, inputs=…, retry_failed='infrastructure'"
        assert f"Experiment.resume({given}).run()" in hint


def test_a_named_configuration_is_compared(folder: Path, invoke: Invoke) -> None:
    """`--config FILE --resume DIR` goes on with the file's, where that makes the same runs."""
    path = begun(folder)
    (folder / "configs/simulation.yaml").write_text(CONFIG.replace("seed: 42\n", "fail_under: 10%\n"))
    told = invoke("--config", "configs/simulation.yaml", "--resume", path)
    assert told.exit_code == 0
    assert "[INFO] Changed: fail_under was nothing, is 0.1" in told.output
    assert config(path)["seed"] == 42
    (folder / "configs/simulation.yaml").write_text(CONFIG.replace("42", "43"))
    told = invoke("--config", "configs/simulation.yaml", "--resume", path)
    assert (told.exit_code, "seed: was 42, is 43" in told.output) == (2, True)


SAFE = {
    "runner.iterations was 5, is 6": ["--iterations", "6"],
    "runner.parallel was 1, is 2": ["--parallel", "2"],
    "runner.executor was 'auto', is 'threads'": ["--executor", "threads"],
    "runner.timeout_seconds was nothing, is 60.0": ["--timeout", "60"],
    "runner.infrastructure was a list, is a list": ["--set", "runner.infrastructure=[ServiceDown]"],
    "runner.max_retries was 0, is 1": ["--max-retries", "1", "--set", "runner.retry_delay_seconds=0"],
    "runner.executor was 'auto', is 'processes'": ["--executor", "processes"],
    "runner.max_crash_retries was nothing, is 2": ["--set", "runner.max_crash_retries=2"],
    "runner.ray.address was nothing, is 'head:6379'": ["--set", "runner.ray.address=head:6379"],
    "runner.ray.num_cpus was 1.0, is 0.5": ["--set", "runner.ray.num_cpus=0.5"],
    "runner.ray.env was a list, is a list": ["--set", "runner.ray.env=[OPENAI_API_KEY]"],
    "runner.start_rate was nothing, is '1000/s'": ["--set", "runner.start_rate=1000/s"],
    "runner.max_time was nothing, is 3600.0": ["--max-time", "1h"],
    "output.sinks was a list, is a list": ["--set", "output.sinks=[fluxloop:MemorySink]"],
    "fail_under was nothing, is 0.1": ["--fail-under", "0.1"],
}


@pytest.mark.parametrize("line", SAFE)
def test_what_does_not_decide_the_runs_may_change(folder: Path, invoke: Invoke, line: str) -> None:
    """It is listed, saved, and no part of the results' remarks."""
    path = begun(folder)
    told = invoke("--resume", path, *SAFE[line])
    assert told.exit_code == 0
    assert f"[INFO] Changed: {line}\n" in told.output
    assert summary(path)["status"] == "completed"
    assert summary(path)["remarks"] == []
    assert verify(path).is_sound
    again = invoke("--resume", path)
    assert "Changed" not in again.output
    assert "nothing was changed" in again.output


def test_more_iterations_never_pad_ids_anew(folder: Path, invoke: Invoke) -> None:
    """From 99 runs to 1,002: the first keep their ids, the others go on with theirs."""
    agent: Callable[[str], str] = str.upper
    path = Experiment(target=agent, inputs=list("abc"), iterations=33).run().path
    kept = (path / "traces.jsonl").read_bytes()
    result = Experiment.resume(path, agent, list("abc"), iterations=334).run()
    assert (path / "traces.jsonl").read_bytes().startswith(kept)
    ids = [trace.trace_id for trace in result]
    assert ids == [f"trace_{number:03d}" for number in range(1, 1003)]
    assert (ids[98], ids[999]) == ("trace_099", "trace_1000")
    assert [trace.iteration for trace in result] == [number // 3 for number in range(1002)]
    assert result.verify().is_sound


def other_inputs(folder: Path, old: str, new: str) -> None:
    text = (folder / "inputs.jsonl").read_text()
    assert old in text
    (folder / "inputs.jsonl").write_text(text.replace(old, new))


def reorder(folder: Path) -> None:
    first, *rest = INPUTS.splitlines(keepends=True)
    (folder / "inputs.jsonl").write_text("".join([*rest, first]))


def named_and_reordered(folder: Path) -> None:
    named = [line.replace("{", f'{{"id": "i{number}", ', 1) for number, line in enumerate(INPUTS.splitlines(True))]
    (folder / "inputs.jsonl").write_text("".join(named))


UNSAFE: dict[str, tuple[list[str], Callable[[Path], object], str]] = {
    "target": (
        ["--target", "resumed_agent:look_up"],
        lambda folder: None,
        "runner.target: was 'resumed_agent:run', is",
    ),
    "args": (["--set", "runner.args.style=loud"], lambda folder: None, "runner.args.style: was nothing, is 'loud'"),
    "seed": (["--set", "seed=7"], lambda folder: None, "seed: was 42, is 7"),
    "template": (
        ["--set", "runner.input_template=<{input}>"],
        lambda folder: None,
        "runner.input_template: was nothing, is '<{input}>'",
    ),
    "fewer": (["--iterations", "1"], lambda folder: None, "runner.iterations: was 5, is 1"),
    "shard": (["--shard", "1/2"], lambda folder: None, "runner.shard: was nothing, is '1/2'"),
    "limit": (["--limit", "2"], lambda folder: None, "the first difference: input_003 is not there"),
    "changed": ([], lambda folder: other_inputs(folder, "hello", "hallo"), "input_001 was 'hello', is 'hallo'"),
    "expected": ([], lambda folder: other_inputs(folder, '"NAÏVE"', '"X"'), "input_004 expected was 'NAÏVE', is 'X'"),
    "metadata": ([], lambda folder: other_inputs(folder, "7", "8"), "input_004 metadata is another mapping"),
    "added": ([], lambda folder: other_inputs(folder, INPUTS, INPUTS + '"more"\n'), "were 4 of digest"),
    "removed": ([], lambda folder: other_inputs(folder, INPUTS.splitlines()[3], ""), "input_004 is not there"),
    "reordered": ([], reorder, "input_001 was 'hello', is 'fail'"),
    "renamed": ([], named_and_reordered, "the first difference: input_001 is not there"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_what_decides_the_runs_may_not_change(folder: Path, invoke: Invoke, what: str) -> None:
    """It is refused field by field, and nothing is changed; by force it goes on, and the summary says so for good."""
    path = begun(folder)
    options, change, told = UNSAFE[what]
    change(folder)
    before, ran = content(path), len(calls(folder))
    refused = invoke("--resume", path, *options)
    assert refused.exit_code == 2
    assert f"Error: {path}: " in refused.output
    assert told in refused.output
    assert "start a new experiment, or accept this with --force" in refused.output
    assert (content(path), len(calls(folder))) == (before, ran)

    (folder / "up").touch()
    accepted = invoke("--resume", path, *options, "--force", "--max-failures", "1")
    assert accepted.exit_code in (0, 1), accepted.output
    assert "note" in accepted.output
    assert "resumed by force although its runs are not alike" in accepted.output
    assert verify(path).is_sound, str(verify(path))
    left = summary(path)["not_run"]
    assert verify(path).resume.startswith(f"run {left} of" if left else "run nothing")

    again = invoke("--resume", path, "--max-failures", "1000")
    assert again.exit_code == 0, again.output
    counts = summary(path)
    assert (counts["status"], counts["not_run"], counts["total_traces"]) == ("completed", 0, counts["planned"])
    (remark,) = counts["remarks"]
    assert told.partition("; the first")[0].partition(": was")[0].split(":")[0] in remark or "inputs" in remark
    traces = records(path / "traces.jsonl")
    assert len({one["trace_id"] for one in traces}) == len(traces)
    assert len({(one["input_id"], one["iteration"]) for one in traces}) == len(traces)
    assert verify(path).is_sound, str(verify(path))
    before = content(path)
    assert "nothing was changed" in invoke("--resume", path).output
    assert content(path) == before


def test_an_added_input_is_named(folder: Path, invoke: Invoke) -> None:
    """Where all that were there before are as they were."""
    path = begun(folder)
    other_inputs(folder, INPUTS, INPUTS + '{"input": "more", "id": "five"}\n')
    assert "the first difference: five is new" in invoke("--resume", path).output


def test_a_value_of_the_environment_is_compared(folder: Path) -> None:
    """Behind `${NAME}` in the arguments or the template; a key that was changed for another of its kind is not."""
    text = CONFIG.replace("  iterations", "  args: {style: '${STYLE}', api_key: '${MY_API_KEY}'}\n  iterations")
    (folder / "configs/simulation.yaml").write_text(text)
    (folder / "stop").write_text("SIGINT")
    assert command(cwd=folder, STYLE="loud", MY_API_KEY="sk-first-key").returncode == 130
    (folder / "stop").unlink()
    (path,) = (folder / "experiments").iterdir()
    before = content(path)
    done = command("--resume", path, cwd=folder, STYLE="quiet", MY_API_KEY="sk-first-key")
    assert done.returncode == 2
    assert "runner.args.style" in done.stderr
    assert "a value that stands in the environment is another than it was" in done.stderr
    assert content(path) == before
    done = command("--resume", path, cwd=folder, MY_API_KEY="sk-first-key")
    assert done.returncode == 2
    assert "the environment variable STYLE is not set" in done.stderr
    done = command("--resume", path, cwd=folder, STYLE="loud", MY_API_KEY="sk-other-key")
    assert done.returncode == 0, done.stderr
    assert "runner.args.api_key has another secret than it had" in done.stderr
    assert "sk-other-key" not in done.stderr
    done = command(
        "--resume", path, "--force", "--iterations", "6", cwd=folder, STYLE="quiet", MY_API_KEY="sk-other-key"
    )
    assert done.returncode == 0
    assert "resumed by force" in summary(path)["remarks"][0]
    assert verify(path).is_sound


def test_a_secret_that_was_masked_is_asked_for(folder: Path, invoke: Invoke) -> None:
    """The message names its key and the option; given again it goes on, and is masked again."""
    secret = "runner.args.api_key=sk-0123456789abcdef"
    path = begun(folder, "SIGINT", "--set", secret)
    assert verify(path).resume == "run 14 of 20 runs; to be given again: runner.args.api_key"
    refused = invoke("--resume", path)
    assert refused.exit_code == 2
    assert re.search(rf"Error: {path}/config\.yaml:\d+:\d+: runner\.args\.api_key: .*--set", refused.output)
    told = invoke("--resume", path, "--set", secret)
    assert told.exit_code == 0
    assert "Changed" not in told.output
    assert summary(path)["status"] == "completed"
    assert b"sk-0123" not in b"".join(content(path).values())


def test_a_masked_argument_that_is_another_is_refused(folder: Path, invoke: Invoke) -> None:
    """As any other argument, without a word of either value; by force it goes on and is compared from then on."""
    args = "runner.args.style=postgres://reader:{}@db.local/app"
    path = begun(folder, "SIGINT", "--set", args.format("pw-first-0123"), "--set", "runner.args.api_key=tok-0123456789")
    digests = summary(path)["ran_on"]["masked_arguments"]
    assert set(digests) == {"salt", "runner.args.style", "runner.args.api_key"}
    before = content(path)

    given = ("--resume", path, "--set", "runner.args.api_key=tok-0123456789", "--set")
    refused = invoke(*given, args.format("pw-other-0123"))
    assert refused.exit_code == 2
    assert f"{path}: runner.args.style: is masked, and is another than it was" in refused.output
    assert "runner.args.api_key" not in refused.output
    assert content(path) == before
    forced = invoke(*given, args.format("pw-other-0123"), "--force", "--max-failures", "1")
    assert "pw-" not in refused.output + forced.output
    assert "runner.args.style" in summary(path)["remarks"][0]
    assert summary(path)["ran_on"]["masked_arguments"]["runner.args.api_key"] == digests["runner.args.api_key"]
    assert summary(path)["ran_on"]["masked_arguments"]["runner.args.style"] != digests["runner.args.style"]
    assert b"pw-" not in b"".join(content(path).values())


def test_digests_of_masked_arguments_of_two_experiments_are_not_alike(folder: Path) -> None:
    """Each has its own salt, so that nobody can tell who else uses the same key, or look a password up."""
    secret = "runner.args.api_key=sk-0123456789abcdef"
    one, other = (summary(begun(folder, "SIGINT", "--set", secret))["ran_on"]["masked_arguments"] for _ in range(2))
    assert one["salt"] != other["salt"]
    assert one["runner.args.api_key"] != other["runner.args.api_key"]


def test_what_infrastructure_failed_is_run_again(folder: Path, invoke: Invoke) -> None:
    """`--retry-failed` takes outages alone; the files hold the new lines, and the old traces are kept aside."""
    assert invoke().exit_code == 0
    (path,) = (folder / "experiments").iterdir()
    old = {one["trace_id"]: one for one in records(path / "traces.jsonl")}
    owed = [id for id, one in old.items() if one["input"] == "down"]
    (folder / "calls.log").unlink()
    (folder / "up").touch()
    told = invoke("--resume", path, "--retry-failed", "--parallel", "2")
    assert told.exit_code == 0
    assert "[INFO] 5 runs that had failed are run again; their records are in superseded.jsonl" in told.output
    assert "15 of 20 runs are done, 5 are left" in told.output
    assert sorted(calls(folder)) == owed
    traces = records(path / "traces.jsonl")
    assert sorted(one["trace_id"] for one in traces) == sorted(old)
    assert [one for one in traces if one["trace_id"] not in owed] == [one for id, one in old.items() if id not in owed]
    assert records(path / "superseded.jsonl") == [old[id] for id in owed]
    counts = summary(path)
    assert (counts["infrastructure"], counts["superseded"], counts["rerolled"], counts["remarks"]) == (0, 5, 0, [])
    assert verify(path).is_sound, str(verify(path))

    before = content(path)
    assert "nothing was changed" in invoke("--resume", path, "--retry-failed").output
    assert content(path) == before


def test_rerolled_failures_bias_the_rate_and_are_told(folder: Path, invoke: Invoke) -> None:
    """`--retry-failed=all` takes the agent's own too; the summary and the table say so, also ever after."""
    assert invoke().exit_code == 0
    (path,) = (folder / "experiments").iterdir()
    told = "5 failures of the agent were run again on resume (superseded.jsonl): re-rolled, so the pass rate is biased"
    told += " upwards"
    first = invoke("--resume", path, "--retry-failed=all")
    assert first.exit_code == 0
    assert (summary(path)["superseded"], summary(path)["rerolled"], summary(path)["remarks"]) == (10, 5, [told])
    assert told in first.output
    (folder / "learned").touch()
    (folder / "up").touch()
    again = invoke("--resume", path, "--retry-failed=all")
    counts = summary(path)
    assert (counts["superseded"], counts["rerolled"], counts["passed"]) == (20, 10, 20)
    (remark,) = counts["remarks"]
    assert remark == told.replace("5 failures", "10 failures")
    assert remark in again.output
    assert len(records(path / "superseded.jsonl")) == 20
    more = invoke("--resume", path, "--iterations", "6")
    assert (summary(path)["total_traces"], summary(path)["remarks"]) == (24, [remark])
    assert remark in more.output
    assert remark in invoke("--resume", path).output
    assert remark in dict(fluxloop.load(path).table())["note"]
    assert verify(path).is_sound, str(verify(path))


def test_a_timeout_is_run_again(folder: Path) -> None:
    """As what infrastructure failed, though it counts as a re-roll; other failures of the agent are not."""
    import threading

    release = threading.Event()

    def agent(text: str) -> str:
        if text == "slow" and not release.is_set():
            release.wait(20)
        if text == "fail":
            raise ValueError
        return text

    inputs = ["slow", "fail", "fine"]
    first = Experiment(target=agent, inputs=inputs, executor="threads", timeout_seconds=0.05).run()
    assert first.summary.by_status == {"ok": 1, "error": 1, "timeout": 1, "crashed": 0}
    release.set()
    result = Experiment.resume(first.path, agent, inputs, retry_failed="failed", timeout_seconds=20).run()
    assert result.summary.by_status == {"ok": 2, "error": 1, "timeout": 0, "crashed": 0}
    assert (result.summary.superseded, result.summary.rerolled) == (1, 1)
    assert result.verify().is_sound


def test_a_crash_while_failed_runs_are_replaced_is_counted_from_the_files(folder: Path) -> None:
    """What is loaded then is what is whole, with the remarks, and the next resume goes on."""
    assert command(cwd=folder).returncode == 0
    (path,) = (folder / "experiments").iterdir()
    (folder / "stop").write_text("SIGKILL")
    other = AGENT.replace('"trace_006"', '"trace_007"')
    (folder / "resumed_agent.py").write_text(other)
    assert command("--resume", path, "--retry-failed=all", cwd=folder).returncode == -9
    (folder / "stop").unlink()
    loaded = fluxloop.load(path)
    assert (loaded.summary.status, len(loaded), loaded.summary.rerolled) == ("running", 13, 5)
    assert "re-rolled" in dict(loaded.table())["note"]
    assert len(list(loaded)) == 13
    assert command("--resume", path, cwd=folder).returncode == 0
    counts = summary(path)
    assert (counts["total_traces"], counts["superseded"], counts["rerolled"]) == (20, 10, 5)
    assert verify(path).is_sound


def test_a_crash_just_after_failed_runs_were_taken_out(folder: Path) -> None:
    """Between that and the new summary the old one counts nothing that is gone."""
    code = """
import os, signal
from fluxloop import Experiment
from fluxloop.execution import Execution
Execution._begin = lambda self, *given: os.kill(os.getpid(), signal.SIGKILL)
Experiment(resume="last", retry_failed="all").run()
"""
    assert command(cwd=folder).returncode == 0
    (path,) = (folder / "experiments").iterdir()
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == -9
    loaded = fluxloop.load(path)
    assert (len(loaded), len(list(loaded)), loaded.summary.not_run) == (10, 10, 10)
    assert command("--resume", path, cwd=folder).returncode == 0
    assert summary(path)["total_traces"] == 20
    assert verify(path).is_sound


def test_progress_leaves_out_what_was_done_before(folder: Path) -> None:
    """In a terminal the bar, the estimate and the count are of the runs that are left."""
    (folder / "resumed_agent.py").write_text(
        AGENT + "\n_run = run\ndef run(text):\n    import time\n    time.sleep(0.12)\n    return _run(text)\n"
    )
    path = begun(folder)
    line = ["-m", "fluxloop_cli", "run", "experiment", "--resume", str(path)]
    env = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    with closing(
        pexpect.spawn(
            sys.executable, line, cwd=str(folder), env=env, timeout=30, encoding="utf-8", dimensions=(40, 200)
        )
    ) as process:
        process.expect(pexpect.EOF)
        screen = process.before or ""
    assert f"Resuming experiments/{path.name}: 6 of 20 runs are done, 14 are left" in screen
    assert re.search(r"\[[▓░]+\] 1/14 \(7%\).* - ETA: \d+s", screen)
    assert re.search(r"\[▓{10}\] 14/14 \(100%\)", screen)
    assert "/20 (" not in screen
    assert process.exitstatus == 0


def test_the_suggestion_is_of_the_runs_that_are_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What more at a time would save is told from what was run now, for what is left now."""
    text = AGENT.replace('    if text == "fail"', '    threading.Event().wait(0.1)\n    if text == "fail"')
    (folder / "resumed_agent.py").write_text(text)
    path = begun(folder, "SIGINT", "--iterations", "20")
    line = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--resume", str(path)]
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        told, found = [], None
        for text in process.stderr:
            told.append(text)
            if found := re.search(r"The rest will take (\d+)s; with --parallel 8 about \d+s", text):
                process.kill()  # it has been said; the rest need not be waited for
                break
    assert found, told
    assert int(found[1]) >= 6  # 64 of 80 are left then, of 0.1 s and a little each


@pytest.mark.parametrize("name", LINES)
def test_damage_is_refused_by_file_and_line(folder: Path, invoke: Invoke, name: str) -> None:
    """A line that no crash leaves ends in a refusal, and nothing is changed."""
    path = begun(folder)
    lines = (path / name).read_bytes().splitlines(keepends=True)
    (path / name).write_bytes(b"".join([*lines[:2], b"\0" * len(lines[2]), *lines[3:]]))
    before = content(path)
    told = invoke("--resume", path)
    assert told.exit_code == 2
    assert f"Error: {path}/{name}:3: NUL bytes where a record belongs; no crash leaves this" in told.output
    assert content(path) == before


def test_a_torn_tail_is_cut_off_and_told(folder: Path, invoke: Invoke) -> None:
    """The runs it belongs to are owed again."""
    path = begun(folder)
    with (path / "traces.jsonl").open("ab") as file:
        file.write(b'{"trace_id":"trace_0')
    size = (path / "trace_summary.jsonl").stat().st_size
    os.truncate(path / "trace_summary.jsonl", size - 3)
    told = invoke("--resume", path)
    assert told.exit_code == 0
    assert re.search(
        r"\[WARN\] Cut off what was left of unfinished runs: \d+ bytes of observations\.jsonl from line 9; \d+ bytes of"
        r" traces\.jsonl from line 6; \d+ bytes of trace_summary\.jsonl from line 6",
        told.output,
    ), told.output
    assert "5 of 20 runs are done, 15 are left" in told.output
    assert verify(path).is_sound


def test_killed_before_its_files_were_made(folder: Path, invoke: Invoke) -> None:
    """Without any line file, or with the first of them alone and empty, nothing is done yet."""
    path = begun(folder)
    for made in ([], ["observations.jsonl"], ["observations.jsonl", "traces.jsonl"]):
        for name in LINES:
            (path / name).unlink(missing_ok=True)
        for name in made:
            (path / name).touch()
        told = path / "summary.json"
        text = re.sub(r'"total_traces": \d+', '"total_traces": 0', told.read_text())
        told.write_text(re.sub(r'"status": "\w+"', '"status": "running"', text))
        assert verify(path).resume == "run 20 of 20 runs"
        assert invoke("--resume", "auto").exit_code == 0
        assert len(records(path / "traces.jsonl")) == TOTAL
    assert len(list((folder / "experiments").iterdir())) == 1
    (path / "observations.jsonl").unlink()
    refused = invoke("--resume", path)
    assert (refused.exit_code, "observations.jsonl: No such file" in refused.output) == (2, True)


@pytest.mark.parametrize("how", ["directory", "auto"])
def test_killed_before_its_first_summary(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """With a configuration alone there is nothing to be unlike: it runs from the beginning."""
    monkeypatch.setenv("TIMES", "5")
    (folder / "configs/simulation.yaml").write_text(CONFIG.replace("iterations: 5", "iterations: ${TIMES}"))
    path = begun(folder)
    for name in (*LINES, "summary.json"):
        (path / name).unlink()
    assert verify(path).resume == "run all runs, for none is done"
    told = invoke("--resume", path if how == "directory" else how)
    assert told.exit_code == 0, told.output
    assert "0 of 20 runs are done, 20 are left" in told.output
    assert summary(path)["remarks"] == []
    assert verify(path).is_sound


def test_without_its_summary_the_inputs_cannot_be_compared(folder: Path, invoke: Invoke) -> None:
    """By force they are taken for the same, told apart by their ids, and nothing is run twice."""
    path = begun(folder)
    (path / "summary.json").unlink()
    told = invoke("--resume", path)
    assert told.exit_code == 2
    assert "inputs: cannot be compared, because summary.json cannot be read" in told.output
    assert invoke("--resume", path, "--force").exit_code == 0
    assert len(calls(folder)) == TOTAL
    assert "resumed by force" in summary(path)["remarks"][0]
    assert verify(path).is_sound, str(verify(path))


def test_what_a_dry_run_shows_of_a_resume(folder: Path, invoke: Invoke) -> None:
    """How many runs are done and left, and where; nothing is written, and what would be refused is."""
    path = begun(folder)
    before = content(path)
    told = invoke("--resume", path, "--dry-run")
    assert told.exit_code == 0
    assert "resumes     6 of 20 runs are done, 14 are left\n" in told.output
    assert f"output      {path}\n" in told.output
    again = invoke("--resume", "last", "--retry-failed=all", "--dry-run")
    assert "resumes     3 of 20 runs are done, 17 are left, 3 of them again\n" in again.output
    assert "resumes     6 of 20 runs are done, 14 are left\n" in invoke("--resume", "auto", "--dry-run").output
    assert "resumes" not in invoke("--resume", "auto", "--iterations", "9", "--dry-run").output
    refused = invoke("--resume", path, "--set", "seed=1", "--dry-run")
    assert (refused.exit_code, "seed: was 42, is 1" in refused.output) == (2, True)
    assert content(path) == before
    assert len(list((folder / "experiments").iterdir())) == 1
    assert len(calls(folder)) == 6
    invoke("--resume", path)
    assert "resumes     20 of 20 runs are done, 0 are left\n" in invoke("--resume", path, "--dry-run").output


def test_a_killed_or_running_experiment_can_be_read(folder: Path) -> None:
    """`load` counts what is whole, while it is written and after a kill."""
    path = begun(folder, "SIGKILL")
    with DirectoryLock(path):
        loaded = fluxloop.load(path)
    assert (loaded.summary.status, len(loaded), loaded.summary.not_run) == ("running", 5, 15)
    assert [trace.trace_id for trace in loaded] == [f"trace_{number:03d}" for number in range(1, 6)]
    assert loaded.remaining() == (
        f"15 of 20 runs were not run; to go on: fluxloop run experiment --resume experiments/{path.name}"
    )


def test_mistakes_are_told_plainly(folder: Path, invoke: Invoke) -> None:
    """What belongs to a resume goes with one, and what is no experiment is named."""
    path = begun(folder)
    before = content(path)

    def told(*options: object) -> str:
        result = invoke(*options)
        assert result.exit_code == 2
        return result.output

    hint = "goes with --resume, which names the experiment to go on with\n"
    assert told("--retry-failed") == f"Error: --retry-failed: {hint}"
    assert told("--force") == f"Error: --force: {hint}"
    wrong_kind = "retry_failed: expected 'infrastructure', 'failed' or 'all', got 'x'"
    assert told("--resume", path, "--retry-failed=x") == f"Error: {wrong_kind}\n"
    with pytest.raises(ConfigError, match=wrong_kind):
        Experiment.resume(path, retry_failed="x")  # type: ignore[arg-type]
    for wrong in ("nowhere", "configs", "inputs.jsonl", ""):
        assert "not an experiment directory: there is no config.yaml in it" in told("--resume", wrong)
        with pytest.raises(OutputError, match="not an experiment directory"):
            Experiment.resume(wrong)
    with DirectoryLock(path):
        running = told("--resume", path)
        assert f"{path}: another process writes to it (pid {os.getpid()} on " in running
    assert content(path) == before
    (path / "config.yaml").write_text("runner: {iterations: many}\n")
    assert re.search(r"config\.yaml:1:22: runner\.iterations: expected an integer", told("--resume", path))


def test_ctrl_c_while_it_counts_leaves_all_as_it_is(folder: Path) -> None:
    """Before the first run an interrupt changes nothing of what is done."""
    path = begun(folder)
    before = content(path)
    code = """
import os, signal, sys
from fluxloop.store.runs import StoredRuns
whole = StoredRuns.__iter__
def passing(self):
    for run in whole(self):
        os.kill(os.getpid(), signal.SIGINT)
        yield run
StoredRuns.__iter__ = passing
sys.argv[0] = "fluxloop"
from fluxloop_cli.main import main
main()
"""
    line = [sys.executable, "-c", code, "run", "experiment", "--resume", str(path)]
    done = subprocess.run(
        line,
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130
    assert "Interrupted before the first run; the same command goes on." in done.stderr
    assert content(path) == before


def test_runs_that_were_taken_away_are_not_run_again_unasked(folder: Path) -> None:
    """A directory without its line files, whose summary counts runs, is refused."""
    path = begun(folder)
    for name in ("traces.jsonl", "trace_summary.jsonl", "observations.jsonl"):
        (path / name).unlink()
    before = content(path)
    assert verify(path).resume.startswith("refuse")
    with pytest.raises(OutputError, match=r"jsonl: No such file"):
        Experiment.resume(path).run()
    assert content(path) == before
