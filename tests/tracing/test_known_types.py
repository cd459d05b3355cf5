"""Outputs of common types: each in the file as its users would write it."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import ipaddress
import json
import re
import subprocess
import sys
import types
import urllib.parse
import xml.etree.ElementTree as ET
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import attrs
import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluxloop.store.codec import encode
from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import MASK, Redaction


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Answer(pydantic.BaseModel):
    text: str
    score: float = pydantic.Field(default=0.5, alias="theScore")
    draft: str = pydantic.Field(default="x", exclude=True)

    @pydantic.computed_field
    def length(self) -> int:
        return len(self.text)

    @pydantic.computed_field
    def broken(self) -> int:
        raise ValueError

    @functools.cached_property
    def words(self) -> list[str]:
        return self.text.split()


class Names(pydantic.RootModel[list[str]]):
    pass


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    site: pydantic.HttpUrl
    pin: pydantic.SecretStr


class Price(pydantic.BaseModel):
    cents: int

    @pydantic.field_serializer("cents")
    def _as_text(self, cents: int) -> str:
        return f"{cents / 100:.2f} €"


@attrs.define
class Part:
    name: str
    cost: decimal.Decimal


@dataclasses.dataclass
class Order:
    parts: list[Part]
    at: datetime.datetime


class Step(msgspec.Struct):
    name: str
    note: str | msgspec.UnsetType = msgspec.UNSET


class Slotted:
    __slots__ = ("_hidden", "x", "y")

    def __init__(self) -> None:
        self._hidden, self.x = 1, (2,)


class Row(TypedDict):
    a: int


UTC = datetime.UTC
TABLE = pd.DataFrame({"a": [1, 2], "b": [0.5, float("nan")], "c": pd.to_datetime(["2024-01-02", None])})
ROWS = [{"a": 1, "b": 0.5, "c": "2024-01-02T00:00:00"}, {"a": 2, "b": None, "c": None}]


def an_answer() -> Answer:
    answer = Answer(text="so it is", theScore=0.25)
    assert answer.words
    return answer


SHOWN: list[tuple[str, Any, Any]] = [
    ("pydantic model", an_answer(), {"text": "so it is", "score": 0.25, "length": 8}),
    ("pydantic root model", Names(["a", "b"]), ["a", "b"]),
    ("pydantic url, secret, extra", Account(site="https://a.b", pin="1234", more=1), {
        "site": "https://a.b/", "pin": "**********", "more": 1}),
    ("pydantic serializers", Price(cents=150), {"cents": "1.50 €"}),
    ("pydantic model unvalidated", Answer.model_construct(text="a"), {"text": "a", "score": 0.5, "length": 1}),
    ("pydantic dsn", pydantic.PostgresDsn("postgres://h/d"), "postgres://h/d"),
    ("pydantic secret bytes", pydantic.SecretBytes(b"x"), "b'**********'"),
    ("dataclass of attrs", Order([Part("a", decimal.Decimal("1.10"))], datetime.datetime(2024, 1, 2, tzinfo=UTC)), {
        "parts": [{"name": "a", "cost": "1.10"}], "at": "2024-01-02T00:00:00+00:00"}),
    ("msgspec struct", [Step("a"), Step("a", "b")], [{"name": "a"}, {"name": "a", "note": "b"}]),
    ("object with slots", Slotted(), {"x": [2]}),
    ("TypedDict", Row(a=1), {"a": 1}),
    ("namespace", types.SimpleNamespace(a={1}), {"a": [1]}),
    ("StrEnum", Colour.RED, "red"),
    ("IntEnum", Level.HIGH, 3),
    ("Flag", Right.READ | Right.WRITE, 3),
    ("Decimal", decimal.Decimal("1.10"), "1.10"),
    ("path", Path("/a/b"), "/a/b"),
    ("url parts", urllib.parse.urlsplit("https://a.b/c?d#e"), "https://a.b/c?d#e"),
    ("url", urllib.parse.urlparse("https://a.b/c?d#e"), "https://a.b/c?d#e"),
    ("IPv4 address", ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
    ("IPv6 network", ipaddress.ip_network("2001:db8::/32"), "2001:db8::/32"),
    ("IPv4 interface", ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
    ("time zone", zoneinfo.ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
    ("UTC", UTC, "UTC"),
    ("datetime with a zone", datetime.datetime(2024, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
        "2024-01-02T00:00:00+00:00"),
    ("pattern", re.compile("a+"), "a+"),
    ("array", array.array("d", [1, 2]), [1.0, 2.0]),
    ("UserList", collections.UserList([(1,)]), [[1]]),
    ("UserString", collections.UserString("a"), "a"),
    ("XML", ET.fromstring("<a><b>ü</b></a>"), "<a><b>ü</b></a>"),
    ("partial", functools.partial(int, base=2), "functools.partial(<class 'int'>, base=2)"),
    ("complex", 1 + 2j, "(1+2j)"),
    ("float32", np.float32(0.1), 0.1),
    ("float16", np.float16(0.1), 0.1),
    ("longdouble", np.longdouble("0.1"), 0.1),
    ("numpy NaN", np.float32("nan"), None),
    ("int64", np.int64(2**62), 2**62),
    ("bool_", np.bool_(True), True),
    ("str_", np.str_("a"), "a"),
    ("bytes_", np.bytes_(b"a"), "a"),
    ("complex64", np.complex64(1 + 2j), "(1+2j)"),
    ("datetime64", np.datetime64("2024-01-02T03:04"), "2024-01-02T03:04"),
    ("datetime64 NaT", np.datetime64("NaT"), None),
    ("timedelta64", np.timedelta64(1500, "ms"), 1.5),
    ("timedelta64 of years", np.timedelta64(1, "Y"), "np.timedelta64(1,'Y')"),
    ("array of float32", np.array([[0.1], [np.nan]], dtype="f4"), [[0.1], [None]]),
    ("array of float64", np.array([0.1, np.inf]), [0.1, None]),
    ("array of no dimension", np.array(3), 3),
    ("array of dates", np.array(["2024-01-02", "NaT"], dtype="M8[D]"), ["2024-01-02", None]),
    ("array of durations", np.array([1500, "NaT"], dtype="m8[ms]"), [1.5, None]),
    ("array of records", np.array([(1, 0.1)], dtype=[("a", "i4"), ("b", "f4")]), [{"a": 1, "b": 0.1}]),
    ("masked array", np.ma.masked_array([0.1, 0.2], mask=[0, 1], dtype="f4"), [0.1, None]),
    ("array of objects", np.array([{1}, None], dtype=object), [[1], None]),
    ("Timestamp", pd.Timestamp("2024-01-02T03:04:05.123456789Z"), "2024-01-02T03:04:05.123456789+00:00"),
    ("Timedelta", pd.Timedelta("90s"), 90.0),
    ("NaT and NA", [pd.NaT, pd.NA], [None, None]),
    ("Period", pd.Period("2024-01"), "2024-01"),
    ("Interval", pd.Interval(0, 1), "(0, 1]"),
    ("Categorical", pd.Categorical(["a", None]), ["a", None]),
    ("array of pandas", pd.array([1, None]), [1, None]),
    ("Index", pd.Index([1, 2]), [1, 2]),
    ("Series", pd.Series([1.5, None]), [1.5, None]),
    ("Series with labels", pd.Series({"mean": 1.5, "n": 2}), {"mean": 1.5, "n": 2.0}),
    ("Series with labels twice", pd.Series([1, 2], index=["a", "a"]), [1, 2]),
    ("frame", TABLE, ROWS),
    ("frame with an index", TABLE.set_index("a"), ROWS),
    ("frame with labels", pd.DataFrame({"x": [1]}, index=["mean"]), [{"index": "mean", "x": 1}]),
    ("frame with columns twice", pd.DataFrame([[1, 2]], columns=["a", "a"]), {"columns": ["a", "a"], "rows": [[1, 2]]}),
    ("empty frame", pd.DataFrame(), []),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), [pytest.param(*row[1:], id=row[0]) for row in SHOWN])
def test_common_types(value: Any, expected: Any) -> None:
    """A value of a common type is written as its users would write it, alone and within others."""
    assert json.loads(encode(capture(value))) == expected
    assert json.loads(encode(capture({"a": [value]}))) == {"a": [expected]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32), max_size=20), st.sampled_from(["f4", "f2"]))
@example([0.1, -0.0, 1e-45, 3.4e38, 1 / 3, 65504.0, 1e22, 16777216.0], "f4")
def test_numbers_of_small_arrays_have_their_own_digits(numbers: list[float], kind: str) -> None:
    """A number of an array of float32 or float16 is written with as few digits as numpy writes it."""
    with np.errstate(over="ignore"):
        values = np.array(numbers, dtype="f4").astype(kind)
    assert capture(values) == [capture(float(str(value))) for value in values]


def a_message() -> Any:
    struct = pytest.importorskip("google.protobuf.struct_pb2").Struct()
    struct.update({"a": [1, {"b": None}]})
    return struct


def a_descriptor() -> Any:
    pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    field = pb2.FieldDescriptorProto(name="x", type=pb2.FieldDescriptorProto.TYPE_STRING)
    return pb2.DescriptorProto(name="A", field=[field])


OF_CLIENTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "polars frame": (lambda: pytest.importorskip("polars").DataFrame({"a": [1, None]}), [{"a": 1}, {"a": None}]),
    "polars series": (lambda: pytest.importorskip("polars").Series([1.5, None]), [1.5, None]),
    "pyarrow table": (lambda: pytest.importorskip("pyarrow").table({"a": [1]}), [{"a": 1}]),
    "pyarrow array": (lambda: pytest.importorskip("pyarrow").array([1, None]), [1, None]),
    "pyarrow scalar": (lambda: pytest.importorskip("pyarrow").scalar("a"), "a"),
    "httpx url": (lambda: pytest.importorskip("httpx").URL("https://a.b"), "https://a.b"),
    "yarl url": (lambda: pytest.importorskip("yarl").URL("https://a.b"), "https://a.b"),
    "protobuf struct": (a_message, {"a": [1.0, {"b": None}]}),
    "protobuf message": (a_descriptor, {"name": "A", "field": [{"name": "x", "type": "TYPE_STRING"}]}),
    "protobuf timestamp": (
        lambda: pytest.importorskip("google.protobuf.timestamp_pb2").Timestamp(seconds=1),
        "1970-01-01T00:00:01Z",
    ),
}


@pytest.mark.parametrize(("make", "expected"), OF_CLIENTS.values(), ids=OF_CLIENTS)
def test_types_of_other_packages(make: Callable[[], Any], expected: Any) -> None:
    """Frames, arrays, urls and messages of packages that need not be there are written by their content."""
    assert capture({"a": [make()]}) == {"a": [expected]}


def test_an_answer_of_a_client() -> None:
    """An answer of a model's client is its fields, with those that the client does not know yet."""
    from openai.types.chat import ChatCompletionMessage

    message = ChatCompletionMessage.model_validate({"role": "assistant", "content": "hi", "thoughts": {"n": 1}})
    captured = capture(message)
    assert (captured["content"], captured["role"], captured["thoughts"]) == ("hi", "assistant", {"n": 1})


def test_secrets_in_known_types() -> None:
    """What stands under a secret name is masked there as anywhere else."""
    frame = pd.DataFrame({"password": ["abcdefgh1"], "note": ["by correct horse"]})
    model = Account(site="https://u:correct horse@a.b", pin="1", api_key="abcdefgh1")
    redaction = Redaction(secrets=["correct horse", "correct%20horse"])
    assert capture([frame, model], redaction) == [
        [{"password": MASK, "note": f"by {MASK}"}],
        {"site": f"https://u:{MASK}@a.b/", "pin": "**********", "api_key": MASK},
    ]


def test_known_types_import_no_package() -> None:
    """Capturing what looks like a package's object imports none of these packages."""
    code = (
        "import sys; from fluxloop.tracing.capture import capture\n"
        "for name in ('numpy', 'pandas', 'pydantic', 'polars', 'google.protobuf.message'):\n"
        "    for kind in ('ndarray', 'generic', 'DataFrame', 'BaseModel', 'Message'):\n"
        "        assert isinstance(capture(type(kind, (), {'__module__': name})()), str | list | dict)\n"
        "assert not {'numpy', 'pandas', 'pydantic', 'polars', 'google.protobuf'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
