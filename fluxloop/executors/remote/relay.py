"""Workers on another machine, by way of a relay in an actor of Ray that keeps their processes.

The relay is no worker itself, because Ray tells neither exit code nor signal of an actor that
dies, and loses what it has said just before (measured: half of the last words before `os._exit`).
A process of the relay's own dies alone: its last words arrive, and the next one starts in a tenth
of the time an actor takes. One relay keeps several, because an actor takes as much memory as a
worker, and a second or two of a processor to start.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from fluxloop import __version__
from fluxloop.clock import monotonic, sleep
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.local import LocalLink, LocalWorkers
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.sending import Script
from fluxloop.executors.remote.transport import Link
from fluxloop.schedule import HEARTBEAT
from fluxloop.system import System

GATHER_SECONDS = 0.005
"""How long results are gathered while a worker goes on: each word to the driver costs Ray a tenth of a millisecond."""

BEAT_SECONDS = 1.0
"""How long a relay is silent at most."""

_HEADER = struct.Struct("!IcQ")

Said = tuple[int, bytes, bytes]
"""The number of a worker, among those that a relay has had, and a message from it or for it."""


def chunk(said: Sequence[Said]) -> bytes:
    """Return messages as bytes."""
    return b"".join(_HEADER.pack(worker, kind, len(data)) + data for worker, kind, data in said)


def unpack(data: bytes) -> Iterator[Said]:
    """Return what `chunk` was given."""
    start = 0
    while start < len(data):
        worker, kind, length = _HEADER.unpack_from(data, start)
        start += _HEADER.size
        yield worker, kind, data[start : start + length]
        start += length


class Relay:
    """Keep worker processes on this machine, and pass on what they and the executor say.

    Args:
        version: of fluxloop, where the executor is.
        root: the project there, if it was shipped: it is then the directory this is in.
        preparation: what workers are told before anything else.
    """

    def __init__(self, version: str, root: str | None, preparation: Preparation) -> None:
        self._problem: str | None = None
        if version != __version__:
            here = f"{os.uname().nodename} has fluxloop {__version__}"
            self._problem = f"{here}, and {version} is what runs the experiment: install the same on all machines"
        self._workers = LocalWorkers(preparation if root is None else _moved(preparation, Path(root), Path.cwd()))
        self._links: dict[int, LocalLink] = {}
        self._numbers: dict[Link, int] = {}
        self._told: deque[bytes] = deque()

    def tell(self, data: bytes) -> None:
        """Take what the executor says, in a thread beside `hear`."""
        self._told.append(data)
        self._workers.wake()

    def settle(self) -> None:
        """Return once what the executor said before has been done, in a thread beside `hear`."""
        while self._told:
            sleep(0.001)

    def hear(self, chunks: int) -> Iterator[bytes]:
        """Yield that it is there, then what workers say and what becomes of them, up to so many times.

        Also nothing, every second, so that the executor knows who is silent: a worker, or all that is here.
        """
        yield chunk([])
        for _ in range(chunks):
            latest = monotonic() + BEAT_SECONDS
            while not (said := self._said()) and monotonic() < latest:
                pass
            yield chunk(said)

    def _said(self) -> list[Said]:
        said = self._obey()
        latest = monotonic() + HEARTBEAT
        while (wait := latest - monotonic()) > 0 and not self._told:
            came = [
                (self._numbers[link], kind, data)
                for link, kind, data in self._workers.receive(wait)
                if link in self._numbers
            ]
            said += came
            for worker, kind, _ in came:
                if kind in (messages.GONE, messages.FAILED):
                    self._forget(worker)
            if any(kind != messages.RESULTS for _, kind, _ in came):
                break  # one has nothing left to do, or wants an answer
            if came:
                latest = min(latest, monotonic() + GATHER_SECONDS)
        return said

    def _obey(self) -> list[Said]:
        said: list[Said] = []
        while self._told:
            for worker, kind, data in unpack(self._told[0]):
                link = self._links.get(worker)
                if kind == messages.START:
                    said += self._start(worker)
                elif link is None:
                    continue  # it has ended
                elif kind == messages.KILL:
                    link.kill()
                    self._forget(worker)
                else:
                    link.send(kind, data)
            self._told.popleft()
        return said

    def _start(self, worker: int) -> list[Said]:
        try:
            if self._problem is None:
                _unset_threads()
                link = self._links[worker] = self._workers.start()
                self._numbers[link] = worker
                return []
            problem = self._problem
        except OSError as error:
            problem = f"{os.uname().nodename}: a worker process cannot be started: {error.strerror or error}"
        return [(worker, messages.FAILED, problem.encode())]

    def _forget(self, worker: int) -> None:
        link = self._links.pop(worker, None)  # one that fails says so, and then that it has gone
        if link is not None:
            del self._numbers[link]


def _unset_threads() -> None:
    """Let workers have as many threads as anywhere: Ray sets a number for what runs in its actors themselves."""
    with suppress(OSError):  # where the system does not show it
        if b"OMP_NUM_THREADS=" not in Path(f"/proc/{System.getppid()}/environ").read_bytes():
            os.environ.pop("OMP_NUM_THREADS", None)


def _moved(preparation: Preparation, root: Path, here: Path) -> Preparation:
    """Return the preparation for a machine to which the project was shipped."""

    def moved(place: str | Path) -> Path | None:
        path = Path(place)
        return here / path.relative_to(root) if path.is_relative_to(root) else None

    shipped = [str(path) for place in preparation.import_path if (path := moved(place)) is not None]
    script = preparation.script
    if script is not None and script.path is not None:
        path = moved(script.path)
        script = None if path is None else Script(None, str(path))
    return attrs.evolve(
        preparation,
        script=script,
        import_path=[*shipped, *(place for place in sys.path if place not in shipped)],
        directory=moved(preparation.directory) or here,
    )
