"""Runs many at a time, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue

from fluxloop.attempt import OpenAttempt
from fluxloop.calling.loop import BLOCKS, running
from fluxloop.clock import monotonic
from fluxloop.executors.flight import Ended, Flight, at_least_one
from fluxloop.lane import Lanes
from fluxloop.notices import notice
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule
from fluxloop.stacks import task_stack, thread_stack
from fluxloop.system import new_thread

CLOSING_SECONDS = 5.0
"""How long the end waits for threads to leave what their targets opened."""


class ThreadsExecutor:
    """Run up to `parallel` attempts at a time in threads, for sync agents that wait for something.

    Each thread builds its own instance of a class target. A thread cannot be killed: an attempt
    whose time is over is recorded as `timeout`, another thread takes its place, and what it does
    later is seen by nobody. The threads are daemons, which hold up the end of no process.

    Args:
        parallel: attempts in flight at a time.

    Example:
        >>> from fluxloop import Experiment, ThreadsExecutor
        >>> Experiment(target=str.upper, inputs=["hi"], executor=ThreadsExecutor(8))
        <Experiment experiment of builtins:str.upper>
    """

    def __init__(self, parallel: int = 8) -> None:
        self.parallel = at_least_one(parallel)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parallel})"

    def __str__(self) -> str:
        return f"threads, {self.parallel} at a time"

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run what the schedule gives, yielding attempts as they end."""
        ended: Ended = SimpleQueue()
        # Async work goes on the one loop that clients belong to, whatever was asked for.
        crew_of: Callable[[Task, Ended], Lanes | _Threads] = Lanes if task.prepare().is_async else _Threads
        with crew_of(task, ended).closed_after() as crew:
            yield from Flight(task, schedule, self.parallel, crew, ended).batches()


class _Threads:
    """Workers that take attempts from one queue; as many as there have been attempts in flight."""

    def __init__(self, task: Task, ended: Ended) -> None:
        # What was built to prove the target stays in this thread, as a database's connection must.
        task.prepared[:] = [loaded for loaded in task.prepared if loaded[0].owner is None]
        self._task = task
        self._ended = ended
        self._work: SimpleQueue[OpenAttempt | None] = SimpleQueue()
        self._workers: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._no_more = False
        self._entered = False
        """True once a worker has entered the target."""
        self._are_enough = False
        """True once one could not: as many as asked for cannot be had."""
        self._context = copy_context()

    def start(self, attempts: Sequence[OpenAttempt], in_flight: int) -> None:
        wanted = min(in_flight, 1) if self._are_enough else in_flight
        for _ in range(wanted - len(self._workers)):
            if not self._hire():
                break
        for opened in attempts:
            self._work.put(opened)

    def _hire(self) -> bool:
        worker = new_thread(partial(self._context.copy().run, self._work_off), "fluxloop-worker")
        self._workers.add(worker)
        try:
            worker.start()
        except RuntimeError:  # the system gives no more threads
            self._workers.discard(worker)
            if not self._workers:
                raise
            if not self._no_more:
                self._no_more = True
                notice(f"no more than {len(self._workers)} threads can be started")
            return False
        return True

    def revive(self) -> None:
        if not self._work.empty():
            self._hire()

    def abandon(self, opened: OpenAttempt) -> tuple[str | None, str]:
        self._workers.discard(opened.worker)
        task = opened.task
        if task is None:
            return thread_stack(opened.worker.ident), ""
        loop = running.get(task.get_loop())
        if loop is None:  # it has been closed since
            return task_stack(task), ""
        if not loop.answers():
            return thread_stack(loop.ident), f"; {'it' if loop.runs(task) else 'another task'} {BLOCKS}"
        where = task_stack(task)
        loop.loop.call_soon_threadsafe(task.cancel)  # a coroutine can be asked to end
        return where, ""

    def _work_off(self) -> None:
        me = threading.current_thread()
        try:
            with self._task.open() as runner:
                self._entered = True
                while (opened := self._work.get()) is not None:
                    opened.worker = me
                    me.name = f"fluxloop-{opened.planned.trace_id}"
                    self._busy.add(me)
                    attempt = runner.run_opened(opened)
                    self._busy.discard(me)
                    me.name = "fluxloop-worker"
                    self._ended.put((opened, attempt))
                    if me not in self._workers:
                        return  # another has taken its place
                self._work.put(None)  # for the next
        except BaseException as error:
            self._workers.discard(me)
            if not self._workers:
                self._ended.put(error)
                return
            self._are_enough = True  # the others go on
            if self._entered:
                notice(f"one thread fewer: {error}")

    @contextmanager
    def closed_after(self) -> Iterator[_Threads]:
        """Let the workers go at the end, and wait for those that are at no attempt."""
        try:
            yield self
        finally:
            with suppress(Empty):
                while True:  # what has not begun does not begin any more
                    self._work.get_nowait()
            self._work.put(None)
            latest = monotonic() + CLOSING_SECONDS
            for worker in self._workers - self._busy:
                worker.join(max(0.0, latest - monotonic()))
