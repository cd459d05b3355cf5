"""The question where everything is, asked of all workers from another thread than the one that hears them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from fluxloop.executors.remote import messages

ANSWER_SECONDS = 2.0
"""How long workers may take to say where they are."""


class Inquiry:
    """Ask workers for their stacks, and collect what they say."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._done = threading.Event()
        self._unanswered: set[Any] = set()
        self._told: list[str] = []

    def stacks(self) -> str:
        """Return where everything is in the workers that answer in time; from another thread."""
        self._done.clear()
        self._wanted.set()
        self._done.wait(ANSWER_SECONDS)
        told, self._told = self._told, []
        return "\n".join(told)

    def ask(self, links: Iterable[Any]) -> None:
        """Ask these workers, if anybody wants to know."""
        if not self._wanted.is_set():
            return
        self._wanted.clear()
        self._told.clear()  # of an answer that came late
        self._unanswered = set(links)
        for link in self._unanswered:
            link.send(messages.WHERE, b"")
        if not self._unanswered:
            self._done.set()

    def forget(self, link: Any) -> None:
        """Wait no longer for a worker that has ended."""
        if link in self._unanswered:
            self._unanswered.discard(link)
            if not self._unanswered:
                self._done.set()

    def hear(self, link: Any, busy: str, stacks: str) -> None:
        """Take the answer of a worker.

        Args:
            link: which one.
            busy: the runs it has, for people.
            stacks: what it says.
        """
        self._told.append(f"A worker process with {busy or 'nothing'}:\n\n{stacks}")
        self._unanswered.discard(link)
        if not self._unanswered:
            self._done.set()
