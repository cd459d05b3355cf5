"""The command line: what each option does, and what a user is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

import fluxloop
from fluxloop_cli.main import main

AGENT = """\
import fluxloop

@fluxloop.agent()
def run(input_text: str, style: str = "plain") -> str:
    if input_text == "fail":
        raise ValueError("cannot")
    print("said")
    return f"{style} {input_text}"
"""
CONFIG = """\
runner:
  target: "cli_agent:run"
  iterations: 2
"""
INPUTS = """\
generated_inputs:
  - input: "hi"
    persona: novice_user
  - input: "bye"
    persona: expert_user
"""

Invoke = Callable[..., Result]


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files, and the folders they need."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with an agent in it; its modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path, {"cli_agent.py": AGENT})
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def project(folder: Path) -> Path:
    """The working directory with an agent, a configuration and inputs."""
    write(folder, {"configs/simulation.yaml": CONFIG, "inputs/generated.yaml": INPUTS})
    return folder


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """Call `fluxloop run experiment`; what it does not catch fails the test."""

    def invoke(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(main, ["run", "experiment", *arguments], catch_exceptions=False, **options)

    return invoke


def results(folder: Path, directory: str = "experiments") -> Path:
    """The one experiment directory there is."""
    (path,) = (folder / directory).iterdir()
    return path


def traces(path: Path) -> list[dict[str, Any]]:
    """The lines of `traces.jsonl`."""
    return [json.loads(line) for line in (path / "traces.jsonl").read_text().splitlines()]


def outputs(folder: Path) -> list[Any]:
    """What the agent answered in each run."""
    return [trace["output"] for trace in traces(results(folder))]


def summary(path: Path) -> dict[str, Any]:
    """What `summary.json` holds."""
    return json.loads((path / "summary.json").read_text())  # type: ignore[no-any-return]


def written_config(path: Path) -> dict[str, Any]:
    """What `config.yaml` holds."""
    return YAML(typ="safe").load(path / "config.yaml")  # type: ignore[no-any-return]


def test_defaults(project: Path, invoke: Invoke) -> None:
    """Without options the project's configuration is run, and the result is shown with its place."""
    result = invoke()
    assert result.exit_code == 0
    path = results(project)
    assert path.name.startswith("cli_agent_")
    assert sorted(file.name for file in path.iterdir()) == [
        "config.yaml",
        "observations.jsonl",
        "summary.json",
        "trace_summary.jsonl",
        "traces.jsonl",
    ]
    assert outputs(project) == ["plain hi", "plain bye"] * 2
    assert "[INFO] Running 2 iterations per input (4 total runs)" in result.output
    assert "4 of 4: 4 passed, 0 failed" in result.output
    assert f"experiments/{path.name}" in result.output


def test_no_configuration_needed(folder: Path, invoke: Invoke) -> None:
    """A target and inputs are enough."""
    write(folder, {"questions.csv": "input,persona\nhi,novice\n"})
    assert invoke("--target", "cli_agent:run", "--inputs", "questions.csv").exit_code == 0
    assert outputs(folder) == ["plain hi"]


def test_target_beside_a_configuration(project: Path, invoke: Invoke) -> None:
    """A target goes before the configuration's; the rest of it holds."""
    write(project, {"cli_other.py": "def go(text):\n    return 'other'\n"})
    assert invoke("--target", "cli_other:go").exit_code == 0
    assert outputs(project) == ["other"] * 4
    assert results(project).name.startswith("cli_other_")


def test_config(project: Path, invoke: Invoke) -> None:
    """`--config` and `-c` name another configuration, whose paths are relative to its folder."""
    write(
        project, {"sub/my.yaml": "runner: {target: 'cli_sub:go'}\ninputs: {file: in.jsonl}\noutput: {directory: out}\n"}
    )
    write(project, {"sub/in.jsonl": '"a"\n', "sub/cli_sub.py": "def go(text):\n    return text * 2\n"})
    for option in ("--config", "-c"):
        assert invoke(option, "sub/my.yaml").exit_code == 0
    assert [[trace["output"] for trace in traces(path)] for path in (project / "sub/out").iterdir()] == [["aa"]] * 2
    assert not (project / "experiments").exists()


def test_options_reach_the_files(project: Path, invoke: Invoke) -> None:
    """Iterations, name, output directory and settings show in what is written."""
    result = invoke(
        *("--iterations", "3", "--name", "baseline-test", "--output-dir", "results/deep", "--set", "seed=5"),
        *("--set", "runner.args.style=loud", "--set", "tags=[a, b]", "--set", "description=why not"),
    )
    assert result.exit_code == 0
    path = results(project, "results/deep")
    assert path.name.startswith("baseline-test_")
    assert [trace["output"] for trace in traces(path)] == ["loud hi", "loud bye"] * 3
    config = written_config(path)
    assert (config["name"], config["seed"], config["tags"], config["description"]) == (
        "baseline-test",
        5,
        ["a", "b"],
        "why not",
    )
    assert config["runner"]["iterations"] == 3
    assert config["output"]["directory"] == str(project / "results/deep")
    assert summary(path)["experiment_name"] == "baseline-test"


def test_paths_of_options_are_relative_to_here(project: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths on the command line are relative to the working directory, not to the project."""
    write(project, {"elsewhere/mine.jsonl": '"x"\n'})
    monkeypatch.chdir(project / "elsewhere")
    arguments = ("-c", "../configs/simulation.yaml", "--inputs", "mine.jsonl", "--output-dir", "out")
    assert invoke(*arguments).exit_code == 0
    assert [trace["output"] for trace in traces(results(project / "elsewhere", "out"))] == ["plain x"] * 2


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--persona", "novice_user"], ["hi"]),
        (["--persona", "novice_user", "--persona", "expert_user"], ["hi", "bye"]),
        (["--input-id", "input_002"], ["bye"]),
        (["--input-id", "input_002", "--input-id", "input_001"], ["hi", "bye"]),
        (["--limit", "1"], ["hi"]),
        (["--limit", "1", "--persona", "expert_user"], ["bye"]),
    ],
)
def test_filters(project: Path, invoke: Invoke, arguments: list[str], found: list[str]) -> None:
    """Persona, id and limit choose inputs, repeated ones add up."""
    assert invoke("--iterations", "1", *arguments).exit_code == 0
    assert outputs(project) == [f"plain {text}" for text in found]


def test_map(project: Path, invoke: Invoke) -> None:
    """`--map` takes fields from other columns."""
    write(project, {"q.csv": "question,who,answer\nhi,novice,yes\n"})
    arguments = ("--map", "input=question", "--map", "persona=who", "--map", "expected=answer", "--iterations", "1")
    assert invoke("--inputs", "q.csv", *arguments).exit_code == 0
    (trace,) = traces(results(project))
    assert (trace["input"], trace["persona"], trace["expected"], trace["metadata"]) == ("hi", "novice", "yes", None)


def test_precedence(project: Path, invoke: Invoke) -> None:
    """File < environment < --set < an option of its own."""
    environment = {"FLUXLOOP_RUNNER__ITERATIONS": "3"}
    found = []
    for arguments in ([], ["--set", "runner.iterations=4"], ["--set", "runner.iterations=4", "--iterations", "5"]):
        output = invoke("--dry-run", *arguments, env=environment).output
        found.append(output.split("iterations")[1].split()[0])
    assert found == ["3", "4", "5"]


def test_dry_run(project: Path, invoke: Invoke) -> None:
    """`--dry-run` shows the plan and the binding and writes nothing."""
    before = sorted(project.rglob("*"))
    result = invoke("--dry-run", "--iterations", "20", "--name", "n", "--set", "runner.args.style=x")
    assert result.exit_code == 0
    *rows, place = result.output.splitlines()
    assert [row.split(None, 1) for row in rows] == [
        ["inputs", "2"],
        ["iterations", "20"],
        ["runs", "40"],
        ["target", "cli_agent:run"],
        ["binding", "input → input_text, style ← runner.args"],
        ["executor", "inline, one at a time"],
    ]
    assert place.startswith(f"output      {project}/experiments/n_2")
    assert sorted(project.rglob("*")) == before


def test_quiet_keeps_the_path_alone_on_stdout(project: Path) -> None:
    """What the agent's module prints at its import goes to stderr, and a missed gate says why there."""
    (project / "chatty_import.py").write_text("print('imported')\ndef run(x):\n    raise ValueError('no')\n")
    done = command("run", "experiment", "--quiet", "--target", "chatty_import:run", cwd=project)

    assert done.returncode == 1
    (printed,) = done.stdout.splitlines()
    assert (project / printed / "summary.json").exists()
    assert "imported" in done.stderr
    assert "0 of" in done.stderr


def test_quiet(project: Path, invoke: Invoke) -> None:
    """`--quiet` prints the path of the results and nothing else."""
    result = invoke("--quiet")
    assert result.output == f"{results(project)}\n"


def test_no_progress(project: Path, invoke: Invoke) -> None:
    """`--no-progress` shows the result and no progress."""
    result = invoke("--no-progress")
    assert "[INFO]" not in result.output
    assert "4 of 4: 4 passed" in result.output


GATED = '"hi"\n"bye"\n"so"\n"fail"\n'


@pytest.mark.parametrize(
    ("gate", "exit_code"),
    [("0.95", 1), ("95%", 1), ("0.75", 0), ("75%", 0), ("76%", 1), ("0", 0), ("0%", 0), ("1", 1), ("100%", 1)],
)
def test_fail_under(project: Path, invoke: Invoke, gate: str, exit_code: int) -> None:
    """The gate is a share of the runs that pass: three of four here."""
    write(project, {"gated.jsonl": GATED})
    result = invoke("--inputs", "gated.jsonl", "--fail-under", gate)
    assert result.exit_code == exit_code
    assert ("gate" in result.output, "missed" in result.output) == (True, exit_code == 1)
    assert summary(results(project))["pass_rate"]["value"] == 0.75


def test_fail_under_refuses_95(project: Path, invoke: Invoke) -> None:
    """95 is no share; what may be meant is told."""
    result = invoke("--fail-under", "95")
    assert result.exit_code == 2
    assert result.output == (
        "Error: fail_under='95': expected a share such as 0.95 or 95%, got '95'; did you mean 95%?\n"
    )


def test_some_failures_are_no_failure(project: Path, invoke: Invoke) -> None:
    """Without a gate an experiment is done when it is done, unless every run failed."""
    write(project, {"gated.jsonl": GATED, "failing.jsonl": '"fail"\n'})
    assert invoke("--inputs", "gated.jsonl", "--output-dir", "one").exit_code == 0
    failed = invoke("--inputs", "failing.jsonl", "--output-dir", "two")
    assert failed.exit_code == 1
    assert "ValueError" in failed.output
    assert summary(results(project, "two"))["successful"] == 0


WAITING = """\
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor

import fluxloop

together = threading.Barrier(2)
asked = set()

def pair(text):
    together.wait(30)
    return threading.current_thread() is threading.main_thread()

async def hanging(text):
    if text == "bye":
        await asyncio.sleep(30)
    return text

def hanging_sync(text):
    if text == "bye":
        threading.Event().wait(30)
    return text

def holding(text):
    ThreadPoolExecutor(1).submit(threading.Event().wait, 100).result()

def overloaded(text):
    if text not in asked:
        asked.add(text)
        raise ConnectionError("refused")
    return fluxloop.current_run().attempt

def refused(text):
    raise ConnectionError(text)

def failing(text):
    raise ValueError(text)

def slow(text):
    time.sleep(0.02)
    return text
"""


@pytest.fixture
def waiting(project: Path) -> Path:
    """The project with agents that wait, hang, or fail."""
    write(project, {"cli_waiting.py": WAITING})
    return project


def test_parallel(waiting: Path, invoke: Invoke) -> None:
    """`--parallel 2` has two runs in flight: each of these ends only beside another."""
    assert invoke("--target", "cli_waiting:pair", "--parallel", "2").exit_code == 0
    assert outputs(waiting) == [False] * 4
    assert written_config(results(waiting))["runner"]["parallel"] == 2


def test_executor(waiting: Path, invoke: Invoke) -> None:
    """`--executor` is where runs happen."""
    arguments = ("--dry-run", "--target", "cli_waiting:hanging", "--parallel", "3")
    assert "executor    asyncio, 3 at a time\n" in invoke(*arguments).output
    assert "executor    threads, 3 at a time\n" in invoke(*arguments, "--executor", "threads").output


def test_timeout(waiting: Path, invoke: Invoke) -> None:
    """An attempt that takes longer than `--timeout` is recorded as such, and its time counts against the agent."""
    result = invoke("--target", "cli_waiting:hanging", "--timeout", "0.2", "--iterations", "1")
    assert result.exit_code == 0
    assert [(trace["input"], trace["status"]) for trace in traces(results(waiting))] == [
        ("hi", "ok"),
        ("bye", "timeout"),
    ]
    assert "2 of 2: 1 passed, 1 failed" in result.output
    assert "no answer within 0.2 s (runner.timeout_seconds)" in result.output
    assert summary(results(waiting))["by_error_kind"] == {"agent": 0, "infrastructure": 0, "timeout": 1}


def test_timeout_of_a_sync_agent(waiting: Path) -> None:
    """A thread that hangs is given up: the user is told, and the command ends all the same."""
    arguments = ("--target", "cli_waiting:hanging_sync", "--timeout", "1", "--parallel", "4")
    done = command("run", "experiment", *arguments, cwd=waiting)
    assert done.returncode == 0
    assert done.stderr.count("Nothing can end it, so it may still be running, unseen.") == 1
    assert summary(results(waiting))["by_status"] == {"ok": 2, "error": 0, "timeout": 2, "crashed": 0}


def test_threads_of_an_agent_that_hangs_do_not_hold_the_command(waiting: Path) -> None:
    """Python waits for the threads of a pool; the command ends with its code all the same."""
    arguments = ("--target", "cli_waiting:holding", "--timeout", "0.2", "--iterations", "1", "--limit", "1")
    done = command("run", "experiment", "--quiet", *arguments, cwd=waiting)
    assert done.returncode == 1
    assert done.stdout == f"{results(waiting)}\n"
    assert summary(results(waiting))["by_status"]["timeout"] == 1


def test_no_timeout(waiting: Path, invoke: Invoke) -> None:
    """`--timeout 0` is any time, which a sync agent has inline."""
    arguments = ("--timeout", "0", "--executor", "inline")
    assert invoke(*arguments).exit_code == 0
    assert written_config(results(waiting))["runner"]["timeout_seconds"] == 0.0


def test_max_retries(waiting: Path, invoke: Invoke) -> None:
    """A connection that is refused once costs an attempt and not the run; both are told."""
    arguments = ("--target", "cli_waiting:overloaded", "--iterations", "1", "--set", "runner.retry_delay_seconds=0")
    result = invoke(*arguments, "--max-retries", "3")
    assert result.exit_code == 0
    assert sorted(trace["output"] for trace in traces(results(waiting))) == [2, 2]
    assert "2 of 2: 2 passed, 0 failed; 2 retries" in result.output
    assert summary(results(waiting))["retries"] == 2


def test_outages_are_told_apart(waiting: Path, invoke: Invoke) -> None:
    """Runs that a service's outage ended are no verdict on the agent; when all did, the code is 1."""
    result = invoke("--target", "cli_waiting:refused")
    assert result.exit_code == 1
    assert "4 of 4: 0 passed, 4 failed (all by infrastructure)" in result.output
    assert "ConnectionError: hi (infrastructure, as trace_001)" in result.output
    assert "pass rate" not in result.output


@pytest.mark.parametrize(("limit", "ran"), [("1", 1), ("3", 3), ("10%", 1), ("75%", 3), ("100%", 4), ("9", 4)])
def test_max_failures(waiting: Path, invoke: Invoke, limit: str, ran: int) -> None:
    """After so many failed runs, or such a share of four, the rest is not run, and never counted as failed."""
    result = invoke("--target", "cli_waiting:failing", "--max-failures", limit)
    found = summary(results(waiting))
    assert result.exit_code == 1
    assert (found["total_traces"], found["failed"], found["not_run"]) == (ran, ran, 4 - ran)
    assert len(traces(results(waiting))) == ran
    if ran < 4:
        assert (found["status"], "(runner.max_failures)" in found["stop_reason"]) == ("stopped", True)
        assert f"{4 - ran} not run (stopped: " in result.output
        assert f"remaining {4 - ran} of 4 runs were not run; " in result.output
    else:
        assert found["status"] == "completed"


def test_max_time(waiting: Path, invoke: Invoke) -> None:
    """When the time is over the rest is not run; the last line says how to go on, and that works."""
    result = invoke("--target", "cli_waiting:slow", "--iterations", "500", "--max-time", "0.1s")
    path = results(waiting)
    found = summary(path)
    assert result.exit_code == 1
    assert (found["status"], found["stop_reason"]) == ("stopped", "0.1 s are over (runner.max_time)")
    assert found["successful"] == found["total_traces"] == len(traces(path)) == 1000 - found["not_run"] < 1000
    last = result.output.splitlines()[-1]
    assert (
        last.split()
        == (
            f"remaining {found['not_run']} of 1000 runs were not run; to go on: "
            f"fluxloop run experiment --resume experiments/{path.name}"
        ).split()
    )
    again = last.partition("fluxloop run experiment ")[2].split()
    assert invoke(*again, "--parallel", "100", "--max-time", "1h").exit_code == 0
    assert len(traces(path)) == summary(path)["total_traces"] == 1000


def test_quiet_tells_what_remains(waiting: Path, invoke: Invoke) -> None:
    """`--quiet` keeps the path alone on stdout, and says on stderr that not all was run."""
    result = invoke("--target", "cli_waiting:failing", "--max-failures", "1", "--quiet")
    assert result.stdout == f"{results(waiting)}\n"
    assert "0 of 1 runs passed" in result.stderr
    assert "3 of 4 runs were not run" in result.stderr


def test_capture_output(project: Path) -> None:
    """What a run prints is kept with it, unless it is to be left on the screen."""
    kept = command("run", "experiment", "--no-progress", "--output-dir", "kept", cwd=project)
    left = command("run", "experiment", "--no-progress", "--output-dir", "left", "--no-capture-output", cwd=project)
    assert [trace["stdout"] for trace in traces(results(project, "kept"))] == ["said\n"] * 4
    assert [trace["stdout"] for trace in traces(results(project, "left"))] == [None] * 4
    assert kept.stdout.count("said\n") == 0
    assert left.stdout.startswith("said\n" * 4)


def ok(text: str = CONFIG) -> dict[str, str | bytes]:
    """A project with this configuration."""
    return {"configs/simulation.yaml": text, "inputs/generated.yaml": INPUTS}


def config(text: str | bytes) -> dict[str, str | bytes]:
    """A project with a broken configuration."""
    return {**ok(), "configs/simulation.yaml": text}


def inputs(name: str, text: str | bytes) -> dict[str, str | bytes]:
    """A project with a broken file of inputs."""
    return {**ok(f"{CONFIG}inputs: {{file: {name}}}\n"), name: text}


def module(text: str, target: str = "cli_bad:run") -> dict[str, str | bytes]:
    """A project whose target is in a module with this text."""
    return {**ok(CONFIG.replace("cli_agent:run", target)), "cli_bad.py": text}


C = "configs/simulation.yaml"
T = "runner.target: "
BAD: dict[str, tuple[dict[str, str | bytes], list[str], str]] = {
    "nothing at all": ({}, [], f"{C}: no such file; name another with --config"),
    "no such config": (ok(), ["-c", "no.yaml"], "no.yaml: no such file; name another with --config"),
    "config is a folder": (ok(), ["-c", "configs"], "configs: Is a directory"),
    "empty config": (config(""), [], f"{C}:1:1: the file is empty; expected at least runner: with a target"),
    "comments only": (config("# runner:\n"), [], f"{C}:1:1: the file is empty; expected at least runner:"),
    "a list": (config("- runner\n"), [], f"{C}:1:1: expected a mapping with runner:, got a list"),
    "tabs": (config("runner:\n\ttarget: x\n"), [], f"{C}:2:1: not valid YAML: found character '\\t' that cannot start"),
    "bad encoding": (config(b"runner:\n  target: \xe9\n"), [], f"{C}:2: not UTF-8 text; save the file as UTF-8"),
    "unclosed": (config("runner: {target: x\n"), [], f"{C}:2:1: not valid YAML: expected ',' or '}}'"),
    "duplicate keys": (config(CONFIG + "runner: {}\n"), [], f"{C}:4:1: runner: the key stands here a second time"),
    "a list for a mapping": (config("runner: [a]\n"), [], f"{C}:1:9: runner: expected a mapping, got a list"),
    "a mapping for a list": (config("tags: {a: 1}\n"), [], f"{C}:1:7: tags: expected a list, got a mapping"),
    "unknown key": (config("runnr: {}\n"), [], f"{C}:1:1: runnr: unknown key; did you mean 'runner'?"),
    "unknown nested key": (config("runner: {taget: x}\n"), [], f"{C}:1:10: runner.taget: unknown key; did you mean"),
    **{
        f"iterations: {value}": (
            config(f"runner:\n  target: cli_agent:run\n  iterations: {value}\n"),
            [],
            f"{C}:3:15: runner.iterations: expected an integer >= 1, got {found}",
        )
        for value, found in [("ten", "'ten'"), ('"10"', "'10'"), *((text, text) for text in ("1.5", "true", "0", "-1"))]
    },
    "another format": (config("output: {format: parquet}\n"), [], f"{C}:1:18: output.format: expected 'jsonl', got"),
    "unset variable": (config("name: ${CLI_UNSET}\n"), [], f"{C}:1:7: name: the environment variable CLI_UNSET is not"),
    "no target": (config("name: a\n"), [], f"{C}: runner.target: expected the agent to run, as module:function, got"),
    "wrong setting": (ok(), ["--set", "runner.itrations=3"], "--set runner.itrations=3: unknown key; did you mean"),
    "no setting": (ok(), ["--set", "x"], "--set: expected key=value, got 'x'"),
    "wrong map": (ok(), ["--map", "x"], "Invalid value for --map: expected FIELD=KEY, got 'x'"),
    "unknown field": (ok(), ["--map", "inptu=x"], "unknown key; did you mean 'input'?"),
    "iterations option": (ok(), ["--iterations", "0"], "runner.iterations=0: expected an integer >= 1, got 0"),
    "iterations no number": (ok(), ["--iterations", "ten"], "'ten' is not a valid integer"),
    **{
        f"parallel {value}": (
            ok(),
            ["--parallel", value],
            f"runner.parallel={value}: expected an integer >= 1, got {value}",
        )
        for value in ("0", "-1")
    },
    "parallel no number": (ok(), ["--parallel", "many"], "'many' is not a valid integer"),
    "no such executor": (
        ok(),
        ["--executor", "thread"],
        "runner.executor='thread': expected one of auto, inline, asyncio, threads, processes, ray, got 'thread'",
    ),
    "executor for async agents": (
        ok(),
        ["--executor", "asyncio"],
        f"{C}: runner.executor: asyncio runs async agents, and this one is sync: expected threads or auto, or make it",
    ),
    "executor for one at a time": (
        ok(),
        ["--executor", "inline", "--parallel", "4"],
        f"{C}: runner.parallel: inline runs one at a time, got 4: expected 1, or another runner.executor",
    ),
    "executor without timeouts": (
        ok(),
        ["--executor", "inline", "--timeout", "60"],
        f"{C}: runner.timeout_seconds: inline cannot end a sync agent: expected 0, or runner.executor threads or auto",
    ),
    **{
        f"timeout {value}": (
            ok(),
            ["--timeout", value],
            f"runner.timeout_seconds={found}: expected seconds, a number from 0 to 1e9, got {found}",
        )
        for value, found in [("-1", "-1.0"), ("nan", "nan"), ("inf", "inf"), ("1e10", "10000000000.0")]
    },
    "timeout no number": (ok(), ["--timeout", "soon"], "'soon' is not a valid float"),
    "retries option": (ok(), ["--max-retries", "-1"], "runner.max_retries=-1: expected an integer >= 0, got -1"),
    "retries no number": (ok(), ["--max-retries", "1.5"], "'1.5' is not a valid integer"),
    **{
        f"failures {value}": (
            ok(),
            ["--max-failures", value],
            f"runner.max_failures='{value}': expected a number of runs, as 10, or a share, as 10%, got '{value}'",
        )
        for value in ("0", "0%", "-1", "200%", "1.5", "many")
    },
    **{
        f"time {value}": (
            ok(),
            ["--max-time", value],
            f"runner.max_time='{value}': expected a time such as 90s, 30m or 1h30m, got '{value}'",
        )
        for value in ("soon", "0", "-5", "1d")
    },
    **{
        f"shard {value}": (ok(), ["--shard", value], f"runner.shard='{value}': {message}, got '{value}'{more}")
        for value, message, more in [
            ("0/8", "expected a shard from 1/8 to 8/8", ": shards are counted from 1"),
            ("9/8", "expected a shard from 1/8 to 8/8", ""),
            ("a/b", "expected a shard such as 2/8, the second of eight", ""),
            ("2", "expected a shard such as 2/8, the second of eight", ""),
        ]
    },
    "no rate": (
        ok(),
        ["--set", "runner.start_rate=60"],
        "--set runner.start_rate=60: expected a rate such as 60/min, 5/s or 1000/h, got '60'",
    ),
    "limit option": (ok(), ["--limit", "-1"], "inputs.limit=-1: expected an integer >= 1, got -1"),
    "unknown option": (ok(), ["--itrations", "3"], "No such option"),
    **{
        f"name {name!r}": (ok(), ["--name", name], "expected one path component, without separators or control")
        for name in ("a/b", "../x", "..", "/etc/x", " ", "a\nb", "a\\b")
    },
    "no inputs": ({C: CONFIG}, [], "inputs/generated.yaml: inputs: no such file; name another with --inputs"),
    "inputs are a folder": (ok(), ["--inputs", "inputs"], "inputs: expected a file that ends in .yaml"),
    "inputs of no known kind": (ok(), ["--inputs", "cli_agent.py"], "expected a file that ends in .yaml, .yml, .jsonl"),
    "empty inputs": (inputs("i.yaml", ""), [], "i.yaml:1: the file is empty; expected a list of inputs"),
    "empty list": (inputs("i.yaml", "generated_inputs: []\n"), [], "i.yaml: holds no inputs; it needs at least one"),
    "empty jsonl": (inputs("i.jsonl", ""), [], "i.jsonl: holds no inputs; it needs at least one"),
    "inputs with tabs": (inputs("i.yaml", "inputs:\n\t- a\n"), [], "i.yaml:2:1: not valid YAML:"),
    "inputs in latin-1": (inputs("i.yaml", b"- a\n- \xe9\n"), [], "i.yaml:2: not UTF-8 text; save the file as UTF-8"),
    "entry without input": (
        inputs("i.yaml", "- input: a\n- question: b\n  topic: c\n"),
        [],
        "i.yaml:2: no 'input'; it has 'question', 'topic'; name the one to use with --map input=question",
    ),
    "duplicate ids": (
        inputs("i.yaml", "- {input: a, id: x}\n- {input: b, id: x}\n"),
        [],
        "i.yaml:2: the id 'x' is that of line 1 already; ids must differ",
    ),
    "broken json": (inputs("i.jsonl", '"a"\n{"input": \n'), [], "i.jsonl:2: not valid JSON"),
    "ragged csv": (inputs("i.csv", "input\na,b\n"), [], "i.csv:2: more cells (2) than the header has columns (1)"),
    "no such persona": (ok(), ["--persona", "x"], "no input has the persona 'x'; personas here: expert_user"),
    "no such id": (ok(), ["--input-id", "x"], "no input has the id 'x'; ids here: input_001, input_002"),
    "target without colon": (ok(), ["--target", "cli_agent"], f"{T}expected module:function, as my_agent:run"),
    "target module missing": (ok(), ["--target", "cli_none:run"], f"{T}cannot import 'cli_none': no module named"),
    "target a path": (ok(), ["--target", "cli_agent.py:run"], "write a module, not a path: cli_agent:run"),
    "target name missing": (ok(), ["--target", "cli_agent:rnu"], "cli_agent has no 'rnu'; did you mean 'run'?"),
    "target not callable": (module("run = 3\n"), [], f"{T}cli_bad:run is an object of class int, which cannot be"),
    "target is none": (module("run = None\n"), [], f"{T}cli_bad:run is None, which cannot be called"),
    "class without method": (
        module("class run:\n    def answer(self, text):\n        return text\n"),
        [],
        "has no ainvoke, invoke or run; name one of its methods: answer",
    ),
    "class without that method": (
        module("class Agent:\n    def answer(self, text): ...\n", "cli_bad:Agent.answr"),
        [],
        "Agent has no 'answr'; did you mean 'answer'?",
    ),
    "class that cannot be built": (
        module("class Agent:\n    def __init__(self, key): ...\n    def run(self, x): ...\n", "cli_bad:Agent.run"),
        [],
        "Agent needs key; write a factory without arguments, `def make(): return Agent(key=…).run`, "
        "and name it cli_bad:make()",
    ),
    "factory raises": (
        module("def make():\n    raise OSError('no server')\n", "cli_bad:make()"),
        [],
        "cli_bad.py:2: OSError: no server",
    ),
    "raises at import": (
        module("import json\n\njson.loads('{')\n\ndef run(text): ...\n"),
        [],
        "importing 'cli_bad' failed: {folder}/cli_bad.py:3: json.decoder.JSONDecodeError: Expecting",
    ),
    "raises in a helper": (
        {**module("import cli_helper\n"), "cli_helper.py": "x = 1\ny = x / 0\n"},
        [],
        "{folder}/cli_helper.py:2: ZeroDivisionError: division by zero",
    ),
    "exits at import": (
        module("import sys\nsys.exit('set KEY first')\n"),
        [],
        "importing 'cli_bad' failed: {folder}/cli_bad.py:2: SystemExit: set KEY first",
    ),
    "syntax error": (
        module("def run(text):\n    return (\n"),
        [],
        "importing 'cli_bad' failed: {folder}/cli_bad.py:2: SyntaxError: '(' was never closed",
    ),
    "missing dependency": (
        module("\nimport not_installed_anywhere\n"),
        [],
        "{folder}/cli_bad.py:2: ModuleNotFoundError: No module named 'not_installed_anywhere'",
    ),
    "takes nothing": (module("def run(): ...\n"), [], "cli_bad:run takes no argument for the input"),
    "needs more": (
        module("def run(text, user): ...\n"),
        [],
        "cli_bad:run also needs user; give it in runner.args, list it in runner.inject",
    ),
    "argument of no parameter": (
        ok(),
        ["--set", "runner.args.stlye=x"],
        "runner.args.stlye: cli_agent:run has no parameter 'stlye'; did you mean 'style'?",
    ),
    "inject of no parameter": (ok(), ["--set", "runner.inject=[persona]"], "cli_agent:run has no parameter 'persona'"),
    "output is a file": ({**ok(), "out": ""}, ["--output-dir", "out"], "out: cannot create the experiment directory"),
    "output below a file": ({**ok(), "out": ""}, ["--output-dir", "out/x"], "Not a directory; name another with --"),
    "output in /proc": (ok(), ["--output-dir", "/proc/fluxloop"], "/proc/fluxloop: cannot create the experiment"),
    "no working directory": (
        ok(),
        ["--set", "runner.working_directory=nowhere"],
        f"{C}: runner.working_directory: {{folder}}/nowhere: No such file or directory",
    ),
    "sink missing": (ok(), ["--set", "output.sinks=[cli_none:Sink]"], "output.sinks.0: cannot import 'cli_none'"),
    "sink of another class": (
        ok(),
        ["--set", "output.sinks=[builtins:dict]"],
        "output.sinks.0: builtins:dict is not a subclass of fluxloop.TraceSink",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(folder: Path, invoke: Invoke, case: str) -> None:
    """Every mistake gets one clear message and exit code 2, and leaves no experiment behind."""
    files, arguments, message = BAD[case]
    write(folder, files)
    before = sorted(folder.rglob("*"))
    result = invoke(*arguments)
    last = [line for line in result.stderr.splitlines() if not line.startswith("[INFO] ")]
    assert message.replace("{folder}", str(folder)) in result.stderr
    assert result.exit_code == 2
    assert len([line for line in last if "rror: " in line and line.startswith("Error: ")]) == 1
    assert "Traceback" not in result.output
    assert sorted(folder.rglob("*")) == before


def test_all_mistakes_of_a_configuration(folder: Path, invoke: Invoke) -> None:
    """All the mistakes of a file are told at once, those of options and variables with them."""
    write(folder, config("runner:\n  itrations: 3\n  iterations: ten\noutput: []\n"))
    result = invoke("--set", "seed=x", env={"FLUXLOOP_INPUTS__LIMIT": "many"})
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    assert told[0].startswith("Error: ")
    assert sorted(line.removeprefix("Error: ") for line in told) == [
        "--set seed=x: expected an integer, got 'x'",
        f"{C}:2:3: runner.itrations: unknown key; did you mean 'iterations'?",
        f"{C}:3:15: runner.iterations: expected an integer >= 1, got 'ten'",
        f"{C}:4:9: output: expected a mapping, got a list",
        "environment variable FLUXLOOP_INPUTS__LIMIT: inputs.limit: expected an integer >= 1, got 'many'",
    ]


def test_interrupt_before_the_first_run(project: Path, invoke: Invoke) -> None:
    """Ctrl-C while the target is imported is no mistake of the user's."""
    write(project, {"cli_interrupted.py": "raise KeyboardInterrupt\n"})
    result = invoke("--target", "cli_interrupted:run")
    assert result.exit_code == 130
    assert not (project / "experiments").exists()


def test_help_at_the_top() -> None:
    """The top help says what it is for and where to start."""
    for option in ("--help", "-h"):
        result = CliRunner().invoke(main, [option])
        assert result.exit_code == 0
        assert "Run an AI agent on every input, many times, and see how reliable it is." in result.output
        assert "Run experiments with your agent." in result.output
        assert "fluxloop run experiment --help" in result.output


def test_help_of_run() -> None:
    """`fluxloop run` lists its command."""
    result = CliRunner().invoke(main, ["run", "--help"])
    assert result.exit_code == 0
    assert "experiment" in result.output
    assert "Execute simulation experiments with your agent." in result.output


def test_help_of_experiment() -> None:
    """Each option is explained; examples and exit codes follow."""
    result = CliRunner().invoke(main, ["run", "experiment", "-h"])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for option in (
        *("-c, --config FILE", "--target MODULE:NAME", "--inputs FILE", "--map FIELD=KEY", "--iterations N"),
        *("--output-dir DIR", "--name TEXT", "--set KEY=VALUE", "--persona TEXT", "--input-id TEXT", "--limit N"),
        *("--fail-under SHARE", "--parallel N", "--executor NAME", "--timeout SECONDS", "--max-retries N"),
        *("--max-failures N|SHARE", "--max-time TIME", "--shard K/N", "--capture-output / --no-capture-output"),
        *("--dry-run", "--quiet", "--no-progress"),
    ):
        assert option in text
    assert "fluxloop run experiment --target app.graph:graph --inputs questions.csv" in text
    assert "Exit codes: 0 the experiment completed, though runs may have failed" in text
    assert text.count("E.g. --") + text.count("E.g. -c") >= 9


def test_every_option_has_a_help() -> None:
    """No option goes without a word."""
    command = main.get_command(click.Context(main), "run")
    assert isinstance(command, click.Group)
    options = [option for option in command.commands["experiment"].params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_version() -> None:
    """`--version` tells the version."""
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"fluxloop {fluxloop.__version__}\n")


def test_unknown_command() -> None:
    """A command that is not there is told."""
    result = CliRunner().invoke(main, ["rnu"])
    assert result.exit_code == 2
    assert "No such command 'rnu'" in result.output


def test_completion() -> None:
    """The shell completes commands."""
    environment = {"_FLUXLOOP_COMPLETE": "bash_complete", "COMP_WORDS": "fluxloop r", "COMP_CWORD": "1"}
    assert CliRunner().invoke(main, prog_name="fluxloop", env=environment).output == "plain,run\n"


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    script = str(Path(sys.executable).parent / "fluxloop")
    env = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run([script, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_the_real_command(project: Path) -> None:
    """The installed command runs the experiment; its only words are the result's."""
    done = command("run", "experiment", "--no-progress", "--quiet", cwd=project)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{results(project)}\n", "")


def test_the_real_command_fails_plainly(project: Path) -> None:
    """The installed command ends with 2 and no traceback on a mistake."""
    write(project, {"cli_agent.py": "1 / 0\n"})
    done = command("run", "experiment", "--no-progress", cwd=project)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"Error: runner.target: importing 'cli_agent' failed: {project}/cli_agent.py:1: "
        "ZeroDivisionError: division by zero\n"
    )


def test_the_module(project: Path) -> None:
    """`python -m fluxloop_cli` is the same command."""
    arguments = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--dry-run"]
    done = subprocess.run(arguments, cwd=project, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "binding     input → input_text" in done.stdout


def test_names_that_are_no_text(project: Path) -> None:
    """Bytes on the command line that are no UTF-8 do no more harm than other letters."""
    script = str(Path(sys.executable).parent / "fluxloop")
    arguments: list[Any] = [script, "run", "experiment", "--quiet", "--set", b"description=\xff"]
    done = subprocess.run(arguments, cwd=project, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_is_light(tmp_path: Path) -> None:
    """`fluxloop --help` imports neither the library's core nor what it stands on."""
    code = """
import sys
from click.testing import CliRunner
from fluxloop_cli.main import main
for arguments in (["--help"], ["--version"]):
    assert CliRunner().invoke(main, arguments).exit_code == 0
heavy = ("fluxloop.experiment", "fluxloop.config", "ruamel", "ruamel.yaml", "yaml", "cattrs", "tqdm", "msgspec")
heavy += ("fluxloop.executors", "ray")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
