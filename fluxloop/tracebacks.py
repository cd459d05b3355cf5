"""What the traceback of a record tells: where it happened, and which frames are the user's own."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

from attrs import frozen

from fluxloop.records import RunError

# The frames of an exception group, as of a cause, stand behind a bar.
_BAR = r"(?: *\| )?"
_FRAME = re.compile(rf'{_BAR}  File "(.+)", line (\d+)')
_CODE = re.compile(rf"{_BAR}    ")
_INSTALLED = tuple(path for key in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(key)))
# By the names of folders: an experiment is often read on another machine than the one it ran on.
_LIBRARY = re.compile(r"[/\\](?:site-packages|dist-packages|lib[/\\]python3\.\d+)[/\\]|\\Lib\\|^<frozen")
_BOXED = re.compile(r" {4,}(?:\| |\+---)")
_OTHERS = re.compile(r" ?\(and \d+ more\)$")


def place(error: RunError) -> str | None:
    """Return `file:line` of the innermost frame outside installed packages, else of the innermost.

    Of an exception group, the frames are those that led to the leaf that the error is described by.
    """
    frames = [(frame[1], frame[2]) for line in _calls(error) if (frame := _FRAME.match(line))]
    if not frames:
        return None
    own = [frame for frame in frames if not frame[0].startswith((*_INSTALLED, "<frozen"))]
    file, line = (own or frames)[-1]
    return f"{file}:{line}"


@frozen(kw_only=True)
class Frames:
    """The frames of a traceback that are outside installed packages."""

    own: str
    """As Python prints them, in the order of the calls."""
    others: int
    """How many frames are not the user's own."""


def frames_of(error: RunError) -> Frames:
    """Tell the user's own frames from the others; of an exception group, those that led to its leaf."""
    lines = _calls(error)
    found = [(number, frame[1]) for number, line in enumerate(lines) if (frame := _FRAME.match(line))]
    own: list[str] = []
    others = 0
    for (start, file), (end, _) in pairwise([*found, (len(lines), "")]):
        if _LIBRARY.search(file):
            others += 1
        else:
            own += [lines[start], *takewhile(_CODE.match, lines[start + 1 : end])]
    return Frames(own="\n".join(own), others=others)


def _calls(error: RunError) -> list[str]:
    """The lines that tell the calls, without the message, which may hold what looks like a frame."""
    text = error.traceback or ""
    before, found, after = _without_message(text, error.type, error.message)
    if found and "\n  |" not in after:  # else it is what a group comes from
        return before.split("\n")
    lines = text.splitlines(keepends=True)  # as textwrap splits, by which Python puts the bars
    if lines and _BOXED.match(lines[-1]):
        for groups, leaf in _leaves(lines, 2):
            if any(line == error.type or line.startswith(f"{error.type}:") for line in leaf.split("\n")):
                before, found, _ = _without_message(f"\n{leaf}", error.type, error.message)
                if not found:  # else the message itself ends like that
                    before, found, _ = _without_message(f"\n{leaf}", error.type, _OTHERS.sub("", error.message))
                return f"{groups}{before if found else leaf}".split("\n")
    return ((text.rpartition(error.message)[0] if error.message else "") or text).split("\n")


def _without_message(text: str, type: str, message: str) -> tuple[str, str, str]:
    return text.rpartition(f"\n{type}: {message}\n" if message else f"\n{type}\n")


def _leaves(lines: Sequence[str], margin: int) -> Iterator[tuple[str, str]]:
    """Yield what a traceback tells of each leaf of a group: the groups around it, and the leaf itself.

    Args:
        lines: of one exception, with what it comes from, the last of them its own.
        margin: how many blanks stand before the bar.
    """
    blanks = " " * margin
    first = f"{blanks}+-+---------------- "  # and the number of the first member
    own = max((number for number, line in enumerate(lines) if line.startswith(f"{blanks}|")), default=-1)
    bars = (f"{blanks}| ", f"{blanks}+ ")
    head = "".join(line[margin + 2 :] if line.startswith(bars) else line for line in lines[: own + 1])
    begun = own + 1
    if begun == len(lines) or not lines[begun].startswith(first):  # what is boxed before is a cause
        yield "", head
        return
    begins = [n for n in range(begun + 1, len(lines)) if lines[n].startswith(f"{blanks}  +---------------- ")]
    for start, end in pairwise([begun, *begins, len(lines)]):
        for groups, leaf in _leaves(lines[start + 1 : end], margin + 2):
            yield head + groups, leaf
