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
from fluxloop.tracing.capture import message, type_name

Send = Callable[[bytes, bytes], None]
"""Sends a message: its kind, and what it holds."""

# To a worker.
PREPARE = b"p"
"""What it needs to become one."""
ORDERS = b"o"
"""Attempts to run."""
MOMENT = b"m"
"""The answer to ASK: the call may go on."""
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
HOPELESS = b"H"
"""It cannot be in any worker; why."""
RESULTS = b"D"
"""What attempts came to."""
LAST = b"L"
"""The same, and nothing is left to do."""
RETURNED = b"B"
"""Tickets of orders that have not begun and will not here."""
ASK = b"A"
"""A call waits for its moment of a rate."""
WITHDRAWN = b"U"
"""It does so no longer, or has not used what it was given; as in ASK."""
STACKS = b"S"
"""Where everything is."""
REMARK = b"W"
"""A warning."""
PRINTED = b"P"
"""What was printed outside of any run, or is not kept with it."""
LATE = b"T"
"""How much came of runs after they were closed."""

# To and from whatever carries messages.
START = b"n"
"""Start a worker."""
KILL = b"k"
"""End it at once."""
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
    given: str | bytes = b""
    """What the agent is given, ready to be sent."""

    @classmethod
    def of(cls, ticket: int, planned: PlannedRun, number: int) -> Order:
        """Return an order that can be sent.

        Raises:
            TypeError: what the agent is given cannot be pickled.
        """
        case = planned.case
        if type(case.input) is str and case.expected is None and case.metadata is None:
            return cls(ticket, planned, number, case.input)
        try:
            return cls(ticket, planned, number, pickle.dumps((case.input, case.expected, case.metadata)))
        except Exception as error:
            told = f"the input cannot be sent to another process: {type_name(error)}: {message(error)}"
            raise TypeError(told) from error


def encode_orders(orders: Sequence[Order]) -> bytes:
    """Return orders as bytes."""
    return pickle.dumps([_told(order) for order in orders])


def _told(order: Order) -> tuple[Any, ...]:
    planned, case = order.planned, order.planned.case
    told = (case.index, case.id, order.given, case.persona)
    return order.ticket, planned.trace_id, told, planned.iteration, planned.seed, order.number


def decode_orders(data: bytes, loads: Callable[[bytes], Any]) -> Iterable[tuple[Order, BaseException | None]]:
    """Return the orders, each with why its input could not be made again, or None.

    Args:
        data: what `encode_orders` gave.
        loads: unpickles what an agent is given; apart, so that what fails costs its own run.
    """
    for ticket, trace_id, (index, id, given, persona), iteration, seed, number in pickle.loads(data):
        failed = None
        value, expected, metadata = given, None, None
        if type(given) is bytes:
            try:
                value, expected, metadata = loads(given)
            except BaseException as error:
                value, failed = None, error
        case = Case(index, id, value, persona, expected, metadata)
        yield Order(ticket, PlannedRun(trace_id, case, iteration, seed), number), failed


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
    is_refusal: bool
    left_running: bool
    told: Case | None
    masked: tuple[str, ...]
    exposed: tuple[str, ...]
    is_unread: bool = False
    """Whether the worker has not seen its input."""

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
            attempt.is_refusal,
            attempt.left_running,
            attempt.told,
            attempt.masked,
            attempt.exposed,
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
            self.is_refusal,
            self.left_running,
            self.told,
            self.masked,
            self.exposed,
        )


def encode_results(results: Sequence[Result]) -> bytes:
    """Return results as bytes."""
    return encode(results)


decode_results: Callable[[bytes], list[Result]] = msgspec.json.Decoder(list[Result]).decode


encode_printed: Callable[[tuple[str, str]], bytes] = encode
"""Of `stdout` or `stderr`, and a text without lone surrogates."""
decode_printed: Callable[[bytes], tuple[str, str]] = msgspec.json.Decoder(tuple[str, str]).decode

encode_late: Callable[[tuple[str, int, int]], bytes] = encode
"""Of the first such run its trace id, of all the calls and the characters."""
decode_late: Callable[[bytes], tuple[str, int, int]] = msgspec.json.Decoder(tuple[str, int, int]).decode

encode_tickets: Callable[[list[int]], bytes] = encode
decode_tickets: Callable[[bytes], list[int]] = msgspec.json.Decoder(list[int]).decode


class RateAsked(msgspec.Struct, array_like=True):
    """A call in a worker waits for a moment of a rate."""

    call: int
    name: str
    gap: float
    """Seconds between two calls."""
    shares: int


class RateAnswer(msgspec.Struct, array_like=True):
    """The moment is there, and taken for the call."""

    call: int
    problem: str | None = None
    """Why there is none."""


encode_message: Callable[[RateAsked | RateAnswer], bytes] = encode
decode_asked: Callable[[bytes], RateAsked] = msgspec.json.Decoder(RateAsked).decode
decode_answer: Callable[[bytes], RateAnswer] = msgspec.json.Decoder(RateAnswer).decode
