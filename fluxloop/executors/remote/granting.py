"""The rates of services that workers share: who may call next is decided where the runs are started."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container
from typing import Any

from fluxloop.clock import monotonic
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.messages import RateAnswer
from fluxloop.rates import give_back, last_taken, moment

_Rate = tuple[str, float]
"""Its name, and the seconds between two calls."""
_Call = tuple[Any, int]
"""The worker it is in, and its number there."""


class Grants:
    """The calls in the workers that wait for a moment of a rate, in the order in which they have asked.

    Each is answered when its moment is there, so that none passes while an answer travels; one that
    gives up says so.
    """

    def __init__(self) -> None:
        self._waiting: dict[_Rate, OrderedDict[_Call, int]] = {}
        """With how many share the rate, as each knows."""
        self._last: dict[_Rate, tuple[_Call, int]] = {}
        """Who was answered last, and the number of that moment."""
        self._due = math.inf

    def ask(self, link: Any, data: bytes) -> None:
        """Let a call of a worker wait."""
        asked = messages.decode_asked(data)
        self._waiting.setdefault((asked.name, asked.gap), OrderedDict())[link, asked.call] = asked.shares
        self._due = 0.0

    def withdraw(self, link: Any, data: bytes) -> None:
        """Let a call wait no longer; had it just been answered, the moment is for others."""
        asked = messages.decode_asked(data)
        rate, call = (asked.name, asked.gap), (link, asked.call)
        last, taken = self._last.get(rate, (None, 0))
        if last == call:
            give_back(asked.name, taken)
        elif waiting := self._waiting.get(rate):
            waiting.pop(call, None)
        self._due = 0.0

    @property
    def due_in(self) -> float:
        """Seconds until somebody is to be answered."""
        return max(0.0, self._due - monotonic()) if self._waiting else math.inf

    def answer(self, present: Container[Any]) -> None:
        """Answer whoever can be answered now.

        Args:
            present: the workers there are; who asked from another needs no answer.
        """
        if self.due_in > 0:
            return
        self._due = math.inf
        for rate, waiting in list(self._waiting.items()):
            while waiting:
                call, shares = next(iter(waiting.items()))
                if call[0] in present and (wait := self._wait_seconds(rate, call, shares)):
                    self._due = min(self._due, monotonic() + wait)
                    break
                del waiting[call]
            else:
                del self._waiting[rate]

    def _wait_seconds(self, rate: _Rate, call: _Call, shares: int) -> float:
        """Answer a call, or return for how many seconds it has still to wait."""
        link, number = call
        problem = None
        try:
            if wait := moment(*rate, shares):
                return wait
            self._last[rate] = call, last_taken(rate[0])
        except ValueError as error:
            problem = str(error)
        link.send(messages.MOMENT, messages.encode_message(RateAnswer(number, problem)))
        return 0.0
