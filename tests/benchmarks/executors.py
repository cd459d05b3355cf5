"""How fast each executor is, against its ideal, a loop written by hand, and inline, in one process.

    python -m tests.benchmarks.executors           # three minutes
    python -m tests.benchmarks.executors --long    # as long again, for 2,000 in flight and memory

Prints one table. A ratio is of wall-clock times, the median of several repetitions in each of which
everything takes its turn; `lowest` is the least of them. Quote the ratios, never the times: machines
differ, and other work on them more so.

The ideal is the waiting alone: runs × seconds / parallel. The loops written by hand call the agent
with each input and keep no answer: nothing is timed, caught, recorded or written. The experiments do
all that, from reading the state of the git repository they are started in to the last byte on disk.
Processes are started in the time that is measured, by hand as by an experiment.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

from attrs import frozen

from fluxloop import AsyncioExecutor, Experiment, InlineExecutor, ProcessesExecutor, ThreadsExecutor
from fluxloop.executors.base import Executor
from tests.benchmarks import agents
from tests.benchmarks.agents import busy, nothing, nothing_async

INPUTS = [f"How do I start {number}?" for number in range(100)]

Work = Callable[[], object]


@frozen
class Row:
    """How two compare: the medians of what the pairs of times of each repetition give."""

    measured: str
    against: str
    ratio: float
    lowest: float
    """The least of the ratios."""
    more_us: float
    """Microseconds a run more, by the wall clock."""
    more_cpu_us: float | None
    """The same in CPU time, of all threads; None beside an ideal, which takes none."""


@frozen
class Long:
    """Many long runs at a time."""

    rows: list[Row]
    memory_mb: float
    """By how much the most memory held grew, from as many runs as are in flight at a time to all of them."""


def waiting(seconds: float) -> Callable[[str], str]:
    """Return an agent that waits in its thread."""

    def agent(text: str) -> str:
        time.sleep(seconds)
        return text

    return agent


def waiting_async(seconds: float) -> Callable[[str], Awaitable[str]]:
    """Return an agent that waits on the event loop."""

    async def agent(text: str) -> str:
        await asyncio.sleep(seconds)
        return text

    return agent


def experiment(agent: Any, runs: int, executor: Executor) -> None:
    """Run the agent through an experiment; `runs` is a multiple of 100, or less."""
    inputs = INPUTS[:runs]
    with tempfile.TemporaryDirectory() as place:
        whole = Experiment(
            target=agent, inputs=inputs, iterations=runs // len(inputs), output_dir=place, executor=executor
        )
        assert whole.run().summary.successful == runs


def loop_by_hand(agent: Callable[[str], Awaitable[str]], runs: int, parallel: int) -> None:
    """Run an async agent with `parallel` workers that take inputs from one iterator."""
    inputs = _inputs(runs)

    async def work() -> None:
        for text in inputs:
            await agent(text)

    async def crew() -> None:
        await asyncio.gather(*(work() for _ in range(parallel)))

    asyncio.run(crew())


def threads_by_hand(agent: Callable[[str], str], runs: int, parallel: int) -> None:
    """Run a sync agent with `parallel` daemon threads that take inputs from one iterator."""
    inputs = _inputs(runs)
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                text = next(inputs, None)
            if text is None:
                return
            agent(text)

    crew = [threading.Thread(target=work, daemon=True) for _ in range(parallel)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()


def processes_by_hand(runs: int, parallel: int) -> None:
    """Run the busy agent in `parallel` processes, each with its share of the runs; they say nothing."""
    shares = [len(range(place, runs, parallel)) for place in range(parallel)]
    crew = [subprocess.Popen([sys.executable, agents.__file__, str(share)]) for share in shares]
    assert [process.wait() for process in crew] == [0] * parallel


def _inputs(runs: int) -> Iterator[str]:
    return islice(cycle(INPUTS), runs)


def async_waits(runs: int = 2_000, seconds: float = 0.05, parallel: int = 100, repetitions: int = 5) -> list[Row]:
    """Measure the asyncio executor where agents wait."""
    agent = waiting_async(seconds)
    return _against_ideal(
        f"{runs:,} async runs of {seconds:g} s, asyncio at {parallel:,}",
        partial(experiment, agent, runs, AsyncioExecutor(parallel)),
        f"{parallel:,} asyncio workers by hand, no records",
        partial(loop_by_hand, agent, runs, parallel),
        ideal=runs * seconds / parallel,
        runs=runs,
        repetitions=repetitions,
    )


def sync_waits(runs: int = 400, seconds: float = 0.05, parallel: int = 20, repetitions: int = 5) -> list[Row]:
    """Measure the threads executor where agents wait."""
    agent = waiting(seconds)
    return _against_ideal(
        f"{runs:,} sync runs of {seconds:g} s, threads at {parallel:,}",
        partial(experiment, agent, runs, ThreadsExecutor(parallel)),
        f"{parallel:,} daemon threads by hand, no records",
        partial(threads_by_hand, agent, runs, parallel),
        ideal=runs * seconds / parallel,
        runs=runs,
        repetitions=repetitions,
    )


def computing(runs: int = 200, parallel: int = 2, repetitions: int = 5) -> list[Row]:
    """Measure the processes executor where agents compute."""
    name = f"{runs:,} runs that compute for {agents.BUSY_SECONDS:g} s, processes at {parallel}"
    by_hand = f"{parallel} processes by hand, no records"
    times = _times(
        {
            name: partial(experiment, busy, runs, ProcessesExecutor(parallel)),
            by_hand: partial(processes_by_hand, runs, parallel),
        },
        repetitions,
    )
    return [_row(name, by_hand, times[name], times[by_hand], runs, cpu=False)]


def long_waits(runs: int = 20_000, seconds: float = 1.0, parallel: int = 2_000, repetitions: int = 3) -> Long:
    """Measure the asyncio executor with very many in flight; first in its process, for its memory.

    The most memory a process has held never goes down, so what came before would hide the growth.
    """
    agent = waiting_async(seconds)
    experiment(agent, parallel, AsyncioExecutor(parallel))
    before = peak_megabytes()
    experiment(agent, runs, AsyncioExecutor(parallel))
    grown = peak_megabytes() - before
    return Long(async_waits(runs, seconds, parallel, repetitions), grown)


def scheduling(
    runs: int = 20_000,
    repetitions: int = 5,
    asyncio_at: Sequence[int] = (1, 8, 100),
    threads_at: Sequence[int] = (2, 8, 20),
    processes_at: Sequence[int] = (2, 8),
) -> list[Row]:
    """Measure what a run costs above inline, where the agent does nothing."""
    inline, inline_async = "inline, sync agent", "inline, async agent"
    on_a_loop = {f"asyncio at {parallel}, async agent": AsyncioExecutor(parallel) for parallel in asyncio_at}
    in_threads = {f"threads at {parallel}, sync agent": ThreadsExecutor(parallel) for parallel in threads_at}
    in_processes = {f"processes at {parallel}, sync agent": ProcessesExecutor(parallel) for parallel in processes_at}
    on_their_loops = {f"processes at {parallel}, async agent": ProcessesExecutor(parallel) for parallel in processes_at}
    sync_ones = {inline: InlineExecutor(), **in_threads, **in_processes}
    async_ones = {inline_async: InlineExecutor(), **on_a_loop, **on_their_loops}
    times = _times(
        {
            **{name: partial(experiment, nothing, runs, executor) for name, executor in sync_ones.items()},
            **{name: partial(experiment, nothing_async, runs, executor) for name, executor in async_ones.items()},
        },
        repetitions,
    )
    beside = (*in_threads, *in_processes, inline_async, *on_a_loop)
    pairs = [(name, inline) for name in beside] + [(name, inline_async) for name in (*on_a_loop, *on_their_loops)]
    elsewhere = {*in_processes, *on_their_loops}  # where nobody measures CPU time
    return [
        _row(f"{runs:,} no-op runs, {name}", other, times[name], times[other], runs, cpu=name not in elsewhere)
        for name, other in pairs
    ]


Times = list[tuple[float, float]]
"""Wall-clock and CPU seconds, by repetition."""


def _against_ideal(
    name: str, ours: Work, floor_name: str, floor: Work, *, ideal: float, runs: int, repetitions: int
) -> list[Row]:
    times = _times({name: ours, floor_name: floor}, repetitions)
    waited = [(ideal, 0.0)] * repetitions
    told = f"the ideal, {ideal:.3g} s"
    return [
        _row(name, told, times[name], waited, runs, cpu=False),
        _row(floor_name, told, times[floor_name], waited, runs, cpu=False),
        _row(name, floor_name, times[name], times[floor_name], runs),
    ]


def _times(contenders: dict[str, Work], repetitions: int) -> dict[str, Times]:
    """Measure each in turn, again and again, so that what slows the machine for a while slows all."""
    times: dict[str, Times] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, work in contenders.items():
            gc.collect()  # nobody pays for what another left
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def _row(measured: str, against: str, ours: Times, theirs: Times, runs: int, *, cpu: bool = True) -> Row:
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [one[0] / other[0] for one, other in pairs]
    more, more_cpu = (statistics.median(one[k] - other[k] for one, other in pairs) / runs * 1e6 for k in (0, 1))
    return Row(measured, against, statistics.median(ratios), min(ratios), more, more_cpu if cpu else None)


def peak_megabytes() -> float:
    """Return the most memory this process has held."""
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def table(rows: Sequence[Row]) -> str:
    """Return the rows under their headings, in columns."""
    lines = [("measured", "compared with", "ratio", "lowest", "more µs a run", "in CPU")]
    for row in rows:
        cpu = "" if row.more_cpu_us is None else f"{row.more_cpu_us:.1f}"
        lines.append((row.measured, row.against, f"{row.ratio:.2f}", f"{row.lowest:.2f}", f"{row.more_us:.1f}", cpu))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if place < 2 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast each executor is; prints a table of ratios.")
    parser.add_argument("--long", action="store_true", help="also 20,000 runs of 1 s at 2,000 in flight")
    asked = parser.parse_args(arguments)
    long = long_waits() if asked.long else None
    experiment(nothing_async, 500, AsyncioExecutor(8))
    rows = [*async_waits(), *sync_waits(), *computing(), *(long.rows if long else ()), *scheduling()]
    print(table(rows))
    if long:
        print(f"memory grew by {long.memory_mb:.1f} MB from 2,000 to 20,000 runs at 2,000 in flight")


if __name__ == "__main__":
    main()
