"""What an experiment has written, held against what stands under its names."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fluxloop.store.files import read_regular

_COMPARED = 1 << 20
"""Up to so many bytes, a file that was touched is compared by its content."""


class TakenAwayError(Exception):
    """A file of the experiment is gone, or is not as it was left: somebody else has changed the directory."""


def look(path: Path) -> os.stat_result:
    """Return what stands under a name, links not followed.

    Raises:
        TakenAwayError: nothing does, or it cannot be told.
    """
    try:
        return os.lstat(path)
    except FileNotFoundError:
        gone = path if os.path.isdir(path.parent) else path.parent
        raise TakenAwayError(f"{gone} is gone: it was deleted or renamed while the experiment ran") from None
    except OSError as error:
        raise TakenAwayError(f"{path} cannot be looked at any more: {error.strerror or error}") from None


def changed(path: Path, how: str) -> TakenAwayError:
    """Return the error for a file that another has changed."""
    return TakenAwayError(f"{path} {how}: another program changed it while the experiment ran")


class Kept:
    """A small file that nobody is to change; that it was touched, or put back, does no harm.

    Raises:
        OSError: it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = os.lstat(path)
        self._content = read_regular(path) if self._seen.st_size <= _COMPARED else None

    def check(self) -> None:
        """Do nothing while it is as it was.

        Raises:
            TakenAwayError: it is gone, or another.
        """
        found = look(self.path)
        if _mark(found) == _mark(self._seen):
            return
        if not self._has_content(found):
            raise changed(self.path, "is not as it was written")
        self._seen = found

    def _has_content(self, found: os.stat_result) -> bool:
        if not stat.S_ISREG(found.st_mode) or found.st_size != self._seen.st_size:
            return False
        try:
            return self._content is not None and read_regular(self.path) == self._content
        except OSError:
            return False


def _mark(found: os.stat_result) -> tuple[int, ...]:
    return stat.S_IFMT(found.st_mode), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
