"""The attempts that other processes run, seen from the one thread that hands them out and settles them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence

from attrs import define, field
from msgspec import DecodeError

from fluxloop.attempt import OpenAttempt
from fluxloop.clock import monotonic
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.granting import Grants
from fluxloop.executors.remote.inquiring import Inquiry
from fluxloop.executors.remote.messages import Order
from fluxloop.executors.remote.staff import QUICK_MS, Member, Staff
from fluxloop.executors.remote.transport import Transport
from fluxloop.notices import notice
from fluxloop.pace import Pace
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import HEARTBEAT, Schedule

SILENCE_SECONDS = 2.0
"""How long after the time of an attempt a worker may take to say so itself."""
SHORT_MS = 20.0
"""How long attempts may take in all that are sent to a worker together, to run one after the other."""
REMEMBERED = 20
"""Of how many attempts the longest tells how long the next may take."""


@define(kw_only=True, eq=False)
class Dispatch:
    """Hand out what the schedule gives to workers, and make attempts of all that becomes of it.

    When a worker dies, the attempt that it ran is recorded as `crashed`, and what waited for it goes
    to others. Of several that it ran together nobody knows which did it: each runs again, alone, and
    one that takes its worker with it then is the one.

    Args:
        task: what each attempt does.
        schedule: what may start.
        transport: starts workers and carries messages.
        workers: how many there may be.
        parallel: how many attempts may run at a time.
        together: how many of them in one worker.
        short: how many may be sent to a worker at a time while they are short, to run one after the other.
        patience: seconds after its time in which an attempt may still end by itself.
    """

    task: Task
    schedule: Schedule
    transport: Transport
    workers: int
    parallel: int
    together: int = 1
    short: int = 1
    patience: float = 0.0
    _staff: Staff = field(init=False)
    _orders: dict[int, Order] = field(init=False, factory=dict)
    """By ticket, what the schedule has given and has not got back."""
    _waiting: deque[Order] = field(init=False, factory=deque)
    """Those that no worker has."""
    _suspects: deque[Order] = field(init=False, factory=deque)
    """The same, of those that a worker had together when it died."""
    _unsent: list[Attempt] = field(init=False, factory=list)
    """What attempts came to that no worker could be sent."""
    _last_ticket: int = field(init=False, default=0)
    _took: deque[float] = field(init=False, factory=lambda: deque(maxlen=REMEMBERED))
    """How many milliseconds the last attempts took."""
    _looked: float = field(init=False, factory=monotonic)
    _inquiry: Inquiry = field(init=False, factory=Inquiry)
    _grants: Grants = field(init=False, factory=Grants)
    _pace: Pace = field(init=False)
    """When the next attempt may be sent."""

    @_staff.default
    def _begin_staff(self) -> Staff:
        return Staff(
            transport=self.transport,
            workers=self.workers,
            together=self.together,
            redact=self.task.redaction.text,
        )

    @_pace.default
    def _begin_pace(self) -> Pace:
        return Pace(self.schedule.limits.start_gap)

    def batches(self) -> Iterator[list[Attempt]]:
        """Yield what has ended, at least once in a heartbeat, until the schedule is finished.

        Raises:
            TargetError: no worker can load or enter the target.
        """
        try:
            self._fill()
            while not self.schedule.finished:
                batch = self._landed()
                # Before the batch is settled, so that no worker waits for the disk, unless what
                # failed may hold up others: by `Retry-After`, or as one failure too many.
                self._fill(takes=all(attempt.status == "ok" for attempt in batch))
                yield batch
                if self._staff.failure is not None:
                    raise self._staff.failure
        finally:
            self._close()

    def stacks(self) -> str:
        """Return where everything is in the workers that answer, from another thread."""
        return self._inquiry.stacks()

    def _fill(self, *, takes: bool = True) -> None:
        room = self._room
        while takes and len(self._orders) < room and (taken := self.schedule.take()):
            self._last_ticket += 1
            try:
                order = Order.of(self._last_ticket, *taken)
            except TypeError as error:
                self._unsent.append(self.task.attempt(*taken).failed(error))
                break  # it is settled before the next is taken
            self._orders[order.ticket] = order
            self._waiting.append(order)
        if self.schedule.stopping:
            self._drop_waiting()
        self._assign()
        self._staff.hire(len(self._waiting), len(self._suspects))

    def _drop_waiting(self) -> None:
        """Give back what has not begun and is not to, now that nothing more starts."""
        for order in (*self._waiting, *self._suspects):
            del self._orders[order.ticket]
            self.schedule.drop(order.planned)
        self._waiting.clear()
        self._suspects.clear()

    @property
    def _size(self) -> int:
        """How many attempts a worker may have: more than it runs at a time only while all are short."""
        if self.short == 1 or len(self._took) < REMEMBERED:
            return self.together
        return max(1, min(self.short, int(SHORT_MS / max(*self._took, SHORT_MS / self.short))))

    @property
    def _room(self) -> int:
        """How many the schedule may have given."""
        return self.parallel if self._size == self.together else self.parallel * self._size

    def _assign(self) -> None:
        """Give what waits to those that have room, the emptiest first."""
        size, now = self._size, monotonic()
        able = [
            one for one in self._staff.members.values() if one.is_able(now, self.together) and len(one.orders) < size
        ]
        able.sort(key=lambda one: len(one.orders))
        for place, member in enumerate(able):
            if self._held_for(monotonic()):
                return
            if self._waiting and not member.is_solitary:
                share = min(size - len(member.orders), -(-len(self._waiting) // (len(able) - place)))
                share = 1 if self._pace.gap else share  # a rate is of attempts, however many workers there are
                self._send(member, [self._waiting.popleft() for _ in range(share)])
            elif self._suspects and not member.orders:
                member.has_suspect = True
                self._send(member, [self._suspects.popleft()])
            elif member.is_solitary:
                member.is_ready = False
                member.link.send(messages.END, b"")

    def _held_for(self, now: float) -> float:
        """Return for how many seconds nothing may be sent, though the schedule has given it: it waited for workers."""
        return max(self._pace.next - now, self.schedule.paused_for, 0.0)

    def _send(self, member: Member, orders: Sequence[Order]) -> None:
        now = self._pace.reserve(monotonic())
        member.orders.update((order.ticket, now) for order in orders)
        member.link.send(messages.ORDERS, messages.encode_orders(orders))

    def _landed(self) -> list[Attempt]:
        full = len(self._orders) >= self._room
        batch, self._unsent = self._unsent, []
        wait = 0.0 if batch else HEARTBEAT if full else self.schedule.wait_seconds()
        now = monotonic()  # before, so that nobody is silent who has spoken while this was at others
        if self._waiting and (held := self._held_for(now)):
            wait = min(wait, held)
        for link, kind, data in self.transport.receive(min(wait, self._grants.due_in)):
            if (member := self._staff.members.get(link)) is not None:  # else it has been ended
                self._take(member, kind, data, batch)
        self._grants.answer(self._staff.members)
        self._inquiry.ask(self._staff.members)
        if now - self._looked >= HEARTBEAT / 2:
            self._looked = now
            for member in list(self._staff.members.values()):
                self._look_after(member, member.silent_for(now), batch)
        return batch

    def _take(self, member: Member, kind: bytes, data: bytes, batch: list[Attempt]) -> None:
        if kind in (messages.RESULTS, messages.LAST):
            self._settle(member, data, batch)
        elif kind == messages.READY:
            member.is_ready = True
            member.is_starting = False
            self._staff.started()
        elif kind == messages.RETURNED:
            self._take_back(member, messages.decode_tickets(data))
        elif kind == messages.ASK:
            self._grants.ask(member.link, data)
        elif kind == messages.WITHDRAWN:
            self._grants.withdraw(member.link, data)
        elif kind == messages.REMARK:
            notice(_text(data))
        elif kind == messages.STACKS:
            busy = ", ".join(self._orders[ticket].planned.trace_id for ticket in member.orders)
            self._inquiry.hear(member.link, busy, _text(data))
        elif kind == messages.PRINTED:
            _print(data)
        elif kind == messages.FAILED and member.is_ready:
            member.link.kill()
            self._lose(member, f"its worker failed: {_text(data)}", batch)
        elif kind == messages.FAILED:
            self._forget(member)
            self._staff.failed_start(f"{_text(data)} (in a worker process)")
        elif kind == messages.HOPELESS:
            self._forget(member)
            self._staff.give_up(_text(data))
        elif kind == messages.GONE:
            self._lose(member, f"its worker process {_text(data)}", batch)
        elif kind == messages.LOST:
            self._lose(member, _text(data), batch, is_own_fault=False)

    def _settle(self, member: Member, data: bytes, batch: list[Attempt]) -> None:
        try:
            results = messages.decode_results(data)
        except DecodeError as error:  # an agent may write to any file it finds open
            member.link.kill()
            self._lose(member, f"its worker process sent what cannot be read: {error}", batch)
            return
        goes_on = False
        for result in results:
            if member.orders.pop(result.ticket, None) is None:
                continue
            order = self._orders.pop(result.ticket)
            attempt = result.attempt(order)
            if result.is_unread:
                known = self.task.attempt(order.planned, order.number).crashed("", 0.0)
                attempt.input, attempt.told = known.input, known.told
            batch.append(attempt)
            self._took.append(attempt.duration_ms)
            member.has_suspect = False
            goes_on = goes_on or attempt.left_running
            attempt.left_running = False
        if goes_on:  # with the worker it ends; the others in it run elsewhere
            member.link.kill()
            self._forget(member)
            self._wait_again(member, are_suspects=False)

    def _forget(self, member: Member) -> None:
        self._staff.members.pop(member.link, None)
        self._inquiry.forget(member.link)

    def _wait_again(self, member: Member, *, are_suspects: bool) -> None:
        waiting = self._suspects if are_suspects else self._waiting
        waiting.extendleft(self._orders[ticket] for ticket in reversed(member.orders))

    def _take_back(self, member: Member, tickets: Sequence[int]) -> None:
        member.recalled = False
        for ticket in reversed(tickets):
            del member.orders[ticket]
            self._waiting.appendleft(self._orders[ticket])

    def _lose(self, member: Member, told: str, batch: list[Attempt], *, is_own_fault: bool = True) -> None:
        """Go on without a worker that has ended."""
        self._forget(member)
        told_of_run = f"{told}; what it had observed is lost"
        if member.is_starting and is_own_fault:
            self._staff.failed_start(f"{told} while it loaded the target")
        elif member.is_starting:
            self._staff.lost_place(told)
        elif is_own_fault:
            if blamed := self._blamed(member):
                opened, seconds = blamed
                batch.append(opened.crashed(told_of_run, seconds))
        else:  # nobody is to blame, and what it ran is lost with it
            running = list(member.orders)[: self.together]
            seconds = member.silent_for(monotonic())
            for ticket in running:
                del member.orders[ticket]
                batch.append(self._opened(ticket).crashed(told_of_run, seconds, "infrastructure"))
            self._wait_again(member, are_suspects=False)

    def _opened(self, ticket: int) -> OpenAttempt:
        order = self._orders.pop(ticket)
        return self.task.attempt(order.planned, order.number)

    def _blamed(self, member: Member) -> tuple[OpenAttempt, float] | None:
        """Return the attempt that has ended its worker, and for how long it ran; what else that had runs again."""
        if self.together > 1 and len(member.orders) > 1:
            self._wait_again(member, are_suspects=True)
            return None
        ticket = next(iter(member.orders), None)
        if ticket is None:
            return None
        seconds = member.silent_for(monotonic())
        del member.orders[ticket]
        self._wait_again(member, are_suspects=False)
        return self._opened(ticket), seconds

    def _look_after(self, member: Member, silent: float, batch: list[Attempt]) -> None:
        """See to a worker that has not been heard of for so many seconds."""
        if len(member.orders) > self.together and silent * 1000 > QUICK_MS and not member.recalled:
            member.recalled = True
            member.link.send(messages.RECALL, b"")
        limit = self.task.timeout_seconds
        if limit is None or member.link.is_cut or silent <= limit + self.patience + SILENCE_SECONDS:
            return
        # It should have told of an attempt that is over its time, and cannot.
        member.link.kill()
        self._forget(member)
        if blamed := self._blamed(member):
            opened, seconds = blamed
            lost = "; its worker process did not answer either and was killed: what it had observed is lost"
            batch.append(opened.timed_out(limit, None, lost, started_ago=seconds))

    def _close(self) -> None:
        idle = [one.link for one in self._staff.members.values() if not one.is_starting and not one.orders]
        for link, kind, data in self.transport.close(idle):
            if link not in self._staff.members:
                continue
            if kind == messages.REMARK:
                notice(_text(data))
            elif kind == messages.PRINTED:
                _print(data)
            elif kind == messages.LATE:
                first, calls, characters = messages.decode_late(data)
                self.task.late.add(first, calls=calls, characters=characters)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _print(data: bytes) -> None:
    """Show what was printed outside of any run, or is not kept with it, as if it had been printed here."""
    name, text = messages.decode_printed(data)
    stream = sys.stderr if name == "stderr" else sys.stdout
    if stream is not None:
        stream.write(text)
        stream.flush()
