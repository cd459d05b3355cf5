"""What is told, before the first run, of inputs that cannot be copied for each."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import attrs
import httpx
import pytest

from fluxloop.exceptions import InputError
from fluxloop.inputs.cases import inputs_from
from fluxloop.inputs.copyable import copy_problem
from fluxloop.testing import run_once


@attrs.define
class Box:
    content: Any


class Same:
    """Says that it is its own copy."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Same:
        return self


class Exits:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise SystemExit("no licence")


class Registry:
    """Pickled by its name, as the one of its kind."""

    def __init__(self) -> None:
        self.entries = ["a"]

    def __reduce__(self) -> str:
        return "REGISTRY"


REGISTRY = Registry()


class Logs:
    def __init__(self) -> None:
        self.log = logging.getLogger("copyable")


class Odd(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__mro__":
            raise RuntimeError("odd")
        return super().__getattribute__(name)


class Strange(metaclass=Odd):
    pass


def looped(thing: Any) -> Any:
    box = Box([thing])
    box.content.insert(0, box)
    return box


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "value",
    [
        *("a", {"a": [1]}, deep(100), Box([1]), Box(sys), Box(Box), Logs(), iter([1]), {1: Box(())}, ValueError("a")),
        *(Box(weakref.ref(REGISTRY)), asyncio.Queue(), looped(1), SimpleNamespace(a=object()), os.environ.copy()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_copied(value: Any) -> None:
    """Nothing is told of what each run can have for itself."""
    assert copy_problem(value) is None


GIVE_DATA = "give data and make the object in the agent, or put it into runner.args, which all runs share"


@pytest.mark.parametrize(
    ("value", "path", "kind", "why", "way_out"),
    [
        (threading.Lock(), "", "_thread.lock", "cannot pickle", GIVE_DATA),
        ({"a": [Box(threading.Lock())]}, "['a'][0].content", "_thread.lock", "cannot pickle", GIVE_DATA),
        (Box(httpx.Client()), ".content", "httpx.Client", "cannot pickle", GIVE_DATA),
        (looped(threading.Lock()), ".content[1]", "_thread.lock", "cannot pickle", GIVE_DATA),
        (Same(), "", "test_copyable.Same", "its copy is the object itself", GIVE_DATA),
        ([Box(Same())], "[0].content", "test_copyable.Same", "its copy is the object itself", GIVE_DATA),
        (Box(REGISTRY), ".content", "test_copyable.Registry", "its copy is the object itself", GIVE_DATA),
        (Exits(), "", "test_copyable.Exits", "SystemExit: no licence", GIVE_DATA),
        (Strange(), "", "test_copyable.Strange", "RuntimeError: odd", GIVE_DATA),
        (threading.local(), "", "_thread._local", "cannot pickle", GIVE_DATA),
        ({"a": numbers()}, "['a']", "generator", "cannot pickle", "give a list of what it holds"),
        ({}.keys(), "", "dict_keys", "cannot pickle", "give a list of what it holds"),
        (deep(5000), "", "list", "it is nested too deeply", "give data of fewer levels"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_cannot_be_copied(value: Any, path: str, kind: str, why: str, way_out: str) -> None:
    """The message says which part of the input it is, of what class, why, and what to do."""
    told = str(copy_problem(value))
    start, _, rest = told.partition(" which cannot be copied for each run (")
    assert start.replace("tests.inputs.", "") == f"input{path} is an object of class {kind},"
    assert why in rest
    assert rest.endswith(f"); {way_out}")


def test_files_and_coroutines() -> None:
    """What is used up by the first run is told with what to give in its place."""
    with open(os.devnull) as file:
        assert str(copy_problem(file)).endswith("give its path or its content")
    coroutine = asyncio.sleep(0)
    assert str(copy_problem([coroutine])).endswith("give what awaiting it gives")
    coroutine.close()


def test_each_input_is_named(tmp_path: Any) -> None:
    """The problem has the place of the entry and its id; the same one of many entries is told once."""
    lock = threading.Lock()
    entries = ["a", {"id": "mine", "input": lock}, *({"input": lock} for _ in range(50)), {"input": numbers()}]
    with pytest.raises(InputError) as caught:
        inputs_from(entries)
    first, second = str(caught.value).splitlines()
    assert first.startswith("inputs:2: mine: input is an object of class _thread.lock, which cannot be copied")
    assert first.endswith("(and so for 50 more entries)")
    assert second.startswith("inputs:53: input_053: input is an object of class generator")


def test_one_run_needs_a_copy_too() -> None:
    """A test of an agent is told the same."""
    with pytest.raises(InputError, match=r"run_once: input is an object of class _thread\.lock, which cannot"):
        run_once(len, threading.Lock())
