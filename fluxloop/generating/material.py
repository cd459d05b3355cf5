"""What variations are made of: base inputs, and the parts of their texts that must stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from fluxloop.inputs.entry import case_from

TEXT_KEYS = (
    *("input", "input_text", "message", "query", "question", "prompt", "text", "content"),
    "user_message",
)
"""Where the text of an input that is a mapping is looked for, in this order."""


@frozen(kw_only=True)
class Source:
    """A base input."""

    index: int
    id: str
    input: Any
    """Any JSON value."""
    persona: str | None
    expected: Any
    metadata: Mapping[str, Any]
    origin: str
    """What it counts as in statistics: its own source, or itself."""
    text: str | None
    """What can be varied of it, or None."""
    key: str | None
    """Where the text stands in an input that is a mapping."""

    def with_text(self, text: str) -> Any:
        """Return the input with another text."""
        return text if self.key is None else {**self.input, self.key: text}


def source_from(entry: Any, index: int) -> Source:
    """Return the base input an entry describes, as a file of inputs would have it.

    Raises:
        EntryError: says what is wrong.
    """
    case = case_from(entry, index, {})
    metadata = {key: value for key, value in (case.metadata or {}).items() if key != "source_id"}
    source = Source(
        index=index,
        id=case.id,
        input=case.input,
        persona=case.persona,
        expected=case.expected,
        metadata=metadata,
        origin=case.source_id or case.id,
        text=None,
        key=None,
    )
    if isinstance(case.input, str):
        return evolve(source, text=case.input)
    if isinstance(case.input, Mapping):
        for key in TEXT_KEYS:
            if isinstance(text := case.input.get(key), str):
                return evolve(source, text=text, key=key)
    return source


def as_written(source: Source) -> dict[str, Any]:
    """Return the entry of a base input itself."""
    entry: dict[str, Any] = {"id": source.id, "input": source.input, "persona": source.persona}
    return {**entry, "source_id": source.origin, **_kept(source)}


def derived(
    source: Source, *, id: str, text: str, strategy: str, persona: str | None, model: str | None, same: bool = True
) -> dict[str, Any]:
    """Return the entry of a variation.

    Args:
        source: what it comes from.
        id: its own.
        text: its text.
        strategy: how it was made.
        persona: who asks.
        model: who wrote it, if it was one.
        same: whether it asks for the same, so that what is expected still is.
    """
    entry: dict[str, Any] = {"id": id, "input": source.with_text(text), "persona": persona, "source_id": source.origin}
    kept = _kept(source, without=("strategy", "model")) if same else {}
    return {**entry, "strategy": strategy, "model": model, **kept}


def _kept(source: Source, without: Sequence[str] = ()) -> dict[str, Any]:
    kept: dict[str, Any] = {} if source.expected is None else {"expected": source.expected}
    metadata = {key: value for key, value in source.metadata.items() if key not in without}
    return {**kept, "metadata": metadata} if metadata else kept


# Each alternative ends at the next character that could begin it again: reading stays linear.
_SPANS = re.compile(r'```.*?```|`[^`\n]*`|"[^"\n]*"|“[^“”\n]*”|\$?\{[^{}\n]*\}|<[^<>\n]*>', re.S)
_TOKENS = re.compile(r"\S+")
_ODD = re.compile(r"[\d_/\\@#{}<>`|=]|\w\.\w")


def protected(text: str) -> list[tuple[int, int]]:
    """Return where a text must stay as it is: code, links, addresses, numbers, names with signs, placeholders, quotes.

    A variation that changed these would ask for something else.

    Example:
        >>> protected('Is "x" at https://a.b?')
        [(3, 6), (10, 22)]
    """
    spans = [match.span() for match in _SPANS.finditer(text)]
    spans += [match.span() for match in _TOKENS.finditer(text) if _ODD.search(match[0])]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the text piece by piece, each with whether it may be changed."""
    end = 0
    for start, stop in protected(text):
        if start > end:
            yield text[end:start], True
        yield text[start:stop], False
        end = stop
    if end < len(text):
        yield text[end:], True
