"""Agents that change whatever they are given, and inputs for them; any worker can import them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pandas as pd
import pydantic

from fluxloop.tracing.capture import capture


@dataclass
class Chat:
    messages: list[Any] = field(default_factory=list)


@attrs.define
class Basket:
    items: Any


class Order(pydantic.BaseModel):
    lines: list[Any]


class Notes:
    """A class of nobody's framework."""

    def __init__(self, text: Any) -> None:
        self.text = text


OBJECTS: dict[str, Any] = {
    "dataclass": Chat(["hi"]),
    "attrs": Basket(["hi"]),
    "pydantic": Order(lines=["hi"]),
    "class": Notes(["hi"]),
    "namespace": SimpleNamespace(a=["hi"]),
    "array": np.arange(3),
    "array of objects": np.array([["a"], {"b": 1}], dtype=object),
    "frame": pd.DataFrame({"n": [1, 2], "cells": [["a"], ["b"]]}),
    "frame in an object": Notes(pd.DataFrame({"cells": [["a"], ["b"]]})),
    "set": {"a"},
    "bytes": bytearray(b"hi"),
    "deque": deque(["hi"]),
    "key": {(1, 2): [Chat()]},
    "nested": {"turns": [{"chat": Chat([Order(lines=[Basket([1])])])}, (Notes({"a": 1}),)]},
    "plain": {"messages": [{"role": "user", "content": "hi"}]},
}


def ruin(value: Any) -> None:
    """Change everything that can be reached from a value."""
    _ruin(value, set())


def _ruin(value: Any, seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        for item in [*value.keys(), *value.values()]:
            _ruin(item, seen)
        value["ruined"] = True
    elif isinstance(value, list | deque | tuple):
        for item in value:
            _ruin(item, seen)
        if not isinstance(value, tuple):
            value.append("ruined")
    elif isinstance(value, set):
        value.add("ruined")
    elif isinstance(value, bytearray):
        value.extend(b"ruined")
    elif isinstance(value, np.ndarray):
        for item in value.flat:
            _ruin(item, seen)
        value[...] = 7
    elif isinstance(value, pd.DataFrame):
        for column in value.columns:
            for cell in value[column]:
                _ruin(cell, seen)
        value["ruined"] = True
    elif isinstance(value, Chat | Basket | Order | Notes | SimpleNamespace):
        names = ("items",) if isinstance(value, Basket) else tuple(vars(value))
        for name in names:
            _ruin(getattr(value, name), seen)
            setattr(value, name, "ruined")


def given(value: Any) -> Any:
    """What an agent is given, as plain data."""
    if isinstance(value, Notes) and isinstance(value.text, pd.DataFrame):
        value = value.text
    return capture(value.to_dict("list") if isinstance(value, pd.DataFrame) else value)


def change(value: Any) -> Any:
    """Return what it is given, and change it."""
    before = given(value)
    ruin(value)
    return before


async def change_async(value: Any) -> Any:
    """As `change` does, on an event loop."""
    return change(value)
