"""Values with placeholders in them, filled for each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fluxloop.tracing.capture import capture
from fluxloop.tracing.context import Run
from fluxloop.tracing.copies import fresh, fresh_data


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of `template` with `{name}` replaced, for the names given.

    A text that is just one placeholder becomes the value itself, of whatever type; a placeholder
    within a longer text becomes text, JSON for what is not text. Other braces stay as they are.
    Of the template's own objects, data are copied; others, such as a client, are passed as they are.

    Example:
        >>> fill({"messages": [{"role": "user", "content": "{input}"}]}, {"input": "hi"})
        {'messages': [{'role': 'user', 'content': 'hi'}]}
    """
    kind = type(template)
    if kind is dict:
        return {key: fill(item, values) for key, item in template.items()}
    if kind is list or kind is tuple:
        return [fill(item, values) for item in template]
    if not isinstance(template, str):
        return fresh_data(template)
    if "{" not in template:
        return template
    for name, value in values.items():
        placeholder = "{" + name + "}"
        if template == placeholder:
            return fresh(value)
    return _fill_text(template, values)


def _fill_text(template: str, values: Mapping[str, Any]) -> str:
    parts = [template]
    for name, value in values.items():
        # Only the template's own text is searched: a value may hold braces of its own.
        text = value if isinstance(value, str) else msgspec.json.encode(capture(value)).decode()
        split: list[str] = []
        for index, part in enumerate(parts):
            if index % 2:
                split.append(part)
            else:
                split.extend(_interleave(part.split("{" + name + "}"), text))
        parts = split
    return "".join(parts)


def _interleave(pieces: list[str], value: str) -> list[str]:
    result = [pieces[0]]
    for piece in pieces[1:]:
        result += [value, piece]
    return result


def mentions(template: Any, name: str) -> bool:
    """Tell whether `{name}` occurs anywhere in the template."""
    if isinstance(template, dict):
        return any(mentions(item, name) for item in template.values())
    if isinstance(template, list | tuple):
        return any(mentions(item, name) for item in template)
    return isinstance(template, str) and "{" + name + "}" in template


def shaped(template: Any, value: Any, run: Run | None) -> Any:
    """Return what is passed for an input: the template filled with it, or a copy of it without one.

    Args:
        template: `runner.input_template`.
        value: the input.
        run: gives the id for `{run_id}`; None where nothing runs yet, and nothing is copied.
    """
    if template is None:
        return value if run is None else fresh(value)
    values = {"input": value}
    if run is not None and mentions(template, "run_id"):
        values["run_id"] = run.run_id
    return fill(template, values)


def pick(value: Any, path: str) -> Any:
    """Follow a path such as `messages.-1.content` through keys, positions and attributes.

    Raises:
        LookupError: a part of the path is not there; says which, and what is.
    """
    parts = path.split(".")
    for depth, part in enumerate(parts):
        try:
            value = _step(value, part)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError):
            done = ".".join(parts[:depth]) or "the output"
            raise LookupError(
                f"runner.output_path: {path}: no {part!r} in {done}, which has {_contents(value)}"
            ) from None
    return value


def _step(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value[part]
    if part.lstrip("-").isdigit():
        return value[int(part)]
    return getattr(value, part)


def _contents(value: Any) -> str:
    if isinstance(value, Mapping):
        return "the keys " + ", ".join(str(key) for key in list(value)[:12]) if value else "no keys"
    if isinstance(value, list | tuple):
        return f"{len(value)} items"
    return f"the type {type(value).__name__}"
