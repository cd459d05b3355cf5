"""What holds on one machine holds on a cluster of two."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

import fluxloop
from fluxloop import Experiment
from tests.executors import test_same_records as same
from tests.ray.conftest import Run, command
from tests.ray.nodes import Nodes

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("agent", same.AGENTS)
def test_the_records_are_the_same(
    two_nodes: Nodes, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under every other executor, up to times, observation ids and the order of lines."""
    monkeypatch.chdir(Path(same.__file__).parent)  # the project
    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    monkeypatch.setitem(same.EXECUTORS, "ray", {"executor": "ray", "parallel": 4})
    there, here = (same.comparable(same.run(tmp_path / name, name, agent)) for name in ("ray", "inline"))
    assert there == here


def test_rates_hold_across_machines(run: Run, two_nodes: Nodes) -> None:
    """Of `fluxloop.rate_limit`, though calls are made on both."""
    traces = list(run("crew:keeps_to_a_rate", *map(str, range(20)), parallel=4))
    called = sorted(trace.output[0] for trace in traces)
    assert {trace.output[1] for trace in traces} == set(two_nodes.raylets)
    assert called[-1] - called[0] > 0.9 * 19 * 0.1


def test_the_rate_of_starts_holds_across_machines(run: Run, two_nodes: Nodes) -> None:
    """No two runs begin sooner after each other than they may, up to what a message takes."""
    traces = list(run("crew:starts", *map(str, range(15)), parallel=4, overrides={"runner.start_rate": "10/s"}))
    began = sorted(trace.output[0] for trace in traces)
    assert began[-1] - began[0] > 0.9 * 14 * 0.1


def test_a_class_is_built_entered_and_left_once_in_each_worker(run: Run, project: Path) -> None:
    """Its state lasts as long as the worker."""
    place = project.parent / "notes"
    (project / "place.txt").write_text(str(place))
    traces = list(run("crew:Classy.run", *map(str, range(40)), parallel=3))
    counts: dict[int, list[int]] = {}
    for trace in traces:
        counts.setdefault(trace.output[0], []).append(trace.output[1])
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in counts.values())
    notes = [line for line in place.read_text().splitlines() if int(line.split()[1]) in counts]
    assert sorted(notes) == sorted(f"{what} {pid}" for what in ("built", "entered", "left") for pid in counts)


def test_much_is_told_in_many_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that has told so much is asked anew, and nothing is lost between."""
    monkeypatch.setattr("fluxloop.executors.remote.relayed.MAX_CHUNKS", 3)
    result = run("crew:tells", *map(str, range(60)), seed=3)
    assert (result.summary.passed, len({trace.trace_id for trace in result})) == (60, 60)
    assert {trace.output["seed"] for trace in result} == {trace.seed for trace in result}


def test_an_experiment_goes_on_elsewhere_and_comes_back(two_nodes: Nodes, project: Path) -> None:
    """From threads to the cluster and back to threads, each run is made once."""
    (project / "in.csv").write_text("input\n" + "".join(f"{number}\n" for number in range(30)))
    place = project.parent / "notes"
    arguments = ["--target", "crew:stops", "--inputs", "in.csv", "--set", f"runner.args.place={place}", "--no-progress"]

    def go(*options: str) -> int:
        return subprocess.run([*command(two_nodes, *arguments), *options], capture_output=True, text=True).returncode

    assert go("--executor", "threads", "--parallel", "2", "--max-failures", "1") == 1
    assert go("--resume", "last", "--parallel", "2", "--max-failures", "1") == 1
    assert go("--resume", "last", "--executor", "threads", "--max-failures", "100") == 0
    (path,) = project.glob("experiments/*")
    result = fluxloop.load(path)
    assert sorted(int(str(trace.input)) for trace in result) == list(range(30))
    assert sorted(map(int, place.read_text().split())) == list(range(30))
    assert result.summary.failed == 2


def test_where_workers_are_is_in_the_file_of_stalls(run: Run, project: Path) -> None:
    """With the run that each has, and the line it is at."""
    place = project.parent / "notes"
    found: list[str] = []

    def look() -> None:
        while not (files := list(project.glob("experiments/*/stalls.txt"))) or "stops here" not in files[0].read_text():
            if gone.wait(0.05):
                return
        found.append(files[0].read_text())
        place.with_suffix(".go").touch()

    gone = threading.Event()
    looking = threading.Thread(target=look)
    looking.start()
    options = {"runner.stall_seconds": 0.5}
    try:
        run("crew:gate", "a", args={"place": str(place)}, parallel=1, timeout_seconds=30, overrides=options)
    finally:
        gone.set()
        looking.join()
    assert "A worker process with trace_" in found[0]
    assert "crew.py" in found[0]


def test_what_cannot_be_sent_is_refused_before_a_cluster_is_asked(project: Path) -> None:
    """A lambda, with the way out."""
    with pytest.raises(fluxloop.TargetError, match="a lambda has no name to be found by"):
        Experiment(target=lambda text: text, inputs=["a"], executor="ray").run()
