"""A YAML list read item by item, so that its length costs no memory.

The C parser gives events; only one item at a time becomes nodes and then values. A list of
100,000 entries loaded whole costs 700 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from attrs import define
from yaml import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent

from fluxloop.exceptions import InputError, Problem
from fluxloop.inputs.text import not_text
from fluxloop.inputs.yaml_problem import yaml_problem
from fluxloop.inputs.yaml_scalars import CORE, ScalarError, plain_scalar, tagged_scalar, unknown_tag
from fluxloop.inputs.yaml_text import ControlCharacterError, YamlText, own

LIST_KEYS = ("generated_inputs", "inputs")
MAX_DEPTH = 100
MAX_VALUES = 1_000_000
"""Values of one item, aliases written out: few lines of aliases of aliases can mean billions."""

# A PyYAML that was built where libyaml was not reads the same, ten times slower.
_Parser: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def stream_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line and value of each item of `generated_inputs:`, `inputs:` or a bare list.

    Raises:
        InputError: the file is not YAML, or holds no such list.
    """
    text = YamlText(path)
    try:
        yield from _Items(_Parser(text)).read()
    except _ShapeError as error:
        raise InputError([Problem(f"{path}:{error.place}", error.message)]) from None
    except (ControlCharacterError, UnicodeError):
        raise InputError([not_text(path, control=True)]) from None
    except yaml.YAMLError as error:
        raise InputError([yaml_problem(path, error)]) from None
    finally:
        text.close()


class _ShapeError(Exception):
    def __init__(self, place: int | str, message: str) -> None:
        self.place = place
        self.message = message


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _column(event: Any) -> str:
    return f"{_line(event)}:{event.start_mark.column + 1}"


@define
class _Node:
    """A value as it is written: an event with what is inside."""

    event: Any
    items: list[Any]
    """Nodes of a list; keys and values of a mapping in turn."""
    size: int = 1
    """Values in it, aliases written out."""


class _Items:
    """The events of one document, with the list of inputs found among them."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._anchors: dict[str, _Node] = {}
        self._values: dict[int, Any] = {}
        """Of the anchored nodes of one item, by the node: an alias is the value itself."""

    def read(self) -> Iterator[tuple[int, Any]]:
        parser = self._parser
        parser.get_event()  # the start of the stream
        if parser.check_event(yaml.StreamEndEvent):
            raise _ShapeError(1, "the file is empty; expected a list of inputs")
        parser.get_event()  # the start of the document
        event = parser.get_event()
        if isinstance(event, SequenceStartEvent):
            yield from self._list()
        elif isinstance(event, MappingStartEvent):
            yield from self._mapping(event)
        else:
            raise _ShapeError(_line(event), "expected a list of inputs, or generated_inputs: with a list below")
        parser.get_event()  # the end of the document
        if not parser.check_event(yaml.StreamEndEvent):
            raise _ShapeError(_line(parser.get_event()), "a second document begins here; expected one")

    def _list(self) -> Iterator[tuple[int, Any]]:
        parser = self._parser
        while not parser.check_event(SequenceEndEvent):
            line = _line(parser.peek_event())
            yield line, self._item(self._node(0))
        parser.get_event()

    def _mapping(self, start: Any) -> Iterator[tuple[int, Any]]:
        found: str | None = None
        keys = []
        while not self._parser.check_event(MappingEndEvent):
            node = self._node(0)
            key = self._item(node)
            keys.append(str(key))
            if key not in LIST_KEYS:
                self._node(0)
                continue
            if found:
                raise _ShapeError(_line(node.event), f"{key!r} beside {found!r}; expected one list of inputs")
            found = key
            event = self._parser.get_event()
            if not isinstance(event, SequenceStartEvent):
                raise _ShapeError(_line(event), f"{key}: expected a list")
            yield from self._list()
        self._parser.get_event()
        if not found:
            what = f"no 'generated_inputs' or 'inputs' here; it has {', '.join(keys) or 'no keys'}"
            raise _ShapeError(_line(start), what)

    def _node(self, depth: int) -> _Node:
        parser = self._parser
        event = parser.get_event()
        kind = type(event)
        if kind is AliasEvent:
            if event.anchor not in self._anchors:
                raise _ShapeError(_line(event), f"the alias *{event.anchor} names nothing above it")
            return self._anchors[event.anchor]
        if depth > MAX_DEPTH:
            raise _ShapeError(_line(event), f"nested deeper than {MAX_DEPTH} levels")
        items: list[Any] = []
        node = _Node(event, items)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if kind is not ScalarEvent:
            end = SequenceEndEvent if kind is SequenceStartEvent else MappingEndEvent
            while not parser.check_event(end):
                item = self._node(depth + 1)
                items.append(item)
                node.size += item.size
                if node.size > MAX_VALUES:
                    what = f"means more than {MAX_VALUES:,} values once its aliases are written out"
                    raise _ShapeError(_column(event), what)
            parser.get_event()
        return node

    def _item(self, node: _Node) -> Any:
        self._values.clear()
        return self._value(node, 0)

    def _value(self, node: _Node, depth: int) -> Any:
        event = node.event
        kind = type(event)
        if kind is ScalarEvent:
            return _scalar(event)
        if event.anchor is not None and id(node) in self._values:
            return self._values[id(node)]
        if depth > MAX_DEPTH:  # by aliases within aliases
            raise _ShapeError(_line(event), f"nested deeper than {MAX_DEPTH} levels")
        value: Any = [] if kind is SequenceStartEvent else {}
        if event.anchor is not None:
            self._values[id(node)] = value
        if kind is SequenceStartEvent:
            _expect_tag(event, "seq")
            value.extend([self._value(item, depth + 1) for item in node.items])
            return value
        _expect_tag(event, "map", "set")
        self._fill(value, node, depth + 1)
        return set(value) if event.tag == f"{CORE}set" else value

    def _fill(self, value: dict[Any, Any], node: _Node, depth: int) -> None:
        """Put the pairs of a mapping into the dict; its own go before those it merges."""
        merged: list[_Node] = []
        for key_node, value_node in zip(node.items[::2], node.items[1::2], strict=True):
            if _is_merge(key_node.event):
                merged += self._merged(value_node)
                continue
            key = self._value(key_node, depth)
            if isinstance(key, list | dict | set):
                raise _ShapeError(_column(key_node.event), "a key must be a text or a number")
            if key in value:
                raise _ShapeError(_column(key_node.event), f"the key {key!r} stands here a second time")
            value[key] = self._value(value_node, depth)
        for other in merged:
            for key, item in self._value(other, depth).items():
                value.setdefault(key, item)

    def _merged(self, node: _Node) -> list[_Node]:
        nodes = node.items if isinstance(node.event, SequenceStartEvent) else [node]
        for one in nodes:
            if not isinstance(one.event, MappingStartEvent):
                raise _ShapeError(_column(one.event), "<<: expected a mapping, or a list of mappings")
        return nodes


def _is_merge(event: Any) -> bool:
    return type(event) is ScalarEvent and event.value == "<<" and event.tag is None and event.implicit[0]


def _expect_tag(event: Any, *names: str) -> None:
    if event.tag not in (None, "!") and event.tag.removeprefix(CORE) not in names:
        raise _ShapeError(_column(event), unknown_tag(event.tag))


def _scalar(event: Any) -> Any:
    text = own(event.value, escapes=event.style == '"')
    tag = event.tag
    try:
        if tag is None:
            return plain_scalar(text) if event.implicit[0] else text
        return text if tag == "!" else tagged_scalar(tag, text)
    except ScalarError as error:
        raise _ShapeError(_column(event), str(error)) from None
