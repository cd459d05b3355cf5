"""Machines of a cluster that go and come while runs are under way."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import fluxloop
from tests.noticing import noticed
from tests.ray.conftest import Run, command, numbers
from tests.ray.nodes import PROCESSORS, Nodes
from tests.waiting import wait_until

pytestmark = pytest.mark.ray


def begin(nodes: Nodes, project: Path, target: str, inputs: list[str], *options: str) -> subprocess.Popen[str]:
    """Start an experiment whose agents note where they are."""
    place = project.parent / "notes"
    place.with_suffix(".known").write_text(" ".join(map(str, nodes.raylets)))
    (project / "in.csv").write_text("input\n" + "".join(f"{text}\n" for text in inputs))
    arguments = ["--target", target, "--inputs", "in.csv", "--no-progress", "--set", f"runner.args.place={place}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command(nodes, *arguments, *options), stdout=pipe, stderr=pipe, text=True)


def test_every_run_ends_once_though_machines_go(two_nodes: Nodes, project: Path) -> None:
    """What was in flight there is lost and run again; a machine that joins later has work; one more may leave."""
    place = project.parent / "notes"
    inputs = [*(f"run {number}" for number in range(250)), *["last"] * 6]
    first, second = two_nodes.raylets
    process = begin(two_nodes, project, "crew:on_a_node", inputs, "--parallel", "5")
    wait_until(lambda: {first, second} <= set(numbers(place)) and len(numbers(place)) > 60)
    two_nodes.kill(first)
    third = two_nodes.add()
    wait_until(lambda: third in numbers(place))
    two_nodes.remove(second)
    stdout, stderr = process.communicate()

    assert process.returncode == 0
    assert re.fullmatch(r"\[WARN\] trace_\d+ is tried again after WorkerDied: the machine .*announced\.\n", stderr)
    assert stdout.startswith("  runs      256 of 256: 256 passed, 0 failed; ")
    (path,) = project.glob("experiments/*")
    result = fluxloop.load(path)
    assert Counter(trace.trace_id for trace in result) == Counter(f"trace_{number:03}" for number in range(1, 257))
    again = [trace for trace in result if trace.attempts > 1]
    assert 0 < len(again) <= 2 * PROCESSORS
    for trace in again:
        assert trace.attempts == 2
        assert [error.kind for error in trace.errors] == ["infrastructure"]
        assert trace.errors[0].message.startswith(
            "the machine its worker was on, or Ray's actor there, was lost (Actor"
        )
    assert {trace.output for trace in result} == {first, second, third}


def test_every_async_run_ends_once_though_a_machine_goes(two_nodes: Nodes, project: Path) -> None:
    """Though many were in flight there at once."""
    place = project.parent / "notes"
    inputs = [f"run {number}" for number in range(200)]
    first, second = two_nodes.raylets
    process = begin(two_nodes, project, "crew:on_a_node_async", inputs, "--parallel", "8")
    wait_until(lambda: {first, second} <= set(numbers(place)) and len(numbers(place)) > 40)
    two_nodes.kill(second)
    _, stderr = process.communicate()

    assert process.returncode == 0
    # One that was alone in its worker at that moment is the one that counts as lost.
    assert all(" is tried again after WorkerDied: the machine its " in line for line in stderr.splitlines())
    (path,) = project.glob("experiments/*")
    result = fluxloop.load(path)
    assert Counter(trace.trace_id for trace in result) == Counter(f"trace_{number:03}" for number in range(1, 201))
    assert {trace.status for trace in result} == {"ok"}
    assert len(numbers(place)) <= 200 + 8


def test_too_large_a_worker_is_told_with_what_the_cluster_has(
    run: Run, two_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can start; the experiment waits for a machine that is large enough, until it is stopped."""
    monkeypatch.setattr("fluxloop.executors.remote.relayed.ROOM_SECONDS", 0.3)
    asked = r"no worker has found a place for 0.3 s: .* takes? 16 of a machine's processors \(runner.ray.num_cpus\)"
    has = r"the cluster has 4 on 2 machines, at most 2 on one; 4 are free"
    options = {"runner.ray.num_cpus": 16, "runner.grace_seconds": 0}
    with noticed(f"{asked}, and {has}"):
        result = run("crew:nothing", "a", max_time="1s", overrides=options)
    assert (result.summary.status, result.summary.not_run) == ("stopped", 1)
