"""One entry of an input file → a case."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from fluxloop.inputs.readers import Row
from fluxloop.records import Case
from fluxloop.tracing.redaction import without_secrets

FIELDS = ("input", "id", "persona", "expected", "source_id", "metadata")


class EntryError(ValueError):
    """An entry is not as it should be; the reader knows the file and the line."""


def case_from(entry: Any, index: int, names: Mapping[str, str]) -> Case:
    """Return the case an entry describes.

    Args:
        entry: a text, or a mapping with `input` and optionally `id`, `persona`, `expected`,
            `source_id` and `metadata`; its other keys are kept in the metadata.
        index: its position, from 0; an entry without id is called `input_001` and so on by it.
        names: which of the entry's keys to take for one of these, as `{"input": "question"}`.

    Raises:
        EntryError: says what is wrong and what to do.
    """
    if isinstance(entry, str):
        return Case(index, _default_id(index), entry)
    if type(entry) is dict:  # told apart first: a check against Mapping costs more than all the rest
        rest = entry.copy()
    elif isinstance(entry, Row):
        rest = _without_empty_cells(entry, names)
    elif isinstance(entry, Mapping):
        rest = dict(entry)
    else:
        hint = "" if isinstance(entry, _JSON) else '; give {"input": …} with it'
        raise EntryError(f"expected a text or a mapping with 'input', got {_kind(entry)}{hint}")
    if names:
        rest = _renamed(entry, rest, names)
    take = rest.pop
    value = take("input", _ABSENT)
    if value is _ABSENT:
        raise EntryError(_without_input(entry, names))
    id = take("id", None)
    persona = take("persona", None)
    expected = take("expected", None)
    source = take("source_id", None)
    metadata = take("metadata", None)
    if persona is not None and type(persona) is not str:
        raise EntryError(f"persona: expected a text, got {_kind(persona)}")
    if rest or metadata or source is not None:
        metadata = _metadata(rest, metadata, source)
    return Case(index, _default_id(index) if id is None else _id(id, "id"), value, persona, expected, metadata or None)


_ABSENT = object()
_JSON = (bool, int, float, list, type(None))


def _renamed(entry: Mapping[Any, Any], rest: dict[Any, Any], names: Mapping[str, str]) -> dict[Any, Any]:
    """Put each field's value from the key that is to be taken for it."""
    taken = {}
    for field, key in names.items():
        if key not in entry:
            raise EntryError(f"no {key!r}, which is to be taken as {field}; it has {_listed(entry)}")
        if key in rest:
            taken[field] = rest[key]
    left = {key: value for key, value in rest.items() if key not in names.values()}
    return {**left, **taken}


def _without_empty_cells(row: Row, names: Mapping[str, str]) -> dict[Any, Any]:
    input_key = names.get("input", "input")
    return {key: cell for key, cell in row.items() if not row.is_empty(cell) or (key == input_key and cell is not None)}


def _metadata(rest: dict[Any, Any], metadata: Any, source: Any) -> dict[str, Any]:
    if metadata is not None and not isinstance(metadata, Mapping):
        raise EntryError(f"metadata: expected a mapping, got {_kind(metadata)}")
    merged = {**rest, **(metadata or {})}
    if source is not None:
        merged["source_id"] = _id(source, "source_id")
    return merged


def _without_input(entry: Mapping[Any, Any], names: Mapping[str, str]) -> str:
    if (key := names.get("input", "input")) in entry:
        return f"its {key!r} is missing; fill the cell, or leave the row out"
    columns = [str(key) for key in entry]
    others = [c for c in columns if c not in FIELDS]
    likely = next((c for c in others if c.lower() in _LIKELY), others[0] if others else None)
    hint = f"; name the one to use with --map {shlex.quote(f'input={likely}')}" if likely else ""
    return f"no 'input'; it has {_listed(entry)}{hint}"


_LIKELY = ("input", "question", "query", "prompt", "message", "text", "content", "user_message", "inputs")


def _listed(entry: Mapping[Any, Any]) -> str:
    return ", ".join(repr(str(key)) for key in entry) or "no keys"


def _default_id(index: int) -> str:
    return f"input_{index + 1:03d}"


def _id(value: Any, field: str) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    raise EntryError(f"{field}: expected a text or an integer, got {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {type(None): "nothing", dict: "a mapping", list: "a list"}
    text = names.get(type(value)) or without_secrets(repr(value))  # before it is cut
    return text if len(text) <= 80 else text[:79] + "…"
