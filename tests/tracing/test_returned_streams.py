"""Streams that a decorated function returns are recorded to their end, and behave as they did."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import copy
import csv
import gc
import inspect
import io
import itertools
import json
import pickle
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluxloop
from fluxloop.records import Observation, Trace, Usage
from fluxloop.testing import run_once
from tests.model_service import INPUT_TOKENS, OUTPUT_TOKENS
from tests.serving import Answer, Service

CHUNKS = [
    {"choices": [{"delta": {"content": "Hi"}}]},
    {"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
]


class Stream:
    """What SDKs return: an iterator with more to it."""

    def __init__(self, *items: Any, then: BaseException | None = None) -> None:
        self.items = iter(items)
        self.then = then
        self.response = "the response"
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        fluxloop.event("step")
        for item in self.items:
            return item
        raise self.then or StopIteration

    def __len__(self) -> int:
        return 5

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> str:
        """Close it."""
        self.closed = True
        return "closed"


class AsyncStream:
    """The same for `async for`."""

    def __init__(self, *items: Any, then: BaseException | None = None) -> None:
        self.items = iter(items)
        self.then = then
        self.response = "the response"
        self.closed = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        fluxloop.event("step")
        for item in self.items:
            return item
        raise self.then or StopAsyncIteration

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.close()

    async def close(self) -> str:
        """Close it."""
        await asyncio.sleep(0)
        self.closed = True
        return "closed"


class Manager:
    """A context manager that gives something, and is good for nothing else."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def __enter__(self) -> Any:
        fluxloop.event("enter")
        return self._given

    def __exit__(self, *error: Any) -> bool:
        fluxloop.event("exit")
        return error[0] is LookupError


def trace_of(work: Callable[[], Any]) -> Trace:
    """Run `work`, sync or async, as an agent that must not fail."""
    trace = run_once(lambda text: work(), "go")
    assert trace.error is None, trace.error
    return trace


def observed(source: Any, read: Callable[[Any], Any], decorator: Any = fluxloop.generation) -> Observation:
    """Return the observation of a call that returned `source`, which was then read."""
    return trace_of(lambda: read(decorator(lambda: source)())).observations[0]


def test_a_stream_that_is_returned_is_recorded_to_its_end() -> None:
    """The output is what passed, with its tokens, its model, and a time that lasts until the end."""

    async def respond() -> Any:
        return AsyncStream(*CHUNKS)

    async def read_async() -> list[Any]:
        return [chunk async for chunk in await fluxloop.generation(respond)()]

    sync = trace_of(lambda: list(fluxloop.generation(lambda: Stream(*CHUNKS))()))
    asynchronous = trace_of(read_async)
    for trace in (sync, asynchronous):
        call, *steps = trace.observations
        assert trace.output == call.output == CHUNKS
        assert (call.usage, call.model, call.metadata) == (Usage(3, 2), "m", None)
        assert [step.parent_id for step in steps] == [call.id] * 3
        assert str(call.end_time) >= str(steps[-1].end_time)
        assert call.duration_ms is not None


def test_a_coroutine_that_is_returned_is_recorded_to_its_end() -> None:
    """A function that only returns a coroutine, as methods of asynchronous clients do, is recorded like `async def`."""

    async def respond(fails: bool) -> Any:
        await asyncio.sleep(0)
        fluxloop.event("inside")
        if fails:
            raise LookupError("lost")
        return AsyncStream(*CHUNKS)

    ask = fluxloop.generation(lambda fails: respond(fails))

    async def work() -> list[Any]:
        coroutine = ask(True)
        assert inspect.iscoroutine(coroutine)
        with pytest.raises(LookupError, match="lost"):
            await coroutine
        return [chunk async for chunk in await asyncio.create_task(ask(False))]

    trace = trace_of(work)
    failed, inner, call, *steps = trace.observations
    assert failed.error is not None
    assert (failed.error.message, inner.parent_id) == ("lost", failed.id)
    assert (call.output, call.usage) == (CHUNKS, Usage(3, 2))
    assert {step.parent_id for step in steps} == {call.id}
    assert trace.output == CHUNKS


KINDS: dict[str, Callable[[], Any]] = {
    "generator": lambda: (n for n in "abc"),
    "list": lambda: iter(["a", "b", "c"]),
    "map": lambda: map(str.lower, "ABC"),
    "chain": lambda: itertools.chain("a", "bc"),
    "object": lambda: Stream("a", "b", "c"),
    "csv": lambda: csv.reader(["a", "b", "c"]),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_iterators_of_every_type_are_streams(make: Callable[[], Any]) -> None:
    """What is an iterator by its type is recorded, and gives its items as before."""
    trace = trace_of(lambda: list(fluxloop.tool(make)()))
    assert trace.output == list(make())
    assert trace.observations[0].output == ("abc" if isinstance(trace.output[0], str) else trace.output)


@pytest.mark.parametrize(
    "value",
    [io.StringIO("a\nb"), io.BytesIO(b"a"), [1], {1: 2}, "text", range(3), sqlite3.connect(":memory:"), object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_stream_is_returned_itself(value: Any) -> None:
    """Files, connections and what can be iterated but is no iterator are no streams."""
    returned: list[Any] = []
    observation = observed(value, returned.append, fluxloop.tool)
    assert returned[0] is value
    assert observation.end_time


def test_a_cursor_is_returned_itself() -> None:
    """A database's cursor is read in more ways than one."""
    cursor = sqlite3.connect(":memory:").execute("select 1")
    returned: list[Any] = []
    observed(cursor, returned.append, fluxloop.tool)
    assert returned[0] is cursor


def test_outside_a_run_the_stream_itself_is_returned() -> None:
    """Without a run there is no proxy."""
    stream, source = Stream(), AsyncStream()

    async def respond() -> Any:
        return source

    assert fluxloop.tool(lambda: stream)() is stream
    assert asyncio.run(fluxloop.tool(respond)()) is source


def test_a_proxy_is_as_the_stream_behind_it() -> None:
    """Attributes, `isinstance`, length, equality, text, copies and pickles are those of the stream."""
    source = Stream(1)

    def read(stream: Any) -> None:
        assert stream is not source
        assert isinstance(stream, Stream)
        assert isinstance(stream, collections.abc.Iterator)
        assert not isinstance(stream, collections.abc.AsyncIterator)
        assert issubclass(type(stream), collections.abc.Iterator)
        assert not issubclass(type(stream), collections.abc.AsyncIterator)
        assert (stream.response, len(stream), repr(stream), vars(stream)) == (
            "the response",
            5,
            repr(source),
            vars(source),
        )
        assert stream == source == stream
        assert hash(stream) == hash(source)
        assert stream.close.__name__ == "close"
        assert set(dir(source)) == set(dir(stream))
        with pytest.raises(AttributeError, match="'Stream' object has no attribute 'nothing'"):
            _ = stream.nothing
        stream.response = "another"
        stream.extra = 1
        del stream.extra
        assert source.response == "another"
        assert copy.copy(stream).response == "another"
        assert type(copy.copy(stream)) is Stream
        with pytest.raises(TypeError):
            stream[0]
        with pytest.raises(TypeError):
            stream()

    observed(source, read)


def test_a_proxy_is_pickled_and_copied_as_its_stream() -> None:
    """What travels is the stream, without its observation."""

    def read(stream: Any) -> None:
        for other in (copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
            assert type(other) is itertools.count
            assert next(other) == 5

    assert observed(itertools.count(5), read).output == "count(5)"


def test_a_generator_stays_one() -> None:
    """`send`, `throw`, `close`, `yield from` and `inspect` see a generator; its return value is the result."""

    def echo() -> Any:
        heard = []
        try:
            while (said := (yield heard[-1] if heard else "start")) is not None:
                heard.append(said)
        except ValueError:
            yield "caught"
        return "bye"

    def through(generator: Any) -> Any:
        return (yield from generator)

    def talk(generator: Any) -> list[Any]:
        log = [inspect.isgenerator(generator), next(generator), generator.send("a")]
        return [*log, generator.throw(ValueError()), next(generator, "end"), inspect.getgeneratorstate(generator)]

    expected = talk(echo())
    trace = trace_of(lambda: talk(fluxloop.tool(lambda: echo())()))
    assert trace.output == expected
    assert trace.observations[0].output == "startacaught"
    trace = trace_of(lambda: talk(through(fluxloop.tool(lambda: echo())()))[1:])
    assert trace.output == expected[1:]
    nothing: Any = iter(())
    assert observed((_ for _ in nothing), list).output == []


def test_an_async_generator_stays_one() -> None:
    """`asend`, `athrow` and `aclose` go through, and are recorded."""
    log: list[str] = []

    async def echo() -> Any:
        try:
            said = yield "start"
            yield said
        finally:
            log.append("closed")

    async def talk() -> list[Any]:
        generator = fluxloop.tool(lambda: echo())()
        said = [inspect.isasyncgen(generator), await anext(generator), await generator.asend("a")]
        await generator.aclose()
        return [*said, await anext(generator, "end")]

    trace = trace_of(talk)
    assert trace.output == [True, "start", "a", "end"]
    assert log == ["closed"]
    assert (trace.observations[0].output, trace.observations[0].error) == ("starta", None)


def test_dropping_a_proxy_does_not_close_the_stream() -> None:
    """Whoever keeps the generator behind may read on."""
    kept = (n for n in range(4))
    give = fluxloop.tool(lambda: kept)
    trace = trace_of(lambda: [next(give()), next(give()), next(kept)])
    assert trace.output == [0, 1, 2]
    assert [o.output for o in trace.observations] == [[0], [1]]


def broken_off(stream: Any) -> None:
    for _ in stream:
        break


WAYS_TO_END: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "read": (lambda stream: list(itertools.islice(stream, 4)), "abc"),
    "closed": (lambda stream: (next(stream), stream.close()), "a"),
    "left by `with`": (lambda stream: stream.__exit__(None, None, None) if next(stream.__enter__()) else None, "a"),
    "closed by contextlib": (lambda stream: contextlib.closing(stream).__exit__() if next(stream) else None, "a"),
    "dropped": (broken_off, "a"),
}


@pytest.mark.parametrize(("read", "output"), WAYS_TO_END.values(), ids=list(WAYS_TO_END))
def test_a_stream_ends_as_its_reader_ends_it(read: Callable[[Any], Any], output: str) -> None:
    """However it ends, the observation ends there and then, and what has passed is its output."""

    def work() -> None:
        read(fluxloop.tool(lambda: Stream("a", "b", "c"))())
        fluxloop.event("after")

    call, *_, after = trace_of(work).observations
    assert (call.output, call.error, call.metadata) == (output, None, None)
    assert str(call.end_time) <= str(after.start_time)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit, RecursionError, asyncio.CancelledError])
def test_an_error_of_the_stream_is_the_observations(error: type[BaseException]) -> None:
    """The same error comes out with nothing chained to it; what passed before is the output beside it."""
    raised = error("lost")

    def read(stream: Any) -> None:
        assert next(stream) == "a"
        with pytest.raises(error) as caught:
            next(stream)
        assert caught.value is raised
        assert caught.value.__context__ is None

    async def read_async() -> None:
        stream = fluxloop.tool(lambda: AsyncStream("a", then=raised))()
        assert await anext(stream) == "a"
        with pytest.raises(error) as caught:
            await anext(stream)
        assert caught.value is raised

    asynchronous = [] if error in (KeyboardInterrupt, SystemExit) else [trace_of(read_async).observations[0]]
    for call in (observed(Stream("a", then=raised), read), *asynchronous):
        assert call.error is not None
        assert (call.output, call.error.type.rpartition(".")[2], call.error.message) == ("a", error.__name__, "lost")


def test_a_stream_that_nobody_reads_ends_with_the_run() -> None:
    """It is recorded as it was returned, and as not read; one that was begun, with what has passed."""
    kept: list[Any] = []

    def work() -> None:
        unread = fluxloop.generation(lambda: iter([1]))()
        begun = fluxloop.generation(lambda: iter([1, 2]))()
        kept.extend([unread, begun, next(begun)])

    trace = trace_of(work)
    unread, begun = trace.observations
    assert unread.output.startswith("<list_iterator")
    assert (unread.metadata, unread.end_time) == ({"stream": "never read"}, trace.end_time)
    assert (begun.output, begun.metadata, begun.end_time) == ([1], {"stream": "left open"}, trace.end_time)
    assert [list(stream) for stream in kept[:2]] == [[1], [2]]
    assert [begun.output, unread.metadata] == [[1], {"stream": "never read"}]


def test_a_stream_in_a_cycle_ends_with_the_run() -> None:
    """What only the garbage collector finds is ended, once."""

    def work() -> None:
        stream = fluxloop.tool(lambda: Stream("a"))()
        next(stream)
        stream.itself = [stream]

    (call, _) = trace_of(work).observations
    gc.collect()
    assert (call.output, call.metadata) == ("a", {"stream": "left open"})


@pytest.mark.parametrize("decorator", [fluxloop.agent, fluxloop.tool])
def test_an_agent_may_return_a_stream(decorator: Any) -> None:
    """The runner reads it as before, and the observation has the whole answer."""

    async def respond(text: str) -> Any:
        return AsyncStream("a", "b")

    for target in (lambda text: Stream("a", "b"), respond, lambda text: AsyncStream("a", "b")):
        trace = run_once(decorator(target), "go")
        assert (trace.status, trace.output, trace.observations[0].output) == ("ok", "ab", "ab")


def test_a_stream_returned_through_many_calls_is_recorded_by_each() -> None:
    """Each call has its observation, and what happens in a step is below the innermost."""
    ask = fluxloop.generation(lambda: Stream(*CHUNKS))
    trace = trace_of(lambda: list(fluxloop.agent(lambda: ask())()))
    agent, call, *steps = trace.observations
    assert agent.output == call.output == CHUNKS
    assert (call.usage, call.parent_id) == (Usage(3, 2), agent.id)
    assert {step.parent_id for step in steps} == {call.id}


def test_calls_between_the_steps_are_the_readers() -> None:
    """What the reader does with an item is not below the stream."""

    @fluxloop.agent
    def run() -> None:
        for _ in fluxloop.generation(lambda: Stream("a"))():
            fluxloop.event("between")

    trace = trace_of(run)
    names = {o.id: o.name for o in trace.observations}
    parents = [(o.name, names.get(str(o.parent_id))) for o in trace.observations]
    assert parents == [
        ("run", None),
        ("<lambda>", "run"),
        ("step", "<lambda>"),
        ("between", "run"),
        ("step", "<lambda>"),
    ]


@pytest.mark.parametrize("carry", [fluxloop.carry_context, lambda function: function], ids=["carried", "bare"])
def test_a_stream_may_be_read_in_another_thread(carry: Any) -> None:
    """Its observation ends there, and what happens in a step is below it, with the context or without."""

    def work() -> None:
        stream = fluxloop.tool(lambda: Stream("a", "b"))()
        thread = threading.Thread(target=carry(lambda: list(stream)))
        thread.start()
        thread.join()

    call, *steps = trace_of(work).observations
    assert (call.output, call.metadata) == ("ab", None)
    assert [step.parent_id for step in steps] == [call.id] * 3


def test_a_manager_that_gives_a_stream_is_recorded_to_the_streams_end() -> None:
    """Entering and leaving are work of the call; the reader's block is not."""
    source = Stream("a", "b")

    def read(manager: Any) -> None:
        with manager as stream:
            assert isinstance(stream, Stream)
            assert next(stream) == "a"
            fluxloop.event("inside")
            raise LookupError("which the manager swallows")

    call, enter, step, inside, leave = trace_of(
        lambda: read(fluxloop.generation(lambda: Manager(source))())
    ).observations
    assert (call.output, call.error) == ("a", None)
    assert [o.parent_id for o in (enter, step, leave)] == [call.id] * 3
    assert inside.parent_id is None


def test_a_manager_that_gives_no_stream_is_recorded_to_its_end() -> None:
    """Its output is what it gives, and its block is inside; what it raises is its error."""

    @fluxloop.tool
    @contextlib.contextmanager
    def session(fails: bool = False) -> Iterator[str]:
        with fluxloop.span("opened"):
            yield "given"
            if fails:
                raise ValueError("at the end")

    def work() -> None:
        with session() as given:
            fluxloop.event("inside")
            assert given == "given"
        fluxloop.event("outside")
        with pytest.raises(ValueError, match="at the end"), session(fails=True):
            pass

    call, span, inside, outside, failing, _ = trace_of(work).observations
    assert (call.output, call.error, failing.output) == ("given", None, "given")
    assert [o.parent_id for o in (call, span, inside, outside)] == [None, call.id, span.id, None]
    assert str(call.end_time) >= str(inside.end_time)
    assert failing.error is not None
    assert failing.error.message == "at the end"


def test_an_async_manager_is_recorded_to_its_end() -> None:
    """Entering, reading and leaving go through, as with `with`."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield AsyncStream("a", "b")

    async def work() -> list[Any]:
        async with fluxloop.generation(lambda: connect())() as stream:
            return [item async for item in stream]

    trace = trace_of(work)
    assert trace.output == ["a", "b"]
    assert trace.observations[0].output == "ab"


class HostileType(type):
    """A type that breaks whatever asks it."""

    def __getattribute__(cls, name: str) -> Any:
        raise KeyboardInterrupt(name)


class Evasive(Stream):
    """A stream that answers for no attribute."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("items", "then"):
            return super().__getattribute__(name)
        raise ZeroDivisionError(name)


def test_hostile_streams_do_no_harm() -> None:
    """What raises, raises to its reader; the record stands."""

    def read(stream: Any) -> None:
        assert list(itertools.islice(stream, 2)) == ["a", "b"]
        with pytest.raises(ZeroDivisionError):
            _ = stream.response
        with pytest.raises(ZeroDivisionError):
            isinstance(stream, Manager)
        with pytest.raises(ZeroDivisionError):
            stream.close()

    class Holder(Stream):
        inner = object.__new__(HostileType("Hostile", (), {}))

    assert observed(Holder("a"), lambda stream: stream.inner is Holder.inner and list(stream)).output == "a"
    call = observed(Evasive("a", "b"), read)
    assert (call.output, call.error) == ("ab", None)
    hostile = HostileType("Hostile", (Stream,), {})
    returned: list[Any] = []
    value = object.__new__(hostile)
    assert observed(value, returned.append).end_time
    assert returned[0] is value


def test_an_endless_stream_is_broken_off() -> None:
    """What was read is recorded; nothing reads on."""
    assert observed(itertools.count(), lambda stream: [*itertools.islice(stream, 3)]).output == [0, 1, 2]


def test_a_stream_that_is_read_inside_itself_answers_as_before() -> None:
    """A generator that steps itself gets Python's own error."""

    def inward() -> Any:
        yield next(holder[0])

    holder: list[Any] = []

    def read(stream: Any) -> None:
        holder.append(stream)
        with pytest.raises(ValueError, match="generator already executing"):
            next(stream)

    call = observed(inward(), read)
    assert call.error is not None


STEPS = st.lists(st.sampled_from(["next", "iter", "list", "close", "drop"]), max_size=6)


@given(st.lists(st.integers(0, 9)), STEPS)
def test_a_proxy_answers_every_sequence_of_steps_as_its_stream(items: list[int], steps: list[str]) -> None:
    """Whatever a reader does, it sees what it would see undecorated, and the record is what it has seen."""

    def reading(stream: Any) -> list[Any]:
        log: list[Any] = []
        for step in steps:
            if step == "next":
                log.append(next(stream, "end"))
            elif step == "iter":
                log.append(iter(stream) is stream)
            elif step == "list":
                log.extend(stream)
            elif step == "close":
                log.append(stream.close())
            else:
                break
        return log

    trace = trace_of(lambda: reading(fluxloop.tool(lambda: (n for n in items))()))
    assert trace.output == reading(n for n in items)
    (call,) = trace.observations
    seen = [one for one in trace.output if type(one) is int]
    assert call.end_time is not None
    assert seen == (call.output if isinstance(call.output, list) else [])


# Real clients, against a service on loopback


def events(*bodies: Any, named: bool = False) -> Answer:
    """Return an answer of server-sent events."""
    lines = []
    for body in bodies:
        name = f"event: {body['type']}\n" if named else ""
        lines.append(f"{name}data: {body if isinstance(body, str) else json.dumps(body)}\n\n")
    return Answer(headers={"content-type": "text/event-stream"}, body="".join(lines).encode())


def chat_chunk(**changes: Any) -> dict[str, Any]:
    common = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": []}
    return {**common, **changes}


CHAT = events(
    chat_chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]),
    chat_chunk(choices=[{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]),
    chat_chunk(
        usage={
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }
    ),
    "[DONE]",
)
MESSAGES = events(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": INPUT_TOKENS - 5, "cache_read_input_tokens": 5, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": OUTPUT_TOKENS},
    },
    {"type": "message_stop"},
    named=True,
)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that streams one answer, in the protocol it is asked in."""
    with Service(lambda asked: MESSAGES if "messages" in asked.path else CHAT) as running:
        yield running


CHAT_ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "?"}]}
MESSAGE_ASKED: dict[str, Any] = {**CHAT_ASKED, "model": "claude", "max_tokens": 10}


def read_chat(client: openai.OpenAI) -> str:
    with fluxloop.generation(lambda: client.chat.completions.create(**CHAT_ASKED, stream=True))() as stream:
        assert isinstance(stream, openai.Stream)
        assert stream.response.status_code == 200
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def read_chat_helper(client: openai.OpenAI) -> str:
    with fluxloop.generation(lambda: client.chat.completions.stream(**CHAT_ASKED))() as stream:
        return "".join(event.delta for event in stream if event.type == "content.delta")


def read_final_chat(client: openai.OpenAI) -> Any:
    with fluxloop.generation(lambda: client.chat.completions.stream(**CHAT_ASKED))() as stream:
        return stream.get_final_completion().choices[0].message.content


def read_messages(client: anthropic.Anthropic) -> str:
    stream = fluxloop.generation(lambda: client.messages.create(**MESSAGE_ASKED, stream=True))()
    return "".join(event.delta.text for event in stream if event.type == "content_block_delta")


def read_texts(client: anthropic.Anthropic) -> str:
    with fluxloop.generation(lambda: client.messages.stream(**MESSAGE_ASKED))() as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_text() == text
        return text


def read_final_message(client: anthropic.Anthropic) -> Any:
    with fluxloop.generation(lambda: client.messages.stream(**MESSAGE_ASKED))() as stream:
        return stream.get_final_text()


@pytest.mark.parametrize(
    "read",
    [read_chat, read_chat_helper, read_final_chat, read_messages, read_texts, read_final_message],
    ids=lambda read: read.__name__,
)
def test_streams_of_real_clients_tell_their_tokens(service: Service, read: Any) -> None:
    """In whichever of its ways a stream is read, its text, tokens and model are recorded."""

    def work() -> Any:
        if read in (read_chat, read_chat_helper, read_final_chat):
            with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
                return read(client)
        with anthropic.Anthropic(base_url=service.url, api_key="none") as other:
            return read(other)

    trace = trace_of(work)
    assert trace.output == "Hello"
    (call,) = trace.observations
    assert (call.usage, call.error) == (Usage(INPUT_TOKENS, OUTPUT_TOKENS), None)
    assert call.model in ("gpt-4o", "claude")
    assert "Hel" in json.dumps(call.output)


def test_async_streams_of_real_clients_tell_their_tokens(service: Service) -> None:
    """The same with the asynchronous clients."""

    async def work() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as chat:
            asked = fluxloop.generation(chat.chat.completions.create)
            stream = await asked(**CHAT_ASKED, stream=True)
            assert isinstance(stream, openai.AsyncStream)
            texts = ["".join([part.choices[0].delta.content or "" async for part in stream if part.choices])]
        async with (
            anthropic.AsyncAnthropic(base_url=service.url, api_key="none") as client,
            fluxloop.generation(lambda: client.messages.stream(**MESSAGE_ASKED))() as stream,
        ):
            return [*texts, "".join([text async for text in stream.text_stream])]

    trace = trace_of(work)
    assert trace.output == ["Hello", "Hello"]
    assert [call.usage for call in trace.observations] == [Usage(INPUT_TOKENS, OUTPUT_TOKENS)] * 2
    assert [call.model for call in trace.observations] == ["gpt-4o", "claude"]


def test_the_lines_of_a_response_are_a_stream(service: Service) -> None:
    """What httpx gives line by line is recorded; the response itself is returned as it is."""
    with httpx.Client() as client:
        lines = fluxloop.tool(lambda: client.post(f"{service.url}/v1/chat/completions").iter_lines())
        trace = trace_of(lambda: len(list(lines())))
    assert trace.observations[0].output.count("data: ") == 4
