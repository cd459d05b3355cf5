"""What is seen in a terminal, in a log file and in a notebook."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.plan import Plan
from fluxloop.progress import BarProgress, LogProgress, Progress, clock, progress_for
from fluxloop.records import Attempt, Case, PlannedRun, RunError
from fluxloop.reports.rows import text_table
from fluxloop.schedule import Limits, Schedule, Urgency
from fluxloop.testing import make_trace
from fluxloop.tracing.output import captured_output, screen
from fluxloop.visible import one_line

AGENTS = """
import os, sys, time

def talking(text):
    print("said", text)
    time.sleep(0.15)
    if text == "b":
        raise ValueError("no \\x1b[31mb\\x1b[0m\\r please")
    return text

def debugged(text):
    secret = text * 2
    breakpoint()
    return secret

async def debugged_async(text):
    secret = text * 2
    breakpoint()
    return secret
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agents.py").write_text(AGENTS)
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n')
    return tmp_path


def command(target: str, *options: str) -> list[str]:
    return ["-m", "fluxloop_cli", "run", "experiment", "--target", target, "--inputs", "in.jsonl", *options]


def spawn(folder: Path, target: str, *options: str, locale: str = "C.UTF-8") -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable,
        command(target, *options),
        cwd=str(folder),
        env={"PATH": "/usr/bin:/bin", "TERM": "xterm", "LC_ALL": locale, "PYTHONIOENCODING": "", "HOME": str(folder)},
        timeout=30,
        encoding="utf-8",
        dimensions=(40, 200),
    )


def test_a_terminal_shows_lines_bar_and_table(folder: Path) -> None:
    """The screen reads as the documentation says, and what the agent prints is not on it."""
    process = spawn(folder, "agents:talking", "--iterations", "3")
    process.expect(pexpect.EOF)
    screen = process.before or ""
    process.close()

    assert process.exitstatus == 0
    for line in (
        "[INFO] Starting experiment...",
        "[INFO] Loaded 2 inputs",
        "[INFO] Running 3 iterations per input (6 total runs)",
    ):
        assert line + "\r\n" in screen
    assert re.search(r"\[▓+░*\] [1-5]/6 \(\d+%\)( - \d failed)? - ETA: \ds", screen)
    assert re.search(r"\[▓{10}\] 6/6 \(100%\) - 3 failed - \ds", screen)
    assert len(re.findall(r"trace_002 \(input_002\) failed: agents\.py:\d+: ValueError: no", screen)) == 1
    assert re.search(r"  failing +input_002 \(3\)", screen)
    assert "said" not in screen
    assert "\x1b[31m" not in screen
    assert re.search(r"  runs +6 of 6: 3 passed, 3 failed", screen)
    assert re.search(r"  results +experiments/agents_\d{8}_\d{6}", screen)


def test_a_terminal_without_unicode_gets_a_plain_bar(folder: Path) -> None:
    """Where the bar's signs cannot be written others are used."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    bar = BarProgress(stream)
    bar.start(2)
    bar.update(make_trace(), None)
    bar.stop()
    stream.flush()
    assert "#" in stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


class Gone(io.StringIO):
    """A terminal that has been closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [LogProgress, BarProgress])
def test_a_screen_that_goes_away_ends_the_showing_alone(kind: type[LogProgress]) -> None:
    """Neither lines nor the bar raise when nobody reads them any more."""
    progress = kind(Gone())
    progress.info("one")
    progress.start(2)
    progress.update(make_trace(), None)
    progress.warn("two")
    progress.stop()


def drawn(text: str) -> list[str]:
    """What stands on a terminal in the end, line by line."""
    lines: list[list[str]] = [[]]
    column = 0
    for char in re.sub(r"\x1b\[[0-9;]*m", "", text):
        if char == "\n":
            lines.append([])
            column = 0
        elif char == "\r":
            column = 0
        else:
            line = lines[-1]
            line[column : column + 1] = char
            column += 1
    return ["".join(line).rstrip() for line in lines]


PRINTING = """
import sys, time
from fluxloop import Experiment

def agent(text):
    time.sleep(0.15)
    print("I think", text, "of", [text])
    sys.stderr.write("one, ")
    time.sleep(0.15)
    print(f"\\x1b[1mtwo {text}\\x1b[0m", file=sys.stderr)
    print(f"\\x1b[31mred {text}\\n\\x1b[0m", end="")
    sys.stdout.buffer.write(b"bytes " + text.encode() + b"\\n")
    print("left open", text, end="" if text == "c" else "\\n")

Experiment(target=agent, inputs=["a", "b", "c"], output_dir="out", capture_output=False).run()
print("after")
"""


def test_what_is_left_on_the_screen_survives_the_bar(folder: Path) -> None:
    """Text in pieces, in colour, as bytes and without an end stands there whole, and so does the bar below it."""
    (folder / "printing.py").write_text(PRINTING)
    process = pexpect.spawn(
        sys.executable,
        ["printing.py"],
        cwd=str(folder),
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
        timeout=60,
        encoding="utf-8",
        dimensions=(40, 200),
    )
    process.expect(pexpect.EOF)
    seen = process.before or ""
    process.close()

    said = [
        line
        for text in "abc"
        for line in (
            f"I think {text} of ['{text}']",
            f"one, two {text}",
            f"red {text}",
            f"bytes {text}",
            f"left open {text}",
        )
    ]
    assert [line for line in drawn(seen) if not line.startswith("[")] == [*said, "after", ""]
    assert [line for line in drawn(seen) if line.startswith("[▓")] == ["[▓▓▓▓▓▓▓▓▓▓] 3/3 (100%) - 1s"]
    assert re.search(r"1/3 \(33%\)", seen)


class Terminal(io.StringIO):
    """A stream to a screen that several share."""

    def __init__(self, shared: list[str]) -> None:
        super().__init__()
        self._shared = shared

    def write(self, text: str) -> int:
        self._shared.append(text)
        return len(text)

    def isatty(self) -> bool:
        return True


DONE = "done"  # of the bar's own: a run has ended
PIECES = st.sampled_from(["a", "bc ", "\n", "d\n", "e\nf", "\x1b[1m", "g\x1b[0m\n\x1b[m", "", DONE])


@given(st.lists(st.tuples(st.booleans(), PIECES), min_size=1, max_size=20))
def test_no_text_is_lost_to_the_bar(pieces: list[tuple[bool, str]]) -> None:
    """Whatever is written to either stream, in whatever pieces, reads as it would without a bar."""
    shared: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluxloop.progress.REDRAW_SECONDS", 0.0)
        patch.setattr("sys.stdout", Terminal(shared))
        patch.setattr("sys.stderr", Terminal(shared))
        bar = BarProgress(screen(sys.stderr))
        with captured_output(bar.aside, keeps=False):
            bar.start(len(pieces))
            for is_error, piece in pieces:
                if piece is DONE:
                    bar.update(make_trace(), None)
                else:
                    (sys.stderr if is_error else sys.stdout).write(piece)
            bar.stop()
    alone = "".join(piece for _, piece in pieces if piece is not DONE)
    *text, last, end = drawn("".join(shared))
    assert re.fullmatch(r"\[[▓░]{10}\] \d+/\d+ \(\d+%\) - 0s", last)
    assert end == ""
    assert text == (lines if (lines := drawn(alone))[-1] else lines[:-1])


def test_a_line_of_its_own_ends_that_of_others() -> None:
    """A warning does not stand behind text that somebody has not ended, with or without a bar."""
    for kind in (Progress, LogProgress, BarProgress):
        shared: list[str] = []
        stream = Terminal(shared)
        progress = kind(stream)
        progress.start(1)
        with progress.aside(stream, "..."):
            stream.write("...")
        progress.warn("careful")
        progress.stop()
        assert drawn("".join(shared))[:2] == ["...", "[WARN] careful"]


def test_text_elsewhere_does_not_hold_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dots that go to a file are on no line of the bar's."""
    monkeypatch.setattr("fluxloop.progress.REDRAW_SECONDS", 0.0)
    shared: list[str] = []
    bar = BarProgress(Terminal(shared))
    bar.start(1)
    with (tmp_path / "file").open("w") as file, bar.aside(file, "..."):
        pass
    bar.update(make_trace(), None)
    assert "1/1" in "".join(shared)
    bar.stop()


def test_a_reader_that_leaves_costs_no_run(folder: Path) -> None:
    """`fluxloop run experiment 2>&1 | head -1` runs to its end."""
    line = " ".join([shlex.quote(sys.executable), *command("agents:talking", "--iterations", "2")])
    subprocess.run(["bash", "-c", f"{line} 2>&1 | head -1"], cwd=folder, check=True, capture_output=True)
    (path,) = (folder / "experiments").iterdir()
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["total_traces"]) == ("completed", 4)


@pytest.mark.parametrize("target", ["agents:debugged", "agents:debugged_async"])
def test_breakpoint_stops_in_the_agent_with_bar_and_capture_aside(folder: Path, target: str) -> None:
    """The debugger has the terminal in the agent's own frame, and the experiment goes on after it."""
    process = spawn(folder, target)
    for expected in ("aa", "bb"):
        process.expect(r"agents\.py\(\d+\)debugged")
        process.expect(re.escape("(Pdb) "))
        process.sendline("p secret")
        process.expect(f"'{expected}'")
        process.sendline("c")
    process.expect(pexpect.EOF)
    screen = process.before or ""
    process.close()

    assert process.exitstatus == 0
    assert "2 of 2: 2 passed" in screen
    (path,) = (folder / "experiments").iterdir()
    outputs = [json.loads(line)["output"] for line in (path / "traces.jsonl").read_text().splitlines()]
    assert outputs == ["aa", "bb"]


def test_quitting_the_debugger_ends_the_experiment(folder: Path) -> None:
    """`q` fails the run it is typed in, and the runs that are left are not run."""
    process = spawn(folder, "agents:debugged")
    process.expect(re.escape("(Pdb) "))
    process.sendline("q")
    process.expect(pexpect.EOF)
    process.close()

    (path,) = (folder / "experiments").iterdir()
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["total_traces"], summary["not_run"]) == ("interrupted", 1, 1)
    assert process.exitstatus == 130


def test_a_log_file_gets_plain_lines(folder: Path) -> None:
    """Without a terminal there is no carriage return and no control character."""
    done = subprocess.run(
        [sys.executable, *command("agents:talking", "--iterations", "2")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )

    assert all(char == "\n" or char.isprintable() for char in done.stdout + done.stderr)
    assert done.stderr.splitlines()[:3] == [
        "[INFO] Starting experiment...",
        "[INFO] Loaded 2 inputs",
        "[INFO] Running 2 iterations per input (4 total runs)",
    ]
    assert "runs      4 of 4: 2 passed, 2 failed" in done.stdout


def test_log_lines_come_every_few_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand runs in ten seconds three lines tell, with counts, failures and what is left."""
    now = 0.0
    monkeypatch.setattr("fluxloop.progress.monotonic", lambda: now)
    stream = io.StringIO()
    progress = LogProgress(stream)
    progress.start(2000)
    passed, failed = make_trace(), make_trace(passed=False)
    for number in range(1000):
        now += 0.01
        progress.update(failed if number % 10 == 0 else passed, None)

    lines = stream.getvalue().splitlines()
    assert len(lines) in (1, 2)
    assert re.fullmatch(r"\[INFO\] 50\d/2000 \(25%\) - 5\d failed - ETA: 15s", lines[0])


def test_what_infrastructure_failed_is_counted_apart() -> None:
    """A bar that says `failed` means the agent."""
    outage = make_trace(status="error", passed=False, error=RunError("infrastructure", "ConnectionError", "no", None))
    bar = BarProgress(io.StringIO())
    bar.start(4)
    for trace in (make_trace(), make_trace(passed=False), outage, outage):
        bar.update(trace, None)
    assert re.fullmatch(r"4/4 \(100%\) - 1 failed - 2 infrastructure - \ds", bar.state())
    bar.stop()


def noted(schedule: Schedule) -> str:
    """What stands right of the counts."""
    progress = BarProgress(io.StringIO())
    progress.start(3)
    progress.tick(schedule)
    state = progress.state()
    progress.stop()
    return state.removeprefix("0/3 (0%)")


def ended(planned: PlannedRun, **changes: Any) -> Attempt:
    """An attempt that has come to its end."""
    times = ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:01.000000Z", 1000.0)
    return Attempt(planned, 1, "error", "a", None, None, *times, (), None, None, **changes)


def test_what_is_waited_for_stands_in_the_place_of_the_estimate() -> None:
    """A pause a service asked for, a rate that is slow, and those in flight at a stop, with their time."""
    now = 0.0
    urgency: Urgency = 0
    plan = Plan(cases=[Case(0, "a", 1)], iterations=3, seed=0)
    limits = Limits(max_retries=1, start_gap=5, grace=30)
    schedule = Schedule(plan, limits, clock=lambda: now, urgency=lambda: urgency)
    assert noted(schedule) == ""

    (first, _) = schedule.take() or pytest.fail("nothing to start")
    assert noted(schedule) == ""  # it runs: nothing else is waited for
    schedule.settle(ended(first))
    assert noted(schedule) == " - next start in 5s"

    now = 5.0
    (second, _) = schedule.take() or pytest.fail("nothing to start")
    schedule.settle(ended(second, retry=True, retry_after=100.0, is_overload=True))
    assert noted(schedule) == " - paused for 1m 40s, as a service asked"

    now = 200.0
    assert schedule.take()
    urgency = 1
    assert noted(schedule) == " - stopping, 1 in flight, 30s left"
    now = 210.0
    assert noted(schedule) == " - stopping, 1 in flight, 20s left"


def test_the_time_of_those_in_flight_may_be_any() -> None:
    """Where there is no grace to run out none is shown."""
    schedule = Schedule(Plan(cases=[Case(0, "a", 1)], iterations=1, seed=0), urgency=lambda: 1)
    assert noted(schedule) == " - stopping, 0 in flight"


def test_a_log_says_that_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing finishes a line tells so every half minute, and not at every look."""
    now = 0.0
    monkeypatch.setattr("fluxloop.progress.monotonic", lambda: now)
    schedule = Schedule(Plan(cases=[Case(0, "a", 1)], iterations=1, seed=0), urgency=lambda: 1)
    stream = io.StringIO()
    progress = LogProgress(stream)
    progress.start(2)
    for _ in range(1000):
        now += 0.1
        progress.tick(schedule)
    assert stream.getvalue().splitlines() == ["[INFO] 0/2 (0%) - stopping, 0 in flight"] * 3


def test_where_progress_goes() -> None:
    """False shows nothing, True lines without a terminal, and by default nothing without one."""
    stream = io.StringIO()
    assert type(progress_for(False, stream)) is Progress
    assert type(progress_for(None, stream)) is Progress
    assert type(progress_for(True, stream)) is LogProgress
    assert type(progress_for(True, None)) is not Progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (135, "2m 15s"), (3600, "1h 00m"), (11_100, "3h 05m"), (-1, "0s")],
)
def test_durations_read_as_the_documentation_writes_them(seconds: float, text: str) -> None:
    """Seconds, then minutes and seconds, then hours and minutes."""
    assert clock(seconds) == text


@pytest.mark.parametrize("hostile", ["a\x1b[2Jb", "a\rb", "a\nb", "a\x00b", "a\u202eb", "a\x9b2Jb"])
def test_one_line_holds_nothing_that_moves_the_cursor(hostile: str) -> None:
    """Control characters, line ends and direction marks become spaces."""
    assert one_line(hostile).isprintable()
    assert one_line(hostile).startswith("a ")


def test_long_lines_are_cut() -> None:
    """A message of any length is one short line."""
    assert len(one_line("x" * 10_000, 100)) == 100
    assert len(text_table([("errors", "x" * 10_000)]).splitlines()) == 1
