"""A rate for what all runs do together, such as calls to one model."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from fluxloop.clock import monotonic, sleep
from fluxloop.pace import Pace, spacing

_lock = threading.Lock()
_queues: dict[str, _Queue] = {}
_shares: list[int] = []
_experiment = 0
"""The number of the experiment that is on, or was last; those that are on at a time have one."""

Turn = AbstractContextManager[Callable[[], float]]
"""A place among those that wait for a rate, until it is left. Once it is told to be the first, what it
gives returns for how many seconds it has still to wait; 0 takes the moment."""
Ask = Callable[[str, float, int, Callable[[], object]], Turn]
"""Waits in the process that starts the runs: for a rate of this name, with so many seconds between two
calls, cut into so many shares. The last is called, from any thread, once the turn has come."""
_elsewhere: list[Ask] = []
if hasattr(os, "register_at_fork"):  # whoever answers does not know what an agent forks
    os.register_at_fork(after_in_child=_elsewhere.clear)


@contextmanager
def asked_elsewhere(ask: Ask) -> Iterator[None]:
    """Let calls of this process keep to rates that it shares with other processes."""
    _elsewhere.append(ask)
    try:
        yield
    finally:
        _elsewhere.remove(ask)


def moment(name: str, gap: float, shares: int) -> float:
    """Take the next moment of a rate for a call of another process, or return for how long to wait for it.

    Raises:
        ValueError: another rate is in use under this name.
    """
    return _queue(name, gap).wait_seconds(shares)


def last_taken(name: str) -> int:
    """Return the number of the moment of a rate that was taken last."""
    return _queues[name].taken


def give_back(name: str, taken: int) -> None:
    """Let others have a moment that was taken and not used, unless a later one has been taken, too."""
    queue = _queues[name]
    with _lock:
        if queue.taken == taken:
            queue.taken += 1
            queue.pace.next = queue.before


@contextmanager
def one_share_of(shares: int) -> Iterator[None]:
    """Let calls take one of so many shares of each rate; the others are for other machines.

    It holds in the whole process, because an agent also calls from threads that know no run. When
    it is told twice at a time, the smaller share holds. As long as it does, a name keeps its rate.
    """
    global _experiment
    with _lock:
        _experiment += not _shares
        _shares.append(shares)
    try:
        yield
    finally:
        with _lock:
            _shares.remove(shares)


class _Queue:
    """Those that wait for one rate, in the order in which they came.

    Only the first watches the clock. Nobody holds a moment to come: who gives up, as a run that is
    over its time does, takes nothing from the others.
    """

    def __init__(self, name: str, gap: float) -> None:
        self.name = name
        self.pace = Pace(gap)
        self.taken = 0
        """How many moments."""
        self.before = self.pace.next
        """When the last of them was to be had."""
        self.used_in = _experiment
        """The number of the experiment in which its rate was asked for last."""
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def is_bound(self) -> bool:
        """Whether its rate may not be another: somebody waits for it, or has asked for it in this experiment."""
        return bool(self._waiting) or (bool(_shares) and self.used_in == _experiment)

    def is_free(self) -> bool:
        """Take this moment, if it is free and nobody waits."""
        return not self._waiting and self.wait_seconds() == 0

    @contextmanager
    def turn(self, call: Callable[[], object]) -> Iterator[Callable[[], float]]:
        """Wait to be first, which is told by `call`, from any thread."""
        with _lock:
            self._waiting.append(call)
            first = len(self._waiting) == 1
        try:
            if first:
                call()
            yield self.wait_seconds
        finally:
            self._leave(call)

    def _leave(self, call: Callable[[], object]) -> None:
        with _lock:
            was_first = self._waiting[0] is call
            self._waiting.remove(call)
            following = self._waiting[0] if was_first and self._waiting else None
        if following is not None:
            following()

    def wait_seconds(self, shares: int = 1) -> float:
        """Return for how long the first has still to wait; 0 takes the moment.

        Args:
            shares: how many share the rate, as whoever asks knows; the most that anybody knows of holds.
        """
        shares = max((shares, *_shares))
        with _lock:
            now = monotonic()
            if now < self.pace.next:
                return self.pace.next - now
            self.before = self.pace.next
            self.pace.reserve(now, shares)
            self.taken += 1
            return 0.0


def _queue(name: str, gap: float) -> _Queue:
    """The queue of a name, with this rate from now on: an experiment binds a name to one rate, until it has ended."""
    with _lock:
        queue = _queues.setdefault(name, _Queue(name, gap))
        if queue.pace.gap != gap:
            if queue.is_bound:
                raise ValueError(f"the name has another rate, one in {queue.pace.gap:g} s")
            queue.pace.gap = gap
            queue.pace.next = min(queue.pace.next, monotonic() + gap)
        queue.used_in = _experiment
    return queue


class rate_limit:  # noqa: N801  (used as a word, like `open`)
    """Wait until one more call fits the rate, across every run that this process starts.

    That includes runs in worker processes and on other machines: these ask here. The rate is the
    service's, and a shard of an experiment keeps to its share of it. The calls are spaced evenly, in
    the order in which they ask. The wait is part of the attempt and counts towards its timeout.

    Args:
        name: what is limited; all uses of a name share one rate.
        rate: as `"500/min"`, `"5/s"` or `"1000/h"`.

    Raises:
        ValueError: the rate is none, or this experiment uses another one under this name.

    Example:
        >>> with rate_limit("search", "1000/s"):
        ...     answer = "found"

        In async code: `async with fluxloop.rate_limit("openai", "500/min"): ...`
    """

    __slots__ = ("_gap", "_queue", "_rate")

    def __init__(self, name: str, rate: str) -> None:
        self._rate, self._gap = rate, spacing(rate)
        self._queue = self._bound(name)

    def _bound(self, name: str) -> _Queue:
        try:
            return _queue(name, self._gap)
        except ValueError as error:
            raise ValueError(f"rate_limit({name!r}, {self._rate!r}): {error}; use another name") from None

    def __enter__(self) -> None:
        self._bound(self._queue.name)  # it may have been made before the experiment, or for another one
        if not _elsewhere and self._queue.is_free():
            return
        first = threading.Event()
        with self._turn(first.set) as wait_seconds:
            first.wait()
            while wait := wait_seconds():
                sleep(wait)

    def __exit__(self, *error: object) -> None:
        """Nothing is held: the rate bounds how often calls begin, not how long they take."""

    async def __aenter__(self) -> None:
        self._bound(self._queue.name)
        if not _elsewhere and self._queue.is_free():
            return
        import asyncio  # whoever gets here has it loaded

        loop = asyncio.get_running_loop()
        first = asyncio.Event()

        def call() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(first.set)

        with self._turn(call) as wait_seconds:
            await first.wait()
            while wait := wait_seconds():
                await asyncio.tasks.sleep(wait)  # `asyncio.sleep` may be an agent's double

    async def __aexit__(self, *error: object) -> None:
        """Nothing is held."""

    def _turn(self, call: Callable[[], object]) -> Turn:
        queue = self._queue
        if _elsewhere:
            return _elsewhere[-1](queue.name, self._gap, max((1, *_shares)), call)
        return queue.turn(call)
