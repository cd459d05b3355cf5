"""What is wrong with a line of JSON, with the character it is about."""

from __future__ import annotations

import re

from fluxloop.exceptions import Problem
from fluxloop.inputs.text import NOT_UTF8, named, not_utf8

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
_CONTROL = re.compile(r"[\x00-\x1f]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def json_problem(where: str, line: bytes, error: Exception) -> Problem:
    """Return what is wrong with a line.

    Args:
        where: file and line.
        line: what stands there.
        error: what the decoder says of it.
    """
    if not_utf8(line):
        return Problem(where, NOT_UTF8)
    text = line.decode()
    for string in _STRING.finditer(text):
        found = next((escape for escape in _ESCAPE.finditer(string[0]) if escape["half"]), None)
        if found is not None:
            what = f"{found[0]} is half a character; write both halves, or \\{found[0]} for a text that reads so"
            return Problem(f"{where}:{string.start() + found.start() + 1}", what)
        if (found := _CONTROL.search(string[0].rstrip("\r\n"))) is not None:
            column = string.start() + found.start() + 1
            what = f"the character {named(found[0])} must be written as an escape: \\u{ord(found[0]):04x}"
            return Problem(f"{where}:{column}", what)
    what = str(error)
    if "out of range" in what and (number := _too_large(text)):
        return Problem(f"{where}:{number.start() + 1}", f"{number[0][:80]} is more than a number can be; write a text")
    if (found := _CONTROL.search(text.strip())) is not None and found[0] != "\t":
        what += f", the character {named(found[0])}"
    return Problem(where, f"not valid JSON: {what}{_hint(text.strip())}")


def _too_large(text: str) -> re.Match[str] | None:
    bare = _STRING.sub(lambda string: " " * len(string[0]), text)
    return next((number for number in _NUMBER.finditer(bare) if abs(float(number[0])) == float("inf")), None)


def _hint(text: str) -> str:
    """What to do where the line is one of a JSON array."""
    if text == "[" or text.endswith(","):
        return "; expected one value a line, with no comma behind it and no list around all"
    return ""
