"""The system's calls that results hang on, as they are before any agent runs."""

from __future__ import annotations

import os


class System:
    """Calls that an agent's test doubles do not reach: they replace what modules hold, `os` above all."""

    exit = os._exit
    getpid = os.getpid
    getppid = os.getppid

    process: object = object()
    """Stands for this process; one that is forked has another. Ids of processes can be mocked."""


def _forked() -> None:
    System.process = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
