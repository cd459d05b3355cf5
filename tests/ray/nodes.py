"""A cluster of Ray on this machine, in a process of its own: a head that runs nothing, and nodes that come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROCESSORS = 2
"""Of each node, as Ray counts them."""
# The death of a node is told in 3 s, in place of 14.
_HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}


class Nodes:
    """The cluster as tests see it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        self.address = str(self._hear()["address"])
        self.raylets: list[int] = []
        """The process of each node, by which agents know where they are."""

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                told: dict[str, Any] = json.loads(line)
                return told
        raise AssertionError("the cluster has ended")

    def _ask(self, do: str, raylet: int = 0) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "raylet": raylet}) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def add(self) -> int:
        """Let a node join."""
        raylet = int(self._ask("add")["raylet"])
        self.raylets.append(raylet)
        return raylet

    def remove(self, raylet: int) -> None:
        """End a node as `ray stop` does."""
        self.raylets.remove(raylet)
        self._ask("remove", raylet)

    def kill(self, raylet: int) -> None:
        """End a node as a machine does that loses its power: with all that runs on it, at once."""
        self.raylets.remove(raylet)
        for pid in (raylet, *descendants(raylet)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._ask("forget", raylet)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Start a head, without any node."""
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.close()


def parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                found[int(place.name)] = int((place / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return found


def descendants(ancestor: int) -> set[int]:
    """What a process has started, and what those have."""
    among = parents()
    found = {ancestor}
    while more := {pid for pid, parent in among.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def _serve() -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    from ray.cluster_utils import Cluster

    def say(**told: object) -> None:
        print(json.dumps(told), flush=True)

    small = {"object_store_memory": 200 << 20, "include_dashboard": False}
    head = {"num_cpus": 0, "_system_config": {"health_check_initial_delay_ms": 0, **_HEALTH}, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    say(address=cluster.address)
    for line in sys.stdin:
        order = json.loads(line)
        raylet = order["raylet"]
        if order["do"] == "add":
            node = cluster.add_node(wait=False, num_cpus=PROCESSORS, object_store_memory=200 << 20)
            raylet = node.all_processes["raylet"][0].process.pid
            nodes[raylet] = node
        elif order["do"] == "remove":
            cluster.remove_node(nodes.pop(raylet), allow_graceful=True)
        else:
            cluster.remove_node(nodes.pop(raylet), allow_graceful=False)
        say(raylet=raylet)
    cluster.shutdown()


if __name__ == "__main__":
    _serve()
