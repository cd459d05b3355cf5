"""Where the agent finds itself: what it can import, and the directory it is in."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# How many need a folder: experiments in several threads share one import path.
_lock = threading.Lock()
_users: Counter[str] = Counter()
_before: set[str] = set()


@contextmanager
def importable(places: Sequence[Path]) -> Iterator[None]:
    """Put folders first on the import path, and take them off again."""
    names = [str(place) for place in places]
    with _lock:
        if not _users:
            _before.clear()
            _before.update(sys.path)
        sys.path[:0] = [name for name in dict.fromkeys(names) if name not in sys.path]
        _users.update(names)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with _lock:
            _users.subtract(names)
            for name in {name for name in names if not _users[name]}:
                del _users[name]
                if name in sys.path and name not in _before:
                    sys.path.remove(name)


@contextmanager
def working_directory(folder: Path | None) -> Iterator[None]:
    """Change to a folder, if one is given, and afterwards back from wherever the agent has gone.

    The working directory belongs to the process: experiments in several threads share it.

    Raises:
        OSError: it cannot be changed to.
    """
    before = Path.cwd()
    if folder is not None:
        os.chdir(folder)
    try:
        yield
    finally:
        if _is_elsewhere(before):
            os.chdir(before)


def _is_elsewhere(place: Path) -> bool:
    try:
        return Path.cwd() != place
    except OSError:  # the folder is gone
        return True
