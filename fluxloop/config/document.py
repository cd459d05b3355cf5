"""A YAML file → plain data, with the line and column of every value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from fluxloop.config.convert import Path as KeyPath
from fluxloop.config.convert import shown
from fluxloop.exceptions import ConfigError, Problem
from fluxloop.inputs.yaml_problem import yaml_problem
from fluxloop.tracing.redaction import MASK
from fluxloop.tracing.secret_forms import tells_password
from fluxloop.tracing.secret_names import secrecy


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


def read_document(path: Path, *, needs: str = "runner: with a target") -> Document:
    """Read a configuration file.

    Args:
        path: the file.
        needs: what it must hold at least, for messages.

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        what = (
            "no such file; name another with --config, or make a project with fluxloop init;"
            " with --target and --inputs none is needed"
        )
        raise ConfigError([Problem(str(path), what)]) from None
    except OSError as error:
        raise ConfigError([Problem(str(path), str(error.strerror or error))]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([yaml_problem(path, error)]) from None
    except ValueError as error:  # a NUL, or half a character
        raise ConfigError([Problem(ascii(str(path)), f"cannot be a path: {error}")]) from None
    return parse_document(text, path, needs=needs)


def parse_document(text: str, path: Path, *, needs: str = "runner: with a target") -> Document:
    """Read the text of a configuration file, as `read_document` does."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise ConfigError([yaml_problem(path, error)]) from None
    except RecursionError:
        raise ConfigError([Problem(str(path), "nested too deeply")]) from None
    if node is None or (isinstance(node, ScalarNode) and _tag(node) == "!!null"):
        raise ConfigError([Problem(f"{path}:1:1", f"the file is empty; expected at least {needs}")])
    if not isinstance(node, MappingNode):
        where = f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        what = "a list" if isinstance(node, SequenceNode) else shown(node.value)
        raise ConfigError([Problem(where, f"expected a mapping with {needs.partition(' ')[0]}, got {what}")])
    reading = _Reading(path)
    try:
        data = reading.value(node, ())
    except YAMLError as error:
        raise ConfigError([yaml_problem(path, error)]) from None
    except RecursionError:
        raise ConfigError([Problem(str(path), "nested too deeply")]) from None
    if reading.problems:
        raise ConfigError(reading.problems)
    return Document(path=path, data=data, marks=reading.marks, key_marks=reading.key_marks)


MAX_DEPTH = 100
MAX_VALUES = 100_000
"""Values of one file, aliases written out; few lines of nested aliases can mean millions."""


def _tag(node: Any) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")


class _Reading:
    """Nodes → plain data. Not ruamel's round trip, whose own types of int and str would leak."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._constructor = YAML(typ="safe", pure=True).constructor
        self.marks: dict[KeyPath, tuple[int, int]] = {}
        self.key_marks: dict[KeyPath, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self._open: list[Any] = []

    def value(self, node: Any, path: KeyPath) -> Any:
        self.marks[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if len(path) > MAX_DEPTH:
            raise ConfigError([Problem(str(self._path), "nested too deeply")])
        if len(self.marks) > MAX_VALUES:
            raise ConfigError([Problem(str(self._path), f"more than {MAX_VALUES} values; aliases may multiply them")])
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if _tag(node) not in ("!!map", "!!seq"):
            self._problem(node, path, f"expected plain YAML, got the tag {_tag(node)}")
            return None
        if any(node is outer for outer in self._open):
            self._problem(node, path, "an alias stands inside what it names")
            return None
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                self._constructor.flatten_mapping(node)
                return self._mapping(node, path)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.pop()

    def _scalar(self, node: Any, path: KeyPath) -> Any:
        try:
            return self._constructor.construct_object(node)
        except (YAMLError, ValueError, LookupError):  # the last two for a date or a number that cannot be one
            is_secret = any(secrecy(str(part)) for part in path) or tells_password(node.value)
            value = MASK if is_secret else shown(node.value)
            what = f"{value}, which is no valid {_tag(node)}"
            self._problem(node, path, f"expected plain YAML, got {what}; a text goes in quotes")
            return None

    def _problem(self, node: Any, path: KeyPath, message: str) -> None:
        mark = node.start_mark
        name = ".".join(str(part) for part in path)
        self.problems.append(Problem(f"{self._path}:{mark.line + 1}:{mark.column + 1}", message, name))

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged = len(getattr(node, "merge", None) or ())  # these stand first, and what follows goes before them
        own: set[str] = set()
        for index, (key_node, value_node) in enumerate(node.value):
            if isinstance(key_node, MappingNode | SequenceNode):
                self._problem(key_node, path, "a key must be a text")
                continue
            key = str(key_node.value)
            if key in own:
                self._problem(key_node, (*path, key), "the key stands here a second time")
                continue
            if index >= merged:
                own.add(key)
            mark = key_node.start_mark
            self.key_marks[(*path, key)] = (mark.line + 1, mark.column + 1)
            result[key] = self.value(value_node, (*path, key))
        return result
