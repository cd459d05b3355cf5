"""The event loop of this process, in a thread of its own.

Coroutines run there under every executor and in every experiment: a client that a module makes
when it is imported belongs to one loop for good. The thread lets it work inside a running loop,
as in a notebook, and Ctrl-C still reaches the main thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, TypeVar

from fluxloop.calling.daemons import DaemonThreads
from fluxloop.calling.eventloop import new_event_loop, new_task, reopen, submit
from fluxloop.system import new_thread

T = TypeVar("T")

_CLOSING_SECONDS = 2.0
LEAVING_SECONDS = 30.0
"""How long leaving what was entered may take."""
ANSWER_SECONDS = 0.5
"""How long a loop may take to say that it is alive, once an attempt on it is over its time."""
BUSY_SECONDS = 5.0
"""How long it may take otherwise: a loop that is busy for a while is not blocked."""
_MAX_FAILURES = 10
"""How often in a row a loop may fail before it has taken a step."""
BLOCKS = "blocks the event loop, where only `await` may wait"
"""What is said of an agent that does."""
BROKEN = "the event loop was broken off by what an agent did to it"

running: dict[asyncio.AbstractEventLoop, LoopThread] = {}
"""The loops of this process that agents run on, each with its thread."""

_lock = threading.Lock()
_shared: LoopThread | None = None


def take_loop() -> LoopThread:
    """Return the loop that all async work of this process shares; to be given back with `give_back`.

    It is a new one only where the last cannot be used any more, because an agent blocks it or has shut
    it down, and inside the loop itself, where an experiment within an agent would wait for its own end.
    """
    global _shared
    with _lock:
        if _shared is not None and _shared.ident == threading.get_ident():
            taken = LoopThread()
        else:
            if _shared is None or not _shared.is_usable():
                previous, _shared = _shared, LoopThread()
                if previous is not None and not previous.users:
                    previous.close()
            taken = _shared
        taken.users += 1
        assert taken.loop  # started under the lock: many threads may ask for it at once
        return taken


def give_back(loop: LoopThread) -> None:
    """Let a loop go; it is closed once nobody uses it, unless it is the one that all share."""
    with _lock:
        loop.users -= 1
        is_left = not loop.users and loop is not _shared
    if is_left:
        loop.close()


def _close_at_exit() -> None:
    # What agents have left on it may still tidy up, as at the end of `asyncio.run`.
    if _shared is not None:
        _shared.close()


def _forget() -> None:
    """In a forked process the threads are gone, and with them whatever holds the lock."""
    global _lock, _shared
    _lock, _shared = threading.Lock(), None
    running.clear()


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class NotLeft(Exception):  # noqa: N818 - no error of anybody's
    """What was entered on a loop that an agent blocks cannot be left."""


class LoopThread:
    """Run coroutines to their end on one loop, from any other thread.

    Example:
        >>> loop = LoopThread()
        >>> loop.run(asyncio.sleep(0, "done"))
        'done'
        >>> loop.close()
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._blocked = False
        self._probe: threading.Event | None = None
        """Set once the loop has come to what it was asked last."""
        self.is_broken = False
        """True once the loop has come to its end while it was in use."""
        self.users = 0
        """Who has taken it and not given it back."""
        self._kept: set[asyncio.Task[Any]] = set()
        """Tasks that nobody else may hold; a loop holds its own only weakly."""
        self._in_use: dict[object, Callable[[], None]] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running from the first time it is asked for."""
        if self._loop is None:
            self._start()
        assert self._loop is not None
        return self._loop

    @property
    def ident(self) -> int | None:
        """The identity of the thread, or None when it does not run."""
        return None if self._thread is None else self._thread.ident

    def runs(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether it is at this task now."""
        return self._loop is not None and asyncio.current_task(self._loop) is task

    @property
    def is_blocked(self) -> bool:
        """Whether it has been found blocked, and has not gone on since."""
        if self._blocked and not self.is_broken and self._probe is not None and self._probe.is_set():
            self._blocked = False  # it was busy, and has come to what it was asked since
        return self._blocked

    def is_usable(self) -> bool:
        """Tell whether more can be run on it: an agent may block a loop, or shut down the threads behind it."""
        # asyncio's own mark, without which nobody can know before the first `asyncio.to_thread`.
        is_shut_down = getattr(self._loop, "_executor_shutdown_called", False)
        return not is_shut_down and (self._loop is None or self.answers(BUSY_SECONDS))

    def answers(self, seconds: float | None = None) -> bool:
        """Tell whether the loop is alive, or blocked by a call that does not await.

        Args:
            seconds: how long it may take to say so.
        """
        if not self.is_blocked:
            answered = self._probe = threading.Event()
            self.loop.call_soon_threadsafe(answered.set)
            self._blocked = not answered.wait(ANSWER_SECONDS if seconds is None else seconds)
        return not self._blocked

    @contextmanager
    def told_if_broken(self, call: Callable[[], None]) -> Iterator[None]:
        """Have something called, from the loop's thread, should the loop come to its end while it is in use."""
        self._in_use[key := object()] = call
        try:
            yield
        finally:
            del self._in_use[key]

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine and return its result.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds; it is cancelled.
        """
        future = submit(coroutine, self.loop)
        try:
            return self._wait(future, timeout)
        except BaseException:
            future.cancel()  # the second Ctrl-C, which ends the waiting and not the coroutine
            raise

    def _wait(self, future: concurrent.futures.Future[T], timeout: float | None = None) -> T:
        def broken() -> None:
            if not future.done():
                future.set_exception(RuntimeError(BROKEN))

        with self.told_if_broken(broken):
            return future.result(timeout)

    def enter(self, manager: AbstractAsyncContextManager[T]) -> tuple[T, Callable[[], None]]:
        """Enter a context manager on the loop.

        Both ends happen in one task, which is what managers built on task groups ask for.

        Returns:
            What entering gave, and what to call to leave.
        """
        entered: concurrent.futures.Future[T] = concurrent.futures.Future()
        left: concurrent.futures.Future[None] = concurrent.futures.Future()
        leave = asyncio.Event()

        async def lifespan() -> None:
            try:
                async with manager as value:
                    entered.set_result(value)
                    with suppress(asyncio.CancelledError):  # by a task group of the target's own, as it fails
                        await leave.wait()
                left.set_result(None)
            except BaseException as error:
                (left if entered.done() else entered).set_exception(error)

        async def start() -> asyncio.Task[None]:
            task = new_task(lifespan(), asyncio.get_running_loop())
            self._kept.add(task)
            task.add_done_callback(self._kept.discard)
            asyncio.tasks._unregister_task(task)  # an agent that cancels all tasks must not find it
            return task

        task = self.run(start())

        def close() -> None:
            if self.is_broken or not self.answers():
                raise NotLeft
            if not task.done() and self._loop is not None:
                self._loop.call_soon_threadsafe(leave.set)
            concurrent.futures.wait([left], LEAVING_SECONDS)
            if not left.done():
                raise TimeoutError(f"it took longer than {LEAVING_SECONDS:g} s, and was given up")
            left.result()  # says why it has ended by itself

        return self._wait(entered), close

    def _start(self) -> None:
        loop = self._loop = new_event_loop()
        loop.set_default_executor(DaemonThreads())
        running[loop] = self
        self._closing = self._blocked = False

        def serve() -> None:
            asyncio.set_event_loop(loop)
            self._serve(loop)
            loop.close()

        self._thread = new_thread(serve, "fluxloop-loop")
        self._thread.start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the loop until it is closed: an agent may stop it, or nest another in it, but not the experiment."""
        failures = 0

        def step() -> None:
            nonlocal failures
            failures = 0

        while not self._closing and failures < _MAX_FAILURES:
            failures += 1
            # What a task of the agent's raises here, whoever awaits that task gets too. What else comes through is
            # of the loop's own, as after nest_asyncio, and another round is as good as the one before.
            try:
                loop.call_soon(step)
                loop.run_forever()
            except OSError:
                with suppress(OSError):
                    reopen(loop)
            except BaseException:
                continue
        if not self._closing:
            self._blocked = self.is_broken = True
            for call in list(self._in_use.values()):
                call()

    def close(self) -> None:
        """Cancel what is left, close the loop and end the thread, or leave a hung one behind."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        running.pop(loop, None)
        self._loop = self._thread = None
        if not thread.is_alive():
            return
        left = 1
        if not self._blocked:
            # Else: a task cancels whatever it finds, or the loop is blocked only now.
            with suppress(concurrent.futures.CancelledError, TimeoutError):
                left = submit(_cancel_all(self._kept), loop).result(_CLOSING_SECONDS)
        self._closing = True
        if left:  # a task swallows its cancellation; the thread is a daemon and holds nothing up
            self._kept |= asyncio.all_tasks(loop)
            submit(self._wind_up(), loop)
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    async def _wind_up(self) -> None:
        """End a loop that was left behind, once all on it has ended after all."""
        others = (self._kept | asyncio.all_tasks()) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.tasks.wait(others)
        asyncio.get_running_loop().stop()


async def _cancel_all(kept: set[asyncio.Task[Any]]) -> int:
    """Cancel every other task and return how many would not end."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in asyncio.all_tasks() | kept if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    pending: set[asyncio.Task[Any]] = set()
    if tasks:
        _, pending = await asyncio.tasks.wait(tasks, timeout=_CLOSING_SECONDS / 2)
    await loop.shutdown_asyncgens()
    return len(pending)
