"""Runs many at a time, on a cluster of Ray."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluxloop import __version__
from fluxloop.exceptions import ConfigError, MissingPackageError, Problem, TargetError
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.cluster import Cluster, connected
from fluxloop.executors.remote.dispatch import Message
from fluxloop.executors.remote.executor import WorkersExecutor, processors
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.relay import Relay, Said, chunk, unpack
from fluxloop.executors.remote.sending import Script, names_main, packed, script
from fluxloop.runner import Task
from fluxloop.schedule import HEARTBEAT

CLOSING_SECONDS = 10.0
"""How long the end waits for workers to leave the target and to end."""
KILLING_SECONDS = 2.0
"""How long it waits until those that are killed have been."""
ROOM_SECONDS = 30.0
"""After so long without a place for any worker it is told why."""
MAX_PLACES = 8
"""How many workers an actor keeps at most: a machine that has less room than they take gets none."""
MAX_CHUNKS = 1_000
"""After so many words a relay is asked anew to speak, so that nothing grows with their number."""


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
        project = task.import_places[0].resolve()
        places = math.ceil(max(self.parallel * self.num_cpus, processors()))
        with connected(self.address, processors=places, project=project) as cluster:
            # A cluster started here has this process's own; to others go those that are named.
            environment = os.environ if cluster.is_local else {name: os.environ[name] for name in self.env}
            import_path = [*map(str, task.import_places), *sys.path]
            if cluster.is_shipped:
                import_path = [str(Path(place).resolve()) for place in import_path]
                _check_inside(project, task, script())
            preparation = Preparation(
                script=script(),
                argv=sys.argv,
                import_path=import_path,
                directory=Path.cwd(),
                environment=dict(environment),
                task=packed(task),
            )
            root = str(project) if cluster.is_shipped else None
            yield (
                RayWorkers(cluster, root, preparation, num_cpus=self.num_cpus, places=self._places(cluster)),
                self._most(cluster),
            )

    def _most(self, cluster: Cluster) -> int:
        """How many workers share the attempts at an async agent."""
        if cluster.is_local:
            return processors()
        return max(1, int(sum(cluster.machines()) / (self.num_cpus or 1.0)))

    def _places(self, cluster: Cluster) -> int:
        """How many workers an actor keeps: fewer than would keep other machines from having any."""
        if cluster.is_local:
            return self.parallel
        machines = cluster.machines()
        fit = min(machines, default=0.0) / (self.num_cpus or 1.0)
        return max(1, min(MAX_PLACES, int(fit), math.ceil(self.parallel / max(1, len(machines)))))


def _check_inside(project: Path, task: Task, started: Script | None) -> None:
    """Find out whether the project is all that the agent needs."""
    alone = f"is outside of the project {project}, which is all that is sent to the cluster"
    for place in task.import_places:
        if not place.resolve().is_relative_to(project):
            key = "runner.working_directory" if place.resolve() == Path.cwd() else "runner.python_path"
            told = f"{place} {alone}: put it into the project, or install it on the cluster's machines"
            raise ConfigError([Problem("configuration", told, key)])
    path = None if started is None or started.path is None else Path(started.path).resolve()
    if path is not None and not path.is_relative_to(project) and names_main(packed(task)):
        raise TargetError(f"{path}, in which the agent is defined, {alone}: put it into the project")


class RayWorkers:
    """Workers behind relays in actors of Ray.

    Args:
        cluster: where the actors are.
        root: the project here, if it was shipped.
        preparation: what each worker is told before anything else.
        num_cpus: what a worker takes up.
        places: how many workers an actor keeps.
    """

    def __init__(
        self, cluster: Cluster, root: str | None, preparation: Preparation, *, num_cpus: float, places: int
    ) -> None:
        self._ray: Any = cluster.ray
        self._cluster = cluster
        self._num_cpus = num_cpus
        self._places = places
        self._since = time.monotonic()
        """When it began that no worker has a place."""
        self._is_told = False
        groups = {"hear": 1, "tell": 1}
        self._actor = self._ray.remote(num_cpus=num_cpus * places, max_restarts=0, concurrency_groups=groups)(Relay)
        self._arguments = (__version__, root, self._ray.put(preparation))
        self._relays: dict[Any, _Relayed] = {}
        """By what each of them says, as Ray streams it."""

    def start(self) -> RayLink:
        relay = next((one for one in self._relays.values() if len(one.links) < self._places), None)
        if relay is None:
            relay = _Relayed(self._actor.remote(*self._arguments))
            self._relays[relay.hear()] = relay
        return relay.start()

    def receive(self, seconds: float) -> list[Message]:
        if not self._relays:
            time.sleep(seconds)
            return []
        self._look_for_room()
        ray, said = self._ray, list(self._relays)
        if not ray.wait(said, num_returns=1, timeout=seconds)[0]:
            return []
        found: list[Message] = []
        for stream in ray.wait(said, num_returns=len(said), timeout=0)[0]:
            found += self._heard(stream)
        return found

    def _look_for_room(self) -> None:
        if self._is_told or time.monotonic() - self._since < ROOM_SECONDS:
            return
        if any(relay.is_placed for relay in self._relays.values()):
            self._since = time.monotonic()
            return
        self._is_told = True
        workers = "one takes" if self._places == 1 else f"{self._places} together take"
        asked = f"{workers} {self._num_cpus * self._places:g} of a machine's processors"
        told = f"no worker has found a place for {ROOM_SECONDS:g} s: {asked} (runner.ray.num_cpus)"
        warnings.warn(f"{told}, and {self._cluster.room()}", RuntimeWarning, stacklevel=2)

    def _heard(self, stream: Any) -> list[Message]:
        relay = self._relays[stream]
        try:
            said = unpack(self._ray.get(next(stream)))
            relay.is_placed = True
        except StopIteration:  # it has said much, and is asked to go on
            del self._relays[stream]
            self._relays[relay.hear()] = relay
            return []
        except self._ray.exceptions.RayError as error:
            del self._relays[stream]
            self._ray.kill(relay.actor)
            return relay.lost(self._told(error, relay.is_placed))
        return relay.heard(said)

    def _told(self, error: Exception, was_placed: bool) -> str:
        if was_placed and isinstance(error, self._ray.exceptions.RayActorError):
            # Ray's own words are long, and name the actor: no two would be the same.
            return f"the machine its worker was on, or Ray's actor there, was lost ({type(error).__name__})"
        return f"no worker can be started on the cluster: {' '.join(str(error).split())}"

    def close(self, leaving: Sequence[object]) -> list[Message]:
        for link in [link for relay in self._relays.values() for link in relay.links.values()]:
            if link in leaving:
                link.send(messages.END, b"")
            else:
                link.kill()
        found: list[Message] = []
        latest = time.monotonic() + CLOSING_SECONDS
        while any(relay.links for relay in self._relays.values()) and time.monotonic() < latest:
            found += self.receive(HEARTBEAT)
        # An actor that is killed takes its workers along, but not what those have started.
        if killing := [relay.settled() for relay in self._relays.values() if relay.is_placed]:
            self._ray.wait(killing, num_returns=len(killing), timeout=KILLING_SECONDS)
        for relay in self._relays.values():
            self._ray.kill(relay.actor)
        self._relays.clear()
        return found


class _Relayed:
    """A relay as it is reached from here, and the workers it has."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.links: dict[int, RayLink] = {}
        """By number."""
        self.is_placed = False
        """True once it has been heard of."""
        self._workers = 0
        self._hear = actor.hear.options(num_returns="streaming", concurrency_group="hear")
        self._tell = actor.tell.options(concurrency_group="tell")

    def hear(self) -> Any:
        """Ask it to say what its workers say."""
        return self._hear.remote(MAX_CHUNKS)

    def tell(self, worker: int, kind: bytes, data: bytes) -> None:
        """Say something to a worker; to one that has gone, nothing."""
        self._tell.remote(chunk([(worker, kind, data)]))

    def settled(self) -> Any:
        """Ask for a word once it has done what it was told."""
        return self.actor.settle.options(concurrency_group="tell").remote()

    def start(self) -> RayLink:
        """Start a worker."""
        self._workers += 1
        link = self.links[self._workers] = RayLink(self, self._workers)
        link.send(messages.START, b"")
        return link

    def heard(self, said: Iterable[Said]) -> list[Message]:
        """Return what its workers say, but for those that have been ended."""
        found: list[Message] = []
        for worker, kind, data in said:
            if (link := self.links.get(worker)) is None:
                continue
            found.append((link, kind, data))
            if kind in (messages.GONE, messages.FAILED):
                del self.links[worker]
            else:
                link.heard = time.monotonic()
        return found

    def lost(self, told: str) -> list[Message]:
        """Return what is to be said of its end."""
        return [(link, messages.LOST, told.encode()) for link in self.links.values()]


class RayLink:
    """A worker that a relay keeps."""

    def __init__(self, relay: _Relayed, worker: int) -> None:
        self.heard = time.monotonic()
        self._relay = relay
        self._worker = worker

    def send(self, kind: bytes, data: bytes) -> None:
        self._relay.tell(self._worker, kind, data)

    def kill(self) -> None:
        if self._relay.links.pop(self._worker, None) is not None:
            self.send(messages.KILL, b"")
