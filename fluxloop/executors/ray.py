"""Runs many at a time, on a cluster of Ray."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluxloop import __version__
from fluxloop.exceptions import ConfigError, MissingPackageError, Problem
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.cluster import Cluster, connected
from fluxloop.executors.remote.dispatch import Message
from fluxloop.executors.remote.executor import WorkersExecutor, processors
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.relay import Relay, chunk, unpack
from fluxloop.executors.remote.sending import packed, script
from fluxloop.runner import Task
from fluxloop.schedule import HEARTBEAT

CLOSING_SECONDS = 10.0
"""How long the end waits for workers to leave the target and to end."""


class RayExecutor(WorkersExecutor):
    """Run up to `parallel` attempts at a time on a cluster of Ray, when one machine is not enough.

    Each worker is a process that an actor of Ray keeps; what is true of workers of the processes
    executor is true of these. The project's folder is sent to the machines of the cluster, also to
    those that join later, where fluxloop and what else the agent needs is to be installed.

    Args:
        parallel: attempts in flight at a time; by default as many as there are processors here.
        address: of the cluster, as `auto` or `head:6379`; by default the environment's RAY_ADDRESS, else one
            is started on this machine, and ended with the experiment.
        num_cpus: processors that a worker takes up; less than 1 for agents that mostly wait.
        env: names of environment variables that workers get.

    Example:
        >>> from fluxloop import Experiment, RayExecutor
        >>> Experiment(target="my_agent:run", inputs=["hi"], executor=RayExecutor(64, address="auto"))
        <Experiment my_agent of my_agent:run>
    """

    crash_retries = 1  # a cluster's machines come and go
    short = 200

    def __init__(
        self,
        parallel: int | None = None,
        *,
        address: str | None = None,
        num_cpus: float = 1.0,
        env: Sequence[str] = (),
    ) -> None:
        super().__init__(processors() if parallel is None else parallel)
        self.address = address
        self.num_cpus = num_cpus
        self.env = tuple(env)

    def __str__(self) -> str:
        where = "a local cluster" if self.address is None else f"the cluster {self.address}"
        return f"ray, {self.parallel} at a time, on {where}"

    def check(self, task: Task) -> None:
        """Find out whether the task, and what is to go with it, can be sent.

        Raises:
            TargetError: the task cannot.
            MissingPackageError: Ray is not installed.
            ConfigError: a variable is not set.
        """
        super().check(task)
        if importlib.util.find_spec("ray") is None:
            raise MissingPackageError("ray", "executor ray", "'fluxloop[ray]'")
        if missing := [name for name in self.env if name not in os.environ]:
            told = f"expected names of environment variables that are set here, got {', '.join(missing)}"
            raise ConfigError([Problem("configuration", told, "runner.ray.env")])

    @contextmanager
    def _workers(self, task: Task) -> Iterator[tuple[RayWorkers, int]]:
        project = task.import_places[0]
        places = math.ceil(max(self.parallel * self.num_cpus, processors()))
        with connected(self.address, processors=places, project=project) as cluster:
            # A cluster started here has this process's own; to others go those that are named.
            environment = os.environ if cluster.is_local else {name: os.environ[name] for name in self.env}
            preparation = Preparation(
                script=script(),
                argv=sys.argv,
                import_path=[*map(str, task.import_places), *sys.path],
                directory=Path.cwd(),
                environment=dict(environment),
                task=packed(task),
            )
            root = str(project) if cluster.is_shipped else None
            yield RayWorkers(cluster, root, preparation, num_cpus=self.num_cpus), self._most(cluster)

    def _most(self, cluster: Cluster) -> int:
        if cluster.is_local:
            return processors()
        return max(1, int(cluster.processors() / (self.num_cpus or 1.0)))


class RayWorkers:
    """Workers behind relays in actors of Ray.

    Args:
        cluster: where the actors are.
        root: the project here, if it was shipped.
        preparation: what each worker is told before anything else.
        num_cpus: what an actor takes up.
    """

    def __init__(self, cluster: Cluster, root: str | None, preparation: Preparation, *, num_cpus: float) -> None:
        self._ray: Any = cluster.ray
        groups = {"hear": 1, "tell": 1}
        self._actor = self._ray.remote(num_cpus=num_cpus, max_restarts=0, concurrency_groups=groups)(Relay)
        self._arguments = (__version__, root, self._ray.put(preparation))
        self._relays: dict[Any, _Relayed] = {}
        """By what each of them says, as Ray streams it."""

    def start(self) -> RayLink:
        relay = next((one for one in self._relays.values() if one.link is None), None)
        if relay is None:
            relay = _Relayed(self._actor.remote(*self._arguments))
            self._relays[relay.hear()] = relay
        return relay.start()

    def receive(self, seconds: float) -> list[Message]:
        if not self._relays:
            time.sleep(seconds)
            return []
        ray, said = self._ray, list(self._relays)
        if not ray.wait(said, num_returns=1, timeout=seconds)[0]:
            return []
        found: list[Message] = []
        for stream in ray.wait(said, num_returns=len(said), timeout=0)[0]:
            found += self._heard(stream)
        return found

    def _heard(self, stream: Any) -> list[Message]:
        relay = self._relays[stream]
        try:
            worker, said = unpack(self._ray.get(next(stream)))
        except StopIteration:  # it has said much, and is asked to go on
            del self._relays[stream]
            self._relays[relay.hear()] = relay
            return []
        except self._ray.exceptions.RayError as error:
            del self._relays[stream]
            self._ray.kill(relay.actor)
            return relay.lost(error)
        return relay.heard(worker, said)

    def close(self, leaving: Sequence[object]) -> list[Message]:
        for relay in list(self._relays.values()):
            if relay.link in leaving and relay.link is not None:
                relay.link.send(messages.END, b"")
        found: list[Message] = []
        latest = time.monotonic() + CLOSING_SECONDS
        while any(one.link in leaving and one.link is not None for one in self._relays.values()):
            if time.monotonic() > latest:
                break
            found += self.receive(HEARTBEAT)
        for relay in self._relays.values():
            self._ray.kill(relay.actor)
        self._relays.clear()
        return found


class _Relayed:
    """A relay as it is reached from here, and the worker it has."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.link: RayLink | None = None
        self._workers = 0

    def hear(self) -> Any:
        """Ask it to say what its worker says."""
        return self.actor.hear.options(num_returns="streaming", concurrency_group="hear").remote()

    def tell(self, worker: int, kind: bytes, data: bytes) -> None:
        """Say something to its worker; to one that has gone, nothing."""
        self.actor.tell.options(concurrency_group="tell").remote(chunk(worker, [(kind, data)]))

    def start(self) -> RayLink:
        """Start a worker."""
        self._workers += 1
        self.link = RayLink(self, self._workers)
        self.link.send(messages.START, b"")
        return self.link

    def heard(self, worker: int, said: Iterator[tuple[bytes, bytes]]) -> list[Message]:
        """Return what its worker says, unless that is one it had before."""
        link = self.link
        if link is None or worker != link.worker:
            return []
        found: list[Message] = [(link, kind, data) for kind, data in said]
        if any(kind not in (messages.GONE, messages.FAILED) for _, kind, _ in found):
            link.heard = time.monotonic()
        if any(kind in (messages.GONE, messages.FAILED) for _, kind, _ in found):
            self.link = None
        return found

    def lost(self, error: Exception) -> list[Message]:
        """Return what is to be said of its end."""
        if self.link is None:
            return []
        told = " ".join(str(error).split())
        lost: list[Message] = [(self.link, messages.LOST, f"its worker's machine or actor was lost: {told}".encode())]
        return lost


class RayLink:
    """A worker behind a relay."""

    def __init__(self, relay: _Relayed, worker: int) -> None:
        self.heard = time.monotonic()
        self.worker = worker
        self._relay = relay

    def send(self, kind: bytes, data: bytes) -> None:
        self._relay.tell(self.worker, kind, data)

    def kill(self) -> None:
        self.send(messages.KILL, b"")
        self._relay.link = None
