"""A worker on another machine, by way of a relay in an actor of Ray that keeps the worker's process.

The relay is not the worker itself, because Ray tells neither exit code nor signal of an actor that
dies, and loses what it has said just before (measured: half of the last words before `os._exit`).
A process of the relay's own dies alone: its last words arrive, and the next one starts in a tenth
of the time an actor takes.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from fluxloop import __version__
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.channel import Incoming, framed
from fluxloop.executors.remote.local import LocalLink, LocalWorkers
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.sending import Script
from fluxloop.schedule import HEARTBEAT

GATHER_SECONDS = 0.005
"""How long results are gathered while a worker goes on: each word to the driver costs Ray a tenth of a millisecond."""
MAX_CHUNKS = 1_000
"""After so many words a relay is asked anew to speak, so that nothing grows with their number."""

_WORKER = struct.Struct("!I")


def chunk(worker: int, said: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return messages from or for a worker as bytes.

    Args:
        worker: its number, among those that a relay has had.
        said: kinds and data.
    """
    return _WORKER.pack(worker) + b"".join(framed(kind, data) for kind, data in said)


def unpack(data: bytes) -> tuple[int, Iterator[tuple[bytes, bytes]]]:
    """Return what `chunk` was given."""
    (worker,) = _WORKER.unpack_from(data)
    incoming = Incoming()
    incoming.add(data[_WORKER.size :])
    return worker, incoming.messages()


class Relay:
    """Keep one worker process on this machine, and pass on what it and the executor say.

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
        self._link: LocalLink | None = None
        self._worker = 0
        self._told: deque[bytes] = deque()

    def tell(self, data: bytes) -> None:
        """Take what the executor says, in a thread beside `hear`."""
        self._told.append(data)
        self._workers.wake()

    def hear(self) -> Iterator[bytes]:
        """Yield what the worker says, and what becomes of it."""
        for _ in range(MAX_CHUNKS):
            while not (said := self._said()):
                pass
            yield chunk(self._worker, said)

    def _said(self) -> list[tuple[bytes, bytes]]:
        said = self._obey()
        latest = time.monotonic() + HEARTBEAT
        while (wait := latest - time.monotonic()) > 0 and not self._told:
            came = [(kind, data) for link, kind, data in self._workers.receive(wait) if link is self._link]
            said += came
            if any(kind != messages.RESULTS for kind, _ in came):
                break  # it has nothing left to do, or wants an answer
            if came:
                latest = min(latest, time.monotonic() + GATHER_SECONDS)
        return said

    def _obey(self) -> list[tuple[bytes, bytes]]:
        said: list[tuple[bytes, bytes]] = []
        while self._told:
            worker, orders = unpack(self._told.popleft())
            for kind, data in orders:
                if kind == messages.START:
                    self._worker = worker
                    said = self._start()
                elif worker != self._worker or self._link is None:
                    continue
                elif kind == messages.KILL:
                    self._link.kill()
                else:
                    self._link.send(kind, data)
        return said

    def _start(self) -> list[tuple[bytes, bytes]]:
        try:
            if self._problem is None:
                self._link = self._workers.start()
                return []
            problem = self._problem
        except OSError as error:
            problem = f"{os.uname().nodename}: a worker process cannot be started: {error.strerror or error}"
        return [(messages.FAILED, problem.encode())]


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
