"""Workers in processes of this machine."""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fluxloop.clock import monotonic, sleep
from fluxloop.executors.remote import guard, messages
from fluxloop.executors.remote.channel import GarbledError, Incoming, framed
from fluxloop.executors.remote.process import DEAF_AND_DUMB, Preparation
from fluxloop.executors.remote.transport import Message
from fluxloop.schedule import HEARTBEAT
from fluxloop.system import System

CLOSING_SECONDS = 4.0
"""How long the end waits for workers to leave the target and to end; less than the watch does for it."""
TOOK_TOO_LONG = b"leaving the target took too long, and was given up"
ENDING_SECONDS = 1.0
"""How long a process that has closed its socket may take to end."""

_COMMAND = (
    # The working directory is on the path by now, where a module may have the name of one that is needed.
    "import sys; del sys.path[0]; import json; sys.path[:] = json.loads(sys.argv[3]);"
    " from fluxloop.executors.remote.process import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class LocalWorkers:
    """Worker processes and the sockets to them.

    Args:
        preparation: what each is told before anything else.
    """

    starts: int | None = max(2, os.cpu_count() or 1)
    """More at a time would make each of them slower, and the first result late."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._selector = selectors.DefaultSelector()
        self._links: set[LocalLink] = set()
        self._guard: _Guard | None = None
        self._looked = monotonic()
        self._bell, self._ear = socket.socketpair()
        for end in (self._bell, self._ear):
            end.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)

    def start(self) -> LocalLink:
        if self._guard is None:
            self._guard = _Guard()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._process(theirs)
        except BaseException:
            ours.close()
            raise
        self._guard.add(process.pid)
        link = LocalLink(process, ours, self._selector, self._guard)
        self._links.add(link)
        link.send(messages.PREPARE, pickle.dumps(self._preparation))
        return link

    def _process(self, channel: socket.socket) -> subprocess.Popen[bytes]:
        descriptor = channel.fileno()
        path = self._preparation.import_path
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        return subprocess.Popen(
            [sys.executable, *flags, "-c", _COMMAND, str(descriptor), str(System.getpid()), json.dumps(path)],
            stdin=subprocess.DEVNULL,
            stdout=_shown_in(sys.stdout),
            stderr=_shown_in(sys.stderr),
            pass_fds=[descriptor],
            cwd=self._preparation.directory,
            env={**os.environ, **self._preparation.environment},
            process_group=0,  # Ctrl-C is for this process alone, and a worker ends with all it has started
        )

    def wake(self) -> None:
        """Let `receive` return at once, from any thread."""
        with suppress(BlockingIOError):  # it is full of such wishes
            self._bell.send(b"!")

    def receive(self, seconds: float) -> list[Message]:
        found: list[Message] = []
        for key, events in self._selector.select(seconds):
            link: LocalLink | None = key.data
            if link is None:
                self._ear.recv(4096)
                continue
            if events & selectors.EVENT_WRITE:
                link.flush()
            if events & selectors.EVENT_READ:
                found += link.read()
        now = monotonic()
        if now - self._looked >= HEARTBEAT:
            self._looked = now
            for link in list(self._links):
                if link.has_ended():  # but something it has started holds its socket open
                    found += link.read()
        self._links = {link for link in self._links if link.is_open}
        return found

    def close(self, leaving: Sequence[object]) -> list[Message]:
        found: list[Message] = []
        try:
            for link in self._links:
                if link in leaving:
                    link.send(messages.END, b"")
                else:
                    link.kill()
            latest = monotonic() + CLOSING_SECONDS
            while any(link.is_open for link in self._links) and monotonic() < latest:
                found += self.receive(HEARTBEAT)
        finally:  # also when the end is abandoned
            found += self._ended()
        return found

    def _ended(self) -> list[Message]:
        """Kill the workers that are left, let go of all that was opened for them, and return what is to be said."""
        left = [link for link in self._links if link.is_open]
        for link in left:
            link.kill()
        if self._guard is not None:
            self._guard.close()
        self._selector.close()
        self._bell.close()
        self._ear.close()
        return [(link, messages.REMARK, TOOK_TOO_LONG) for link in left]


class _Guard:
    """A process that ends the groups of workers when this one is killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(System.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # who reads what this one prints does not wait for the guard
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        self._tell(group)

    def discard(self, group: int) -> None:
        """Forget a group; before its number is free for another."""
        self._tell(-group)

    def _tell(self, number: int) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody has ended it
            self._process.stdin.write(b"%d\n" % number)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()  # a fork of this process may hold the pipe open
        self._process.wait()


class LocalLink:
    """One worker process and the socket to it."""

    is_cut = False

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        selector: selectors.BaseSelector,
        guard: _Guard,
    ) -> None:
        self.heard = monotonic()
        self.is_open = True
        self._process = process
        self._channel = channel
        self._selector = selector
        self._guard = guard
        self._incoming = Incoming()
        self._unsent = bytearray()
        channel.setblocking(False)
        selector.register(channel, selectors.EVENT_READ, self)

    def send(self, kind: bytes, data: bytes) -> None:
        if self.is_open:
            self._unsent += framed(kind, data)
            self.flush()

    def flush(self) -> None:
        """Send what the worker takes; a hung one that takes nothing holds up nobody."""
        try:
            while self._unsent:
                del self._unsent[: self._channel.send(self._unsent)]
        except BlockingIOError:
            pass
        except ConnectionError:  # it has ended, which is seen when it is read
            self._unsent.clear()
        writing = selectors.EVENT_WRITE if self._unsent else 0
        self._selector.modify(self._channel, selectors.EVENT_READ | writing, self)

    def read(self) -> list[Message]:
        """Return what has come, and how the worker has ended, if it has."""
        found: list[Message] = []
        ended = self.has_ended()
        try:
            while self.is_open:
                is_alive = self._incoming.read(self._channel)
                for kind, data in self._incoming.messages():
                    found.append((self, kind, data))
                if not is_alive:
                    ended = True
                    break
                self.heard = monotonic()
        except BlockingIOError:
            pass
        except GarbledError:
            self.kill()
            told = b"sent what cannot be read, as when the agent writes to files it has not opened, and was killed"
            found.append((self, messages.GONE, told))
        if ended and self.is_open:
            found.append((self, messages.GONE, self._end().encode()))
        return found

    def has_ended(self) -> bool:
        """Tell whether the process has ended by itself."""
        return self.is_open and self._has_exited()

    def _has_exited(self) -> bool:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        try:  # it is not reaped, so that its group is still its own
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else has
            return True

    def kill(self) -> None:
        if self.is_open:
            self._end(at_once=True)

    def _end(self, *, at_once: bool = False) -> str:
        """End what is left of the worker and of all it has started; return how it ended."""
        self.is_open = False
        self._selector.unregister(self._channel)
        self._channel.close()
        latest = monotonic() + (0.0 if at_once else ENDING_SECONDS)
        while not (by_itself := self._has_exited()) and monotonic() < latest:
            sleep(0.001)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._guard.discard(self._process.pid)
        self._process.kill()  # it may have left its group
        try:
            code = self._process.wait(ENDING_SECONDS)
            return _told(code) if by_itself or code != -signal.SIGKILL else "closed its connection and was killed"
        except subprocess.TimeoutExpired:  # the system holds it, as in a call to a disk that has gone
            return "does not end"


def _shown_in(stream: Any) -> int | None:
    """Return the file that a stream writes to, which may have been redirected, or None for what is inherited."""
    try:  # not a notebook's stream, which names the terminal behind it
        return int(stream.fileno()) if hasattr(stream, "line_buffering") else None
    except (OSError, ValueError):  # it writes to none
        return None


def _told(code: int) -> str:
    if code >= 0:
        why = ", as a worker does that cannot hear or speak any more" if code == DEAF_AND_DUMB else ""
        return f"ended with exit code {code}{why}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else "unknown"
    memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}){memory}"
