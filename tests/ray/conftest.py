"""One cluster for all tests of Ray: a head that runs nothing, and two nodes."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment, ExperimentResult
from tests.ray.nodes import Nodes, cluster

Run = Callable[..., ExperimentResult]


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """The cluster of all tests."""
    if importlib.util.find_spec("ray") is None:
        pytest.fail("Ray is not installed: pip install -e '.[ray]'")
    with cluster() as nodes:
        yield nodes


@pytest.fixture
def two_nodes(nodes: Nodes) -> Nodes:
    """The cluster with two nodes, though a test before has ended one."""
    while len(nodes.raylets) < 2:
        nodes.add()
    return nodes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the agents, which this process is in."""
    place = tmp_path / "project"
    place.mkdir()
    shutil.copy(Path(__file__).with_name("crew.py"), place)
    monkeypatch.chdir(place)
    yield place
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(place)):
            del sys.modules[name]


@pytest.fixture
def run(two_nodes: Nodes, project: Path) -> Run:
    """Run an experiment on the cluster, from the project."""

    def run(target: Any, *inputs: Any, **options: Any) -> ExperimentResult:
        overrides = {"runner.ray.address": two_nodes.address, **options.pop("overrides", {})}
        if (args := options.pop("args", None)) is not None:
            overrides["runner.args"] = args
        options = {"parallel": 2, "executor": "ray", **options}
        return Experiment(target=target, inputs=inputs, overrides=overrides, **options).run()

    return run


def command(nodes: Nodes | None, *arguments: str) -> list[str]:
    """`fluxloop run experiment` on the cluster, or on one of its own."""
    address = [] if nodes is None else ["--set", f"runner.ray.address={nodes.address}"]
    return [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--executor", "ray", *address, *arguments]


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def numbers(place: Path) -> list[int]:
    """What agents have noted, as numbers."""
    return [int(number) for number in place.read_text().split()] if place.exists() else []
