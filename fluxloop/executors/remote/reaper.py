"""Ends what a local cluster of Ray leaves behind when the process that started it is killed.

Run as a program of its own, which notes what Ray's own processes have started, for as long as a pipe
from its parent is open. When that is closed without a word, it ends whatever of this is still there:
measured, two agents of Ray's would outlive their cluster by more than half a minute.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Collection
from contextlib import suppress

LOOK_SECONDS = 0.5
"""How often it notes what there is, and whether its parent is there, should others hold the pipe open."""

Processes = dict[int, tuple[int, int, str]]
"""The parent and the group of each process, and when it was started, as the system counts."""
One = tuple[int, str]
"""A process, with when it was started: its number may be another's once it has ended."""


def processes() -> Processes:
    """Return all processes of this machine; none where the system does not show them as Linux does."""
    found: Processes = {}
    if sys.platform != "linux":
        return found
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has just ended
                with open(f"/proc/{name}/stat", "rb") as file:
                    told = file.read().rpartition(b")")[2].split()
                found[int(name)] = int(told[1]), int(told[2]), told[19].decode()
    return found


def children(parent: int) -> set[One]:
    """Return what a process has started itself."""
    return {(pid, started) for pid, (started_by, _, started) in processes().items() if started_by == parent}


def descendants(roots: Collection[One], among: Processes) -> set[One]:
    """Return processes that are there, with what they have started, and what those have."""
    found = {pid for pid, started in roots if pid in among and among[pid][2] == started}
    while more := {pid for pid, (parent, *_) in among.items() if parent in found} - found:
        found |= more
    return {(pid, among[pid][2]) for pid in found}


def watch(channel: int, parent: int, roots: Collection[One]) -> None:
    """Note what the roots start, and end it with them should the parent be gone without a word."""
    noted = descendants(roots, processes())
    while os.getppid() == parent:
        noted = descendants(noted, processes())
        if select.select([channel], [], [], LOOK_SECONDS)[0]:
            if os.read(channel, 16):
                return
            break
    left = processes()
    # What a worker has started since is in its group, though the worker itself may have gone.
    groups = {pid for pid, started in noted if pid not in left or left[pid][2] == started}
    for pid, (_, group, started) in left.items():
        if (pid, started) in noted or group in groups:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    # Whoever ends the experiment by a signal to all its processes lets it finish first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = [text.split(":") for text in sys.argv[2:]]
    watch(sys.stdin.fileno(), int(sys.argv[1]), [(int(pid), started) for pid, started in told])
