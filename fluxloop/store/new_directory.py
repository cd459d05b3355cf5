"""A new experiment's directory, which appears under its name locked and with its documents in it."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from fluxloop.exceptions import OutputError
from fluxloop.store.documents import write_document
from fluxloop.store.layout import directory_name
from fluxloop.store.lines import sync_directory
from fluxloop.store.lock import DirectoryLock, writer_of
from fluxloop.store.modes import make_directory
from fluxloop.system import System

_LEFT = re.compile(r"\..+_\d{8}_\d{6}\.[0-9a-f]{8}\.new")
_OLD = 3600.0
"""Seconds after which what has no writer was left by one that was killed."""


@contextmanager
def new_directory(
    parent: Path, name: str, seconds: float, documents: Mapping[str, bytes], mode: int = 0o700
) -> Iterator[DirectoryLock]:
    """Make the directory of a new experiment and hold it for as long as the context lasts.

    It is made under a hidden name and renamed, so that nobody ever sees it without its documents, or
    without its writer. A second experiment of the same second gets `_2`, then `_3`.

    Args:
        parent: the folder that it is in.
        name: the experiment's.
        seconds: when it starts.
        documents: contents by name; at least one, because what is empty may be replaced.
        mode: who may read it, as permissions of the directory.

    Raises:
        OutputError: it cannot be created.
        SinkError: a document cannot be written.
    """
    stem = directory_name(name, seconds)
    folder = parent / f".{stem}.{System.urandom(4).hex()}.new"
    with ExitStack() as held:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent, seconds)
            make_directory(folder, mode)
            try:
                # Windows renames no directory with an open file in it, and its lock keeps nobody out.
                lock = held.enter_context(DirectoryLock(folder)) if os.name != "nt" else None
                for document, content in documents.items():
                    write_document(folder / document, content)
                folder = _named(folder, parent / stem)
                sync_directory(parent)
                if lock is None:
                    lock = held.enter_context(DirectoryLock(folder))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except (OSError, OutputError) as error:
            reason = error.message if isinstance(error, OutputError) else error.strerror or error
            told = f"cannot create the experiment directory: {reason}; name another with --output-dir"
            raise OutputError(parent, told) from error
        except ValueError as error:  # half a character
            raise OutputError(Path(ascii(str(parent))), f"cannot be a path: {error}") from None
        lock.follow(folder)
        yield lock


def _named(folder: Path, path: Path) -> Path:
    """Give a directory the first name that is free, and return it."""
    for number in count(1):
        numbered = path if number == 1 else path.with_name(f"{path.name}_{number}")
        try:
            os.rename(folder, numbered)  # never over a directory with anything in it
            return numbered
        except OSError as error:
            is_file = error.errno == errno.ENOTDIR and os.path.lexists(numbered)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not is_file:
                raise
    raise AssertionError("there is no last number")


def _sweep(parent: Path, now: float) -> None:
    """Take away what starts that were killed have left."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not (_LEFT.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)):
                continue
            is_old = now - entry.stat(follow_symlinks=False).st_mtime > _OLD
            if is_old and writer_of(Path(entry.path)) is None:
                shutil.rmtree(entry.path, ignore_errors=True)
