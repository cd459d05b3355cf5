"""The contract between whoever hands out attempts and whatever carries them to workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Link(Protocol):
    """A way to one worker."""

    heard: float
    """When anything last came from it, on the monotonic clock."""

    @property
    def is_cut(self) -> bool:
        """True while nothing can come from it, though it may be well: its silence says nothing."""

    def send(self, kind: bytes, data: bytes) -> None:
        """Send a message; to a worker that has ended, nothing."""

    def kill(self) -> None:
        """End the worker at once, whatever it does, and all it has started; nothing more comes from it."""


Message = tuple[Link, bytes, bytes]


class Transport(Protocol):
    """Starts workers and carries messages; it knows nothing of attempts."""

    starts: int | None
    """How many workers may start at a time, so that the first are soon ready; None for any."""

    def start(self) -> Link:
        """Start a worker; it says READY, or FAILED, or is GONE."""

    def receive(self, seconds: float) -> Sequence[Message]:
        """Return what has come, after waiting so long at most for the first."""

    def close(self, leaving: Sequence[Link]) -> Sequence[Message]:
        """End all workers, those that have been told to leave by themselves if they do; return their last words."""
