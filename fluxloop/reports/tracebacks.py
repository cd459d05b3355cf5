"""Which frames of a traceback are the user's own."""

from __future__ import annotations

import re
from itertools import pairwise, takewhile

from attrs import frozen

_FRAME = re.compile(r'(?:  \| )?  File "(.+)", line \d+')
# By the names of folders: an experiment is often read on another machine than the one it ran on.
_LIBRARY = re.compile(r"[/\\](?:site-packages|dist-packages|lib[/\\]python3\.\d+)[/\\]|\\Lib\\|^<frozen")


@frozen(kw_only=True)
class Frames:
    """The frames of a traceback that are outside installed packages."""

    own: str
    """As Python prints them, in the order of the calls."""
    others: int
    """How many frames are not the user's own."""


def frames_of(traceback: str, message: str = "") -> Frames:
    """Tell the user's own frames from the others.

    Args:
        traceback: as Python prints it.
        message: what ends it; it is left out, because a message may hold what looks like a frame.
    """
    text = (traceback.rpartition(message)[0] or traceback) if message else traceback
    lines = text.split("\n")
    found = [(number, frame[1]) for number, line in enumerate(lines) if (frame := _FRAME.match(line))]
    own: list[str] = []
    others = 0
    for (start, file), (end, _) in pairwise([*found, (len(lines), "")]):
        if _LIBRARY.search(file):
            others += 1
        else:
            own += [lines[start], *takewhile(_is_of_a_frame, lines[start + 1 : end])]
    return Frames(own="\n".join(own), others=others)


def _is_of_a_frame(line: str) -> bool:
    return line.startswith(("    ", "  |     "))
