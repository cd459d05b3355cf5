"""Which workers there are, and whether more are started."""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, field

from fluxloop.clock import monotonic
from fluxloop.exceptions import TargetError
from fluxloop.executors.remote.transport import Link, Transport
from fluxloop.notices import notice

MAX_SOLITARY = 8
"""How many workers run suspects at a time, beside the others."""
MAX_FAILED_STARTS = 5
"""After so many in a row there is no hope for more."""
RESTART_SECONDS = 0.1
"""How long no worker is started after one could not be; doubled for each further one."""
LOSS_SECONDS = 0.5
"""Within this time, workers that lose their place have lost the same one."""
QUICK_MS = 40.0
"""A worker that has been silent for longer is at a long attempt, behind which no other is to wait."""


@define(eq=False)
class Member:
    """A worker, as whoever hands out attempts sees it."""

    link: Link
    is_solitary: bool = False
    """True of one that is there for suspects only."""
    is_starting: bool = True
    is_ready: bool = False
    orders: dict[int, float] = Factory(dict)
    """The tickets it has, with when each was sent."""
    has_suspect: bool = False
    """True while it has an order that is to be alone."""
    recalled: bool = False
    """True once it has been asked to give back what waits behind a long attempt."""

    def is_able(self, now: float, together: int) -> bool:
        """Tell whether it could take an order that would not wait behind a long one."""
        is_quick = len(self.orders) < together or self.silent_for(now) * 1000 < QUICK_MS
        return self.is_ready and not self.has_suspect and is_quick

    def silent_for(self, now: float) -> float:
        """Return for how many seconds nothing has come, though there was something to do."""
        return now - max(self.link.heard, min(self.orders.values(), default=now))


@define(kw_only=True, eq=False)
class Staff:
    """Start workers as there is work for them, and go on when one cannot be started.

    Args:
        transport: starts them.
        workers: how many there may be.
        together: how many attempts one runs at a time.
        redact: masks what is secret in what is told of those that fail.
    """

    transport: Transport
    workers: int
    together: int
    redact: Callable[[str], str]
    members: dict[Link, Member] = field(init=False, factory=dict)
    failure: TargetError | None = field(init=False, default=None)
    """Why there is nobody, and will not be."""
    _has_worked: bool = field(init=False, default=False)
    """True once any worker has started well."""
    _failed_starts: int = field(init=False, default=0)
    """How many in a row."""
    _losses: int = field(init=False, default=0)
    """How many times in a row a machine has gone while a worker started on it."""
    _lost_at: float = field(init=False, default=0.0)
    _start_after: float = field(init=False, default=0.0)
    """When the next worker may be started."""
    _why_fewer: str | None = field(init=False, default=None)
    """Why there are fewer workers than were asked for, as long as it has not been told."""

    def hire(self, waiting: int, suspects: int) -> None:
        """Start as many workers as there is work for, and some for suspects, so that those hold up nothing."""
        if monotonic() < self._start_after:
            return
        solitary = sum(member.is_solitary for member in self.members.values())
        starting = sum(member.is_starting and not member.is_solitary for member in self.members.values())
        wanted = -(-waiting // self.together) - starting
        if self.transport.starts is not None:
            wanted = min(wanted, self.transport.starts - starting)
        for _ in range(min(wanted, self.workers - len(self.members) + solitary)):
            self._start()
        for _ in range(min(suspects, MAX_SOLITARY) - solitary):
            self._start(is_solitary=True)

    def _start(self, *, is_solitary: bool = False) -> None:
        try:
            link = self.transport.start()
        except OSError as error:
            self.failed_start(f"it cannot be started: {error.strerror or error}")
        else:
            self.members[link] = Member(link, is_solitary=is_solitary)

    def started(self) -> None:
        """Note that a worker has started well."""
        self._has_worked = True
        self._failed_starts = self._losses = 0
        self._tell_fewer()

    def failed_start(self, why: str) -> None:
        """Go on when a worker could not be started: at first with those there are, later by trying again."""
        self._failed_starts += 1
        is_last = len(self.members) + 1 >= self.workers
        if not self._has_worked and (is_last or not self.members):  # all of them may fail alike
            self._be_fewer(why)
        elif self._failed_starts >= MAX_FAILED_STARTS:
            self._failed_starts = 0
            self._be_fewer(why)
            self._tell_fewer()
        else:
            self._start_after = monotonic() + RESTART_SECONDS * 2**self._failed_starts

    def lost_place(self, why: str) -> None:
        """Go on when the machine has gone on which a worker was starting: another is found for it, if there is one."""
        now = monotonic()
        if now - self._lost_at > LOSS_SECONDS:  # else it was the place of several
            self._lost_at = now
            self._losses += 1
            self._start_after = now + RESTART_SECONDS * 2 ** min(self._losses, MAX_FAILED_STARTS)
        if self._losses >= MAX_FAILED_STARTS:
            self._be_fewer(why)

    def give_up(self, why: str) -> None:
        """Note that no worker will ever start."""
        self.failure = TargetError(self.redact(why))

    def _be_fewer(self, why: str) -> None:
        if not self.members:
            self.give_up(why)
            return
        self.workers = max(1, sum(not member.is_solitary for member in self.members.values()))
        self._why_fewer = self.redact(why)

    def _tell_fewer(self) -> None:
        if self._why_fewer is not None:
            notice(f"no more than {self.workers} at a time: {self._why_fewer}")
            self._why_fewer = None
