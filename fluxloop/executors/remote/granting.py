"""The rates of services that workers share: who may call next is decided where the runs are started."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Container
from typing import Any

from fluxloop.executors.remote import messages
from fluxloop.executors.remote.messages import RateAnswer, RateAsked
from fluxloop.rates import moment
from fluxloop.schedule import HEARTBEAT


class Grants:
    """Those in the workers that wait for a moment of a rate, in the order in which they have asked.

    Each is answered when its moment is there, so that none passes while an answer travels; whoever has
    longer to wait is told so and asks again, because by then it may have given up.
    """

    def __init__(self) -> None:
        self._asked: deque[tuple[Any, RateAsked]] = deque()
        self._due = math.inf

    def ask(self, link: Any, data: bytes) -> None:
        """Take the question of a worker."""
        self._asked.append((link, messages.decode_asked(data)))
        self._due = 0.0

    @property
    def due_in(self) -> float:
        """Seconds until somebody is to be answered."""
        return max(0.0, self._due - time.monotonic()) if self._asked else math.inf

    def answer(self, present: Container[Any]) -> None:
        """Answer whoever can be answered now.

        Args:
            present: the workers there are; who asked from another needs no answer.
        """
        if not self._asked or time.monotonic() < self._due:
            return
        waits: dict[str, float] = {}
        for _ in range(len(self._asked)):
            link, asked = self._asked.popleft()
            if link not in present:
                continue
            try:
                # After one that has to wait, all others of the name have, too.
                wait = waits.get(asked.name) or moment(asked.name, asked.gap, asked.shares)
            except ValueError as error:
                link.send(messages.MOMENT, messages.encode_message(RateAnswer(asked.call, 0.0, str(error))))
                continue
            waits[asked.name] = wait
            if 0 < wait <= HEARTBEAT:
                self._asked.append((link, asked))
            else:
                told = max(0.0, wait - HEARTBEAT / 2)
                link.send(messages.MOMENT, messages.encode_message(RateAnswer(asked.call, told)))
        still = [waits[asked.name] for _, asked in self._asked]
        self._due = time.monotonic() + min(still, default=math.inf)
