"""What a worker prints outside of any run, on its way to the screen of the executor's process."""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fluxloop.executors.remote import messages
from fluxloop.executors.remote.messages import Send
from fluxloop.system import System

MAX_PENDING = 8_192
"""Characters of a line that are kept until it is whole."""


@contextmanager
def printed_there(send: Send) -> Iterator[None]:
    """Show what is printed here where the executor is, line by line, so that it tears no progress bar."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = there = _There(send, "stdout", streams[0]), _There(send, "stderr", streams[1])
    try:
        yield
    finally:
        for stream in there:
            stream.flush()
        sys.stdout, sys.stderr = streams


class _There(io.TextIOBase):
    def __init__(self, send: Send, name: str, stream: Any) -> None:
        self._send = send
        self._name = name
        self._stream = stream
        self._process = System.process
        self._pending: deque[str] = deque()
        self._length = 0
        self._lock = threading.RLock()  # a signal handler or a finalizer of the agent may print meanwhile

    def write(self, text: str) -> int:
        with self._lock:
            self._pending.append(text)
            self._length += len(text)
        if "\n" in text or self._length > MAX_PENDING:
            self.flush()
        return len(text)

    def flush(self) -> None:
        taken: list[str] = []
        with self._lock, suppress(IndexError):
            self._length = 0
            while True:  # one by one: what prints meanwhile in this thread takes and leaves whole pieces
                taken.append(self._pending.popleft())
        text = "".join(taken)
        if text and System.process is not self._process:  # one that the agent has forked has no way there
            self._stream.write(text)
            self._stream.flush()
        elif text:
            text = text.encode("utf-8", "backslashreplace").decode()
            self._send(messages.PRINTED, messages.encode_printed((self._name, text)))

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return the worker's own, for processes that write to it."""
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"
