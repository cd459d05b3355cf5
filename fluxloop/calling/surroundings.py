"""Where the agent finds itself: what it can import, and the directory it is in."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def importable(places: Sequence[Path]) -> Iterator[None]:
    """Put folders first on the import path, and take them off again."""
    added = [str(place) for place in places if str(place) not in sys.path]
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for place in added:
            if place in sys.path:
                sys.path.remove(place)


@contextmanager
def working_directory(folder: Path | None) -> Iterator[None]:
    """Change to a folder, if one is given, and back again.

    Raises:
        OSError: it cannot be changed to.
    """
    if folder is None:
        yield
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
