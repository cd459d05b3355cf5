"""The benchmark of the executors itself."""

from __future__ import annotations

import asyncio
import math
import resource
import runpy
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxloop import AsyncioExecutor, ThreadsExecutor

FILE = Path(__file__).parent / "executors.py"
BENCHMARK = runpy.run_path(str(FILE))
PARALLEL = 4
PATIENCE = 30.0
"""Seconds after which a side has too few in flight."""


class Together:
    """Agents that answer only once as many of them as may be in flight are."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.most = self._now = 0
        self._counting = threading.Lock()
        self._all_in_thread = threading.Barrier(PARALLEL)
        self._all_on_loop = asyncio.Barrier(PARALLEL)

    def in_thread(self, text: str) -> str:
        self._count(1)
        self._all_in_thread.wait(PATIENCE)
        time.sleep(0.001)  # one too many would come meanwhile
        return self._answer(text)

    async def on_loop(self, text: str) -> str:
        self._count(1)
        try:
            await asyncio.wait_for(self._all_on_loop.wait(), PATIENCE)
        except TimeoutError:
            await self._all_on_loop.abort()
            raise
        await asyncio.sleep(0.001)
        return self._answer(text)

    def _answer(self, text: str) -> str:
        self._count(-1)
        with self._counting:
            self.answered[text] += 1
        return text

    def _count(self, change: int) -> None:
        with self._counting:
            self._now += change
            self.most = max(self.most, self._now)


@pytest.fixture
def together() -> Together:
    """Agents that wait for each other."""
    return Together()


def on_asyncio(together: Together, runs: int) -> None:
    BENCHMARK["experiment"](together.on_loop, runs, AsyncioExecutor(PARALLEL))


def in_threads(together: Together, runs: int) -> None:
    BENCHMARK["experiment"](together.in_thread, runs, ThreadsExecutor(PARALLEL))


def on_a_loop_by_hand(together: Together, runs: int) -> None:
    BENCHMARK["loop_by_hand"](together.on_loop, runs, PARALLEL)


def in_threads_by_hand(together: Together, runs: int) -> None:
    BENCHMARK["threads_by_hand"](together.in_thread, runs, PARALLEL)


@pytest.mark.parametrize("side", [on_asyncio, in_threads, on_a_loop_by_hand, in_threads_by_hand])
def test_every_side_does_the_same_work(side: Callable[[Together, int], None], together: Together) -> None:
    """Whoever is measured calls the agent once for each run, with as many in flight as it says and no more."""
    side(together, 200)

    assert together.answered == dict.fromkeys(BENCHMARK["INPUTS"], 2)
    assert together.most == PARALLEL


@pytest.mark.parametrize("name", ["async_waits", "sync_waits"])
def test_waits_are_held_against_the_ideal_and_a_loop_by_hand(name: str) -> None:
    """Both sides are at least as slow as the ideal, and each is told beside what it is compared with."""
    ours, by_hand, between = BENCHMARK[name](runs=20, seconds=0.001, parallel=4, repetitions=2)

    assert_measured([ours, by_hand, between])
    assert ours.lowest >= 1
    assert by_hand.lowest >= 1
    assert (ours.against, between.measured, between.against) == (by_hand.against, ours.measured, by_hand.measured)


def test_computing_is_held_against_processes_by_hand() -> None:
    """Both compute for as long, in processes that are started for it."""
    before = children_seconds()
    BENCHMARK["processes_by_hand"](5, 2)
    assert children_seconds() - before >= 5 * 0.02
    (row,) = BENCHMARK["computing"](runs=4, repetitions=1)

    assert_measured([row])
    assert (row.measured, row.against) == (
        "4 runs that compute for 0.02 s, processes at 2",
        "2 processes by hand, no records",
    )


def test_long_waits_tell_how_memory_grows() -> None:
    """Very many in flight are measured like few, and memory beside them."""
    long = BENCHMARK["long_waits"](runs=100, seconds=0.001, parallel=50, repetitions=1)

    assert_measured(long.rows)
    assert 0 <= long.memory_mb < math.inf


def test_scheduling_is_held_against_inline() -> None:
    """Every executor at every width is compared with inline, the async ones with inline's async agent too."""
    rows = BENCHMARK["scheduling"](runs=100, repetitions=2, asyncio_at=(1, 3), threads_at=(2,), processes_at=(2,))

    assert_measured(rows)
    assert [(row.measured.partition(", ")[2], row.against) for row in rows] == [
        ("threads at 2, sync agent", "inline, sync agent"),
        ("processes at 2, sync agent", "inline, sync agent"),
        ("inline, async agent", "inline, sync agent"),
        ("asyncio at 1, async agent", "inline, sync agent"),
        ("asyncio at 3, async agent", "inline, sync agent"),
        ("asyncio at 1, async agent", "inline, async agent"),
        ("asyncio at 3, async agent", "inline, async agent"),
        ("processes at 2, async agent", "inline, async agent"),
    ]


def test_the_table_is_aligned() -> None:
    """Each row stands under its headings, an ideal without CPU time."""
    row = BENCHMARK["Row"]
    told = BENCHMARK["table"]([row("ours", "the ideal", 1.126, 1.0, 70.55, None), row("x", "y", 2, 1.5, -3, 12.34)])

    assert told == "\n".join(
        [
            "measured  compared with  ratio  lowest  more µs a run  in CPU",
            "ours      the ideal       1.13    1.00           70.5        ",
            "x         y               2.00    1.50           -3.0    12.3",
        ]
    )


def assert_measured(rows: list[Any]) -> None:
    for row in rows:
        assert 0 < row.lowest <= row.ratio < math.inf
        assert math.isfinite(row.more_us)
        assert row.more_cpu_us is None or math.isfinite(row.more_cpu_us)


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
