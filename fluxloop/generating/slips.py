"""Slips of typing: a key beside the right one, a letter lost, doubled, or before its turn."""

from __future__ import annotations

import re
import unicodedata
from functools import partial
from math import comb

from fluxloop.generating.material import pieces
from fluxloop.generating.spaces import Space, combination

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))  # with how far each is to the right
_REACH = 1.3
"""Keys are beside each other up to this distance, in widths of a key."""


def _neighbours() -> dict[str, str]:
    places = {
        letter: (column + shift, row) for row, (keys, shift) in enumerate(_ROWS) for column, letter in enumerate(keys)
    }
    return {
        one: "".join(
            other for other, (x2, y2) in places.items() if other != one and (x1 - x2) ** 2 + (y1 - y2) ** 2 <= _REACH**2
        )
        for one, (x1, y1) in places.items()
    }


NEIGHBOURS = _neighbours()
"""The keys beside each letter's on a QWERTY keyboard."""

_MOST = max(map(len, NEIGHBOURS.values()))
_KINDS = 3 + _MOST
_WORDS = re.compile(r"[^\W\d_]{2,}")
_LETTERS_A_SLIP = 6
"""A text has one slip for so many letters at most, and may have one in any case."""
_MOST_SLIPS = 3

Edit = tuple[int, int, str]
"""From, to, and what stands there instead."""


def slips(text: str) -> list[Space]:
    """Return the variations of a text with one slip, with two, and with three, as far as it has letters for them.

    Letters of alphabets that have capitals, and of the Hebrew and Arabic ones, can slip; other scripts are
    not typed letter by letter. What `protected` names stays as it is.
    """
    letters = _letters(text)
    most = min(_MOST_SLIPS, max(1, len(letters) // _LETTERS_A_SLIP))
    return [
        Space(comb(len(letters), slips) * _KINDS**slips, partial(_slipped, text, letters, slips))
        for slips in range(1, most + 1)
    ]


def _letters(text: str) -> list[int]:
    found, start = [], 0
    for piece, free in pieces(text):
        if free:
            for word in _WORDS.finditer(piece):
                places = range(start + word.start(), start + word.end())
                found += [place for place in places if _is_typed(text[place]) and not _is_marked(text, place)]
        start += len(piece)
    return found


def _is_typed(letter: str) -> bool:
    return letter.lower() != letter.upper() or "\u05d0" <= letter <= "\u05ea" or "\u0621" <= letter <= "\u064a"


def _is_marked(text: str, place: int) -> bool:
    """Tell whether an accent of its own follows, which would land on another letter."""
    return place + 1 < len(text) and unicodedata.category(text[place + 1])[0] in "MC"


def _slipped(text: str, letters: list[int], count: int, index: int) -> str | None:
    index, *kinds = _kinds(index, count)
    parts, end = [], -1
    for which, kind in zip(combination(index, len(letters), count), kinds, strict=True):
        edit = _edit(text, letters, which, kind)
        if edit is None or edit[0] <= end:  # two slips at one place are hardly one's own
            return None
        parts += [text[max(end, 0) : edit[0]], edit[2]]
        end = edit[1]
    return "".join([*parts, text[end:]])


def _kinds(index: int, count: int) -> list[int]:
    """What is left of the index, and a kind of slip for each of so many."""
    kinds = []
    for _ in range(count):
        index, kind = divmod(index, _KINDS)
        kinds.append(kind)
    return [index, *kinds]


def _edit(text: str, letters: list[int], which: int, kind: int) -> Edit | None:
    place = letters[which]
    letter = text[place]
    after = letters[which + 1] if which + 1 < len(letters) else None
    if kind == 0:
        return (place, place + 1, "")
    if kind == 1:
        return (place, place + 1, letter + letter.lower())
    if kind == 2:
        if after != place + 1 or text[after].lower() == letter.lower():
            return None
        return (place, place + 2, _cased(text[after], letter) + _cased(letter, text[after]))
    beside = NEIGHBOURS.get(letter.lower(), "")
    return (place, place + 1, _cased(beside[kind - 3], letter)) if kind - 3 < len(beside) else None


def _cased(letter: str, like: str) -> str:
    """The letter, as a capital where the other is one: Shift is held by place."""
    return letter.upper() if like.isupper() else letter.lower()
