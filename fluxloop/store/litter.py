"""What a kill leaves beside a file or folder that was being made, swept by whoever makes the next."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fluxloop.clock import time_ns
from fluxloop.system import System

try:
    import fcntl
except ImportError:  # Windows, where nothing tells what is in use
    fcntl = None  # type: ignore[assignment]

_OLD_SECONDS = 60
"""Whoever has made one a moment ago may not hold it yet."""


def prefix(name: str) -> str:
    """Return how the names of temporary files and folders begin from which `name` is made."""
    return f".{name[:100]}.fluxloop."


@contextmanager
def held(path: str | Path) -> Iterator[None]:
    """Keep a temporary file or folder from being swept; the system lets go of it when the process ends."""
    handle = _hold(path)
    try:
        yield
    finally:
        if handle is not None:
            System.close(handle)


def sweep(folder: Path, name: str) -> None:
    """Take away what killed processes have left of making `name`: what has our names, is old, and nobody holds."""
    ours = re.compile(re.escape(prefix(name)) + r"\w{8}")
    with suppress(OSError):
        for entry in os.scandir(folder):
            if ours.fullmatch(entry.name) and not entry.is_symlink() and _is_old(entry):
                _remove(entry.path)


def _is_old(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return time_ns() - entry.stat(follow_symlinks=False).st_mtime_ns > _OLD_SECONDS * 1_000_000_000
    return False


def _remove(path: str) -> None:
    handle = _hold(path)
    if handle is None:
        return
    try:
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                System.unlink(path)
    finally:
        System.close(handle)


def _hold(path: str | Path) -> int | None:
    """Lock it; None when another has, or nothing can."""
    if fcntl is None:
        return None
    with suppress(OSError):
        handle = System.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            System.close(handle)
            raise
        return handle
    return None
