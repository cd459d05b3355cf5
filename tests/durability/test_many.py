"""A million done runs: taken up and verified in flat memory, not much slower than they are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability import many

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc")

MEMORY_A_RUN = 80
"""Bytes: the duration of each run is kept for the percentiles, and sorted once."""


def measured(folder: Path, iterations: int, what: str) -> dict[str, float]:
    command = [sys.executable, many.__file__, str(folder), str(iterations), what]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout or "{}")
    return found


@pytest.mark.slow
def test_a_million_runs_are_taken_up_and_verified(quick: Path) -> None:
    """In memory that does not grow with what the runs hold; the times are printed beside reading every line."""
    peaks: dict[str, list[float]] = {"resume": [], "verify": []}
    for iterations in (10, 1000):
        folder = quick / str(iterations)
        folder.mkdir()
        measured(folder, iterations, "make")
        floor = measured(folder, iterations, "floor")
        for what, found in peaks.items():
            took = measured(folder, iterations, what)
            found.append(took["megabytes"])
            ratio = took["seconds"] / floor["seconds"]
            runs = iterations * len(many.INPUTS)
            print(f"{what} of {runs:,} runs: {took['seconds']:.1f} s, {ratio:.1f} × reading every line, ", end="")
            print(f"{took['megabytes']:.0f} MB")
    for what, (few, lots) in peaks.items():
        assert (lots - few) * (1 << 20) < MEMORY_A_RUN * 1_000_000, what
