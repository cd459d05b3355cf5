"""Room kept for the last words of an experiment on a disk that fills."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fluxloop.store.layout import RESERVE
from fluxloop.store.modes import result_file
from fluxloop.system import System

_BYTES = 1 << 18  # more than the largest summary.json


def keep_room(path: Path) -> None:
    """Take room on the disk, as far as there is any."""
    with suppress(OSError), open(path / RESERVE, "xb", buffering=0, opener=result_file) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _BYTES)
        else:
            file.write(bytes(_BYTES))


def give_room(path: Path) -> None:
    """Give the room back."""
    with suppress(OSError):
        System.unlink(path / RESERVE)
