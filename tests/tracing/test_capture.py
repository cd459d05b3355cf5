"""Capture: any object becomes plain data that encodes, and the same data ever after."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import fractions
import inspect
import itertools
import json
import pathlib
import sys
import types
import uuid
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Set
from contextvars import copy_context
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxloop.records import Case, PlannedRun
from fluxloop.store.codec import encode
from fluxloop.tracing import capture as module
from fluxloop.tracing.capture import MAX_DEPTH, as_text, capture, message, type_name
from fluxloop.tracing.context import OpenRun, current

HOSTILE_METHODS = (
    "__repr__",
    "__str__",
    "__eq__",
    "__hash__",
    "__getattr__",
    "__getattribute__",
    "__iter__",
    "__len__",
    "__bool__",
    "__dict__",
    "__class__",
    "__reduce__",
)


def hostile(method: str, error: type[BaseException]) -> Any:
    """Return an object of which one method raises; for `__class__` and `__dict__` a property does."""

    def misbehave(*args: Any) -> Any:
        raise error("hostile")

    member = property(misbehave) if method in ("__class__", "__dict__") else misbehave
    return type("Hostile", (), {"__hash__": object.__hash__, method: member})()


class BrokenError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Twisted(type):
    """A metaclass whose classes do not tell their names."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__"):
            raise KeyboardInterrupt(name)
        return super().__getattribute__(name)


class Nameless(metaclass=Twisted):
    """An object of such a class."""

    def __repr__(self) -> str:
        raise SystemExit(3)


class Liar(dict[str, Any]):
    """A mapping that breaks off."""

    def items(self) -> Any:
        raise RuntimeError("no items")


class OddDate(datetime.date):
    """A date that is written as something else than text."""

    def isoformat(self) -> Any:
        return object()


class OddDelta(datetime.timedelta):
    """A duration of no number."""

    def total_seconds(self) -> Any:
        return "long"


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


@attrs.define
class Box:
    content: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    value: Any


class Pair(NamedTuple):
    left: Any
    right: Any


class Colour(enum.Enum):
    RED = "red"
    BLUE = (1, {2})


class Word(str):
    pass


class Number(int):
    pass


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value
        self._hidden = value


def nested(levels: int, wrap: Callable[[Any], Any] = lambda item: [item]) -> Any:
    """Return a value so many levels deep."""
    value: Any = "bottom"
    for _ in range(levels):
        value = wrap(value)
    return value


def list_in_itself() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def mapping_in_itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def object_in_itself() -> Plain:
    value = Plain(None)
    value.value = value
    return value


TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates included
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)

_HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**64),
    st.just(-(10**4000)),
    st.floats(),
    TEXTS,
    TEXTS.map(Word),
    st.integers().map(Number),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.decimals().filter(lambda number: not number.is_snan()),
    st.fractions(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(Colour),
    st.frozensets(st.integers() | st.text(max_size=2), max_size=3),
    st.tuples(st.integers(), st.text(max_size=2)),
    TEXTS.map(lambda text: pathlib.PurePosixPath(text.replace("\0", ""))),
    st.sampled_from([int, len, object(), ..., NotImplemented, types, Point, range(3), fractions.Fraction(1, 3)]),
)

_ODD = st.one_of(
    st.builds(hostile, st.sampled_from(HOSTILE_METHODS), st.sampled_from([ValueError, SystemExit, KeyboardInterrupt])),
    st.integers().map(lambda _: BrokenError()),
    st.integers().map(lambda _: Nameless()),
    st.builds(Liar, a=st.integers()),
    st.just(OddDate(2024, 1, 1)),
    st.just(OddDelta(1)),
    st.builds(list_in_itself),
    st.builds(mapping_in_itself),
    st.builds(object_in_itself),
    st.builds(lambda: (number for number in range(3))),
    st.builds(nested, st.sampled_from([99, 100, 101, 10_000])),
    st.builds(nested, st.just(10_000), st.just(Point)),
    st.builds(nested, st.just(2_000), st.sampled_from([Plain, Box, deque([0]).__class__])),
    TEXTS.map(ValueError),
    st.binary(max_size=8).map(bytearray),
    st.binary(max_size=8).map(memoryview),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, max_size=3)
    mapping = st.dictionaries(_HASHABLE, inner, max_size=3)
    return st.one_of(
        few,
        mapping,
        few.map(tuple),
        few.map(deque),
        few.map(lambda items: ExceptionGroup("several", [ValueError(items)])),
        st.sets(_HASHABLE, max_size=3),
        mapping.map(OrderedDict),
        mapping.map(lambda items: defaultdict(list, items)),
        mapping.map(UserDict),
        mapping.map(ChainMap),
        mapping.map(types.MappingProxyType),
        mapping.map(lambda items: items.keys()),
        mapping.map(lambda items: items.values()),
        mapping.map(lambda items: items.items()),
        st.builds(Point, inner, inner),
        st.builds(Box, inner),
        st.builds(Pair, inner, inner),
        st.builds(Plain, inner),
        inner.map(lambda item: Model(value=item, more=item)),
        inner.map(lambda item: types.SimpleNamespace(item=item, _hidden=item)),
    )


ANYTHING = st.recursive(_HASHABLE | _ODD, _containers, max_leaves=8)

SHOWN = [
    ("set", {3, 1, 2}, [1, 2, 3]),
    ("frozenset", frozenset({"b", "a"}), ["a", "b"]),
    ("tuple", (1, (2,)), [1, [2]]),
    ("deque", deque([1]), [1]),
    ("range", range(3), [0, 1, 2]),
    ("large range", range(10**12), "range(0, 1000000000000)"),
    ("range beyond len", range(2**70), f"range(0, {2**70})"),
    ("keys", {"a": 1}.keys(), ["a"]),
    ("text bytes", "né".encode(), "né"),
    ("other bytes", b"\xff\x00", "/wA="),
    ("bytearray", bytearray(b"a"), "a"),
    ("memoryview", memoryview(b"abcd")[::2], "ac"),
    ("NaN", float("nan"), None),
    ("infinity", float("-inf"), None),
    ("large int", 2**70, str(2**70)),
    ("large negative int", -(2**70), str(-(2**70))),
    ("int of too many digits", 16**5000, "0x1" + "0" * 5000),
    ("surrogate", "a\ud800", "a\\ud800"),
    ("text subclass", Word("x"), "x"),
    ("int subclass", Number(5), 5),
    ("dataclass", Point(1, {2}), {"x": 1, "y": [2]}),
    ("attrs", Box((1,)), {"content": [1]}),
    ("pydantic", Model(value=(1,), more=2), {"value": [1], "more": 2}),
    ("namedtuple", Pair(1, (2,)), {"left": 1, "right": [2]}),
    ("enum", Colour.RED, "red"),
    ("enum of a container", Colour.BLUE, [1, [2]]),
    ("namespace", types.SimpleNamespace(a=1, _b=2), {"a": 1}),
    ("object", Plain((1,)), {"value": [1]}),
    ("exception", ValueError("bad\ud800"), {"type": "ValueError", "message": "bad\\ud800"}),
    ("mapping", UserDict({"a": (1,)}), {"a": [1]}),
    ("Counter", Counter("aab"), {"a": 2, "b": 1}),
    ("datetime", datetime.datetime(2024, 1, 2, 3, 4, tzinfo=datetime.UTC), "2024-01-02T03:04:00+00:00"),
    ("date", datetime.date(2024, 1, 2), "2024-01-02"),
    ("time", datetime.time(3, 4), "03:04:00"),
    ("timedelta", datetime.timedelta(minutes=1.5), 90.0),
    ("odd timedelta", OddDelta(seconds=1), 1.0),
    ("Decimal", Decimal("1.50"), "1.50"),
    ("Fraction", fractions.Fraction(1, 3), "1/3"),
    ("UUID", uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("path", pathlib.PurePosixPath("/a/b"), "/a/b"),
    ("complex", 1j, "1j"),
    ("class", int, "<class 'int'>"),
    ("ellipsis", ..., "Ellipsis"),
    ("long repr", type("Long", (), {"__repr__": lambda self: "x" * 20_000})(), "x" * 10_000 + "…"),
    ("key None", {None: 1}, {"null": 1}),
    ("key True", {True: 1}, {"true": 1}),
    ("key 1.5", {1.5: 1}, {"1.5": 1}),
    ("key tuple", {(1, "a"): 1}, {"(1, 'a')": 1}),
    ("key bytes", {b"a": 1}, {"a": 1}),
    ("key surrogate", {"\udfff": 1}, {"\\udfff": 1}),
    ("keys that become the same", {"1": "a", 1: "b"}, {"1": "a", "1 (int)": "b"}),
    ("more keys that become the same", {"1": 0, "1 (int)": 0, 1: 2}, {"1": 0, "1 (int)": 0, "1 (int) #2": 2}),
    ("list in itself", list_in_itself(), [1, "<cycle>"]),
    ("mapping in itself", mapping_in_itself(), {"self": ["<cycle>"]}),
    ("object in itself", object_in_itself(), {"value": "<cycle>"}),
    ("mapping that breaks off", Liar(), "{}"),
]


LAW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plain(value: Any) -> bool:
    """Tell whether a value is made of exact JSON types, with text keys and encodable text."""
    if type(value) is dict:
        return all(type(key) is str and plain(key) and plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(plain, value))
    if type(value) is str:
        value.encode()
        return True
    return value is None or type(value) in (bool, int, float)


def containers(value: Any) -> set[int]:
    """Return the identities of all lists and mappings in plain data."""
    if not isinstance(value, dict | list):
        return set()
    items = value.values() if isinstance(value, dict) else value
    return {id(value)}.union(*map(containers, items))


# Laws


@LAW
@given(ANYTHING)
def test_any_object_captures_and_encodes(value: Any) -> None:
    """Whatever the object, what is captured of it is plain data that is written and read back as it is."""
    captured = capture(value)
    assert plain(captured)
    assert json.loads(encode(captured)) == captured


@LAW
@given(ANYTHING)
def test_capture_is_idempotent(value: Any) -> None:
    """Captured data captures as itself."""
    captured = capture(value)
    assert capture(captured) == captured


@LAW
@given(PLAIN)
def test_plain_data_is_copied_whole(value: Any) -> None:
    """Plain data is captured as it is, and shares nothing that could change."""
    captured = capture(value)
    assert captured == value
    assert not containers(captured) & containers(value)


@LAW
@given(ANYTHING)
def test_any_object_names_something(value: Any) -> None:
    """Whatever stands where a name belongs, it becomes text that encodes."""
    text = as_text(value)
    assert type(text) is str
    assert json.loads(encode(text)) == text


# What each type becomes


@pytest.mark.parametrize(("value", "expected"), [pytest.param(*row[1:], id=row[0]) for row in SHOWN])
def test_each_type_becomes_what_is_nearest(value: Any, expected: Any) -> None:
    """What JSON lacks becomes plain data by its type."""
    captured = capture(value)
    assert captured == expected
    assert plain(captured)
    assert capture([value]) == [expected]


def test_text_and_containers_are_kept_whole() -> None:
    """Neither 5 MB of text nor a list of 100,000 items is cut."""
    text, bag = "é" * 5_000_000, list(range(100_000))
    assert capture({"text": text, "bag": bag}) == {"text": text, "bag": bag}


def test_one_object_at_many_places_is_written_out_at_each() -> None:
    """What is repeated but not a cycle is no cycle."""
    shared = {"a": [1]}
    captured = capture([shared, shared, (shared,)])
    assert captured == [{"a": [1]}, {"a": [1]}, [{"a": [1]}]]
    assert captured[0] is not captured[1]


@pytest.mark.parametrize("wrap", [lambda item: [item], lambda item: {"k": item}, Point, Plain])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 10_000])
def test_depth_is_bounded(wrap: Any, levels: int) -> None:
    """Below 100 levels a note stands instead of what is there."""
    encoded = encode(capture(nested(levels, wrap))).decode()
    assert encoded.count(f"<deeper than {MAX_DEPTH} levels>") == 1
    assert "bottom" not in encoded


def test_the_bounded_depth_is_kept_to_the_last_level() -> None:
    """100 levels are kept whole."""
    value = nested(MAX_DEPTH)
    assert capture(value) == value


@pytest.fixture
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> int:
    """A lower bound on repeats, for tests that reach it."""
    monkeypatch.setattr(module, "MAX_REPEATS", 2_000)
    return 2_000


def test_a_dense_graph_of_objects_takes_no_time(few_repeats: int) -> None:
    """Objects that all know each other have factorially many paths; capture stops and says so."""
    nodes = [Plain(None) for _ in range(16)]
    for node in nodes:
        node.value = [*nodes]
    captured = encode(capture(nodes))
    assert b"<repeated too often>" in captured
    assert captured.count(b"value") < 2 * few_repeats


def test_values_that_are_no_containers_repeat_without_end(few_repeats: int) -> None:
    """A value shared by more rows than a graph may have paths is written in each."""
    rows = [(Colour.RED, (), {"n": n}) for n in range(few_repeats + 1)]
    assert capture(rows)[-1] == ["red", [], {"n": few_repeats}]


class Node(Mapping[str, Any]):
    """A mapping whose children are made when they are asked for, as those of h5py, zarr and ORMs."""

    def __getitem__(self, key: str) -> Any:
        return Node()

    def __iter__(self) -> Iterator[str]:
        return iter(("left", "right"))

    def __len__(self) -> int:
        return 2

    def __hash__(self) -> int:
        return id(self)


class Named(Node):
    """One whose keys are such mappings, too."""

    def __iter__(self) -> Iterator[Any]:
        return iter((Node(), Node()))


class Endless(list[Any]):
    """A list that never ends."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.count()


class EndlessSet(Set[int]):
    """A set that never ends."""

    def __contains__(self, item: object) -> bool:
        return True

    def __iter__(self) -> Iterator[int]:
        return itertools.count()

    def __len__(self) -> int:
        return 1


class EndlessKeys(Node):
    """A mapping that never ends."""

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())


class Chain:
    """A record that makes the next one when asked for it, twice."""

    __attrs_attrs__ = ("one", "other")
    one = other = property(lambda self: Chain())


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower bounds on walks, for tests that reach them."""
    monkeypatch.setattr(module, "MAX_MADE", 1_000)
    monkeypatch.setattr(module, "MAX_OBJECTS", 1_000)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("kind", [Node, Named, Endless, EndlessSet, EndlessKeys, Chain])
def test_what_is_made_when_asked_for_is_cut(kind: type) -> None:
    """In its place, with how much there was; all else of the answer is whole."""
    long = "text " * 10_000
    captured = capture({"before": long, "tree": kind(), "after": [*range(3_000), long]})
    assert captured["before"] == long
    assert captured["after"] == [*range(3_000), long]
    tree = encode(captured["tree"])
    assert b"<cut after 1,000 " in tree
    assert len(tree) < 100_000


@pytest.mark.usefixtures("little")
def test_a_row_of_objects_that_are_cut_is_told_once() -> None:
    """Not a million times; plain values between them stay."""
    cut = "<cut after 1,000 objects>"
    captured = capture([*(Plain(n) for n in range(1_100)), "text", Plain(1), Plain(2), "end"])
    assert captured == [*({"value": n} for n in range(1_000)), cut, "text", cut, "end"]


@pytest.mark.usefixtures("little")
def test_what_holds_its_items_is_never_cut() -> None:
    """Of whatever type, as long as it does not make them."""
    items = [*range(5_000)]
    for value in (items, tuple(items), deque(items), set(items), dict.fromkeys(items).keys(), NamedList(items)):
        assert capture(value) == items
    assert len(capture(OrderedDict.fromkeys(map(str, items)))) == len(items)
    assert len(capture(Counter(map(str, items)))) == len(items)


class NamedList(list[Any]):
    """A list by another name."""


def test_slow_objects_are_cut_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each item may take as long as a query of a database."""
    now = [0]
    monkeypatch.setattr(module, "perf_counter_ns", lambda: now[0])

    class Rows(Node):
        def __getitem__(self, key: str) -> str:
            now[0] += 10_000_000_000
            return key

    plain = [*range(10)]
    assert capture([Rows(), plain, Rows()]) == [{"left": "left", "right": "right"}, plain, {"left": "left", "…": CUT}]


CUT = "<cut after 30 s>"


@pytest.mark.parametrize("rest", [Node(), [[] for _ in range(20_000)]], ids=["objects", "plain"])
def test_the_walk_of_a_run_that_is_over_ends(rest: Any) -> None:
    """Of a run that was given up, or has its record, nobody waits for more."""
    run = OpenRun(PlannedRun("trace_001", Case(0, "input_001", "hi"), 0, 1), 1, 0)

    class Closing:
        def __repr__(self) -> str:
            run.closed = True
            return "closing"

    context = copy_context()
    context.run(current.set, (run, None))
    assert context.run(capture, [Closing(), rest]) == "<cut because its run was over>"
    run.closed = False
    assert context.run(capture, [Closing(), 1]) == ["closing", 1]


def test_capture_at_the_end_of_the_stack_gives_a_note() -> None:
    """An agent that has nearly used up its stack gets no RecursionError from capture."""

    def probe(left: int) -> Any:
        return capture([[[1]]]) if left == 0 else probe(left - 1)

    depth = len(inspect.stack(0))
    seen = []
    for left in range(sys.getrecursionlimit() - depth - 40, sys.getrecursionlimit()):
        try:
            seen.append(probe(left))
        except RecursionError:
            break
    assert seen[0] == [[[1]]]
    assert "<seen at the end of the stack>" in seen


def test_only_fields_of_a_dataclass_are_kept() -> None:
    """Class variables and init-only parameters of a dataclass are not part of its value."""

    @dataclasses.dataclass
    class Setting:
        kind: ClassVar[str] = "x"
        once: dataclasses.InitVar[int] = 3
        value: int = 1

    assert capture(Setting()) == {"value": 1}


def test_fields_that_were_never_set_are_left_out() -> None:
    """A record with a missing field shows the others."""
    point = Point(1, 2)
    del point.x
    assert capture(point) == {"y": 2}


def test_records_of_msgspec_become_mappings() -> None:
    """A msgspec struct shows its fields."""

    class Step(msgspec.Struct):
        name: str
        tags: set[str]

    assert capture(Step("a", {"b"})) == {"name": "a", "tags": ["b"]}


def test_messages_become_mappings() -> None:
    """A LangChain message shows its content."""
    from langchain_core.messages import AIMessage

    captured = capture(AIMessage("hi", id="1"))
    assert captured["type"] == "ai"
    assert captured["content"] == "hi"


def test_numbers_of_numpy_become_numbers() -> None:
    """Arrays and scalars become lists and numbers; what holds itself is a cycle."""
    import numpy as np

    array = np.array([[1, 2], [3, 4]])
    assert capture([array, np.int64(3), np.float32(0.5), np.bool_(True), np.float64("nan"), np.str_("x")]) == [
        [[1, 2], [3, 4]],
        3,
        0.5,
        True,
        None,
        "x",
    ]
    odd = np.empty(1, dtype=object)
    odd[0] = odd
    assert capture(odd) == ["<cycle>"]


def test_mixed_sets_keep_their_items() -> None:
    """A set that cannot be sorted is kept in its own order."""
    assert sorted(capture({1, "a", None}), key=str) == [1, None, "a"]


def test_objects_without_attributes_are_shown() -> None:
    """An object that holds nothing becomes its `repr`."""
    assert capture(object()).startswith("<object object at ")
    assert capture(Plain.__new__(Plain)).startswith(f"<{__name__}.Plain object at ")


@pytest.mark.parametrize("method", HOSTILE_METHODS)
@pytest.mark.parametrize("error", [ValueError, AttributeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_hostile_objects_capture(method: str, error: type[BaseException]) -> None:
    """Nothing an object raises while it is looked at comes out, wherever it stands."""
    value = hostile(method, error)
    assert plain(capture([value, Point(value), Plain(value), ValueError(value)]))
    assert capture([1, value, {2}])[::2] == [1, [2]]
    assert type(as_text(value)) is str
    if method != "__hash__":
        assert plain(capture({value: value}))
        assert plain(capture({value}))


def test_what_cannot_be_shown_is_told_by_its_type() -> None:
    """Where even the `repr` fails, a note names the type, if it has a name."""
    note = f"<{__name__}.BrokenError without a readable message>"
    assert capture(BrokenError()) == {"type": f"{__name__}.BrokenError", "message": note}
    assert capture(hostile("__repr__", SystemExit)) == f"<{__name__}.Hostile that cannot be shown>"
    assert capture(Nameless()) == "<object that cannot be shown>"


def test_an_object_of_an_unhashable_class_is_shown() -> None:
    """A metaclass that compares makes its classes unhashable, and capture does not mind."""
    compared = type("Compared", (type,), {"__eq__": lambda cls, other: True})
    value = compared("Odd", (), {"__repr__": lambda self: "odd"})()
    assert capture(value) == "odd"
    assert capture([value]) == "[odd]"


def test_type_names_say_the_module_where_it_says_something() -> None:
    """Builtins and the user's own script go by their bare names."""
    assert type_name(ValueError()) == "ValueError"
    assert type_name(Point(1)) == f"{__name__}.Point"
    assert type_name(Nameless()) == "object"
    odd = type("Odd", (), {"__qualname__": "\ud800"})
    assert type_name(odd()) == f"{__name__}.\\ud800"


def test_messages_of_errors_are_texts_that_encode() -> None:
    """An error's message is told, with lone surrogates escaped."""
    assert message(ValueError("a\ud800")) == "a\\ud800"
    assert message(KeyError("k")) == "'k'"
