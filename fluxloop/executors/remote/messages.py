"""What an executor and its workers tell each other: attempts to run, and what they came to.

Results are encoded as in the files, where the attempt is made: nothing an agent returns can break
what reads them, and nobody unpickles what comes from an agent.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from attrs import frozen

from fluxloop.records import Attempt, Case, Observation, PlannedRun, RunError, Status
from fluxloop.store.codec import encode

Send = Callable[[bytes, bytes], None]
"""Sends a message: its kind, and what it holds."""

# To a worker.
PREPARE = b"p"
"""What it needs to become one."""
ORDERS = b"o"
"""Attempts to run."""
MOMENT = b"m"
"""The answer to ASK."""
WHERE = b"w"
"""The question where everything is."""
RECALL = b"r"
"""Give back what has not begun."""
END = b"e"
"""Nothing more comes: leave the target, and end."""

# From a worker.
READY = b"R"
"""The target is loaded and entered."""
FAILED = b"F"
"""It cannot be; why."""
RESULTS = b"D"
"""What attempts came to."""
RETURNED = b"B"
"""Tickets of orders that have not begun and will not here."""
ASK = b"A"
"""Whether a call fits a rate now."""
STACKS = b"S"
"""Where everything is."""
REMARK = b"W"
"""A warning."""

# From whatever carries messages.
GONE = b"g"
"""The worker has ended; how."""
LOST = b"l"
"""The machine it was on has gone, or what connected it; what is known of that."""


@frozen
class Order:
    """An attempt for a worker to run; its number is the executor's own."""

    ticket: int
    planned: PlannedRun
    number: int


def encode_orders(orders: Sequence[Order]) -> bytes:
    """Return orders as bytes.

    Raises:
        Exception: an input cannot be pickled.
    """
    return pickle.dumps([_told(order) for order in orders])


def _told(order: Order) -> tuple[Any, ...]:
    planned, case = order.planned, order.planned.case
    plain = type(case.input) is str
    # An object apart, so that one that cannot be made again costs its own run.
    value = case.input if plain else pickle.dumps(case.input)
    told = (case.index, case.id, plain, value, case.persona, case.expected, case.metadata)
    return order.ticket, planned.trace_id, told, planned.iteration, planned.seed, order.number


def decode_orders(data: bytes, loads: Callable[[bytes], Any]) -> Iterable[tuple[Order, Exception | None]]:
    """Return the orders, each with why its input could not be made again, or None.

    Args:
        data: what `encode_orders` gave.
        loads: unpickles an input.
    """
    for ticket, trace_id, (index, id, plain, value, *rest), iteration, seed, number in pickle.loads(data):
        failed = None
        if not plain:
            try:
                value = loads(value)
            except Exception as error:
                value, failed = None, error
        yield Order(ticket, PlannedRun(trace_id, Case(index, id, value, *rest), iteration, seed), number), failed


class Result(msgspec.Struct, array_like=True):
    """What an order came to: an attempt without its plan."""

    ticket: int
    status: Status
    input: Any
    output: Any
    error: RunError | None
    start_time: str
    end_time: str
    duration_ms: float
    observations: tuple[Observation, ...]
    stdout: str | None
    stderr: str | None
    retry: bool
    retry_after: float | None
    is_overload: bool
    left_running: bool
    told: Case | None

    @classmethod
    def of(cls, ticket: int, attempt: Attempt) -> Result:
        """Return what is told of an attempt."""
        return cls(
            ticket,
            attempt.status,
            attempt.input,
            attempt.output,
            attempt.error,
            attempt.start_time,
            attempt.end_time,
            attempt.duration_ms,
            attempt.observations,
            attempt.stdout,
            attempt.stderr,
            attempt.retry,
            attempt.retry_after,
            attempt.is_overload,
            attempt.left_running,
            attempt.told,
        )

    def attempt(self, order: Order) -> Attempt:
        """Return the attempt, with the plan of the order it belongs to."""
        return Attempt(
            order.planned,
            order.number,
            self.status,
            self.input,
            self.output,
            self.error,
            self.start_time,
            self.end_time,
            self.duration_ms,
            self.observations,
            self.stdout,
            self.stderr,
            self.retry,
            self.retry_after,
            self.is_overload,
            self.left_running,
            self.told,
        )


def encode_results(results: Sequence[Result]) -> bytes:
    """Return results as bytes."""
    return encode(results)


decode_results: Callable[[bytes], list[Result]] = msgspec.json.Decoder(list[Result]).decode


encode_tickets: Callable[[list[int]], bytes] = encode
decode_tickets: Callable[[bytes], list[int]] = msgspec.json.Decoder(list[int]).decode


class RateAsked(msgspec.Struct, array_like=True):
    """A worker asks for the next moment of a rate."""

    call: int
    name: str
    gap: float
    """Seconds between two calls."""
    shares: int


class RateAnswer(msgspec.Struct, array_like=True):
    """How long the first of those who wait in a worker has still to wait."""

    call: int
    seconds: float
    """0: the moment is taken."""
    problem: str | None = None


encode_message: Callable[[RateAsked | RateAnswer], bytes] = encode
decode_asked: Callable[[bytes], RateAsked] = msgspec.json.Decoder(RateAsked).decode
decode_answer: Callable[[bytes], RateAnswer] = msgspec.json.Decoder(RateAnswer).decode
