"""A YAML file as the C parser is to see it.

libyaml knows the characters of YAML 1.1. What 1.2 takes for characters like any other goes past it
under another name, and gets its own back in the values:

- U+0085, U+2028 and U+2029, which were ends of lines
- U+007F to U+009F, U+FEFF, U+FFFE and U+FFFF, which were refused
- `\\ud83d\\ude00` in double quotes: two escapes for one character, as JSON has them
"""

from __future__ import annotations

import re
from pathlib import Path

_MARK = "\U0010fffd"
"""Stands before a character that has another name. A character of nobody's; it has another name, too."""
_BASE = 0x100000
_BACKSLASH = _MARK + chr(_BASE + ord("\\"))
_ODD = re.compile(
    rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff{_MARK}]"
    r"|(?<!\\)((?:\\\\)*)\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|U(0010[fF]{3}[dD]))"
)
_ESCAPED = re.compile(f"{_BACKSLASH}u(....){_BACKSLASH}u(....)|{_BACKSLASH}U0010.{{4}}|{_MARK}(.)", re.DOTALL)
_NOT_ESCAPED = re.compile(f"()(){_MARK}(.)", re.DOTALL)
_CHUNK = 1 << 16
_ESCAPE = 12
"""Characters of the longest that is looked for."""


class ControlCharacterError(Exception):
    """A character is in the file that YAML refuses wherever it stands."""


class YamlText:
    """A stream of the file's text for the parser.

    Args:
        path: a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ControlCharacterError: from `read`.
        UnicodeDecodeError: from `read`.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            is_wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
        self._file = path.open(encoding="utf-16" if is_wide else "utf-8-sig", newline="")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int) -> str:
        """Return the next part of the text, however long; the parser keeps what it did not ask for."""
        text = self._file.read(_CHUNK)
        if "\\" in text[-_ESCAPE:]:  # which may go on in the next part
            text += self._file.readline()
        return _ODD.sub(_renamed, text)


def own(text: str, *, escapes: bool) -> str:
    """Return the text of a value with its own characters.

    Args:
        text: as the parser gives it.
        escapes: whether the value stands in double quotes, where a pair of escapes is a character.
    """
    if _MARK not in text:
        return text
    return (_ESCAPED if escapes else _NOT_ESCAPED).sub(_own, text)


def _renamed(found: re.Match[str]) -> str:
    before, high, low, mark = found.groups()
    if high:
        return f"{before}{_BACKSLASH}u{high}{_BACKSLASH}u{low}"
    if mark:
        return f"{before}{_BACKSLASH}U{mark}"
    if found[0] < " ":
        raise ControlCharacterError
    return _MARK + chr(_BASE + (ord(found[0]) & 0xFFFF))


def _own(found: re.Match[str]) -> str:
    high, low, name = found.groups()
    if high:
        return bytes.fromhex(high + low).decode("utf-16-be")
    return _MARK if name in (None, _MARK) else chr(ord(name) - _BASE)
