"""Looks after a command from outside, where C code of an agent may hold the command's interpreter.

It stands in the same group of processes, so that the terminal's Ctrl-C reaches it too. What the command
does not hear three times in a row ends it. It runs as a program of its own, without the rest of fluxloop.

Arguments: the command's process id, its experiment's directory, and the file number that stacks come from.
On its standard input the command says `h` for each Ctrl-C that it has heard, and `n` when the next is to end it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

SILENT_SECONDS = 1.0
"""How long a Ctrl-C may go unheard before it is told."""
ENDING_SECONDS = 5.0
"""How long the command may take to end by itself, once it is to."""
ENOUGH = 3


def say(text: str) -> None:
    """Tell whoever runs the command."""
    with suppress(OSError):
        os.write(2, f"\n[WARN] {text}\n".encode("utf-8", "backslashreplace"))


def note(stacks: bytes, path: str) -> None:
    """Keep where the interpreter is held; the first line of each report stands on the screen."""
    file = os.path.join(path, "stalls.txt")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with suppress(OSError):
        number = os.open(file, flags, 0o600)
        try:
            os.write(number, stacks)
        finally:
            os.close(number)
    if stacks.startswith(b"Timeout ("):
        say(
            "The agent holds the interpreter lock, as C code can: nothing else goes on, not even a timeout."
            f" Where it is stands in {file}; agents that do this need --executor processes."
        )


def watch(parent: int, path: str, stacks: int, interrupts: int) -> None:
    """Look after the command until it has ended, or has to be."""
    sources = [0, stacks, interrupts]
    unheard, told, enough, since, latest = 0, 0, ENOUGH, 0.0, 0.0
    while True:
        ready = select.select(sources, [], [], SILENT_SECONDS / 2)[0]
        now = time.monotonic()
        if interrupts in ready:
            since = since if unheard else now
            unheard += len(os.read(interrupts, 64))
            latest = now
        if 0 in ready:
            said = os.read(0, 64)
            if not said:
                return
            if enough > 1:
                unheard, told = (0, 0) if b"h" in said else (unheard, told)
            if b"n" in said:
                unheard, enough = 0, 1
        if stacks in ready:
            if text := os.read(stacks, 65536):
                note(text, path)
            else:
                sources.remove(stacks)
        try:
            os.kill(parent, 0)
        except OSError:
            return  # though a process that it has forked holds the pipe open
        if unheard >= enough and now - latest > (SILENT_SECONDS if enough > 1 else ENDING_SECONDS):
            say(f"Ended by Ctrl-C, from outside; every run that had finished is in {path}")
            os.kill(parent, signal.SIGKILL)
            return
        if 0 < unheard < enough and now - since > SILENT_SECONDS and told != unheard:
            told = unheard
            left = enough - unheard
            times = "once more" if left == 1 else f"{left} more times"
            say(
                "Ctrl-C is not heard: the agent holds the interpreter lock, or has taken the signal."
                f" Press it {times} to end the process; every run that has finished is in {path}"
            )


def main() -> None:
    """Take the signals, leave the command's children, and watch."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.signal(signal.SIGINT, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the command
    signal.set_wakeup_fd(writes)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # what has come until now is in the pipe
    # An agent that waits for all its children must not wait for this.
    if os.fork():
        os._exit(0)
    watch(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), reads)


if __name__ == "__main__":
    main()
