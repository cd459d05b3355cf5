"""The resolved configuration as YAML, each value with where it came from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import attrs
from ruamel.yaml import YAML

from fluxloop.config.convert import Path as KeyPath
from fluxloop.config.convert import is_section
from fluxloop.config.load import LoadedConfig
from fluxloop.config.model import ExperimentConfig
from fluxloop.config.snapshot import redaction_for, told

DEFAULT = "default"


def show(loaded: LoadedConfig, *, caller: str = "caller") -> str:
    """Return the configuration as YAML, with the source of each value as a comment.

    Secrets are masked and references to the environment stay references. Loaded again, the text
    gives the same configuration, but for what is masked.

    Args:
        loaded: what to show.
        caller: what to call the source of values the caller gave beside file and environment.
    """
    redaction = redaction_for(loaded.config)
    lines = _section(loaded, (), told(loaded, loaded.config, redaction), ExperimentConfig, caller)
    width = max((len(text) for text, _ in lines if len(text) <= 60), default=0)
    head = f"# Paths are relative to {printable(redaction.text(str(loaded.root)))}\n"
    return head + "".join(
        f"{text:{width}}  # {printable(redaction.text(source))}\n" if source else f"{text}\n" for text, source in lines
    )


def source_of(loaded: LoadedConfig, path: KeyPath, *, caller: str = "caller") -> str:
    """Return where a value came from: `default`, `file:line`, `environment variable NAME`, `--set` or the caller."""
    place: Any = loaded.given
    for step in path:
        if place is not None and not isinstance(place, Mapping | list):
            break  # a shorter way to write a mapping
        held: Any = dict(enumerate(place)) if isinstance(place, list) else place
        if held is None or step not in held:
            return DEFAULT
        place = held[step]
    for length in range(len(path), 0, -1):
        if source := loaded.applied.get(path[:length]):
            return _short(source, caller)
    if loaded.document is None:
        return "configuration"
    return f"{loaded.document.path}:{loaded.document.position(path)[0]}"


def _short(source: str, caller: str) -> str:
    """A source without the value, which stands beside it."""
    if source.startswith("environment variable "):
        return source
    return "--set" if source.startswith("--set ") else caller


def _section(
    loaded: LoadedConfig, path: KeyPath, values: Mapping[str, Any], kind: type[Any], caller: str
) -> list[tuple[str, str]]:
    """The lines of a section's keys, each of which tells its own source."""
    indent = "  " * len(path)
    lines: list[tuple[str, str]] = []
    for field in attrs.fields(kind):
        below, value = (*path, field.name), values[field.name]
        if is_section(field):
            lines.append((f"{indent}{field.name}:", ""))
            lines += _section(loaded, below, value, type(field.default), caller)
        else:
            lines += _lines(loaded, below, value, indent, caller)
    return lines


def _lines(loaded: LoadedConfig, path: KeyPath, value: Any, indent: str, caller: str) -> list[tuple[str, str]]:
    """The lines of a key and what is below it, each with its source or, where the line above has told it, none."""
    source = source_of(loaded, path, caller=caller)
    is_item = isinstance(path[-1], int)
    start = indent + ("- " if is_item else f"{_scalar(str(path[-1]))}: ")
    if not (isinstance(value, dict | list) and value):
        return [(start + _scalar(value), source)]
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    below = [line for step, item in steps for line in _lines(loaded, (*path, step), item, f"{indent}  ", caller)]
    if source == DEFAULT or _is_whole(loaded, path):
        below = [(text, "") for text, _ in below]
    else:
        source = ""
    if is_item:  # what is below begins behind the dash
        (first, its_source), *rest = below
        return [(start + first[len(start) :], source or its_source), *rest]
    return [(start.rstrip(), source), *below]


def _is_whole(loaded: LoadedConfig, path: KeyPath) -> bool:
    """Tell whether all below a path came with one override."""
    is_given = any(path[:length] in loaded.applied for length in range(1, len(path) + 1))
    return is_given and not any(len(place) > len(path) and place[: len(path)] == path for place in loaded.applied)


def _scalar(value: Any) -> str:
    """A value in one line of YAML."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.allow_unicode = isinstance(value, str) and value.isprintable()
    yaml.width = 1 << 30
    text = io.BytesIO()
    yaml.dump([value], text)
    return text.getvalue().decode().strip()[1:-1]


def printable(text: str) -> str:
    """Return text that cannot rewrite a terminal, each control character as a sign for it."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
