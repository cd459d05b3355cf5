"""What runs in a worker process of this machine."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections import deque
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attrs import Factory, frozen

from fluxloop.exceptions import TargetError
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.channel import Incoming, framed
from fluxloop.executors.remote.sending import Received, Script, loading
from fluxloop.executors.remote.worker import LOOK_SECONDS, Worker
from fluxloop.interrupt import Interrupt
from fluxloop.stacks import all_stacks
from fluxloop.system import System, new_thread
from fluxloop.tracing.capture import message, type_name

DEAF_AND_DUMB = 97
"""The exit code of a worker that cannot hear or speak: the agent has closed its files, or taken all memory."""
IDLE_SECONDS = 1.0
"""How often a worker without work finds out whether it still hears."""


@frozen(kw_only=True)
class Preparation:
    """What a worker process is told before anything else."""

    script: Script | None
    """What was started."""
    argv: list[str]
    import_path: list[str]
    directory: Path
    """Where the agent runs."""
    environment: dict[str, str] = Factory(dict)
    """Variables beside those it inherits."""
    task: bytes
    """The task, pickled."""


def serve(descriptor: int, parent: int) -> None:
    """Be a worker of the process at the other end of a socket, until it ends.

    Args:
        descriptor: the socket's, inherited.
        parent: the id of that process.
    """
    os.set_inheritable(descriptor, False)  # what an agent starts must not hold it open
    if System.getppid() != parent:  # it has ended already
        _end()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # a worker that is killed has shown what it printed
    channel = socket.socket(fileno=descriptor)
    carrier = _Carrier(channel)
    with _Deaf().listening():
        carrier.work()


class _Carrier:
    """Carries messages between the socket and the worker."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._incoming = Incoming()
        self._sending = threading.RLock()
        self._is_sending = False
        self._unsent: deque[bytes] = deque()
        self._worker: Worker | None = None

    def work(self) -> None:
        preparation = self._first()
        new_thread(self._carry, "fluxloop-carrier").start()
        received = Received(preparation.script)
        sys.argv = preparation.argv
        try:
            with loading("the agent's module"):
                task = received.loads(preparation.task)
                if isinstance(task.target, str) and task.target.startswith("__main__:"):
                    received.main()
        except BaseException as error:  # of a module that it names
            is_ours = isinstance(error, TargetError)
            told = message(error) if is_ours else f"the target cannot be loaded: {type_name(error)}: {message(error)}"
            self._send(messages.HOPELESS if is_ours else messages.FAILED, told.encode("utf-8", "backslashreplace"))
            return
        self._worker = Worker(task, self._send, received.loads)
        self._worker.work()

    def _first(self) -> Preparation:
        while True:
            if not self._incoming.read(self._channel):
                _end()
            for _, data in self._incoming.messages():
                preparation: Preparation = pickle.loads(data)
                return preparation

    def _send(self, kind: bytes, data: bytes) -> None:
        self._unsent.append(framed(kind, data))
        with self._sending:
            # Called out of itself, as by what is printed when an object goes, it leaves the sending to the first.
            while self._unsent and not self._is_sending:
                self._is_sending = True
                try:
                    self._channel.sendall(self._unsent.popleft())
                except ConnectionError:
                    _end()
                except OSError:
                    System.exit(DEAF_AND_DUMB)
                finally:
                    self._is_sending = False

    def _carry(self) -> None:
        try:
            self._carry_on()
        finally:
            System.exit(DEAF_AND_DUMB)

    def _carry_on(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            worker = self._worker
            wait = LOOK_SECONDS if worker is not None and worker.is_busy else IDLE_SECONDS
            if poll.poll(wait * 1000):
                if not self._incoming.read(self._channel):
                    _end()
                for kind, data in self._incoming.messages():
                    if self._worker is not None:
                        self._worker.receive(kind, data)
                    elif kind == messages.WHERE:  # while it imports the agent
                        self._send(messages.STACKS, all_stacks(()).encode("utf-8", "backslashreplace"))
            if worker is not None:
                worker.look()


class _Deaf(Interrupt):
    """Lets signals pass that are meant for the process that starts the runs: it ends its workers itself.

    They are not ignored, because what is ignored here would be in all that the agent starts.
    """

    def _receive(self, number: int, frame: FrameType | None) -> None:
        pass


def _end() -> NoReturn:
    """End this process, with all that the agent has started in its group."""
    if os.getpgrp() == System.getpid():
        os.killpg(0, signal.SIGKILL)
    System.exit(1)
