"""What of the system results hang on, as it is before any agent runs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from threading import Thread


class System:
    """Calls that an agent's test doubles do not reach: they replace what modules hold, `os` above all."""

    exit = os._exit
    getpid = os.getpid
    getppid = os.getppid

    open = os.open
    write = os.write
    close = os.close
    stat = os.stat
    fstat = os.fstat
    fdatasync = getattr(os, "fdatasync", os.fsync)
    ftruncate = os.ftruncate
    chmod = os.chmod
    if hasattr(os, "fchmod"):  # not on Windows
        fchmod = os.fchmod
    replace = os.replace
    unlink = os.unlink
    urandom = os.urandom

    process: object = object()
    """Stands for this process; one that is forked has another. Ids of processes can be mocked."""


def new_thread(target: Callable[[], object], name: str) -> Thread:
    """Make a daemon thread, whatever an agent has put in the place of `threading.Thread` and the hooks."""
    if threading.excepthook is None:  # without one no thread can be made
        threading.excepthook = threading.__excepthook__
    if sys.excepthook is None:
        sys.excepthook = sys.__excepthook__
    return Thread(target=target, name=name, daemon=True)


def _forked() -> None:
    System.process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
