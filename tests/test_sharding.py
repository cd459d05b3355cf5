"""An experiment divided over machines: which runs, which seed, which rates, which directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from fluxloop import Experiment, ExperimentResult, load, merge, rate_limit
from fluxloop.config.model import Failures, Rate, RunnerConfig, Seconds, ShardText
from fluxloop.executors.chosen import limits_for
from fluxloop.plan import seed_of
from fluxloop.rates import _queues
from fluxloop_cli.main import main
from fluxloop_cli.merge import merge as merge_command

AGENT = "def run(text):\n    return text.upper()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with an agent and inputs in it; its module is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "shard_agent.py").write_text(AGENT)
    (tmp_path / "inputs.jsonl").write_text('"a"\n"b"\n"c"\n')
    yield tmp_path
    sys.modules.pop("shard_agent", None)


def upper(text: str) -> str:
    return text.upper()


def run(shard: str | None, **options: Any) -> ExperimentResult:
    """Run a shard of an experiment of three inputs, four times each."""
    chosen: dict[str, Any] = {"target": upper, "inputs": ["a", "b", "c"], "iterations": 4, "name": "demo", **options}
    return Experiment(shard=shard, **chosen).run()


def told(result: ExperimentResult) -> dict[str, tuple[str, int, int]]:
    """Of each run its input, iteration and seed, by its id."""
    return {trace.trace_id: (trace.input, trace.iteration, trace.seed) for trace in result}


def test_shards_on_machines_of_their_own_are_one_experiment(folder: Path) -> None:
    """Processes that know nothing of each other run every run once, with the ids and seeds of the whole."""
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--target", "shard_agent:run"]
    command += ["--inputs", "inputs.jsonl", "--iterations", "4", "--parallel", "2", "--quiet"]
    processes = [
        subprocess.Popen([*command, "--shard", f"{index}/5"], stdout=subprocess.PIPE, text=True)
        for index in range(1, 6)
    ]
    directories = [Path(process.communicate()[0].strip()) for process in processes]
    assert [process.returncode for process in processes] == [0] * 5
    found: dict[str, Any] = {}
    for directory in directories:
        lines = [json.loads(line) for line in (directory / "traces.jsonl").read_text().splitlines()]
        assert 2 <= len(lines) <= 3
        assert not found.keys() & {line["trace_id"] for line in lines}
        found |= {line["trace_id"]: (line["input"], line["iteration"], line["seed"]) for line in lines}
    whole = Experiment(target="shard_agent:run", inputs="inputs.jsonl", iterations=4, seed=seed_of("shard_agent")).run()
    assert dict(sorted(found.items())) == told(whole)


def test_what_a_shard_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line tells which shard it is and how much of all it has."""
    run("4/5", progress=True)
    said = capsys.readouterr().err
    assert "[INFO] Running 4 iterations per input (12 total runs)\n[INFO] Shard 4 of 5: 2 of 12 runs\n" in said
    run(None, progress=True)
    assert "hard" not in capsys.readouterr().err


def test_a_dry_run_shows_the_shard(folder: Path) -> None:
    """With its runs and its directory; without a shard nothing is said of one."""
    arguments = ["run", "experiment", "--target", "shard_agent:run", "--inputs", "inputs.jsonl", "--dry-run"]
    shown = CliRunner().invoke(main, [*arguments, "--iterations", "4", "--shard", "1/5"]).output
    assert "\nruns        3\nshard       1 of 5: 3 of 12 runs\n" in shown
    assert "/experiments/shard_agent_1of5_2" in shown
    assert "hard " not in CliRunner().invoke(main, arguments).output
    assert not (folder / "experiments").exists()


def test_directories_of_shards_do_not_collide() -> None:
    """Each shard's has another name, whichever second and machine it starts at."""
    names = [run(f"{index}/3").path.name.rpartition("_")[0].rpartition("_")[0] for index in (1, 2, 3)]
    assert names == ["demo_1of3", "demo_2of3", "demo_3of3"]


@pytest.mark.parametrize("options", [{}, {"fail_under": 1.0}, {"max_failures": "10%"}, {"parallel": 4}])
def test_a_shard_without_runs_is_no_error(options: dict[str, Any]) -> None:
    """Where there are more shards than runs, those that have none complete at once."""
    results = [run(f"{index}/4", inputs=["a", "b"], iterations=1, **options) for index in range(1, 5)]
    assert sorted(len(result) for result in results) == [0, 0, 1, 1]
    for result in results:
        assert (result.exit_code, result.summary.status) == (0, "completed")
        assert (result.summary.planned, result.summary.not_run) == (len(result), 0)
        assert result.gate_passed
        assert "missed" not in str(result.table())
        assert sorted(path.name for path in result.path.iterdir()) == [
            *("config.yaml", "observations.jsonl", "summary.json", "trace_summary.jsonl", "traces.jsonl")
        ]


def test_the_summary_is_the_shards_own() -> None:
    """It counts its own runs, and says of what they are a part."""
    result = run("4/5")
    assert (result.summary.planned, result.summary.total_traces) == (2, 2)
    ran_on = result.summary.ran_on
    assert (ran_on["shard"], ran_on["inputs"], ran_on["id_digits"]) == ("4/5", 3, 3)
    whole = run(None).summary.ran_on
    assert (whole["shard"], whole["inputs"], whole["id_digits"]) == (None, 3, 3)
    assert whole["inputs_digest"] == ran_on["inputs_digest"]


def test_the_seed_of_a_shard_follows_from_the_name() -> None:
    """So that all shards draw the same one; it is kept in the configuration as any is."""
    first, second, other = run("1/2"), run("2/2"), run("1/2", name="other")
    seeds = [YAML(typ="safe").load(result.path / "config.yaml")["seed"] for result in (first, second, other)]
    assert seeds == [seed_of("demo"), seed_of("demo"), seed_of("other")]
    assert seeds[0] != seeds[2]
    assert run("1/2", seed=5).summary.ran_on["seed"] == 5
    assert run(None).summary.ran_on["seed"] != run(None).summary.ran_on["seed"]


def runner(**options: Any) -> RunnerConfig:
    return RunnerConfig(shard=ShardText("2/8"), **options)


@pytest.mark.parametrize("per_shard", [False, True])
def test_shards_share_the_rate_of_starts(per_shard: bool) -> None:
    """The rate is that of all shards together, unless it is said to be for each."""
    shares = 1 if per_shard else 8
    for options in ({"start_rate": Rate("60/min")}, {"run_delay_seconds": Seconds(1.0)}):
        assert limits_for(runner(per_shard=per_shard, **options), 100).start_gap == shares
    assert limits_for(runner(per_shard=per_shard), 100).start_gap == 0
    assert limits_for(RunnerConfig(start_rate=Rate("60/min"), per_shard=per_shard), 100).start_gap == 1


def test_a_shard_starts_at_its_share_of_the_rate() -> None:
    """No attempt of one of four shards starts sooner than four times the rate's gap after the one before."""
    starts: list[float] = []
    began = time.monotonic()
    run("1/4", target=lambda text: starts.append(time.monotonic()), settings=["runner.start_rate=100/s"])
    assert len(starts) == 3
    assert all(at >= began + number * 0.04 - 1e-6 for number, at in enumerate(starts))


@pytest.mark.parametrize(("failures", "stops_after"), [(Failures(0.1), 2), (Failures(3), 3), (None, None)])
def test_a_share_of_failures_is_of_the_shards_own_runs(failures: Failures | None, stops_after: int | None) -> None:
    """A tenth of 20 is 2, however many all shards have; a number of runs is that number."""
    assert limits_for(runner(max_failures=failures), 20).max_failures == stops_after


def test_a_shard_stops_on_its_own_failures() -> None:
    """Half of the six runs of one of two shards are three, though half of all would be six."""
    result = run("1/2", target=lambda text: 1 / 0, max_failures="50%")
    assert (result.summary.failed, result.summary.planned, result.summary.status) == (3, 6, "stopped")


def hours_to_wait(name: str) -> int:
    """For how many hours, about, the rate of this name lets nobody through."""
    return round((_queues[name].pace.next - time.monotonic()) / 3600)


@pytest.mark.parametrize(("executor", "parallel"), [("inline", 1), ("threads", 3), ("asyncio", 3)])
@pytest.mark.parametrize(
    ("shard", "settings", "hours"), [("1/4", (), 4), ("1/4", ["runner.per_shard=true"], 1), (None, (), 1)]
)
def test_shards_share_the_rates_inside_agents(
    request: pytest.FixtureRequest, executor: str, parallel: int, shard: str | None, settings: Any, hours: int
) -> None:
    """Under every executor, also where the agent calls from a thread of its own; and when it is over, no longer."""
    called: list[str] = []

    def call(which: str) -> None:
        name = f"{request.node.nodeid}/{which}/{len(called)}"
        called.append(name)
        with rate_limit(name, "1/h"):
            pass

    def agent(text: str) -> None:
        call("run")
        thread = threading.Thread(target=call, args=["thread"])
        thread.start()
        thread.join()

    async def agent_async(text: str) -> None:
        agent(text)

    target = agent_async if executor == "asyncio" else agent
    result = run(shard, target=target, executor=executor, parallel=parallel, settings=settings)
    assert result.summary.failed == 0
    assert {hours_to_wait(name) for name in called} == {hours}
    call("afterwards")
    assert hours_to_wait(called[-1]) == 1


def test_the_plan_of_a_shard() -> None:
    """`plan()` gives the shard's runs, and knows how many all are."""
    experiment = Experiment(target=upper, inputs=["a", "b", "c"], iterations=4, shard="4/5")
    assert len(list(experiment.plan())) == len(experiment.plan()) == 2
    assert experiment.plan().total == 12


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## Spreading over machines\n", 1)[1].split("\n## ", 1)[0]
EXAMPLES = dict(re.findall(r"^```\w+ (\w+)\n(.*?)^```$", SECTION, re.M | re.S))


@pytest.fixture
def shell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script as a machine with fluxloop installed would, in a project whose experiment is `my_agent`."""
    (folder / "my_agent.py").write_text(AGENT)
    (folder / "configs").mkdir()
    (folder / "configs" / "simulation.yaml").write_text("runner: {target: 'my_agent:run', iterations: 5}\n")
    (folder / "inputs").mkdir()
    (folder / "inputs" / "generated.yaml").write_text("[a, b, c]\n")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    def shell(script: str, **environment: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    return shell


def everything(path: Path) -> list[tuple[str, int]]:
    return sorted((trace.input, trace.iteration) for trace in load(path))


WHOLE = [(text, iteration) for text in "abc" for iteration in range(5)]


def test_the_commands_of_the_readme(shell: Callable[..., None]) -> None:
    """Two shards and their merge are a whole experiment."""
    shell(EXAMPLES["merge"])
    assert everything(Path("experiments/my_agent")) == WHOLE


def test_the_workflow_of_the_readme(shell: Callable[..., None]) -> None:
    """Its commands, with artifacts moved as its actions say, end in a whole experiment."""
    jobs = YAML(typ="safe").load(EXAMPLES["workflow"])["jobs"]
    shard, merge = ([step["run"] for step in jobs[name]["steps"] if "run" in step] for name in ("shard", "merge"))
    assert shard[0] == merge[0] == "pip install -r requirements.txt"
    uses = {step["uses"]: step["with"] for step in jobs["merge"]["steps"] + jobs["shard"]["steps"] if "with" in step}
    (download,) = (given for name, given in uses.items() if name.startswith("actions/download-artifact"))
    upload = jobs["shard"]["steps"][-1]["with"]
    numbers = jobs["shard"]["strategy"]["matrix"]["shard"]
    assert f"/{len(numbers)}" in shard[1]
    for number in numbers:
        shell(shard[1].replace("${{ matrix.shard }}", str(number)))
        assert fnmatch(upload["name"].replace("${{ matrix.shard }}", str(number)), download["pattern"])
        shutil.copytree(upload["path"], download["path"], dirs_exist_ok=True)
        shutil.rmtree(upload["path"])
    shell(merge[1])
    assert everything(Path(jobs["merge"]["steps"][-1]["with"]["path"])) == WHOLE


def test_the_slurm_script_of_the_readme(shell: Callable[..., None]) -> None:
    """Each job of the array runs its shard; one that is started again goes on while it is unfinished."""
    script = EXAMPLES["slurm"]
    (first, last) = re.findall(r"--array=(\d+)-(\d+)", script)[0]
    for number in range(int(first), int(last) + 1):
        shell(script, SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_COUNT=last)
    second = next(Path("experiments").glob("my_agent_2of8_*"))
    for name in ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl"):
        os.truncate(second / name, 0)
    told = (second / "summary.json").read_text()
    (second / "summary.json").write_text(told.replace('"status": "completed"', '"status": "running"'))
    shell(script, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_TASK_COUNT=last)
    merged = merge(sorted(Path("experiments").glob("my_agent_*of8_*")), "merged")
    assert everything(merged.path) == WHOLE


def test_indexed_jobs_of_kubernetes_count_from_0(shell: Callable[..., None]) -> None:
    """The arithmetic of the README is the shell's."""
    (option,) = re.findall(r"`(--shard \$\(\(.*?)`", SECTION)
    shell(f"fluxloop run experiment {option}", JOB_COMPLETION_INDEX="0")
    assert [path.name.startswith("my_agent_1of8_") for path in Path("experiments").iterdir()] == [True]


def test_the_table_of_options_is_that_of_help() -> None:
    """The README and `fluxloop merge --help` name the same options, each with a word on it."""
    options = [parameter for parameter in merge_command.params if isinstance(parameter, click.Option)]
    assert re.findall(r"^\| `(--[\w-]+)` ", SECTION, re.M) == [option for one in options for option in one.opts]
    assert all(option.help for option in options)
