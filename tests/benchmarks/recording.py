"""What recording a call costs a service, off and on, and how fast a recording is read.

    python -m tests.benchmarks.recording

Prints microseconds a call beyond the plain call (the best of seven rounds of 5,000), for a small
payload with a callback, and the seconds it takes to find the last of 80,000 recorded calls.
"""

from __future__ import annotations

import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fluxloop
from fluxloop.calling.recordings import read_recordings

PAYLOAD = {"content": "Where is my order?", "user": {"id": 17, "name": "Ann", "locale": "en"}, "tags": ["new"]}
CALLS = 5_000


def handle(data: dict[str, Any], send: Callable[[str], None]) -> None:
    """Do nothing, so that what is measured is fluxloop."""


decorated = fluxloop.record(handle)


def by_hand(data: dict[str, Any], send: Callable[[str], None]) -> None:
    """The same, recorded by a call of its own."""
    fluxloop.record_call_args(target="app.server:handle", data=data, send=send)


def cost(function: Callable[..., None]) -> float:
    """Microseconds a call takes beyond that of a function that does nothing."""

    def best(one: Callable[..., None]) -> float:
        return min(timeit.repeat(lambda: one(PAYLOAD, send=print), number=CALLS, repeat=7)) / CALLS * 1e6

    return best(function) - best(handle)


def main() -> None:
    """Measure and print."""
    for name, function in (("decorator", decorated), ("record_call_args", by_hand)):
        fluxloop.disable_recording()
        off = cost(function)
        with tempfile.TemporaryDirectory() as folder:
            fluxloop.enable_recording(Path(folder) / "args.jsonl")
            on = cost(function)
        print(f"{name:17} off {off:5.2f} us   on {on:5.1f} us")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "args.jsonl"
        fluxloop.enable_recording(path)
        for _ in range(80_000):
            decorated(PAYLOAD, send=print)
        start = time.perf_counter()
        read_recordings(path, "last", ("tests.benchmarks.recording:handle",))
        print(f"last of 80,000 found in {time.perf_counter() - start:.2f} s")
    assert fluxloop.recording_errors() == 0


if __name__ == "__main__":
    main()
