"""The decorators: what they record inside a run, and that they change nothing anywhere."""

from __future__ import annotations

import abc
import asyncio
import contextvars
import enum
import functools
import inspect
import random
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fluxloop
from fluxloop.records import Observation, Trace, Usage
from fluxloop.store.codec import decode_trace, encode
from fluxloop.testing import run_once

DECORATORS: list[tuple[Any, str]] = [
    (fluxloop.agent, "agent"),
    (fluxloop.tool, "tool"),
    (fluxloop.generation, "generation"),
    (fluxloop.span, "span"),
    (fluxloop.prompt, "generation"),
    (fluxloop.trace, "span"),
]
each_decorator = pytest.mark.parametrize(("decorator", "kind"), DECORATORS, ids=[d.__name__ for d, _ in DECORATORS])
inside_and_outside = pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])


def observe(work: Callable[[], Any]) -> Trace:
    """Run `work` as an agent that must not fail, and return its trace, read back from its line."""
    trace = run_once(lambda text: work(), "go")
    assert trace.error is None, trace.error
    return decode_trace(encode(trace))


def only(trace: Trace) -> Observation:
    """Return the one observation of a trace."""
    (observation,) = trace.observations
    return observation


def perform(work: Callable[[], Any], inside: bool) -> list[Any]:
    """Call `work` outside or inside a run, and return what it returned, the object itself."""
    results: list[Any] = []
    if inside:
        observe(lambda: results.append(work()))
    else:
        results.append(work())
    return results


def tree(trace: Trace) -> dict[str, str | None]:
    """Return the name of each observation with that of its parent."""
    names = {o.id: o.name for o in trace.observations}
    return {o.name: names[o.parent_id] if o.parent_id else None for o in trace.observations}


def twice(x: int, /, y: int = 2, *rest: int, key: str = "k", **more: Any) -> tuple[Any, ...]:
    """Return the arguments."""
    return (x, y, rest, key, more)


async def twice_async(x: int, y: int = 2) -> int:
    """Return the sum."""
    await asyncio.sleep(0)
    return x + y


def count(upto: int) -> Iterator[int]:
    """Count."""
    yield from range(upto)


async def count_async(upto: int) -> AsyncIterator[int]:
    """Count."""
    for number in range(upto):
        yield number


# Forms


@each_decorator
@pytest.mark.parametrize("form", ["bare", "called", "positional", "keyword"])
def test_every_decorator_works_in_every_form(decorator: Any, kind: str, form: str) -> None:
    """With and without parentheses, with a name in either place, the call is recorded as what it is."""
    decorated: Any = {
        "bare": lambda: decorator(twice),
        "called": lambda: decorator()(twice),
        "positional": lambda: decorator("other")(twice),
        "keyword": lambda: decorator(name="other")(twice),
    }[form]()
    observation = only(observe(lambda: decorated(1)))
    assert observation.type == kind
    assert observation.name == ("twice" if form in ("bare", "called") else "other")
    assert observation.input == {"x": 1, "y": 2, "key": "k"}
    assert observation.output == [1, 2, [], "k", {}]
    assert observation.error is None
    assert observation.end_time >= observation.start_time  # type: ignore[operator]
    assert observation.duration_ms >= 0  # type: ignore[operator]


@each_decorator
def test_description_and_metadata_are_kept(decorator: Any, kind: str) -> None:
    """A description stands in the metadata, beside any further data, as it was when decorating."""
    metadata = {"tags": {"a"}, "deep": [1]}
    decorated = decorator(description="Says it", metadata=metadata)(twice)
    metadata["deep"].append(2)  # type: ignore[attr-defined]
    observation = only(observe(lambda: decorated(1)))
    assert observation.metadata == {"description": "Says it", "tags": ["a"], "deep": [1]}


@each_decorator
@pytest.mark.parametrize("function", [twice, count])
def test_input_and_output_can_be_left_out(decorator: Any, kind: str, function: Any) -> None:
    """What is not to be captured is not; the call still is."""
    neither = decorator(capture_input=False, capture_output=False)(function)
    observation = only(observe(lambda: str(list(neither(2)))))
    assert (observation.input, observation.output) == (None, None)
    assert observation.end_time is not None


@pytest.mark.parametrize("kind", ["agent", "tool", "generation", "span"])
def test_the_older_trace_takes_the_type_of_observation(kind: str) -> None:
    """`trace` records what it is told to, by a text or an enum of texts."""
    typed = enum.Enum("typed", {"KIND": kind})
    for told in (kind, typed.KIND):
        assert only(observe(lambda told=told: fluxloop.trace("t", told)(twice)(1))).type == kind  # type: ignore[misc]
    assert only(observe(lambda: fluxloop.trace(observation_type="event")(twice)(1))).type == "span"


def test_an_unknown_type_of_observation_is_refused() -> None:
    """The message lists the types there are."""
    with pytest.raises(ValueError, match=r"observation_type: expected one of agent, tool, .*, got 'llm'"):
        fluxloop.trace("x", "llm")


def test_the_older_prompt_takes_its_arguments() -> None:
    """`prompt` knows the arguments it had."""
    decorated = fluxloop.prompt("p", model="m", capture_tokens=False)(twice)
    observation = only(observe(lambda: decorated(1)))
    assert (observation.name, observation.model) == ("p", "m")


@each_decorator
def test_a_class_is_refused(decorator: Any, kind: str) -> None:
    """Decorating a class, or what cannot be called, says where a decorator goes."""
    for wrong in (type("Agent", (), {}), property(len), 5):
        for apply in (decorator, decorator(), decorator("name")):
            with pytest.raises(TypeError, match="goes on a function or a method, not on"):
                apply(wrong)


@each_decorator
def test_what_a_decorator_with_arguments_gets_is_a_function(decorator: Any, kind: str) -> None:
    """A second pair of parentheses takes a function and nothing else."""
    with pytest.raises(TypeError):
        decorator("name")(None)


# Transparency


@each_decorator
@pytest.mark.parametrize("function", [twice, twice_async, count, count_async], ids=lambda f: f.__name__)
def test_the_function_looks_as_before(decorator: Any, kind: str, function: Any) -> None:
    """Name, doc, module, signature and kind of function stay."""
    for decorated in (decorator(function), decorator(name="x")(function)):
        assert inspect.signature(decorated) == inspect.signature(function)
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
            assert getattr(decorated, attribute) == getattr(function, attribute)
        for ask in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert ask(decorated) == ask(function)
        assert inspect.unwrap(decorated) is function


@inside_and_outside
def test_what_is_returned_is_the_same_object(inside: bool) -> None:
    """The return value is not copied, whatever it is; only a stream has a proxy, and that inside a run."""
    streams = () if inside else (iter([1]), (n for n in "ab"))
    for value in (object(), [], {"a": [1]}, print, *streams):
        assert perform(lambda value=value: fluxloop.tool(lambda: value)(), inside)[0] is value  # type: ignore[misc]

        async def respond(value: Any = value) -> Any:
            return value

        assert perform(lambda r=respond: asyncio.run(fluxloop.tool(r)()), inside)[0] is value  # type: ignore[misc]


ERRORS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration]


@inside_and_outside
@pytest.mark.parametrize("error", [*ERRORS, StopAsyncIteration])
def test_what_a_function_raises_is_the_same_object(inside: bool, error: type[BaseException]) -> None:
    """Whatever is raised comes out itself, with nothing chained to it."""
    raised = error("x")

    @fluxloop.tool
    def fail() -> None:
        raise raised

    def work() -> None:
        with pytest.raises(error) as caught:
            fail()
        assert caught.value is raised
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None

    perform(work, inside)


@pytest.mark.parametrize("error", ERRORS)
def test_what_a_function_raises_is_recorded(error: type[BaseException]) -> None:
    """An observation tells the type and message of the error, and has an end and no output."""

    @fluxloop.tool
    def fail() -> None:
        raise error("why")

    def work() -> None:
        with pytest.raises(error):
            fail()

    observation = only(observe(work))
    assert observation.error is not None
    assert observation.error.type.endswith(error.__name__)
    assert observation.error.message == "why"
    assert (observation.output, observation.end_time is None) == (None, False)


@inside_and_outside
@pytest.mark.parametrize("error", [ValueError, GeneratorExit, asyncio.CancelledError, SystemExit])
def test_what_a_coroutine_raises_is_the_same_object(inside: bool, error: type[BaseException]) -> None:
    """Whatever a coroutine raises comes out itself."""
    raised = error("x")

    @fluxloop.tool
    async def fail() -> None:
        raise raised

    def work() -> None:
        with pytest.raises(error) as caught:
            fail().send(None)
        assert caught.value is raised

    perform(work, inside)


def test_a_coroutine_closed_elsewhere_ends() -> None:
    """A coroutine that is closed in another context than it ran in ends like any other."""

    @fluxloop.tool
    async def wait() -> None:
        await asyncio.sleep(0)

    def work() -> None:
        coroutine = wait()
        contextvars.copy_context().run(coroutine.send, None)
        coroutine.close()

    observation = only(observe(work))
    assert observation.error is not None
    assert observation.error.type == "GeneratorExit"


def test_outside_a_run_nothing_is_recorded() -> None:
    """Calls before and after a run are in no record."""
    decorated = fluxloop.tool(twice)
    decorated(1)
    with fluxloop.span("s") as step:
        step.update(output=1, metadata={"a": 1})
        fluxloop.event("e", a=1)
    trace = observe(lambda: None)
    decorated(1)
    assert trace.observations == ()


WRONG_CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (twice, (), {}),
    (twice_async, (1, 2, 3), {}),
    (count, (), {"upto": 1, "up": 2}),
    (count_async, (), {}),
]


@inside_and_outside
@pytest.mark.parametrize(("function", "args", "kwargs"), WRONG_CALLS, ids=lambda v: getattr(v, "__name__", ""))
def test_wrong_arguments_give_the_functions_own_error(inside: bool, function: Any, args: Any, kwargs: Any) -> None:
    """A call that does not fit fails as it would undecorated."""
    with pytest.raises(TypeError) as own:
        function(*args, **kwargs)
    decorated = fluxloop.tool(function)

    async def collect() -> None:
        async for _ in decorated(*args, **kwargs):
            pass

    def call() -> None:
        if function is count_async:
            asyncio.run(collect())
        elif function is twice_async:
            asyncio.run(decorated(*args, **kwargs))
        else:
            list(decorated(*args, **kwargs))

    def work() -> None:
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == str(own.value)

    perform(work, inside)


def hostile(method: str, error: type[BaseException]) -> Any:
    """Return an object of which one method raises; for `__class__` a property does."""

    def misbehave(*args: Any) -> Any:
        raise error("hostile")

    return type("Hostile", (), {method: property(misbehave) if method == "__class__" else misbehave})()


HOSTILE = ("__repr__", "__str__", "__eq__", "__hash__", "__getattr__", "__class__", "__iter__", "__len__", "__bool__")


@pytest.mark.parametrize("method", HOSTILE)
@pytest.mark.parametrize("error", [ValueError, AttributeError, KeyboardInterrupt, SystemExit])
def test_hostile_objects_do_no_harm(method: str, error: type[BaseException]) -> None:
    """An object that raises when looked at goes in and out everywhere, and the record is written."""
    value = hostile(method, error)
    same: list[Any] = []

    @fluxloop.tool
    def through(item: Any, *more: Any, **named: Any) -> Any:
        same.append(item is value and more[0] is value and named["named"] is value)
        return value

    @fluxloop.generation
    def stream(item: Any) -> Iterator[Any]:
        yield item

    @fluxloop.tool
    def fail(item: Any) -> None:
        raise ValueError(item)

    def work() -> None:
        same.append(through(value, value, named=value) is value)
        same.append(next(iter(stream(value))) is value)
        with pytest.raises(ValueError):  # noqa: PT011  (its text cannot be looked at)
            fail(value)
        with fluxloop.span("s", input=value, metadata={"value": value}) as step:
            step.update(output=value, metadata={"more": value})
        fluxloop.event("e", value=value)

    trace = observe(work)
    assert same == [True, True, True]
    assert [o.name for o in trace.observations] == ["through", "stream", "fail", "s", "e"]


def cyclic() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        (cyclic(), ["<cycle>"]),
        ("x" * 5_000_000, "x" * 5_000_000),
        ("\ud800", "\\ud800"),
        (b"\xff" * 3, "////"),
    ],
    ids=["cyclic", "5 MB", "surrogate", "bytes"],
)
def test_odd_values_are_recorded(value: Any, recorded: Any) -> None:
    """What is cyclic, huge or does not encode comes through and is recorded as near as can be."""
    echo = fluxloop.tool(lambda item: item)
    result: list[Any] = []
    observation = only(observe(lambda: result.append(echo(value))))
    assert result[0] is value
    assert observation.input == {"item": recorded}
    assert observation.output == recorded


class Word(str):
    """A text of another type."""


@pytest.mark.parametrize("name", ["\ud800", Word("word"), 5, None, ("a", 1)], ids=ascii)
def test_odd_names_become_text(name: Any) -> None:
    """What is no text, or none that encodes, does not spoil the record as a name."""
    text = {"\ud800": "\\ud800", 5: "5", None: "null", ("a", 1): "('a', 1)"}.get(name, name)

    def work() -> None:
        fluxloop.event(name, **{"\ud800": 1, Word("w"): 2})
        twice(1)
        if isinstance(name, str):
            fluxloop.tool(name)(lambda **named: None)(**{"\ud800": 1, Word("w"): 2})
            fluxloop.generation(model=name)(lambda: None)()
            with fluxloop.span(name):
                pass

    observations = observe(work).observations
    assert observations[0].name == text
    assert observations[0].metadata == {"\\ud800": 1, "w": 2}
    if isinstance(name, str):
        assert [o.name for o in observations[1::2]] == [text, text]
        assert observations[1].input == {"\\ud800": 1, "w": 2}
        assert observations[2].model == text


def test_arguments_are_recorded_by_name() -> None:
    """Positional, keyword and variadic arguments stand under their names, and so do defaults."""
    decorated = fluxloop.tool(twice)
    trace = observe(lambda: [decorated(1, 3, 4, 5, key="q", other={1}), decorated(1, y=2)])
    first, second = trace.observations
    assert first.input == {"x": 1, "y": 3, "rest": [4, 5], "key": "q", "other": [1]}
    assert second.input == {"x": 1, "y": 2, "key": "k"}


def test_a_builtin_that_does_not_tell_its_signature_is_recorded() -> None:
    """Without names, arguments stand in a list."""
    decorated = fluxloop.tool(max)
    observation = only(observe(lambda: decorated([1, 2], default=0)))
    assert (observation.name, observation.input, observation.output) == ("max", {"args": [[1, 2]], "default": 0}, 2)


def test_values_are_recorded_as_they_were() -> None:
    """A list changed after the call is recorded as it was at the call."""
    messages = ["a"]

    @fluxloop.tool
    def ask(history: list[str]) -> list[str]:
        history.append("inside")
        return history

    def work() -> None:
        ask(messages).append("after")
        with fluxloop.span("s", input=messages, metadata={"m": messages}) as step:
            step.update(output=messages)
            messages.append("in span")
        fluxloop.event("e", m=messages)
        messages.clear()

    asked, step, event = observe(work).observations
    assert (asked.input, asked.output) == ({"history": ["a"]}, ["a", "inside"])
    assert step.input == step.output == ["a", "inside", "after"]
    assert step.metadata == {"m": step.input}
    assert event.metadata == {"m": ["a", "inside", "after", "in span"]}


def test_no_observation_is_dropped() -> None:
    """1,500 calls in a run give 1,500 observations, in order, each with its own id."""
    step = fluxloop.tool(lambda number: number)
    trace = observe(lambda: [step(number) for number in range(1500)] and None)
    assert [o.output for o in trace.observations] == list(range(1500))
    assert len({o.id for o in trace.observations}) == trace.observation_count == 1500


def test_the_agents_random_sequence_is_its_own() -> None:
    """Neither calls nor ids draw from `random`, and seeding it does not repeat ids."""

    def work() -> list[Any]:
        random.seed(0)
        drawn = []
        for _ in range(3):
            fluxloop.tool(twice)(1)
            run = fluxloop.current_run()
            assert run is not None
            assert run.run_id
            drawn.append(random.random())
        return drawn

    traces = [observe(work), observe(work)]
    random.seed(0)
    expected = [random.random() for _ in range(3)]
    assert [trace.output for trace in traces] == [expected, expected]
    assert len({o.id for trace in traces for o in trace.observations}) == 6


# Methods and other callables


class Searcher:
    """A class with traced methods of all kinds, decorated in either order."""

    def __init__(self) -> None:
        self.asked = 0

    def __repr__(self) -> str:
        raise AssertionError("a method's own object is not looked at")

    @fluxloop.tool
    def method(self, text: str) -> Any:
        self.asked += 1
        return text

    @fluxloop.tool
    @staticmethod
    def static_inside(text: str) -> Any:
        return text

    @staticmethod
    @fluxloop.tool
    def static_outside(text: str) -> Any:
        return text

    @fluxloop.tool()
    @classmethod
    def class_inside(cls, text: str) -> Any:
        return cls, text

    @classmethod
    @fluxloop.tool()
    def class_outside(cls, text: str) -> Any:
        return cls, text

    @fluxloop.tool
    async def asynchronous(self, text: str) -> Any:
        return text

    @property
    @fluxloop.tool
    def attribute(self) -> Any:
        return "attribute"


@inside_and_outside
def test_methods_of_every_kind_work(inside: bool) -> None:
    """Methods, static and class methods in either order are called as before."""

    def work() -> list[Any]:
        searcher = Searcher()
        assert searcher.asked == 0
        return [
            searcher.method("a"),
            Searcher.method(searcher, text="b"),
            searcher.static_inside("c"),
            Searcher.static_outside("d"),
            searcher.class_inside("e"),
            Searcher.class_outside("f"),
            asyncio.run(searcher.asynchronous("g")),
            searcher.attribute,
        ]

    ((*plain, e, f, g, attribute),) = perform(work, inside)
    assert plain == ["a", "b", "c", "d"]
    assert (e, f) == ((Searcher, "e"), (Searcher, "f"))
    assert (g, attribute) == ("g", "attribute")


@pytest.mark.parametrize("name", ["method", "static_inside", "static_outside", "class_inside", "class_outside"])
def test_the_object_of_a_method_is_not_an_input(name: str) -> None:
    """Neither `self` nor `cls` is recorded, nor even looked at."""
    observation = only(observe(lambda: getattr(Searcher(), name)("a") and None))
    assert (observation.name, observation.input) == (name, {"text": "a"})


def test_abstract_methods_stay_abstract() -> None:
    """A decorated abstract method still keeps its class from being built."""

    class Base(abc.ABC):
        @fluxloop.tool
        @abc.abstractmethod
        def act(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


class Adder:
    """An object that is called."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return x + self.by


class AsyncAdder:
    """An object whose calls are coroutines."""

    async def __call__(self, x: int) -> int:
        await asyncio.sleep(0)
        return twice_traced(x)


twice_traced = fluxloop.tool(name="inner")(lambda x: x * 2)


def test_callable_objects_are_traced() -> None:
    """An object with `__call__`, a bound method and a partial are recorded with their arguments."""

    def work() -> None:
        fluxloop.tool(Adder(1))(2)
        fluxloop.tool(Searcher().method)("a")
        fluxloop.tool(functools.partial(functools.partial(twice, 1), key="q"))(3)

    trace = observe(work)
    adder, bound, inner, part = trace.observations
    assert (adder.name, adder.input, adder.output) == (f"{__name__}.Adder", {"x": 2}, 3)
    assert (bound.name, bound.input) == (inner.name, inner.input) == ("method", {"text": "a"})
    assert (part.name, part.input) == ("twice", {"y": 3, "key": "q"})


@pytest.mark.parametrize(
    "function",
    [AsyncAdder(), functools.partial(twice_async, y=0), functools.partial(AsyncAdder())],
    ids=["object", "partial", "partial of an object"],
)
def test_asynchronous_callables_are_traced_to_their_end(function: Any) -> None:
    """What is awaited of an object or a partial is its output, and nests what it calls."""
    trace = observe(lambda: asyncio.run(fluxloop.tool("outer")(function)(4)))
    assert trace.observations[0].output == trace.output
    assert tree(trace) in ({"outer": None, "inner": "outer"}, {"outer": None})


def test_a_partial_of_a_generator_streams() -> None:
    """A partial of a generator function is a stream like the function."""
    observation = only(observe(lambda: list(fluxloop.tool(functools.partial(count, 3))()) and None))
    assert (observation.name, observation.output) == ("count", [0, 1, 2])


# Generators


def conversation() -> Any:
    """Echo what is sent, survive a ValueError, return a farewell."""
    heard = []
    while True:
        try:
            said = yield heard[-1] if heard else "start"
        except ValueError as error:
            said = f"caught {error}"
        if said is None:
            return ("bye", heard)
        heard.append(said)


@inside_and_outside
def test_generators_take_send_and_throw_and_return(inside: bool) -> None:
    """A decorated generator answers send, throw and its end as the plain one does."""

    def talk(make: Any) -> list[Any]:
        generator = make()
        log = [next(generator), generator.send("a"), generator.throw(ValueError("b")), generator.send("c")]
        with pytest.raises(StopIteration) as stop:
            generator.send(None)
        return [*log, stop.value.value]

    assert perform(lambda: talk(fluxloop.tool(conversation)), inside) == [talk(conversation)]


def test_a_stream_is_recorded_as_one_output() -> None:
    """Texts become one text, other items a list, and without items the return value counts."""

    def items(*values: Any) -> Any:
        yield from values
        return "returned"

    def nothing() -> Any:
        yield from ()

    traced: Any = fluxloop.tool(items)
    trace = observe(
        lambda: (list(traced("Hel", "lo")), list(traced(1, "x")), list(traced()), list(fluxloop.tool(nothing)()))
    )
    assert [o.output for o in trace.observations] == ["Hello", [1, "x"], "returned", []]


def test_streamed_items_are_recorded_as_they_passed() -> None:
    """What a consumer does to an item later is not in the record."""

    @fluxloop.tool
    def stream() -> Iterator[list[int]]:
        yield [1]
        yield [2]

    def work() -> None:
        for item in stream():
            item.clear()

    assert only(observe(work)).output == [[1], [2]]


@inside_and_outside
def test_closing_a_generator_closes_the_inner_one(inside: bool) -> None:
    """A stream left early runs its clean-up at close, and its record is no failure."""
    log: list[str] = []

    def stream() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            log.append("closed")

    def work() -> None:
        generator: Any = fluxloop.tool(stream)()
        assert next(generator) == "a"
        generator.close()
        log.append("after")
        generator.close()

    perform(work, inside)
    assert log == ["closed", "after"]
    observation = only(observe(work))
    assert (observation.output, observation.error, observation.end_time is None) == ("a", None, False)


def stubborn() -> Any:
    """Yield again when closed."""
    try:
        yield 1
    except GeneratorExit:
        yield 2


def gentle() -> Any:
    """Return a value when closed."""
    try:
        yield 1
    except GeneratorExit:
        return "done"


def broken() -> Any:
    """Raise another error when closed."""
    try:
        yield 1
    finally:
        raise LookupError("while closing")


@inside_and_outside
@pytest.mark.parametrize("function", [stubborn, gentle, broken])
def test_a_generator_answers_close_as_before(inside: bool, function: Any) -> None:
    """What a generator makes of being closed is what its caller gets."""

    def close(make: Any) -> Any:
        generator = make()
        next(generator)
        try:
            return generator.close()
        except (RuntimeError, LookupError) as error:
            return repr(error)

    def throw(make: Any) -> Any:
        generator = make()
        next(generator)
        try:
            return generator.throw(KeyError("k"))
        except (KeyError, LookupError) as error:
            return repr(error)

    for probe in (close, throw):
        traced = fluxloop.tool(function)
        assert perform(lambda probe=probe, t=traced: probe(t), inside) == [probe(function)]  # type: ignore[misc]


def test_a_failing_stream_keeps_what_it_gave() -> None:
    """The items before an error are the output beside the error; the error is the same object."""
    raised = LookupError("lost")

    @fluxloop.generation
    def stream() -> Iterator[dict[str, Any]]:
        yield {"usage": {"input_tokens": 1, "output_tokens": 2}, "model": "m"}
        raise raised

    def work() -> None:
        with pytest.raises(LookupError) as caught:
            list(stream())
        assert caught.value is raised

    observation = only(observe(work))
    assert observation.error is not None
    assert observation.error.message == "lost"
    assert len(observation.output) == 1
    assert (observation.usage, observation.model) == (Usage(1, 2), "m")


def test_interleaved_generators_nest_right() -> None:
    """Calls inside a generator are its children; those between its steps are not."""

    @fluxloop.agent
    def one() -> Iterator[int]:
        with fluxloop.span("one span"):
            fluxloop.event("one a")
            yield 1
            fluxloop.event("one b")
            yield 2
        fluxloop.event("one c")

    @fluxloop.agent
    def two() -> Iterator[int]:
        fluxloop.event("two a")
        yield 1
        fluxloop.event("two b")

    @fluxloop.tool
    def consume() -> None:
        for _ in zip(one(), two(), strict=False):
            fluxloop.event("between")
        fluxloop.event("after")

    assert tree(observe(consume)) == {
        "consume": None,
        "one": "consume",
        "one span": "one",
        "one a": "one span",
        "one b": "one span",
        "two": "consume",
        "two a": "two",
        "two b": "two",
        "between": "consume",
        "after": "consume",
    }


def test_a_generator_left_open_does_not_move_its_callers_calls() -> None:
    """A span that ends long after the caller that began it has returned leaves the scope alone."""

    def stream() -> Iterator[int]:
        with fluxloop.span("open"):
            yield 1

    @fluxloop.tool
    def start() -> Iterator[int]:
        generator = stream()
        next(generator)
        return generator

    def work() -> None:
        generator: Any = start()
        with fluxloop.span("caller"):
            generator.close()
            fluxloop.event("inside")
        fluxloop.event("outside")

    trace = observe(work)
    assert tree(trace) == {"start": None, "open": "start", "caller": None, "inside": "caller", "outside": None}
    assert all(o.end_time for o in trace.observations)


# Asynchronous generators


async def conversation_async() -> Any:
    """Echo what is sent, survive a ValueError."""
    heard: list[Any] = []
    while True:
        await asyncio.sleep(0)
        try:
            said = yield heard[-1] if heard else "start"
        except ValueError as error:
            said = f"caught {error}"
        if said is None:
            return
        heard.append(said)


@inside_and_outside
def test_async_generators_take_asend_and_athrow(inside: bool) -> None:
    """A decorated async generator answers asend, athrow and its end as the plain one does."""

    async def talk(make: Any) -> list[Any]:
        generator = make()
        log = [await anext(generator), await generator.asend("a"), await generator.athrow(ValueError("b"))]
        with pytest.raises(StopAsyncIteration):
            await generator.asend(None)
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        return log

    expected = asyncio.run(talk(conversation_async))
    assert perform(lambda: asyncio.run(talk(fluxloop.tool(conversation_async))), inside) == [expected]


async def stubborn_async() -> Any:
    """Yield again when closed."""
    try:
        yield 1
    except GeneratorExit:
        yield 2


async def gentle_async() -> Any:
    """Return when closed."""
    try:
        yield 1
    except GeneratorExit:
        return


async def broken_async() -> Any:
    """Raise another error when closed."""
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        raise LookupError("while closing")


@inside_and_outside
@pytest.mark.parametrize("function", [stubborn_async, gentle_async, broken_async])
def test_an_async_generator_answers_aclose_as_before(inside: bool, function: Any) -> None:
    """What an async generator makes of being closed is what its caller gets."""

    async def close(make: Any) -> Any:
        generator = make()
        await anext(generator)
        try:
            return await generator.aclose()
        except (RuntimeError, LookupError) as error:
            return repr(error)

    expected = asyncio.run(close(function))
    assert perform(lambda: asyncio.run(close(fluxloop.tool(function))), inside) == [expected]


@inside_and_outside
def test_an_async_stream_left_early_is_cleaned_up(inside: bool) -> None:
    """Breaking off and closing runs the clean-up, and its record is no failure."""
    log: list[str] = []

    async def stream() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def consume() -> None:
        generator: Any = fluxloop.tool(stream)()
        async for item in generator:
            assert item == "a"
            break
        await generator.aclose()
        log.append("after")

    perform(lambda: asyncio.run(consume()), inside)
    assert log == ["closed", "after"]
    observation = only(observe(lambda: asyncio.run(consume())))
    assert (observation.output, observation.error) == ("a", None)


def test_an_async_stream_abandoned_at_the_end_of_its_loop_is_cleaned_up() -> None:
    """A stream that nobody closes is closed by its loop, decorated or not."""
    log: list[str] = []

    @fluxloop.tool
    async def stream() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            log.append("closed")

    kept: list[Any] = []

    async def consume() -> None:
        kept.append(stream())
        await anext(kept[0])

    observation = only(observe(lambda: asyncio.run(consume())))
    assert log == ["closed"]
    assert (observation.output, observation.error) == ("a", None)


@inside_and_outside
def test_a_failing_async_stream_keeps_what_it_gave(inside: bool) -> None:
    """The same error comes out; the items before it are the output beside it."""
    raised = LookupError("lost")

    @fluxloop.tool
    async def stream() -> AsyncIterator[str]:
        yield "so far"
        raise raised

    async def consume() -> None:
        with pytest.raises(LookupError) as caught:
            async for _ in stream():
                pass
        assert caught.value is raised

    perform(lambda: asyncio.run(consume()), inside)
    observation = only(observe(lambda: asyncio.run(consume())))
    assert observation.error is not None
    assert (observation.output, observation.error.type) == ("so far", "LookupError")


def test_interleaved_async_generators_nest_right() -> None:
    """Calls inside an async generator are its children; those between its steps are not."""

    @fluxloop.agent
    async def one() -> AsyncIterator[int]:
        async with fluxloop.span("one span"):
            fluxloop.event("one a")
            yield 1
            await asyncio.sleep(0)
            fluxloop.event("one b")
        fluxloop.event("one c")

    @fluxloop.tool
    async def consume() -> None:
        async for _ in one():
            fluxloop.event("between")
        fluxloop.event("after")

    assert tree(observe(lambda: asyncio.run(consume()))) == {
        "consume": None,
        "one": "consume",
        "one span": "one",
        "one a": "one span",
        "one b": "one span",
        "one c": "one",
        "between": "consume",
        "after": "consume",
    }


# Nesting


def test_nesting_is_right_with_exceptions() -> None:
    """After a call has failed the next one stands where it stood."""

    @fluxloop.tool
    def fail() -> None:
        fluxloop.event("in fail")
        raise ValueError

    @fluxloop.agent
    def outer() -> None:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^$"):
                fail()
        fluxloop.event("in outer")

    def work() -> None:
        outer()
        fluxloop.event("last")

    expected = {"outer": None, "fail": "outer", "in fail": "fail", "in outer": "outer", "last": None}
    assert tree(observe(work)) == expected


@fluxloop.tool
async def branch(name: str) -> None:
    """Do something of its own, in turns with others."""
    for _ in range(3):
        await asyncio.sleep(0)
        fluxloop.event(f"event {name}")


async def with_gather() -> None:
    await asyncio.gather(*(fluxloop.agent(f"agent {n}")(branch)(str(n)) for n in range(5)))


async def with_tasks() -> None:
    tasks = [asyncio.create_task(fluxloop.agent(f"agent {n}")(branch)(str(n))) for n in range(5)]
    for task in tasks:
        await task


def in_thread(number: int) -> None:
    """Do something of its own, synchronously."""

    @fluxloop.agent(f"agent {number}")
    def call() -> None:
        with fluxloop.span("branch"):
            for _ in range(3):
                fluxloop.event(f"event {number}")

    call()


async def with_to_thread() -> None:
    await asyncio.gather(*(asyncio.to_thread(in_thread, n) for n in range(5)))


async def with_pool() -> None:
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(fluxloop.carry_context(in_thread), range(5)))


async def with_executor() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(5) as pool:
        for n in range(5):
            await loop.run_in_executor(pool, fluxloop.carry_context(in_thread), n)


@pytest.mark.parametrize("way", [with_gather, with_tasks, with_to_thread, with_pool, with_executor])
def test_nesting_is_right_in_concurrent_calls(way: Any) -> None:
    """Each of several calls under way at once has its own children and the common parent."""

    async def agent(text: str) -> None:
        with fluxloop.span("outer"):
            await way()

    trace = run_once(agent, "go")
    assert trace.error is None
    by_id = {o.id: o for o in trace.observations}
    assert len(by_id) == trace.observation_count == 1 + 5 * (1 + 1 + 3)

    def line(observation: Observation) -> list[str]:
        return [observation.name] + (line(by_id[observation.parent_id]) if observation.parent_id else [])

    lines = [line(o) for o in trace.observations if o.type == "event"]
    numbers = sorted(name.split()[1] for name, *_ in lines)
    assert numbers == sorted("01234" * 3)
    for name, *above in lines:
        assert above == ["branch", f"agent {name.split()[1]}", "outer"]


def test_without_the_context_calls_in_a_pool_work_unrecorded() -> None:
    """A pool does not carry the run by itself: what it calls works, and is not recorded."""

    def work() -> Any:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(fluxloop.tool(lambda n: n + 1), [1, 2]))

    trace = observe(work)
    assert (trace.output, trace.observations) == ([2, 3], ())


def test_a_call_that_outlives_its_run_does_not_change_the_record() -> None:
    """What goes on after the run still works: a stream is recorded up to the run's end, a span without an end."""
    kept: list[Any] = []

    @fluxloop.tool
    def stream() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError

    def work() -> None:
        kept.append(stream())
        next(kept[0])
        kept.append(fluxloop.span("open").__enter__())

    trace = run_once(lambda text: work(), "go")
    assert next(kept[0]) == 2
    with pytest.raises(ValueError, match=r"^$"):
        next(kept[0])
    kept[1].update(output=1)
    kept[1].__exit__(None, None, None)
    assert [(o.end_time is None, o.output, o.error) for o in trace.observations] == [
        (False, [1], None),
        (True, None, None),
    ]


# Spans and events


def test_a_span_records_its_block() -> None:
    """A `with` block has its name, input, output, metadata and times."""

    def work() -> None:
        with fluxloop.span("rank", input={"k": {1}}, description="Sorts", metadata={"a": 1}) as step:
            step.update(metadata={"b": 2})
            step.update(output=[3], metadata={"a": 3})
        with fluxloop.span():
            pass

    rank, bare = observe(work).observations
    assert (rank.type, rank.name, rank.input, rank.output) == ("span", "rank", {"k": [1]}, [3])
    assert rank.metadata == {"description": "Sorts", "a": 3, "b": 2}
    assert rank.end_time is not None
    assert (bare.name, bare.input, bare.output, bare.metadata) == ("span", None, None, None)


@inside_and_outside
def test_a_span_lets_errors_through(inside: bool) -> None:
    """The block's own error comes out, and is recorded."""
    raised = SystemExit(2)

    def work() -> None:
        with pytest.raises(SystemExit) as caught, fluxloop.span("s"):
            raise raised
        assert caught.value is raised

    perform(work, inside)
    error = only(observe(work)).error
    assert error is not None
    assert (error.type, error.message) == ("SystemExit", "2")


def test_metadata_that_is_no_mapping_does_no_harm() -> None:
    """What was given in the wrong form is kept all the same."""
    wrong: Any = [1]

    def work() -> None:
        with fluxloop.span("s", metadata=wrong) as step:
            step.update(metadata=5)  # type: ignore[arg-type]
        with fluxloop.span("t", metadata={}):
            pass

    first, second = observe(work).observations
    assert (first.metadata, second.metadata) == ({"metadata": 5}, None)


@inside_and_outside
def test_a_span_can_be_entered_inside_itself(inside: bool) -> None:
    """One span object may be open several times; each time is an observation."""
    step = fluxloop.span("again", metadata={"a": 1})

    def work() -> None:
        with step, step:
            step.update(output="inner")
        with step:
            pass

    perform(work, inside)
    trace = observe(work)
    first, second, third = trace.observations
    assert [o.parent_id for o in (first, second, third)] == [None, first.id, None]
    assert [o.output for o in (first, second, third)] == [None, "inner", None]


def test_a_span_can_be_entered_by_many_tasks_at_once() -> None:
    """One span object shared by tasks that end in another order keeps their scopes apart."""
    step = fluxloop.span("shared")

    async def task(number: int) -> None:
        with fluxloop.span(f"task {number}"):
            async with step as opened:
                for _ in range(number + 1):
                    await asyncio.sleep(0)
                opened.update(output=number)
                fluxloop.event(f"in {number}")
            fluxloop.event(f"after {number}")

    async def agent(text: str) -> None:
        await asyncio.gather(*map(task, range(4)))

    trace = run_once(agent, "go")
    parents = {o.id: o for o in trace.observations}
    assert all(o.end_time for o in trace.observations)
    for number in range(4):
        inside, after = (next(o for o in trace.observations if o.name == f"{w} {number}") for w in ("in", "after"))
        shared = parents[inside.parent_id or ""]
        assert (shared.name, shared.output) == ("shared", number)
        assert parents[shared.parent_id or ""].name == parents[after.parent_id or ""].name == f"task {number}"


def test_an_outer_span_is_updated_from_within_another() -> None:
    """`update` reaches the span it is called on, below an inner one too."""

    def work() -> None:
        with fluxloop.span("outer") as outer, fluxloop.span("inner"):
            outer.update(output="from inside")

    outer, inner = observe(work).observations
    assert (outer.output, inner.output) == ("from inside", None)


def test_updating_a_span_that_is_not_open_does_nothing() -> None:
    """Before and after its block a span has nothing to update."""

    def work() -> None:
        step = fluxloop.span("s")
        step.update(output=1)
        with step:
            pass
        step.update(output=1)

    assert only(observe(work)).output is None


def test_a_span_decorates_functions_while_it_is_a_context_manager_too() -> None:
    """The decorator made by `span(...)` serves any number of functions."""
    step = fluxloop.span("both", description="d")

    def work() -> None:
        step(twice)(1)
        asyncio.run(step(twice_async)(1))
        with step:
            pass

    assert [(o.name, o.metadata) for o in observe(work).observations] == [("both", {"description": "d"})] * 3


def test_a_span_closed_elsewhere_ends() -> None:
    """A block that is left in another context than it was entered in ends like any other."""

    async def wait() -> None:
        async with fluxloop.span("s"):
            await asyncio.sleep(0)

    def work() -> None:
        coroutine = wait()
        contextvars.copy_context().run(coroutine.send, None)
        coroutine.close()
        fluxloop.event("after")

    step, after = observe(work).observations
    assert step.end_time is not None
    assert after.parent_id is None


def test_a_task_that_leaves_the_span_it_was_created_in_is_no_error() -> None:
    """A block may be entered by one task and left by its child."""

    async def agent(text: str) -> None:
        step = fluxloop.span("s").__enter__()

        async def leave() -> None:
            step.__exit__(None, None, None)

        await asyncio.create_task(leave())

    trace = run_once(agent, "go")
    assert trace.error is None
    assert only(trace).end_time is not None


def test_an_event_is_a_moment() -> None:
    """An event has a name, its data, its place and no duration to speak of."""

    def work() -> None:
        with fluxloop.span("s"):
            fluxloop.event("hit", key="q1", name="n", size={1})
            fluxloop.event("bare")

    step, hit, bare = observe(work).observations
    assert (hit.type, hit.name, hit.parent_id) == ("event", "hit", step.id)
    assert hit.metadata == {"key": "q1", "name": "n", "size": [1]}
    assert hit.end_time is not None
    assert (bare.metadata, bare.input, bare.output) == (None, None, None)


def test_a_span_shared_by_tasks_is_updated_from_inside_another() -> None:
    """`update` finds the entry of its own task, also from below another observation."""
    shared = fluxloop.span("s")

    async def work(number: int) -> None:
        with shared, fluxloop.span("inner"):
            await asyncio.sleep(0)
            shared.update(output=number)
            await asyncio.sleep(0)

    async def agent(text: str) -> None:
        await asyncio.gather(work(1), work(2))

    trace = run_once(agent, "hi")
    assert [o.output for o in trace.observations if o.name == "s"] == [1, 2]


def plain_sync(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> tuple[Any, ...]:
    return a, b, rest, c, d, more


async def plain_coroutine(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> tuple[Any, ...]:
    return a, b, rest, c, d, more


def plain_generator(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Iterator[tuple[Any, ...]]:
    yield a, b, rest, c, d, more


async def plain_stream(
    a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int
) -> AsyncIterator[tuple[Any, ...]]:
    yield a, b, rest, c, d, more


def result_of(made: Any) -> Any:
    """What a call of any kind comes to."""

    async def first() -> Any:
        return await made if inspect.iscoroutine(made) else [item async for item in made]

    if inspect.iscoroutine(made) or inspect.isasyncgen(made):
        return asyncio.run(first())
    return list(made) if inspect.isgenerator(made) else made


KINDS = [plain_sync, plain_coroutine, plain_generator, plain_stream]


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1,), {}),
        ((1,), {"c": 3, "a": 5}),
        ((1,), {"c": 3, "b": 9, "e": 7}),
        ((1, 2, 3, 4), {"c": 3}),
        ((1, 2), {"c": 3, "b": 2}),
        ((), {"c": 1, "b": 2}),
    ],
)
def test_arguments_are_taken_and_refused_as_undecorated(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Every kind of function takes the same arguments, and refuses wrong ones at the call, in the same words."""

    def outcome(called: Any) -> tuple[str, Any]:
        try:
            made = called(*args, **kwargs)
        except TypeError as error:
            return "refused", str(error)
        return "taken", result_of(made)

    assert outcome(fluxloop.tool(function)) == outcome(function)


@pytest.mark.parametrize("function", KINDS)
def test_defaults_are_recorded_with_what_was_given(function: Any) -> None:
    """The input of every kind of call is all its parameters, in a run."""
    decorated = fluxloop.tool(function)
    trace = run_once(lambda text: result_of(decorated(1, c=3)), "hi")
    seen = trace.observations[0].input
    assert {name: seen[name] for name in ("a", "b", "c", "d")} == {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.mark.parametrize("function", KINDS)
def test_a_wrong_call_inside_a_run_is_refused_at_the_call_too(function: Any) -> None:
    """The TypeError comes from the call, and is the agent's."""
    decorated = fluxloop.tool(function)
    trace = run_once(lambda text: decorated(), "hi")
    assert trace.error is not None
    assert trace.error.type == "TypeError"
    assert "missing" in trace.error.message


@pytest.mark.parametrize("function", KINDS)
def test_a_decorated_function_is_found_by_its_name_again(function: Any) -> None:
    """Names, documentation and defaults are the function's own."""
    decorated = fluxloop.tool(function)
    assert (decorated.__module__, decorated.__qualname__) == (function.__module__, function.__qualname__)
    assert inspect.signature(decorated) == inspect.signature(function)
    for asked in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert asked(decorated) == asked(function)
