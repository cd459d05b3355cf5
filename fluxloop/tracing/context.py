"""Which run the code is in, and below which observation."""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token, copy_context
from typing import Any, ParamSpec, TypeVar
from weakref import ReferenceType, WeakSet

from fluxloop.clock import milliseconds, perf_counter_ns, timestamp
from fluxloop.records import Observation, ObservationType, PlannedRun
from fluxloop.tracing.copies import fresh
from fluxloop.tracing.redaction import Redaction

P = ParamSpec("P")
R = TypeVar("R")

# Ids have a generator of their own: an agent that seeds `random` must neither see its
# sequence disturbed nor give two runs the same ids.
_ids = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


class Late:
    """What came of runs after their records were made: it is counted, and not kept."""

    __slots__ = ("_lock", "calls", "characters", "first")

    def __init__(self) -> None:
        self.calls = 0
        self.characters = 0
        self.first: str | None = None
        """The trace id of the run that the first of it came of."""
        self._lock = threading.RLock()  # a finalizer of the agent's may print meanwhile

    def add(self, trace_id: str, *, calls: int = 0, characters: int = 0) -> None:
        """Count what came of a run."""
        with self._lock:
            self.first = self.first or trace_id
            self.calls += calls
            self.characters += characters


class Run:
    """The run the calling code is part of, as `current_run()` returns it: to be read, not to be changed.

    Example:
        >>> import fluxloop
        >>> @fluxloop.agent()
        ... def answer(question: str) -> str:
        ...     run = fluxloop.current_run()
        ...     style = run.persona if run else "nobody"
        ...     return f"{style}: {question}"
    """

    __slots__ = ("_attempt", "_planned", "_run_id")

    def __init__(self, planned: PlannedRun, attempt: int) -> None:
        self._planned = planned
        self._attempt = attempt
        self._run_id: str | None = None

    @property
    def id(self) -> str:
        """The trace id, such as `trace_001`."""
        return self._planned.trace_id

    @property
    def attempt(self) -> int:
        """Which attempt at the run it is, from 1."""
        return self._attempt

    @property
    def run_id(self) -> str:
        """A fresh unique id for this attempt, for memory that must not leak between runs."""
        if self._run_id is None:
            self._run_id = str(uuid.UUID(int=_ids.getrandbits(128), version=4))
        return self._run_id

    @property
    def input_id(self) -> str:
        """The id of the input."""
        return self._planned.case.id

    @property
    def iteration(self) -> int:
        """Which run of this input it is, from 0."""
        return self._planned.iteration

    @property
    def persona(self) -> str | None:
        """The persona of the input."""
        return self._planned.case.persona

    @property
    def expected(self) -> Any:
        """What the input expects, a copy."""
        return fresh(self._planned.case.expected)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the input, a copy."""
        return dict(fresh(self._planned.case.metadata) or {})

    @property
    def seed(self) -> int:
        """A seed from 0 to 2**32 - 1, the same whenever this input and iteration run again."""
        return self._planned.seed

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.input_id}, iteration {self.iteration}>"


class OpenRun:
    """What is kept of a run while it goes on; no agent gets hold of it."""

    __slots__ = (
        "__weakref__",
        "_face",
        "_parents",
        "_planned",
        "attempt",
        "closed",
        "late",
        "observations",
        "offset",
        "redaction",
        "stderr",
        "stdout",
        "streams",
        "uncaptured",
    )

    def __init__(
        self,
        planned: PlannedRun,
        attempt: int,
        offset: int,
        redaction: Redaction | None = None,
        late: Late | None = None,
    ) -> None:
        self._planned = planned
        self.redaction = Redaction() if redaction is None else redaction
        """What is masked in what is seen of it; what the agent gets is as it is."""
        self.attempt = attempt
        self._face: Run | None = None
        self.offset = offset
        """Nanoseconds from the performance counter to the wall clock, fixed for the run."""
        self.observations: list[Observation] = []
        self._parents: dict[str, str | None] = {}
        self.streams: dict[str, ReferenceType[Any]] = {}
        """The calls whose streams are open, by the ids of their observations."""
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.uncaptured = False
        """True when what it prints goes on to the screen, as it does once a debugger has the terminal."""
        self.closed = False
        """True once its record is made, or nobody waits for it: it takes neither text nor observations."""
        self.late = Late() if late is None else late
        """Counts what comes of it after that."""

    @property
    def face(self) -> Run:
        """What the agent gets of it, made when it is first asked for."""
        if self._face is None:
            self._face = Run(self._planned, self.attempt)
        return self._face

    def observe(
        self, type: ObservationType, name: str, parent_id: str | None, input: Any, model: str | None, metadata: Any
    ) -> tuple[Observation, int]:
        """Start an observation; return it with its start on the performance counter."""
        start = perf_counter_ns()
        observation = Observation(
            f"{_ids.getrandbits(64):016x}",
            self._planned.trace_id,
            parent_id,
            self.attempt,
            type,
            name,
            timestamp(start + self.offset),
            None,
            None,
            input,
            None,
            None,
            model,
            None,
            metadata,
        )
        self.observations.append(observation)
        return observation, start

    def parent_of(self, id: str) -> str | None:
        """Return the id of the observation that one is below, or None."""
        for one in self.observations[len(self._parents) :]:
            self._parents[one.id] = one.parent_id
        return self._parents.get(id)

    def end_streams(self, end: int) -> None:
        """End the observations of streams that are open still, with what has passed."""
        for reference in list(self.streams.values()):
            call = reference()
            if call is not None:
                call.end(at=end, note="left open")

    def end(self, observation: Observation, start: int, end: int | None = None) -> None:
        """Give the observation its end, now by default, once all else that is known of it is in it."""
        if self.closed:
            return
        if end is None:
            end = perf_counter_ns()
        observation.duration_ms = milliseconds(end - start)
        observation.end_time = timestamp(end + self.offset)


Scope = tuple[OpenRun, "str | None"]
"""The run, and the id of the observation the code is inside."""

current: ContextVar[Scope | None] = ContextVar("fluxloop_scope", default=None)

given_up: WeakSet[OpenRun] = WeakSet()
"""Runs that nothing could end, for as long as anything of theirs goes on."""


def recording() -> Scope | None:
    """Return the scope in which calls are recorded, or None outside a run and in one that is closed."""
    scope = current.get()
    return None if scope is None or (scope[0].closed and is_late(scope)) else scope


def is_late(scope: Scope) -> bool:
    """Count a call that comes after its run was closed."""
    scope[0].late.add(scope[0].face.id, calls=1)
    return True


def leave(token: Token[Scope | None]) -> None:
    """Go back to the scope before `token`; nothing where another context ends what this one began."""
    with suppress(ValueError):
        current.reset(token)


def current_run() -> Run | None:
    """Return the run the calling code is part of, or None outside a run."""
    scope = current.get()
    return None if scope is None else scope[0].face


def carry_context(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` bound to the run it is wrapped in, for thread pools and threads.

    `asyncio.gather`, tasks and `asyncio.to_thread` carry the run by themselves;
    `ThreadPoolExecutor.submit`, `loop.run_in_executor` and `threading.Thread` do not.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     lengths = list(pool.map(carry_context(len), ["a", "bc"]))
        >>> lengths
        [1, 2]
    """
    context = copy_context()

    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        # A context cannot be entered twice at a time, and a pool calls from many threads.
        return context.copy().run(function, *args, **kwargs)

    return carried
