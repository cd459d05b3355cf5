"""What agents said, in Markdown: shown to the last character, interpreted never.

Markdown is read differently by GitHub, by editors and by other programs. What holds in all of them is that nothing
inside a fence or a code span means anything, so every text that is not our own stands in one of the two.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fluxloop.visible import visible

_RUNS = {mark: re.compile(f"{mark}{{3,}}") for mark in "`~"}
_TICKS = re.compile("`+")
_MEANS_SOMETHING = re.compile(r"(?<!\w)_|_(?!\w)|:(?=//|\w+:)|[\\`*{}\[\]<>#|~&$@^=+!]")


def line(text: str, width: int) -> str:
    """Return the beginning of a text as one line of visible characters."""
    shown = " ".join(visible(text[: width * 4]).split())
    return f"{shown[: width - 1]}…" if len(shown) > width or len(text) > width * 4 else shown


def code(text: str, width: int = 60) -> str:
    """Return the beginning of a text as a code span, outside tables.

    Example:
        >>> code("a `b` <b>")
        '``a `b` <b>``'
    """
    shown = line(text, width)
    if not shown:
        return "*empty*"
    ticks = "`" * (1 + max(map(len, _TICKS.findall(shown)), default=0))
    space = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{ticks}{space}{shown}{space}{ticks}"


def cell(text: str, width: int = 60) -> str:
    """Return the beginning of a text as a code span inside a table.

    Programs differ about a bar behind a backslash, so that a space comes between the two.
    """
    return code(text, width).replace("\\|", "\\ |").replace("|", "\\|")


def plain(text: str, width: int = 1000) -> str:
    """Return a text of our own, which may quote others, as running text of one line.

    Example:
        >>> plain("put @fluxloop.tool() on it")
        'put \\\\@fluxloop.tool() on it'
    """
    return _MEANS_SOMETHING.sub(r"\\\g<0>", line(text, width))


def fenced(text: str, language: str = "text") -> str:
    """Return a text whole, between fences that nothing inside it closes."""
    shown = visible(text)
    fence = "```" if "```" not in shown else min((_fence(mark, shown) for mark in _RUNS), key=len)
    return f"{fence}{language}\n{shown}\n{fence}\n"


def _fence(mark: str, text: str) -> str:
    return mark * max(3, 1 + max(map(len, _RUNS[mark].findall(text)), default=0))


def as_text(value: Any) -> str:
    """Return a captured value as text: texts as they are, everything else as JSON in one line."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def block(value: Any, limit: int, whole: str) -> str:
    """Return a captured value as a block of its own, cut when it is long.

    Args:
        value: plain data.
        limit: how many characters are shown.
        whole: Markdown that says where all of it is.
    """
    if value is None:
        return "*null*\n"
    if value == "":
        return "*empty*\n"
    if isinstance(value, str):
        text, language = value, "text"
    else:
        text, language = msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), "json"
    shown = fenced(text[:limit], language)
    if len(text) > limit:
        shown += f"\n*The first {limit:,} of {len(text):,} characters; all of it is in {whole}.*\n"
    return shown
