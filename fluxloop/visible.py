"""Text that a screen can be given, whoever wrote it."""

from __future__ import annotations

import codecs
import re
from typing import Any

# Of the characters one cannot see: controls, half characters, marks that turn the direction of writing, spaces of no
# width, and the tags in which texts are hidden. Joiners stay, because emoji and some scripts are written with them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return text with a visible sign for each character that is none, but for line ends and tabs.

    Example:
        >>> visible("\\x1b[31mred\\u202e")
        '␛[31mred⟨U+202E⟩'
    """
    return text if text.isprintable() else _UNSEEN.sub(_sign, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    """Return the same of a text that is to stand on one line, to its last character.

    Example:
        >>> visible_line("two\\nlines")
        'two␊lines'
    """
    return text if text.isprintable() else visible(text).replace("\n", "␊").replace("\t", "␉")


def one_line(text: str, width: int = 160) -> str:
    """Return the beginning of a text as one line without control characters, which could rewrite the terminal."""
    line = "".join(char if char.isprintable() else " " for char in text[: width * 4])
    line = " ".join(line.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def encoding_of(stream: Any) -> str:
    """Return how a stream writes characters, UTF-8 where it does not say."""
    encoding = str(getattr(stream, "encoding", None))
    try:
        codecs.lookup(encoding)
    except LookupError:
        return "utf-8"
    return encoding


def encodable(text: str, encoding: str) -> str:
    """Return text with a question mark for each character that an encoding does not have.

    Example:
        >>> encodable("café ✓", "latin-1")
        'café ?'
    """
    return text.encode(encoding, "replace").decode(encoding)


def _sign(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 0x20:
        return chr(0x2400 + number)
    return "␡" if number == 0x7F else f"⟨U+{number:04X}⟩"
