"""Ends what a local cluster of Ray leaves behind when the process that started it is killed.

Run as a program of its own, which notes what its parent has started, for as long as a pipe from it
is open. When that is closed without a word, it ends whatever of this is still there: measured, two
agents of Ray's would outlive their cluster by more than half a minute.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

LOOK_SECONDS = 2.0
"""How often it notes what there is."""

Processes = dict[int, tuple[int, int, str]]
"""The parent and the group of each process, and when it was started, as the system counts."""


def processes() -> Processes:
    """Return all processes of this machine."""
    found: Processes = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has just ended
                with open(f"/proc/{name}/stat", "rb") as file:
                    told = file.read().rpartition(b")")[2].split()
                found[int(name)] = int(told[1]), int(told[2]), told[19].decode()
    return found


def descendants(ancestor: int, among: Processes) -> set[tuple[int, str]]:
    """Return what a process has started, and what those have, without this one."""
    found = {ancestor}
    while more := {pid for pid, (parent, *_) in among.items() if parent in found} - found - {os.getpid()}:
        found |= more
    return {(pid, among[pid][2]) for pid in found - {ancestor}}


def watch(parent: int) -> None:
    """Note what the parent starts, and end it should the parent be gone without a word."""
    noted: set[tuple[int, str]] = set()
    while True:
        there = processes()
        noted = {one for one in noted if one[0] in there} | descendants(parent, there)
        if select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
            break
    if sys.stdin.read():
        return
    left = processes()
    # What a worker has started since is in its group, though the worker itself may have gone.
    groups = {pid for pid, started in noted if pid not in left or left[pid][2] == started}
    for pid, (_, group, started) in left.items():
        if (pid, started) in noted or group in groups:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
