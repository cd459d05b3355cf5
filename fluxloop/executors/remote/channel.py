"""Messages over a socket between two processes of one machine."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_MARK = b"\xf1\x0c\x9d"
"""Begins each message, because an agent may write to any file that it finds open."""
_HEADER = struct.Struct("!3scQ")
_CHUNK = 1 << 18


def framed(kind: bytes, data: bytes) -> bytes:
    """Return a message as bytes of the stream."""
    return _HEADER.pack(_MARK, kind, len(data)) + data


class GarbledError(Exception):
    """What came is no message."""


class Incoming:
    """Messages out of a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def read(self, channel: socket.socket) -> bool:
        """Read once from the socket, which has something; return False when the other end is closed.

        Raises:
            BlockingIOError: there was nothing.
        """
        try:
            data = channel.recv(_CHUNK)
        except ConnectionError:
            return False
        self.add(data)
        return bool(data)

    def add(self, data: bytes) -> None:
        """Take more of the stream."""
        self._buffer += data

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Take out the messages that are whole.

        Raises:
            GarbledError: something else has come between them.
        """
        buffer, start = self._buffer, 0
        while len(buffer) - start >= _HEADER.size:
            mark, kind, length = _HEADER.unpack_from(buffer, start)
            if mark != _MARK:
                raise GarbledError
            end = start + _HEADER.size + length
            if len(buffer) < end:
                break
            yield kind, bytes(memoryview(buffer)[start + _HEADER.size : end])
            start = end
        del buffer[:start]
