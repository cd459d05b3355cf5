"""Killed at any moment, again and again: no run is lost, none doubled, none that was done is run again."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from threading import Event

import pytest

from tests.durability.judging import NAMES, Run, runs_of
from tests.durability.lab import Command, Done, Lab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process does is seen in /proc")

ITERATIONS = 30
IDS = [f"trace_{number:03d}" for number in range(1, 8 * ITERATIONS + 1)]
OPTIONS = ("run", "experiment", "--no-progress", "--iterations", str(ITERATIONS))
KILLS = 8
"""In a row, before it is let come to its end."""
SYNC, ASYNC = ("--target", "durable_agent:slow"), ("--target", "durable_agent:slow_async")
EXECUTORS = {
    "inline": (*SYNC, "--executor", "inline"),
    "inline, async": (*ASYNC, "--executor", "inline"),
    "threads": (*SYNC, "--executor", "threads", "--parallel", "8"),
    "asyncio": (*ASYNC, "--executor", "asyncio", "--parallel", "8"),
    "processes": (*SYNC, "--executor", "processes", "--parallel", "8"),
    "processes, async": (*ASYNC, "--executor", "processes", "--parallel", "8"),
}
SOON = {"processes": 0.7, "processes, async": 0.7}
"""Seconds in which it begins; 0.15 where no process is started."""
ROUNDS = int(os.environ.get("KILL_ROUNDS", "204"))
"""How many are made when all of the slow ones are, a little more where that does not divide among the executors."""


def rounds_for(*quick: str) -> list[object]:
    """An executor and its number of rounds: a single one for these, and all that are slow."""
    share = -(-ROUNDS // (2 * len(EXECUTORS)))  # there are two tests
    slow = [pytest.param(executor, share, marks=pytest.mark.slow) for executor in EXECUTORS]
    return [*((executor, 1) for executor in quick), *slow]


def directory(project: Path) -> Path | None:
    """The experiment, if it has come so far that it can be taken up."""
    found = [path for path in (project / "experiments").glob("[!.]*") if (path / "config.yaml").exists()]
    return max(found) if found else None


def size_of(project: Path, name: str) -> int:
    path = directory(project)
    try:
        return 0 if path is None else (path / name).stat().st_size
    except FileNotFoundError:
        return 0


def kill_somewhere(command: Command, project: Path, chance: random.Random, soon: float = 0.15) -> str:
    """Kill it after a moment, or once a file has grown by so much, or when all is nearly done; say when."""
    kind = chance.choice(("soon", "soon", "bytes", "bytes", "late"))
    if kind == "soon":
        seconds = chance.uniform(0, soon)
        Event().wait(seconds)
        moment = f"after {seconds:.4f} s"
    else:
        name = chance.choice(NAMES)
        aim = size_of(project, name) + chance.randrange(1, 60_000)
        for _ in range(20_000):
            if kind == "bytes" and size_of(project, name) >= aim:
                break
            if kind == "late" and command.has_ended_or(lambda: count(project) >= len(IDS)):
                break
            if command.has_ended_or(lambda: False):
                break
            Event().wait(0.0005)
        moment = f"when {name} had {aim} bytes" if kind == "bytes" else "at the end"
    command.kill()
    return moment


def count(project: Path) -> int:
    """How many lines stand in the last of the files."""
    path = directory(project)
    try:
        return 0 if path is None else (path / NAMES[2]).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def calls(project: Path) -> Counter[str]:
    """Which runs were begun since this was asked before."""
    file = project / "calls"
    found = Counter(file.read_text().split()) if file.exists() else Counter[str]()
    file.unlink(missing_ok=True)
    return found


def ways_on(project: Path) -> list[str]:
    """What `--resume` may be given to come to the end of the experiment; empty to begin it."""
    path = directory(project)
    if path is None:
        return ["", "auto"]
    is_completed = json.loads((path / "summary.json").read_text())["status"] == "completed"
    # After its last word `auto` would begin another.
    return [str(path), "last", *([] if is_completed else ["auto"])]


def command_line(executor: str, way: str, *more: str) -> list[str]:
    return [*OPTIONS, *EXECUTORS[executor], *(("--resume", way, *more) if way else ())]


def check_complete(lab: Lab, done: Done) -> list[Run]:
    path = directory(lab.project)
    assert path is not None
    assert (done.code, "Traceback" in done.told) == (0, False), done.told
    runs = runs_of(path)
    assert sorted(run.trace_id for run in runs) == IDS
    identities = {(json.loads(run.trace)["input_id"], json.loads(run.trace)["iteration"]) for run in runs}
    assert len(identities) == len(IDS)
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["total_traces"], summary["planned"]) == ("completed", len(IDS), len(IDS))
    assert {file.name for file in path.iterdir()} - {"superseded.jsonl"} == {*NAMES, "config.yaml", "summary.json"}
    verified = lab.run("verify", str(path))
    assert verified.code == 0, verified.said
    return runs


def round_of_kills(lab: Lab, chance: random.Random, executor: str, moments: list[str]) -> None:
    """Start, kill and take up until it is done; note the moments of the kills."""
    project = lab.project
    environment = {"CALLS": str(project / "calls")}
    before: list[Run] = []
    calls(project)
    for number in range(KILLS + 1):
        way = chance.choice(ways_on(project))
        command = lab.start(*command_line(executor, way), environment=environment)
        if number < KILLS:
            moment = kill_somewhere(command, project, chance, SOON.get(executor, 0.15))
            moments.append(f"{Path(way).name or 'the first'} {moment}")
        done = command.wait()
        assert "\nError: " not in f"\n{done.told}", done.told
        path = directory(project)
        after = [] if path is None else runs_of(path)
        assert after[: len(before)] == before, "a run that was done is not there any more"
        assert not {run.trace_id for run in before} & calls(project).keys(), "a run that was done was run again"
        before = after
        if done.code >= 0:
            break
    check_complete(lab, done)


@pytest.mark.parametrize(("executor", "rounds"), rounds_for(*EXECUTORS))
def test_a_killed_experiment_is_completed(lab: Lab, executor: str, rounds: int) -> None:
    """Whenever it was killed; what was done stays as it is, byte for byte, and is not run again."""
    for _ in range(rounds):
        seed = random.randrange(1 << 32)
        shutil.rmtree(lab.project / "experiments", ignore_errors=True)
        moments: list[str] = []
        try:
            round_of_kills(lab, random.Random(seed), executor, moments)
        finally:
            print(f"seed {seed}: killed {', '.join(moments)}")


def superseding_kills(lab: Lab, chance: random.Random, executor: str) -> None:
    """Run what failed again, killed and taken up until it is done."""
    project, environment = lab.project, {"IS_UP": "1"}
    path = directory(project)
    assert path is not None
    first = runs_of(path)
    kept = [run for run in first if b'"status":"ok"' in run.summary]
    failed = [run for run in first if b'"status":"ok"' not in run.summary]
    assert len(failed) == 2 * ITERATIONS
    moments = []
    for number in range(KILLS + 1):
        more = ("--retry-failed=all",) if not (path / "superseded.jsonl").exists() else ()
        way = chance.choice([way for way in ways_on(project) if way != "auto" or not more])
        command = lab.start(*command_line(executor, way, *more), environment=environment)
        if number < KILLS:
            moments.append(kill_somewhere(command, project, chance, SOON.get(executor, 0.15)))
        done = command.wait()
        assert "\nError: " not in f"\n{done.told}", done.told
        if done.code >= 0 and not more:
            break
    print("killed", moments)
    runs = check_complete(lab, done)
    assert runs[: len(kept)] == kept
    superseded = (path / "superseded.jsonl").read_bytes().splitlines(keepends=True)
    assert superseded == [run.trace for run in failed]
    again = [run for run in runs[len(kept) :] if b'"down under"' in run.trace]
    assert len(again) == ITERATIONS
    assert all(b'"status":"ok"' in run.summary for run in again)


@pytest.mark.parametrize(("executor", "rounds"), rounds_for("threads", "processes, async"))
def test_a_killed_retry_of_what_failed_is_completed(lab: Lab, executor: str, rounds: int) -> None:
    """Replaced records are kept beside the results once, and each run has one line, old or new."""
    lab.run(*command_line(executor, ""))
    shutil.copytree(lab.project / "experiments", lab.project / "kept")
    for _ in range(rounds):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        shutil.rmtree(lab.project / "experiments")
        shutil.copytree(lab.project / "kept", lab.project / "experiments")
        superseding_kills(lab, random.Random(seed), executor)
