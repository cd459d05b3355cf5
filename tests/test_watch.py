"""What is written down when nothing finishes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment
from fluxloop.interrupt import Interrupt
from fluxloop.plan import Plan
from fluxloop.records import Case
from fluxloop.schedule import Schedule
from fluxloop.store.layout import STALLS
from fluxloop.watch import Watch
from tests.waiting import wait_until

STALL = 0.2


@pytest.fixture(autouse=True)
def attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks often."""
    monkeypatch.setattr("fluxloop.watch.TICK_SECONDS", 0.01)


def stalls(folder: Path) -> str:
    """What has been written down so far, below a folder."""
    return "".join(path.read_text() for path in folder.rglob(STALLS))


Releases = list[Callable[[], Any]]


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """What lets hanging agents go on; called as soon as a stall has been written down."""
    releases: Releases = []

    def watch() -> None:
        wait_until(lambda: stalls(tmp_path))
        for release in releases:
            release()

    thread = threading.Thread(target=watch)
    thread.start()
    yield releases
    thread.join()


@pytest.mark.parametrize(
    ("executor", "kind"),
    [("inline", "sync"), ("threads", "sync"), ("inline", "async"), ("asyncio", "async"), ("threads", "async")],
)
def test_a_stall_is_written_down_with_the_line_that_hangs(
    executor: str, kind: str, releases: Releases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all threads and tasks are goes to a file, and one line that names it to the screen."""

    @fluxloop.tool
    def stuck() -> None:
        event = threading.Event()
        releases.append(event.set)
        event.wait()  # hangs here

    @fluxloop.tool
    async def stuck_async() -> None:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        releases.append(lambda: loop.call_soon_threadsafe(event.set))
        await event.wait()  # hangs here

    def agent(text: str) -> str:
        if text == "hangs":
            stuck()
        return text

    async def async_agent(text: str) -> str:
        if text == "hangs":
            await stuck_async()
        return text

    result = Experiment(
        target=agent if kind == "sync" else async_agent,
        inputs=["a", "hangs", "b"],
        executor=executor,
        output_dir=tmp_path,
        timeout_seconds=0,
        overrides={"runner.stall_seconds": STALL},
    ).run()
    assert result.summary.successful == 3
    told = stalls(tmp_path)
    first, listed, *_ = told.splitlines()
    assert first.endswith("Z Nothing has finished for 0.2 s, 1 in flight:")
    assert listed == "trace_002 of input_002, attempt 1, for 0 s"
    assert "# hangs here" in told
    assert "/fluxloop/executors/" not in told
    lines = [line for line in capsys.readouterr().err.splitlines() if "Nothing has finished" in line]
    where = result.path / STALLS
    assert lines == [f"[WARN] Nothing has finished for 0.2 s, 1 in flight; where each of them is stands in {where}"]


def test_an_experiment_that_goes_on_has_no_such_file(tmp_path: Path) -> None:
    """Nor is anything told of it."""
    result = Experiment(target=str.upper, inputs=["a"], output_dir=tmp_path).run()
    assert not (result.path / STALLS).exists()


class Watched:
    """A watch over a schedule, and when it told something."""

    def __init__(self, folder: Path, stall_seconds: float = STALL) -> None:
        self.file = folder / STALLS
        cases = [Case(0, "i0", "a"), Case(1, "i1", "b")]
        self.schedule = Schedule(Plan(cases=cases, iterations=1, seed=1), clock=time.monotonic)
        self.told: list[float] = []
        self.watch = Watch(
            self.schedule,
            Interrupt(),
            stall_seconds=stall_seconds,
            file=self.file,
            tell=lambda line: self.told.append(time.monotonic()),
        )


def test_each_run_that_ends_puts_it_off(tmp_path: Path) -> None:
    """A stall is told only when none has finished for all of the time."""
    watched = Watched(tmp_path)
    watched.schedule.take()
    with watched.watch.watching():
        heard = [time.monotonic()]
        while time.monotonic() - heard[0] < 2 * STALL:
            heard.append(time.monotonic())
            watched.watch.heard(True)
            time.sleep(0.01)
        wait_until(lambda: watched.told)
    last = max(moment for moment in heard if moment < watched.told[0])
    assert watched.told[0] - last >= STALL


def test_while_nothing_is_in_flight_nothing_stalls(tmp_path: Path) -> None:
    """A pause between two runs, as a rate asks for, is none; the time counts from the start of a run."""
    watched = Watched(tmp_path)
    with watched.watch.watching():
        time.sleep(1.5 * STALL)
        assert watched.told == []
        started = time.monotonic()
        watched.schedule.take()
        wait_until(lambda: watched.told)
    assert watched.told[0] - started >= STALL
    assert "trace_001 of i0, attempt 1" in watched.file.read_text()


def test_a_stall_that_lasts_is_told_again(tmp_path: Path) -> None:
    """Each time with where everything is by then."""
    watched = Watched(tmp_path, 0.05)
    watched.schedule.take()
    watched.schedule.take()
    with watched.watch.watching():
        wait_until(lambda: len(watched.told) > 1)
    text = watched.file.read_text()
    assert text.count("Nothing has finished for 0.05 s, 2 in flight:\ntrace_001 of i0") >= 2
    assert text.count("trace_002 of i1, attempt 1") >= 2


def test_it_may_be_switched_off(tmp_path: Path) -> None:
    """0 is never."""
    watched = Watched(tmp_path, 0)
    watched.schedule.take()
    with watched.watch.watching():
        time.sleep(0.1)
    assert (watched.told, watched.file.exists()) == ([], False)


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """The stall is told on the screen all the same."""
    watched = Watched(tmp_path / "gone", 0.05)
    watched.schedule.take()
    with watched.watch.watching():
        wait_until(lambda: len(watched.told) > 1)
    assert not watched.file.exists()


def test_nobody_watches_when_it_is_over(tmp_path: Path) -> None:
    """Its thread ends with the context."""

    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "fluxloop-watch"]

    with Watched(tmp_path).watch.watching():
        assert len(watching()) == 1
    assert watching() == []
