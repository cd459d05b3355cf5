"""Runs many at a time, on a cluster of Ray."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fluxloop.exceptions import ConfigError, MissingPackageError, Problem, TargetError
from fluxloop.executors.remote.cluster import Cluster, connected
from fluxloop.executors.remote.executor import WorkersExecutor, processors
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.relayed import RayWorkers
from fluxloop.executors.remote.sending import Script, names_main, packed, script
from fluxloop.runner import Task

MAX_PLACES = 8
"""How many workers an actor keeps at most: a machine that has less room than they take gets none."""


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
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        where = "a local cluster" if address == "local" else f"the cluster {address}"
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
            data = packed(task)
            if cluster.is_shipped:
                import_path = [str(Path(place).resolve()) for place in import_path]
                _check_inside(project, task, data, script())
            preparation = Preparation(
                script=script(),
                argv=sys.argv,
                import_path=import_path,
                directory=Path.cwd(),
                environment=dict(environment),
                task=data,
            )
            root = str(project) if cluster.is_shipped else None
            # On a cluster started here, another experiment may have taken all processors.
            num_cpus = 0.0 if cluster.is_local else self.num_cpus
            yield (
                RayWorkers(cluster, root, preparation, num_cpus=num_cpus, places=self._places(cluster)),
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


def _check_inside(project: Path, task: Task, data: bytes, started: Script | None) -> None:
    """Find out whether the project is all that the agent needs."""
    alone = f"is outside of the project {project}, which is all that is sent to the cluster"
    for place in task.import_places:
        if not place.resolve().is_relative_to(project):
            key = "runner.working_directory" if place.resolve() == Path.cwd() else "runner.python_path"
            told = f"{place} {alone}: put it into the project, or install it on the cluster's machines"
            raise ConfigError([Problem("configuration", told, key)])
    path = None if started is None or started.path is None else Path(started.path).resolve()
    if path is not None and not path.is_relative_to(project) and names_main(data):
        raise TargetError(f"{path}, in which the agent is defined, {alone}: put it into the project")
