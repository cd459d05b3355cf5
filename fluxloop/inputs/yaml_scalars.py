"""Texts of YAML → values, by the core schema of YAML 1.2.

What that schema does not know is text as it is written: `yes`, `1_000`, `12:30:45`, `2024-01-02`.
"""

from __future__ import annotations

import base64
import re
from typing import Any

CORE = "tag:yaml.org,2002:"
"""What tags that are written `!!int` begin with."""

_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAY_BE_OTHER = frozenset("-+.0123456789~nNtTfF")
"""Where a value begins that is no text."""
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "-", "+") for word in ("inf", "Inf", "INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class ScalarError(ValueError):
    """A text is not what its form or its tag says; the message says what to do."""


def plain_scalar(text: str) -> Any:
    """Return the value of a text without quotes and without a tag.

    Raises:
        ScalarError: it is a number that Python cannot hold.
    """
    if text and text[0] not in _MAY_BE_OTHER:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return _int(text, 10)
    if _BASED.fullmatch(text):
        return _int(text, 0)
    return _float(text) if _FLOAT.fullmatch(text) else text


def tagged_scalar(tag: str, text: str) -> Any:
    """Return the value of a text with a tag.

    Raises:
        ScalarError: the tag is none of the core schema, or the text is not what it says.
    """
    if tag == f"{CORE}str":
        return text
    if tag == f"{CORE}binary":
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except ValueError:
            raise ScalarError("!!binary: expected Base64") from None
    expected = _TAGS.get(tag)
    if expected is None:
        raise ScalarError(unknown_tag(tag))
    value = plain_scalar(text)
    if expected is float and type(value) is int:
        return _float(text)
    if type(value) is not expected:
        raise ScalarError(f"{shown_tag(tag)}: got {text!r}, which is none")
    return value


def unknown_tag(tag: str) -> str:
    """Say that a tag cannot be used here."""
    return f"the tag {shown_tag(tag)} is not known here; leave it out, or put the text in quotes"


def shown_tag(tag: str) -> str:
    """Return the tag as it is written."""
    return f"!!{tag.removeprefix(CORE)}" if tag.startswith(CORE) else tag


_TAGS: dict[str, type] = {
    f"{CORE}{name}": kind for name, kind in {"int": int, "float": float, "bool": bool, "null": type(None)}.items()
}


def _int(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:  # of more digits than Python reads
        raise ScalarError(f"a number of {len(text)} digits is too long; put it in quotes, as a text") from None


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ScalarError(f"{text[:80]} is more than a number can be; write .inf, or put it in quotes, as a text")
    return value
