"""Where a file stops being text."""

from __future__ import annotations

import re
from pathlib import Path

from fluxloop.exceptions import Problem

NOT_UTF8 = "not UTF-8 text; save the file as UTF-8"

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


def not_text(path: Path, *, control: bool = False) -> Problem:
    """Return where a file stops being UTF-8 text, or where it has a control character YAML refuses."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not_utf8(line):
                return Problem(f"{path}:{number}", NOT_UTF8)
            if control and (found := _CONTROL.search(line.decode())):
                what = f"the character {named(found[0])} must be written as an escape in double quotes"
                return Problem(f"{path}:{number}:{found.start() + 1}", f"{what}: {_escape(found[0])}")
    return Problem(str(path), NOT_UTF8)


def not_utf8(line: bytes) -> bool:
    """Tell whether the bytes are not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def named(character: str) -> str:
    """Return what a character is called that no screen shows."""
    return f"U+{ord(character):04X}"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
