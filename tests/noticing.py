"""What reaches the screen of an experiment that is run from Python."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Screen(io.StringIO):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines += [line.removeprefix("[WARN] ") for line in text.splitlines() if line.startswith("[WARN] ")]
        return super().write(text)


@contextmanager
def noticed(match: str = "") -> Iterator[list[str]]:
    """The notices shown while it lasts, one of which matches."""
    lines: list[str] = []
    before, sys.stderr = sys.stderr, _Screen(lines)
    try:
        yield lines
    finally:
        sys.stderr = before
    assert any(re.search(match, line) for line in lines), lines
