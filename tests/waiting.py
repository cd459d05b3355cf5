"""Waiting for what another thread or process does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def wait_until(holds: Callable[[], Any]) -> None:
    """Look again and again until it holds."""
    for _ in range(3000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never held")
