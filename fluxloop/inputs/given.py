"""Inputs as a program gives them → a list of entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fluxloop.arguments import described
from fluxloop.exceptions import InputError, Problem
from fluxloop.inputs.frames import is_frame, rows_of
from fluxloop.records import Case


def listed(source: Any) -> list[Any]:
    """Return the entries; those of a data frame are its rows, those of an array its items.

    Raises:
        InputError: it is no list of entries; says what to give.
    """
    if is_frame(source):
        return rows_of(source)
    if type(source).__module__ == "numpy" and hasattr(source, "tolist"):
        source = source.tolist()
    if (way_out := _way_out(source)) is not None:
        raise InputError([Problem("inputs", f"expected a list of entries, got {described(source)}; {way_out}")])
    return list(source)


def _way_out(source: Any) -> str | None:
    """What to give in the place of what is no list of entries, though Python may go through it."""
    kind = type(source)
    if isinstance(source, str):
        return f"for one input, give [{described(source) if len(source) < 80 else '…'}]"
    if isinstance(source, bytes | bytearray | memoryview):
        return "decode it, and give a list"
    if isinstance(source, Mapping):
        below = next((key for key in ("inputs", "generated_inputs") if isinstance(source.get(key), list)), None)
        return "for one input, give [{…}]" if below is None else f"give what is below {below!r}"
    if isinstance(source, Case):
        return "for one input, give it in a list"
    if isinstance(source, set | frozenset):
        return "it has no order, by which inputs are numbered: give a list, as sorted(…)"
    if hasattr(kind, "readline"):
        return "give the path of a YAML, JSONL or CSV file, or a list"
    if isinstance(source, type):
        return "give a list of texts, or of mappings with 'input'"
    if hasattr(kind, "__pydantic_fields__") or not isinstance(source, Iterable):
        return "give a list of texts, or of mappings with 'input'"
    return None
