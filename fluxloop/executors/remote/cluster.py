"""A connection to a cluster of Ray, or one started here; kept quiet, and ended with the experiment."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, frozen

from fluxloop.exceptions import ConfigError, Problem
from fluxloop.executors.remote import reaper
from fluxloop.system import System

CONNECT_SECONDS = 5.0
"""How long a cluster may take to answer."""
NOT_SHIPPED = ("/.git", "/.venv", "/venv", "/node_modules", "/experiments", "__pycache__", ".env", ".env.*")
"""As in a `.gitignore`."""

# Read by Ray as it is imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told of the experiment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_worker_niceness": "0",  # else a local cluster's workers stand behind all else on the machine
}


@frozen(kw_only=True)
class Cluster:
    """What is known of a cluster that this process is connected to."""

    ray: Any
    is_local: bool
    """True when it was started here, for this experiment."""
    is_shipped: bool
    """True when the project was sent to its machines."""

    def machines(self) -> list[float]:
        """Return how many processors each machine has that has any."""
        nodes = [node["Resources"].get("CPU", 0.0) for node in self.ray.nodes() if node["Alive"]]
        return [float(count) for count in nodes if count]

    def room(self) -> str:
        """Return in words what it has now."""
        nodes = self.machines()
        free = self.ray.available_resources().get("CPU", 0.0)
        machines = "1 machine" if len(nodes) == 1 else f"{len(nodes)} machines"
        most = max(nodes, default=0)
        return f"the cluster has {sum(nodes):g} on {machines}, at most {most:g} on one; {free:g} are free"


@define
class _Connection:
    """What experiments of this process share that run at a time: Ray has one connection a process."""

    address: str
    project: Path | None
    """What was sent to the cluster."""
    cluster: Cluster
    open: ExitStack
    users: int = 0


_lock = threading.RLock()  # whoever is torn away as it has it must not wait for itself
_connections: list[_Connection] = []
"""The one that was made here, while there is any."""


@contextmanager
def connected(address: str | None, *, processors: float, project: Path) -> Iterator[Cluster]:
    """Connect to a cluster, or start one, for as long as the context lasts.

    A connection that the program has made already is used as it is, and stays. One that was made here
    for another experiment is shared, and ended with the last of them.

    Args:
        address: as `auto` or `host:6379`; by default the environment's RAY_ADDRESS, else a cluster is started here.
        processors: how many it has at least, when it is started here.
        project: the folder that is sent to the machines of any other.

    Raises:
        ConfigError: the cluster does not answer, or this process is connected to another.
    """
    with ExitStack() as stack:
        with _lock:
            if not _connections and (ray := sys.modules.get("ray")) is not None and ray.is_initialized():
                stack.enter_context(_quiet())
                cluster = Cluster(ray=ray, is_local=False, is_shipped=False)
            else:
                address = address or os.environ.get("RAY_ADDRESS") or "local"
                cluster = stack.enter_context(_shared(address, processors, None if address == "local" else project))
        yield cluster


@contextmanager
def _shared(address: str, processors: float, project: Path | None) -> Iterator[Cluster]:
    """Use the connection that is there, or make it; entered with the lock, and left without."""
    if not _connections:
        _connections.append(_opened(address, processors, project))
    connection = _connections[0]
    if (connection.address, connection.project) != (address, project):
        other = connection.address if connection.project is None else f"{connection.address} with {connection.project}"
        told = f"another experiment has connected this process to {other}, and it can be connected to one cluster"
        raise _problem(f"{told}: run this one, on {address}, after that one or in a process of its own")
    connection.users += 1
    try:
        yield connection.cluster
    finally:
        with _lock:
            connection.users -= 1
            if not connection.users:
                _connections.remove(connection)
                connection.open.close()


def _opened(address: str, processors: float, project: Path | None) -> _Connection:
    options: dict[str, Any] = {"address": address}
    if project is None:
        options |= {"num_cpus": processors, "include_dashboard": False}
    else:
        _check(address)
        options["runtime_env"] = {"working_dir": str(project), "excludes": list(NOT_SHIPPED)}
    with ExitStack() as stack:
        ray = stack.enter_context(_quiet())
        stack.callback(_shut_down, ray)  # also what is half open
        before = reaper.children(System.getpid()) if project is None else set()
        _connect(ray, address, options)
        if project is None:
            stack.enter_context(_reaped(reaper.children(System.getpid()) - before))
        cluster = Cluster(ray=ray, is_local=project is None, is_shipped=project is not None)
        return _Connection(address, project, cluster, stack.pop_all())


@contextmanager
def _quiet() -> Iterator[Any]:
    """Import Ray, and keep it quiet for as long as the context lasts."""
    ours = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        import ray

        logger = logging.getLogger("ray")
        level = logger.level
        try:
            yield ray
        finally:
            logger.setLevel(level)
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _shut_down(ray: Any) -> None:
    with _signals_kept():
        ray.shutdown()


def _check(address: str) -> None:
    """Find out soon whether anything answers; Ray itself takes a minute and more, and hears no signal meanwhile."""
    if address == "auto":
        return
    host, separator, port = address.rpartition(":")
    if "://" in address or not separator or not port.isdigit():
        raise _problem(f"expected local, auto or HOST:PORT of the cluster's head, as head:6379, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        told = f"no cluster answers at {address}: {error.strerror or error}; is it running (`ray status`)?"
        raise _problem(told) from None


def _connect(ray: Any, address: str, options: dict[str, Any]) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with _signals_kept():
            ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False)
    except Exception as error:  # of many kinds
        with suppress(Exception):
            ray.shutdown()
        if "exceeds the maximum size" in str(error):
            folder = options["runtime_env"]["working_dir"]
            away = "name what workers do not need in its .gitignore or .rayignore, or have it on the machines"
            raise _problem(f"the project {folder} is larger than Ray sends to a cluster: {away}") from error
        raise _problem(f"{address}: {type(error).__name__}: {error}") from error
    with suppress(AttributeError):  # its own name for it; without it each death of a worker is told on the screen
        ray._private.worker._worker_logs_enabled = False


def _problem(told: str) -> ConfigError:
    return ConfigError([Problem("configuration", told, "runner.ray.address")])


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back what Ray puts in the place of signal handlers, for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def _reaped(started: Collection[reaper.One]) -> Iterator[None]:
    """See to it that nothing of a local cluster outlives this process, should it be killed.

    Args:
        started: the processes that Ray has started from this one.
    """
    if not started:
        yield
        return
    roots = [f"{pid}:{since}" for pid, since in started]
    command = [sys.executable, "-I", "-S", str(reaper.__file__), str(System.getpid()), *roots]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
    assert process.stdin is not None
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            process.stdin.write(b"done")
            process.stdin.close()
        process.wait()
