"""A YAML list read item by item, so that its length costs no memory.

The C parser gives events; only one item at a time becomes nodes and then values. A list of
100,000 entries loaded whole costs 700 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from fluxloop.exceptions import InputError, Problem
from fluxloop.inputs.text import not_text

LIST_KEYS = ("generated_inputs", "inputs")
MAX_DEPTH = 100


def stream_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line and value of each item of `generated_inputs:`, `inputs:` or a bare list.

    Raises:
        InputError: the file is not YAML, or holds no such list.
    """
    with path.open("rb") as file:
        items = _Items(file)
        try:
            yield from items.read()
        except _ShapeError as error:
            raise InputError([Problem(f"{path}:{error.line}", error.message)]) from None
        except (YAMLError, ReaderError, UnicodeDecodeError) as error:
            raise InputError([yaml_problem(path, error)]) from None


def yaml_problem(path: Path, error: Exception) -> Problem:
    """Return what a YAML error says as a problem of the file."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        what = " ".join(part for part in (error.problem, f"({error.context})" if error.context else "") if part)
        if what.startswith("but "):
            what = f"{error.context}, {error.problem}"
        if "cannot start any token" in what and mark and _is_tab(path, mark):
            what += "; YAML is indented with spaces, not tabs"
        return Problem(where, f"not valid YAML: {what}")
    if isinstance(error, ReaderError | UnicodeDecodeError):
        return not_text(path, control=True)
    return Problem(str(path), f"not valid YAML: {error}")


def _is_tab(path: Path, mark: Any) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next(islice(file, mark.line, None), "")
    return line[mark.column : mark.column + 1] == "\t"


class _ShapeError(Exception):
    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message


class _Items:
    """The events of one document, with the list of inputs found among them."""

    def __init__(self, stream: Any) -> None:
        # ruamel joins parser, constructor and resolver in one loader when it has its C extension.
        self._loader, _ = YAML(typ="safe").get_constructor_parser(stream)
        self._anchors: dict[str, Any] = {}

    def read(self) -> Iterator[tuple[int, Any]]:
        self._loader.get_event()  # the start of the stream
        if self._loader.check_event(StreamEndEvent):
            raise _ShapeError(1, "the file is empty; expected a list of inputs")
        self._loader.get_event()  # the start of the document
        event = self._loader.get_event()
        if isinstance(event, SequenceStartEvent):
            yield from self._list()
        elif isinstance(event, MappingStartEvent):
            yield from self._mapping(event)
        else:
            raise _ShapeError(
                event.start_mark.line + 1, "expected a list of inputs, or generated_inputs: with a list below"
            )
        self._loader.get_event()  # the end of the document
        if not self._loader.check_event(StreamEndEvent):
            line = self._loader.get_event().start_mark.line + 1
            raise _ShapeError(line, "a second document begins here; expected one")

    def _list(self) -> Iterator[tuple[int, Any]]:
        while not self._loader.check_event(SequenceEndEvent):
            line = self._loader.peek_event().start_mark.line + 1
            yield line, self._value(self._node(0))
        self._loader.get_event()

    def _mapping(self, start: Any) -> Iterator[tuple[int, Any]]:
        found: str | None = None
        keys = []
        while not self._loader.check_event(MappingEndEvent):
            line = self._loader.peek_event().start_mark.line + 1
            key = self._value(self._node(0))
            keys.append(str(key))
            if key not in LIST_KEYS:
                self._node(0)
                continue
            if found:
                raise _ShapeError(line, f"{key!r} beside {found!r}; expected one list of inputs")
            found = key
            event = self._loader.get_event()
            if not isinstance(event, SequenceStartEvent):
                raise _ShapeError(event.start_mark.line + 1, f"{key}: expected a list")
            yield from self._list()
        self._loader.get_event()
        if not found:
            raise _ShapeError(
                start.start_mark.line + 1,
                f"no 'generated_inputs' or 'inputs' here; it has {', '.join(keys) or 'no keys'}",
            )

    def _node(self, depth: int) -> Any:
        loader = self._loader
        event = loader.get_event()
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                raise _ShapeError(event.start_mark.line + 1, f"the alias *{event.anchor} names nothing above it")
            return self._anchors[event.anchor]
        if depth > MAX_DEPTH:
            raise _ShapeError(event.start_mark.line + 1, f"nested deeper than {MAX_DEPTH} levels")
        node: Any
        if isinstance(event, ScalarEvent):
            tag = self._tag(ScalarNode, event, event.value, event.implicit)
            node = ScalarNode(tag, event.value, event.start_mark, event.end_mark, style=event.style)
            self._anchor(event, node)
            return node
        if isinstance(event, SequenceStartEvent):
            node = SequenceNode(self._tag(SequenceNode, event, None, event.implicit), [], event.start_mark, None)
            self._anchor(event, node)
            while not loader.check_event(SequenceEndEvent):
                node.value.append(self._node(depth + 1))
        else:
            node = MappingNode(self._tag(MappingNode, event, None, event.implicit), [], event.start_mark, None)
            self._anchor(event, node)
            while not loader.check_event(MappingEndEvent):
                node.value.append((self._node(depth + 1), self._node(depth + 1)))
        node.end_mark = loader.get_event().end_mark
        return node

    def _anchor(self, event: Any, node: Any) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = node

    def _tag(self, kind: type, event: Any, value: str | None, implicit: Any) -> Any:
        if event.tag is None or event.tag == "!":
            return self._loader.resolve(kind, value, implicit)
        return event.ctag

    def _value(self, node: Any) -> Any:
        try:
            return self._loader.construct_document(node)
        except (ValueError, LookupError) as error:  # a date or a number that cannot be one
            raise _ShapeError(node.start_mark.line + 1, f"not valid YAML: {error}; a text goes in quotes") from None
