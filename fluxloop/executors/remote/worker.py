"""A worker: runs attempts at a task for an executor that is in another process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.loop import running
from fluxloop.exceptions import TargetError
from fluxloop.executors.flight import MAX_BATCH
from fluxloop.executors.remote import messages
from fluxloop.executors.remote.messages import RateAnswer, RateAsked, Result, Send
from fluxloop.executors.remote.printing import printed_there
from fluxloop.executors.remote.sending import loading
from fluxloop.lane import Lane
from fluxloop.notices import notice, notices_to
from fluxloop.open_target import OpenTarget
from fluxloop.rates import asked_elsewhere
from fluxloop.records import RunError
from fluxloop.runner import Task
from fluxloop.stacks import all_stacks, task_stack, thread_stack
from fluxloop.tracing.capture import describe, message, type_name
from fluxloop.tracing.output import captured_output

LOOK_SECONDS = 0.1
"""How often whoever carries the messages is to let the worker look after the time."""


class Worker:
    """Run what is ordered, and tell what it came to.

    One thread works, the one that calls `work`: sync agents run there, async ones on a loop beside
    it. Another hands over what comes, and lets the worker look after the time. An attempt that is
    over it and does not end is told with what is known of it; it is for the executor to end this
    worker, because nothing else ends that attempt.

    Args:
        task: what each attempt does.
        send: takes what the worker has to say, from any thread.
        loads: unpickles the inputs.
    """

    def __init__(self, task: Task, send: Send, loads: Callable[[bytes], Any]) -> None:
        self._task = task
        self._send = send
        self._loads = loads
        self._flying: dict[OpenAttempt, int] = {}
        """The tickets of attempts that have not been told; who takes one out tells it."""
        self._given: SimpleQueue[OpenAttempt | None] = SimpleQueue()
        """For a sync agent: what is to be run, and None for the end."""
        self._ended: SimpleQueue[Any] = SimpleQueue()
        """For an async one: what has ended, and None for the end."""
        self._lane: Lane | None = None
        self._calls = count()
        self._asking: dict[int, Callable[[RateAnswer], object]] = {}
        """The calls that wait for a rate, and how each is told that it need not any more."""
        self._ident: int | None = None

    def work(self) -> None:
        """Load and enter the target, run what comes until the end is told, and leave the target."""
        self._ident = threading.get_ident()
        try:
            with (
                notices_to(lambda text: self._send(messages.REMARK, _utf8(text))),
                printed_there(self._send),
                captured_output(debugging=_no_terminal, redaction=self._task.redaction),
                asked_elsewhere(self._ask),
            ):
                with loading(str(self._task.target)):
                    target = self._task.open_target()
                target.__enter__()
                if target.is_async:
                    self._run_together(target)
                else:
                    self._run_one_by_one(target)
        except BaseException as error:
            told = str(error) if isinstance(error, TargetError) else ": ".join(describe(error))
            self._send(messages.FAILED, _utf8(self._task.redaction.text(told)))

    def _run_one_by_one(self, target: OpenTarget) -> None:
        with self._left_after(lambda: target.__exit__(None, None, None)):
            while (opened := self._given.get()) is not None:
                self._tell([(opened, target.run(opened))])

    def _run_together(self, target: OpenTarget) -> None:
        self._lane = lane = Lane(target, self._ended)
        with self._left_after(lambda: (self._lane or lane).close()):
            while (first := self._ended.get()) is not None:
                self._tell([first, *self._more()])

    @contextmanager
    def _left_after(self, leave: Callable[[], object]) -> Iterator[None]:
        self._send(messages.READY, b"")
        try:
            yield
        finally:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                leave()
            for warning in warned:
                notice(str(warning.message))
            late = self._task.late
            if late.first is not None:
                self._send(messages.LATE, messages.encode_late((late.first, late.calls, late.characters)))

    def _more(self) -> Iterator[Any]:
        for _ in range(MAX_BATCH):
            try:
                if (one := self._ended.get_nowait()) is None:
                    self._ended.put(None)
                    return
                yield one
            except Empty:
                return

    def _tell(self, ended: Sequence[Any]) -> None:
        results = [
            Result.of(ticket, attempt)
            for opened, attempt in ended
            if (ticket := self._flying.pop(opened, None)) is not None
        ]
        if results:
            self._send(messages.RESULTS if self._flying else messages.LAST, _encoded(results))

    def receive(self, kind: bytes, data: bytes) -> None:
        """Take what the executor sends."""
        if kind == messages.ORDERS:
            self._start(data)
        elif kind == messages.MOMENT:
            answer = messages.decode_answer(data)
            if (asking := self._asking.get(answer.call)) is not None:  # else it has given up meanwhile
                asking(answer)
        elif kind == messages.RECALL:
            self._send(messages.RETURNED, messages.encode_tickets(list(self._not_begun())))
        elif kind == messages.WHERE:
            self._send(messages.STACKS, _utf8(all_stacks(running.copy())))
        elif kind == messages.END:
            self._given.put(None)
            self._ended.put(None)

    def _start(self, data: bytes) -> None:
        starting = []
        for order, failed in messages.decode_orders(data, self._loads):
            opened = self._task.attempt(order.planned, order.number)
            if failed is not None:
                result = Result.of(order.ticket, opened.failed(failed))
                result.is_unread = True
                self._send(messages.RESULTS, messages.encode_results([result]))
            else:
                self._flying[opened] = order.ticket
                starting.append(opened)
        if self._lane is not None:
            if self._lane.is_broken:
                self._renew(self._lane)
            self._lane.start(starting)
        else:
            for opened in starting:
                self._given.put(opened)

    def _renew(self, broken: Lane) -> None:
        """Enter the target on another loop: an agent has broken the one that it was entered on."""
        broken.close()
        target = self._task.open_target()
        target.__enter__()
        self._lane = Lane(target, self._ended)

    def _not_begun(self) -> Iterator[int]:
        with suppress(Empty):
            while (opened := self._given.get_nowait()) is not None:
                yield self._flying.pop(opened)
            self._given.put(None)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to look after."""
        return bool(self._flying) and self._task.timeout_seconds is not None

    def look(self) -> None:
        """Tell of attempts that are over their time and do not end."""
        limit = self._task.timeout_seconds
        if limit is None:
            return
        late = [opened for opened in list(self._flying) if opened.seconds() > limit + opened.patience]
        if not late:
            return
        if self._lane is not None and not self._lane.answers() and (blocker := self._lane.blocker()) is not None:
            # The others can do nothing for it: they run again elsewhere, once its own time is over.
            late = [blocker] if blocker.seconds() > limit else []
        else:  # with all whose time is over, because it ends this worker
            late = [opened for opened in list(self._flying) if opened.seconds() > limit]
        results = [
            Result.of(ticket, opened.abandon(limit, *self._where(opened)))
            for opened in late
            if (ticket := self._flying.pop(opened, None)) is not None
        ]
        if results:
            self._send(messages.RESULTS, messages.encode_results(results))

    def _where(self, opened: OpenAttempt) -> tuple[str | None, str]:
        lane = self._lane
        if lane is None:
            return (thread_stack(self._ident) if opened.task is None else task_stack(opened.task)), ""
        if lane.answers():
            return lane.where(opened), "; it went on in spite of its cancellation"
        return lane.blocked_by(opened)

    @contextmanager
    def _ask(self, name: str, gap: float, shares: int, call: Callable[[], object]) -> Iterator[Callable[[], float]]:
        """Wait at the executor for a moment of a rate."""
        number = next(self._calls)
        asked = messages.encode_message(RateAsked(number, name, gap, shares))
        answers: list[RateAnswer] = []
        is_used = False

        def hear(answer: RateAnswer) -> None:
            answers.append(answer)
            call()

        def wait_seconds() -> float:
            nonlocal is_used
            is_used = True
            if (problem := answers[0].problem) is not None:
                raise ValueError(problem)
            return 0.0

        self._asking[number] = hear
        try:
            self._send(messages.ASK, asked)
            yield wait_seconds
        finally:
            del self._asking[number]
            if not is_used:
                self._send(messages.WITHDRAWN, asked)


def _encoded(results: Sequence[Result]) -> bytes:
    try:
        return messages.encode_results(results)
    except Exception as error:  # as when there is no memory for it
        for result in results:
            told = f"the result could not be sent: {type_name(error)}: {message(error)}"
            result.status, result.error = "error", RunError("agent", type_name(error), told)
            result.input = result.output = result.stdout = result.stderr = None
            result.observations = ()
        return messages.encode_results(results)


def _no_terminal() -> None:
    raise RuntimeError("a worker process has no terminal to debug in: run with executor inline")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
