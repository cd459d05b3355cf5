"""What the tests of executors share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging agents wait for; it opens when the test is over."""
    gate = threading.Event()
    yield gate
    gate.set()
