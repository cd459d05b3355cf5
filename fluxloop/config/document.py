"""A YAML file → plain data, with the line and column of every value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from fluxloop.config.convert import Path as KeyPath
from fluxloop.exceptions import ConfigError, Problem
from fluxloop.inputs.yaml_stream import yaml_problem


@frozen(kw_only=True)
class Document:
    """Plain data of a file, and where each value and unknown key stands in it."""

    path: Path
    data: dict[str, Any]
    marks: dict[KeyPath, tuple[int, int]] = field(repr=False)
    """Line and column, from 1, of the value at each path."""
    key_marks: dict[KeyPath, tuple[int, int]] = field(repr=False)

    def position(self, path: KeyPath, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of what is at the path, or of what is nearest above it."""
        if key and path in self.key_marks:
            return self.key_marks[path]
        while path not in self.marks and path:
            path = path[:-1]
        return self.marks.get(path, (1, 1))

    def where(self, path: KeyPath, *, key: bool = False) -> str:
        """Return the position as `file:line:column`."""
        line, column = self.position(path, key=key)
        return f"{self.path}:{line}:{column}"


def read_document(path: Path) -> Document:
    """Read a configuration file.

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds no mapping.
    """
    try:
        node = YAML(typ="safe", pure=True).compose(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        raise ConfigError([Problem(str(path), what)]) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([yaml_problem(path, error)]) from None
    if node is None:
        raise ConfigError([Problem(f"{path}:1:1", "the file is empty; expected at least runner: with a target")])
    if not isinstance(node, MappingNode):
        raise ConfigError([Problem(f"{path}:1:1", "expected a mapping with runner:, got a list or a text")])
    reading = _Reading(path)
    try:
        data = reading.value(node, ())
    except YAMLError as error:
        raise ConfigError([yaml_problem(path, error)]) from None
    except RecursionError:
        raise ConfigError([Problem(str(path), "an alias contains itself")]) from None
    if reading.problems:
        raise ConfigError(reading.problems)
    return Document(path=path, data=data, marks=reading.marks, key_marks=reading.key_marks)


class _Reading:
    """Nodes → plain data. Not ruamel's round trip, whose own types of int and str would leak."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._constructor = YAML(typ="safe", pure=True).constructor
        self.marks: dict[KeyPath, tuple[int, int]] = {}
        self.key_marks: dict[KeyPath, tuple[int, int]] = {}
        self.problems: list[Problem] = []

    def value(self, node: Any, path: KeyPath) -> Any:
        self.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, MappingNode):
            self._constructor.flatten_mapping(node)
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._constructor.construct_object(node)

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            here = f"{self._path}:{mark.line + 1}:{mark.column + 1}"
            if isinstance(key_node, MappingNode | SequenceNode):
                self.problems.append(Problem(here, "a key must be a text"))
                continue
            key = str(key_node.value)
            if key in result:
                name = ".".join(str(part) for part in (*path, key))
                self.problems.append(Problem(here, "the key stands here a second time", name))
                continue
            self.key_marks[(*path, key)] = (mark.line + 1, mark.column + 1)
            result[key] = self.value(value_node, (*path, key))
        return result
