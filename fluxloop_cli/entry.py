"""The entry point of the command: what holds from its first instruction to its last."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command. Ctrl-C ends it with 130 from the start, and nothing that an agent has left keeps it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, _quit)
    from fluxloop_cli.main import main as command

    code = 1
    try:
        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        interrupts_raise()
        if "fluxloop.experiment" in sys.modules:  # else no agent has been here
            from fluxloop.exit import exit_soon

            exit_soon(code)


def interrupts_raise() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, as ever in Python: all is imported, and something is to be told of it."""
    if signal.getsignal(signal.SIGINT) is _quit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quit(number: int, frame: FrameType | None) -> None:
    """End at once, where an exception would be lost in an import, or be told as a fault of it."""
    os.write(2, b"Interrupted before anything was done.\n")
    os._exit(128 + number)
