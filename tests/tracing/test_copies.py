"""Copies that share nothing that can change."""

from __future__ import annotations

import asyncio
import copy
import enum
import functools
import logging
import math
import re
import threading
import types
import xml.etree.ElementTree as ET
from contextvars import ContextVar
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.tracing.capture import capture
from fluxloop.tracing.copies import fresh, fresh_data

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.tuples(st.integers()), inner, max_size=4)
    ),
    max_leaves=12,
)


@attrs.define
class Box:
    content: Any


class Colour(enum.Enum):
    RED = 1


class Local:
    """Holds what no copy can be made of, and copies itself all the same."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items = [1]

    def __deepcopy__(self, memo: Any) -> Local:
        other = Local()
        other.items = copy.copy(self.items)
        return other


def containers(value: Any) -> set[int]:
    """Return the identities of all lists and mappings in plain data."""
    if not isinstance(value, dict | list | tuple):
        return set()
    own = set() if isinstance(value, tuple) else {id(value)}
    return own.union(*map(containers, value.values() if isinstance(value, dict) else value))


@given(PLAIN)
@pytest.mark.parametrize("copied", [fresh, fresh_data])
def test_plain_data(copied: Any, value: Any) -> None:
    """A copy of plain data is equal, of the same types, and shares nothing that can change."""
    result = copied(value)
    assert repr(result) == repr(value)
    assert not containers(result) & containers(value)


def test_what_is_the_same_twice_is_so_in_the_copy() -> None:
    """Beside objects, a copy has the shape of the value, cycles and all."""
    inner = Box([1])
    loop: dict[str, Any] = {"one": inner, "two": inner}
    loop["self"] = loop
    result = fresh(loop)
    assert result["one"] is result["two"] is not inner
    assert result["self"] is result is not loop


def test_a_plain_loop() -> None:
    """Plain data may contain itself."""
    loop: list[Any] = []
    loop.append(loop)
    result = fresh(loop)
    assert result[0] is result is not loop


SHARED = [
    *("a", 1, None, b"x", 1.5, re.compile("a"), object(), Colour.RED, Box, math, test_plain_data, len),
    *(lambda text: text, functools.lru_cache(len), ContextVar("c"), logging.getLogger("copies"), ..., range(3)),
]


@pytest.mark.parametrize("value", SHARED, ids=lambda value: type(value).__name__)
def test_what_is_itself_wherever_it_is_met(value: Any) -> None:
    """What nothing can change, and what has an identity, is passed as it is, in objects too."""
    assert fresh(value) is value
    assert fresh([value])[0] is value
    assert fresh(Box(value)).content == value


def local_object() -> Any:
    class Within:
        def __init__(self) -> None:
            self.items = [1]

    return Within()


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        (Box([1]), lambda box: box.content),
        (local_object(), lambda one: one.items),
        (Local(), lambda one: one.items),
        (types.MappingProxyType({"a": [1]}), lambda proxy: proxy["a"]),
        (Box(types.MappingProxyType({"a": [1]})), lambda box: box.content["a"]),
        (functools.partial(len, [1]), lambda one: one.args[0]),
        (Box([1]).__eq__, lambda method: method.__self__.content),
        ({Box: [1]}, lambda mapping: mapping[Box]),
        (pd.DataFrame({"a": [[1]]}), lambda frame: frame["a"][0]),
        (Box(pd.DataFrame({"a": [[1]]})), lambda box: box.content["a"][0]),
        (np.array([[1], {}], dtype=object), lambda array: array[0]),
        (ET.fromstring("<a><b/></a>"), lambda element: element[0]),
        (asyncio.Queue(), lambda queue: queue._queue),
        (iter([[1]]), next),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_copied_to_the_depth(value: Any, inside: Any) -> None:
    """Whatever an object holds, its copy has another one: also local classes, and the cells of frames."""
    result = fresh(value)
    assert inside(result) is not inside(value)
    assert type(result) is type(value)


def test_arrays_are_copied() -> None:
    """The data of an array are not shared, and the copy can be written to."""
    array = np.arange(4).reshape(2, 2)
    result = fresh(Box(array)).content
    result[0, 0] = 9
    assert array[0, 0] == 0


@pytest.mark.parametrize(
    "value", [threading.Lock(), (number for number in [1]), {}.keys()], ids=lambda value: type(value).__name__
)
def test_what_cannot_be_copied_raises(value: Any) -> None:
    """Nothing is shared in silence."""
    with pytest.raises(TypeError):
        fresh([value])


CLIENT = threading.Lock()


@pytest.mark.parametrize(
    ("value", "is_shared"),
    [
        (CLIENT, True),
        (Local(), True),
        (Box(CLIENT), True),
        ((1, [CLIENT]), True),
        (Box([1, {"a": (2, None)}]), False),
        ({1, 2}, False),
        (bytearray(b"x"), False),
        (np.arange(3), False),
        (pd.DataFrame({"a": [1]}), False),
        (Box(Box(np.arange(3))), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_constants(value: Any, is_shared: bool) -> None:
    """Of constants, data are copied and other objects shared, in containers too."""
    assert (fresh_data(value) is value) == is_shared
    assert (fresh_data({"a": [value]})["a"][0] is value) == is_shared


def test_constants_that_hold_themselves() -> None:
    """A record in a loop is data."""
    box = Box(None)
    box.content = [box]
    assert fresh_data(box).content[0] is not box
    assert capture(fresh_data(box)) == capture(box)
