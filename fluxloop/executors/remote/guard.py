"""Ends worker processes, with all they have started, when the process that started them is killed.

A worker that is killed with its parent can end nothing itself, and one that never lets go of the
interpreter does not learn of its parent's end everywhere. So this runs as a program of its own,
which is told of each worker's process group, and of its end as a number below zero.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

LOOK_SECONDS = 1.0
"""How often it looks whether its parent is there, should the pipe from it be held open by others."""


def watch(channel: int, parent: int) -> None:
    """Note the groups that are told, and end those that are left once the parent is gone."""
    groups: set[int] = set()
    rest = b""
    while os.getppid() == parent:
        if select.select([channel], [], [], LOOK_SECONDS)[0]:
            told = os.read(channel, 4096)
            if not told:
                break
            *lines, rest = (rest + told).split(b"\n")
            for group in map(int, lines):
                if group > 0:
                    groups.add(group)
                else:
                    groups.discard(-group)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    # Whoever ends the experiment by a signal to all its processes lets it finish first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.stdin.fileno(), int(sys.argv[1]))
