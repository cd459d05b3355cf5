"""Several files of an experiment directory in the place of others, all at once or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxloop.store.lines import sync_directory
from fluxloop.store.modes import make_directory, mode_of

_PREPARING = ".rewrite.new"
_READY = ".rewrite"


def current_file(path: Path, name: str) -> Path:
    """Return where a file of the directory is now: of a rewrite that a crash left half done, the new one."""
    ready = path / _READY
    return ready / name if not ready.is_symlink() and (ready / name).exists() else path / name


def is_rewriting(path: Path) -> bool:
    """Tell whether a crash has left a rewrite half done."""
    return (path / _READY).exists() or (path / _PREPARING).exists()


@contextmanager
def rewriting(path: Path) -> Iterator[Path]:
    """Give a folder for new files; when the context ends well they replace those of the same names.

    The moment of change is one rename of that folder. A crash before it leaves the old files, one
    after it is finished by `finish_rewrite`.
    """
    finish_rewrite(path)
    folder = path / _PREPARING
    make_directory(folder, mode_of(path))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sync_directory(folder)
    os.rename(folder, path / _READY)
    sync_directory(path)
    finish_rewrite(path)


def finish_rewrite(path: Path) -> None:
    """Bring a rewrite that was interrupted to its end, or back to its beginning.

    Raises:
        OSError: a file cannot be moved; or what stands there is no folder of ours, as a link to another.
    """
    preparing, ready = path / _PREPARING, path / _READY
    for folder in (preparing, ready):
        if folder.is_symlink():
            raise OSError(errno.ELOOP, f"{folder.name} is a link to {os.readlink(folder)!r}; delete it")
    shutil.rmtree(preparing, ignore_errors=True)
    if ready.is_dir():
        for file in sorted(ready.iterdir()):
            os.replace(file, path / file.name)
        sync_directory(path)
        ready.rmdir()
