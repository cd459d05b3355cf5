"""Agents that worker processes can import, as lightly as can be."""

from __future__ import annotations

import sys
import time

BUSY_SECONDS = 0.02


def nothing(text: str) -> str:
    """Answer at once."""
    return text


async def nothing_async(text: str) -> str:
    """Answer at once, as a coroutine."""
    return text


def busy(text: str) -> str:
    """Answer after so much time of the processor, of which others on the machine take none."""
    until = time.thread_time() + BUSY_SECONDS
    while time.thread_time() < until:
        pass
    return text


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        busy(f"How do I start {number}?")
