"""A rate for what all runs of this process do together."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from fluxloop import Experiment, rate_limit
from fluxloop.rates import _queues, one_share_of

RATE = "100/s"
GAP = 0.01


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """What is limited: another thing in each test, because a name keeps its rate."""
    return str(request.node.nodeid)


def keep_the_rate(times: Sequence[float], began: float) -> bool:
    """The first may begin at once, each further one no earlier than a gap after the one before could."""
    return all(at >= began + number * GAP - 1e-6 for number, at in enumerate(times))


async def enter(limit: rate_limit) -> float:
    async with limit:
        return time.monotonic()


def test_sync_calls_keep_the_rate(name: str) -> None:
    """The first begins at once, each further one waits for its moment."""
    began = time.monotonic()
    times = []
    for _ in range(5):
        with rate_limit(name, RATE):
            times.append(time.monotonic())
    assert keep_the_rate(times, began)


def test_async_calls_keep_the_rate_in_the_order_in_which_they_ask(name: str) -> None:
    """Of many tasks that ask at a time, none gets the moment of one that asked before."""

    async def ask() -> list[float]:
        return await asyncio.gather(*(enter(rate_limit(name, RATE)) for _ in range(8)))

    began = time.monotonic()
    assert keep_the_rate(asyncio.run(ask()), began)


def test_one_object_serves_many_calls(name: str) -> None:
    """It may be made once, beside the client, and used by all at the same time."""
    limit = rate_limit(name, RATE)

    async def ask() -> list[float]:
        return await asyncio.gather(*(enter(limit) for _ in range(4)))

    began = time.monotonic()
    times = asyncio.run(ask())
    with limit, limit:
        times.append(time.monotonic())
    assert len(times) == 5
    assert keep_the_rate(times, began)
    assert times[-1] >= began + 5 * GAP - 1e-6


def test_threads_share_a_rate(name: str) -> None:
    """All uses of a name together keep its rate, whichever thread they are in."""
    times = []
    ready = threading.Barrier(4)

    def call() -> None:
        ready.wait()
        for _ in range(3):
            with rate_limit(name, RATE):
                times.append(time.monotonic())

    began = time.monotonic()
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 12
    assert keep_the_rate(sorted(times), began)


def test_event_loops_and_threads_share_a_rate_in_the_order_in_which_they_ask(name: str) -> None:
    """Sync and async, here and there: who asks later gets a later moment."""
    times = [0.0] * 5

    async def ask(number: int, asked: threading.Event) -> None:
        waiting = asyncio.create_task(enter(rate_limit(name, RATE)))
        await asyncio.sleep(0)  # now it has asked
        asked.set()
        times[number] = await waiting

    began = time.monotonic()
    threads = []
    for number in range(4):
        asked = threading.Event()
        threads.append(threading.Thread(target=asyncio.run, args=(ask(number, asked),)))
        threads[-1].start()
        asked.wait()
    with rate_limit(name, RATE):
        times[4] = time.monotonic()
    for thread in threads:
        thread.join()
    assert keep_the_rate(times, began)


@pytest.mark.parametrize(("executor", "parallel"), [("inline", 1), ("threads", 4), ("asyncio", 4)])
def test_runs_and_experiments_share_a_rate(
    name: str, executor: str, parallel: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under every executor, and from one experiment to the next."""
    monkeypatch.chdir(tmp_path)
    times = []

    def call(text: str) -> None:
        with rate_limit(name, RATE):
            times.append(time.monotonic())

    async def call_async(text: str) -> None:
        async with rate_limit(name, RATE):
            times.append(time.monotonic())

    began = time.monotonic()
    for _ in range(2):
        target = call_async if executor == "asyncio" else call
        experiment = Experiment(target=target, inputs=["a", "b"], iterations=3, parallel=parallel, executor=executor)
        assert experiment.run().summary.successful == 6
    assert len(times) == 12
    assert keep_the_rate(sorted(times), began)


def test_the_wait_counts_towards_the_timeout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that waits for its turn is at work as far as its run is concerned."""
    monkeypatch.chdir(tmp_path)

    async def call(text: str) -> None:
        async with rate_limit(name, "1/h"):
            pass

    with rate_limit(name, "1/h"):
        pass
    result = Experiment(target=call, inputs=["a"], timeout_seconds=0.05).run()
    assert [trace.status for trace in result] == ["timeout"]


def test_another_name_is_not_waited_for(name: str) -> None:
    """A call that need not wait goes on without asking its event loop for anything."""
    for one in ("a", "b"):
        limit = rate_limit(f"{name}/{one}", "1/h")
        with pytest.raises(StopIteration):
            limit.__aenter__().send(None)


def test_a_wait_can_be_cancelled(name: str) -> None:
    """At once, however long it would have been."""

    async def ask() -> None:
        await enter(rate_limit(name, "1/h"))
        waiting = asyncio.create_task(enter(rate_limit(name, "1/h")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(ask())


def test_errors_pass_through(name: str) -> None:
    """What fails inside is the caller's; the next call waits for its moment and nothing else."""
    began = time.monotonic()
    with pytest.raises(LookupError, match="mine"), rate_limit(name, RATE):
        raise LookupError("mine")

    async def fail() -> None:
        async with rate_limit(name, RATE):
            raise LookupError("mine too")

    with pytest.raises(LookupError, match="mine too"):
        asyncio.run(fail())
    with rate_limit(name, RATE):
        assert time.monotonic() >= began + 2 * GAP - 1e-6


def test_the_same_rate_in_other_words(name: str) -> None:
    """Is the same rate, and shared."""
    began = time.monotonic()
    times = []
    for rate in ("100/s", "6000/min", " 360000 / hour "):
        with rate_limit(name, rate):
            times.append(time.monotonic())
    assert keep_the_rate(times, began)


def test_another_rate_under_the_same_name() -> None:
    """Is an error in an experiment, which says both and changes nothing."""
    earlier = rate_limit("contested", "10/min")
    with one_share_of(1):
        rate_limit("contested", "5/s")
        told = r"^rate_limit\('contested', '10/min'\): .* another rate, one in 0\.2 s; use another name"
        for _ in range(2):
            with pytest.raises(ValueError, match=told):
                rate_limit("contested", "10/min")
        with pytest.raises(ValueError, match=told):
            earlier.__enter__()
        rate_limit("contested", "5/s")


def test_another_rate_in_the_next_experiment(name: str, tmp_path: Path) -> None:
    """Takes the place of the earlier one, as where a cell of a notebook is changed and run again."""
    for rate in ("1/h", "1000/s", "500/s"):

        def call(text: str, rate: str = rate) -> None:
            with rate_limit(name, rate):
                pass

        result = Experiment(target=call, inputs=["a"], output_dir=tmp_path, executor="inline").run()
        assert result.summary.successful == 1
    assert _queues[name].pace.gap == 1 / 500


def test_another_rate_while_somebody_waits(name: str) -> None:
    """Is an error outside experiments, too: the rate by which it waits is not changed under it."""
    with rate_limit(name, "1/h"):
        pass
    with _queues[name].turn(lambda: None), pytest.raises(ValueError, match="another rate"):
        rate_limit(name, "1000/s")
    with rate_limit(name, "1000/s"):
        pass


@pytest.mark.parametrize("rate", ["fast", "5", "0/s", "5/day", 5, None])
def test_what_is_no_rate_is_refused(name: str, rate: str) -> None:
    """Where it is written, with examples; and the name is still free."""
    with pytest.raises(ValueError, match=r"expected a rate such as 60/min, 5/s or 1000/h, got ") as refused:
        rate_limit(name, rate)
    assert str(refused.value).endswith(repr(rate))
    rate_limit(name, "1/s")


def test_the_public_name_is_the_limit_whatever_was_imported_first() -> None:
    """A module of the same name does not take its place in the package."""
    code = """
import importlib, fluxloop
home = importlib.import_module(fluxloop._HOME["rate_limit"])
assert fluxloop.rate_limit is home.rate_limit, fluxloop.rate_limit
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_who_gives_up_takes_nothing_from_the_others(name: str) -> None:
    """However many have asked and were cancelled, the next moment is where it was."""

    async def ask() -> None:
        await enter(rate_limit(name, "1/h"))
        following = _queues[name].pace.next
        given_up = [asyncio.create_task(enter(rate_limit(name, "1/h"))) for _ in range(100)]
        await asyncio.sleep(0)
        for one in given_up:
            one.cancel()
        await asyncio.wait(given_up)
        assert _queues[name].pace.next == following

    asyncio.run(ask())


def hours_until_the_next(name: str) -> int:
    """For how many hours, about, the rate of this name lets nobody through."""
    return round((_queues[name].pace.next - time.monotonic()) / 3600)


def test_a_share_of_a_rate(name: str) -> None:
    """Whoever has one share of eight waits eight times as long, also in a thread of its own; afterwards as before."""

    def call(which: str) -> None:
        with rate_limit(f"{name}/{which}", "1/h"):
            pass

    with one_share_of(8), one_share_of(2):
        call("here")
        thread = threading.Thread(target=call, args=("there",))
        thread.start()
        thread.join()
        asyncio.run(enter(rate_limit(f"{name}/async", "1/h")))
    call("after")
    found = [hours_until_the_next(f"{name}/{which}") for which in ("here", "there", "async", "after")]
    assert found == [8, 8, 8, 1]


def test_a_share_changes_no_rate(name: str) -> None:
    """The rate of a name is what was written, whoever has which share of it."""
    limit = rate_limit(name, "1/h")
    with one_share_of(4):
        rate_limit(name, "1/h")
        with limit:
            pass
    assert hours_until_the_next(name) == 4
