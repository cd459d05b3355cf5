"""What an agent prints and logs is kept with its run, and nothing else changes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fluxloop
from fluxloop.records import Trace
from fluxloop.testing import run_once
from fluxloop.tracing.context import current
from fluxloop.tracing.output import captured_output


class Shown:
    """What the user has seen of a stream."""

    def __init__(self, capsys: pytest.CaptureFixture[str], name: str) -> None:
        self._capsys = capsys
        self._name = name

    def shown(self) -> str:
        """Return what was shown since the last call."""
        return str(getattr(self._capsys.readouterr(), self._name))


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str]) -> Shown:
    """Standard output."""
    return Shown(capsys, "out")


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Shown:
    """Standard error."""
    return Shown(capsys, "err")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards; its handlers are pytest's until `bare`."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def bare(logger: logging.Logger) -> None:
    """Take the handlers away that pytest adds for each test, as in a fresh process."""
    logger.handlers[:] = []


def captured(work: Callable[[], Any]) -> Trace:
    """Run `work` as an agent whose output is kept; it must not fail."""
    with captured_output():
        trace = run_once(lambda text: work(), "hi")
    assert trace.error is None, trace.error
    return trace


def test_prints_are_kept_with_the_run(screen: Shown) -> None:
    """Each stream of a run is its own text, and the screen shows nothing of it."""

    def work() -> None:
        print("a", 1, end=";")
        print("é\ud800", file=sys.stderr)
        sys.stdout.write("b")
        sys.stdout.writelines(["c", "d"])
        print("", flush=True)

    trace = captured(work)
    assert (trace.stdout, trace.stderr) == ("a 1;bcd\n", "é\\ud800\n")
    assert screen.shown() == ""


def test_a_silent_run_has_no_output(screen: Shown) -> None:
    """A run that writes nothing has None for both texts."""
    trace = captured(lambda: None)
    assert (trace.stdout, trace.stderr) == (None, None)


def test_bytes_are_kept_as_text(screen: Shown) -> None:
    """What goes to the stream's buffer is kept in its order; what is no UTF-8 is escaped."""
    counts: list[int] = []

    def work() -> None:
        print("a")
        counts.append(sys.stdout.buffer.write("é".encode()))
        counts.append(sys.stdout.buffer.write(memoryview(b"\xff")))
        sys.stdout.buffer.writelines([b"b", bytearray(b"c")])
        sys.stdout.buffer.flush()

    assert captured(work).stdout == "a\né\\xffbc"
    assert counts == [2, 1]
    assert screen.shown() == ""


def test_writing_no_text_is_the_streams_own_error(screen: Shown) -> None:
    """Writing what is no text fails in a run as it does outside."""

    def work() -> None:
        with pytest.raises(TypeError, match="write\\(\\) argument must be str, not bytes"):
            sys.stdout.write(b"a")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            sys.stdout.buffer.write("a")  # type: ignore[arg-type]

    with captured_output():
        work()
    captured(work)


def test_outside_a_run_writing_goes_to_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """Who is in no run writes on, text and bytes in their order."""
    with captured_output():
        print("a", flush=True)
        sys.stdout.buffer.write(b"b")
        sys.stdout.buffer.writelines([b"c"])
        sys.stdout.buffer.flush()
        sys.stdout.writelines(["d"])
        assert sys.stdout.write("ef") == 2
        print("err", file=sys.stderr)
        run_once(lambda text: print("kept"), "hi")
        with ThreadPoolExecutor() as pool:
            run_once(lambda text: pool.submit(print, "!").result(), "hi")
    assert capsys.readouterr() == ("a\nbcdef!\n", "err\n")


def test_what_stands_aside_does_so_around_the_screen_only(screen: Shown) -> None:
    """The progress bar is cleared for what goes to the screen, text and bytes, not for what a run keeps."""
    texts: list[str] = []

    @contextlib.contextmanager
    def aside(stream: Any, text: str) -> Iterator[None]:
        texts.append(text)
        yield

    with captured_output(aside):
        run_once(lambda text: print("kept"), "hi")
        assert texts == []
        sys.stdout.write("shown")
        sys.stdout.buffer.write(b"too")
        assert texts == ["shown", "too"]


def test_a_run_has_no_terminal(screen: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where output is kept `isatty` is false, also for a logger made outside a run; the rest is the screen's."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    encoding = sys.stdout.encoding
    with captured_output(keeps=False):
        assert sys.stdout.isatty()
    with captured_output():
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == encoding
        assert sys.stdout.buffer.readable()
        trace = run_once(lambda text: [sys.stdout.isatty(), sys.stderr.isatty(), sys.stdout.encoding], "hi")
    assert trace.output == [False, False, encoding]


def test_streams_are_put_back() -> None:
    """Afterwards both streams and the breakpoint hook are what they were, also after an error."""
    before = (sys.stdout, sys.stderr, sys.breakpointhook)

    def fail() -> None:
        with captured_output():
            assert sys.stdout is not before[0]
            assert sys.stderr is not before[1]
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert (sys.stdout, sys.stderr, sys.breakpointhook) == before


def test_nested_use_keeps_the_streams_until_the_last_has_ended(screen: Shown) -> None:
    """Two experiments at once share the streams, in whatever order they end."""
    before = sys.stdout
    first, second = captured_output(), captured_output()
    first.__enter__()
    stand_in = sys.stdout
    second.__enter__()
    assert sys.stdout is stand_in
    first.__exit__(None, None, None)
    assert run_once(lambda text: print("a"), "hi").stdout == "a\n"
    print("shown")
    second.__exit__(None, None, None)
    assert sys.stdout is before
    assert screen.shown() == "shown\n"
    assert captured(lambda: print("b")).stdout == "b\n"


def test_runs_in_many_threads_keep_their_own(screen: Shown) -> None:
    """What concurrent runs print is never mixed."""
    before = sys.stdout

    def agent(text: str) -> None:
        for number in range(50):
            print(text, number)

    def experiment(name: str) -> str | None:
        with captured_output():
            return run_once(agent, name).stdout

    with ThreadPoolExecutor(4) as pool:
        for name, kept in zip("abcdefgh", pool.map(experiment, "abcdefgh"), strict=True):
            assert kept == "".join(f"{name} {number}\n" for number in range(50))
    assert sys.stdout is before
    assert screen.shown() == ""


def test_async_runs_on_one_loop_keep_their_own(screen: Shown) -> None:
    """What concurrent async runs print is never mixed, in their tasks and threads neither."""
    from fluxloop.records import Case, PlannedRun
    from fluxloop.runner import Task

    async def agent(text: str) -> None:
        for number in range(5):
            await asyncio.sleep(0)
            print(text, number)
        await asyncio.to_thread(print, text, "thread")
        await asyncio.create_task(asyncio.to_thread(print, text, "task"))

    task = Task(target=agent, args={}, inject=(), input_template=None, output_path=None, import_places=())
    with captured_output(), task.open() as runner:

        async def together() -> list[Any]:
            plan = [PlannedRun(f"trace_{n}", Case(n, f"input_{n}", f"run {n}"), 0, 0) for n in range(8)]
            return await asyncio.gather(*map(runner.run_async, plan))

        attempts = asyncio.run(together())
    for number, attempt in enumerate(attempts):
        rows = [*range(5), "thread", "task"]
        assert attempt.stdout == "".join(f"run {number} {row}\n" for row in rows)
    assert screen.shown() == ""


def test_logs_of_a_handler_made_before_are_kept(capsys: pytest.CaptureFixture[str], root: logging.Logger) -> None:
    """A handler that writes to the screen writes to the run, and to the screen again afterwards."""
    bare(root)
    bare(root)
    handler = logging.StreamHandler()
    own = logging.StreamHandler(sys.stdout)
    file = io.StringIO()
    root.addHandler(handler)
    root.addHandler(logging.StreamHandler(file))
    logger = logging.getLogger("tests.tracing.own")
    logger.propagate = False
    logger.addHandler(own)

    def agent(text: str) -> None:
        logging.warning("in")
        logger.warning("own")

    try:
        with captured_output():
            logging.warning("outside")
            trace = run_once(agent, "hi")
        logging.warning("after")
        logger.warning("after")
    finally:
        logger.removeHandler(own)
    assert (trace.stdout, trace.stderr) == ("own\n", "in\n")
    assert capsys.readouterr() == ("after\n", "outside\nafter\n")
    assert (handler.stream, own.stream) == (sys.stderr, sys.stdout)
    assert file.getvalue() == "outside\nin\nafter\n"


def test_logs_of_a_handler_made_inside_are_kept(errors: Shown, root: logging.Logger) -> None:
    """A handler the agent makes writes to its run, to later runs, and to the screen outside."""
    bare(root)
    bare(root)

    def agent(text: str) -> None:
        logging.basicConfig(format="%(levelname)s %(message)s")
        logging.warning("in")

    with captured_output():
        first = run_once(agent, "hi")
    logging.warning("between")
    with captured_output():
        second = run_once(agent, "hi")
    assert (first.stderr, second.stderr) == ("WARNING in\n", "WARNING in\n")
    assert errors.shown() == "WARNING between\n"


def test_a_handler_the_agent_points_elsewhere_stays_there(errors: Shown, root: logging.Logger) -> None:
    """A handler whose stream the agent changes keeps the agent's."""
    bare(root)
    bare(root)
    handler, other = logging.StreamHandler(), io.StringIO()
    root.addHandler(handler)
    captured(lambda: handler.setStream(other) and None)
    assert handler.stream is other


def test_logs_without_any_handler_are_kept(errors: Shown, root: logging.Logger) -> None:
    """What logging prints when nobody has configured it is kept; debug messages are not printed."""
    bare(root)
    bare(root)

    def work() -> None:
        logging.getLogger("tests.nobody").warning("careful")
        logging.getLogger("tests.nobody").debug("detail")

    assert captured(work).stderr == "careful\n"
    assert errors.shown() == ""


def test_a_root_handler_of_logging_itself_is_no_obstacle(errors: Shown, root: logging.Logger) -> None:
    """A handler that always looks up `sys.stderr` needs no help and takes none."""
    bare(root)
    bare(root)
    assert logging.lastResort is not None
    root.addHandler(logging.lastResort)
    assert captured(lambda: logging.warning("x")).stderr == "x\n"


def writer_to(stream: Any) -> Callable[[str], Any]:
    """A console that has taken a stream, and keeps it whatever becomes of `sys.stdout`."""
    return lambda text: print(text, file=stream)


def test_who_took_the_stream_before_writes_to_the_run(screen: Shown) -> None:
    """It need not know of any experiment, and has its stream to itself again afterwards."""
    console, stream, write = writer_to(sys.stdout), sys.stdout, sys.stdout.write

    def agent(text: str) -> None:
        console(text)

    with captured_output():
        console("outside")
        first = run_once(agent, "hi")
    console("between")
    with captured_output():
        second = run_once(agent, "ho")
    assert (first.stdout, second.stdout) == ("hi\n", "ho\n")
    assert screen.shown() == "outside\nbetween\n"
    assert (sys.stdout, sys.stdout.write) == (stream, write)


def test_who_took_a_stand_in_writes_to_every_later_run(screen: Shown) -> None:
    """A console made during one experiment serves the next, and the screen when there is none."""
    with captured_output():
        console = writer_to(sys.stdout)
    console("between")
    with captured_output():
        with captured_output():
            inner = run_once(lambda text: console(text), "inner")
        outer = run_once(lambda text: console(text), "outer")
        console("outside")
    assert (inner.stdout, outer.stdout) == ("inner\n", "outer\n")
    assert run_once(lambda text: console(text), "nobody listens").stdout is None
    assert screen.shown() == "between\noutside\nnobody listens\n"


def test_a_stand_in_outlives_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's stream was stood in for goes to that of the next test, once it is closed."""
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", first)
    with captured_output():
        taken = sys.stdout
        console = writer_to(taken)
    first.close()
    monkeypatch.setattr(sys, "stdout", second)
    with captured_output():
        trace = run_once(lambda text: console(text), "kept")
        console("shown")
    console("after")
    taken.flush()
    taken.buffer.write(b"bytes")
    assert trace.stdout == "kept\n"
    assert second.getvalue() == "shown\nafter\nbytes"

    class Tee:  # it leads back
        def write(self, text: str) -> int:
            return taken.write(text)

    monkeypatch.setattr(sys, "stdout", Tee())
    with pytest.raises(ValueError, match="closed"):
        console("to nobody")


def test_a_stand_in_that_stays_is_no_stand_in_of_a_stand_in(screen: Shown) -> None:
    """A program that has put it into `sys.stdout` again has the stream back after the next experiment."""
    stream = sys.stdout
    with captured_output():
        taken = sys.stdout
    sys.stdout = taken  # as `redirect_stdout` does that was entered meanwhile
    with captured_output():
        assert sys.stdout is taken
        assert run_once(lambda text: print("kept"), "hi").stdout == "kept\n"
    print("shown")
    assert sys.stdout is stream
    assert screen.shown() == "shown\n"


def test_others_that_change_the_streams_write_keep_their_change(screen: Shown) -> None:
    """What was there before is there again, and what came on top meanwhile stays, without end or loss."""
    stream = sys.stdout
    own = stream.write

    def upper(write: Callable[[str], int]) -> Callable[[str], int]:
        return lambda text: write(text.upper())

    before = stream.write = upper(own)  # type: ignore[method-assign,assignment]
    try:
        assert captured(lambda: print("kept")).stdout == "kept\n"
        assert stream.write is before
        with captured_output():
            stream.write = upper(stream.write)  # type: ignore[method-assign]
        after = stream.write
        print("shown")
        assert captured(lambda: print("again")).stdout == "again\n"
        assert stream.write is after
        with captured_output():
            print("outside")
        assert screen.shown() == "SHOWN\nOUTSIDE\n"
    finally:
        del stream.write
    assert stream.write == own


def test_a_stream_that_takes_no_attributes_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took it before goes on to write to it; `print` is kept."""

    class Fixed:
        __slots__ = ("texts",)

        def __init__(self) -> None:
            self.texts: list[str] = []

        def write(self, text: str) -> int:
            self.texts.append(text)
            return len(text)

    def work() -> None:
        print("kept")
        fixed.write("shown")

    fixed = Fixed()
    monkeypatch.setattr(sys, "stdout", fixed)
    assert captured(work).stdout == "kept\n"
    assert fixed.texts == ["shown"]


def test_one_stream_under_both_names_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `--quiet`, where both go to one place: a run has each text under its name."""
    both = io.StringIO()
    monkeypatch.setattr(sys, "stdout", both)
    monkeypatch.setattr(sys, "stderr", both)

    def work() -> None:
        print("out")
        print("err", file=sys.stderr)
        print("taken", file=both)

    with captured_output():
        print("shown")
        trace = run_once(lambda text: work(), "hi")
    assert (trace.stdout, trace.stderr) == ("out\n", "err\ntaken\n")
    assert both.getvalue() == "shown\n"


def test_handlers_that_no_logger_knows_are_kept(errors: Shown, root: logging.Logger) -> None:
    """A handler that an agent calls by itself, as behind a queue, needs no logger to be found by."""
    handler = logging.StreamHandler()
    record = logging.LogRecord("name", logging.INFO, "path", 1, "message", None, None)
    assert captured(lambda: handler.handle(record) and None).stderr == "message\n"
    assert errors.shown() == ""


def test_an_agent_that_redirects_its_output_has_it(screen: Shown) -> None:
    """`redirect_stdout` in an agent takes what is printed, and gives the stream back."""

    def work() -> str:
        caught = io.StringIO()
        with contextlib.redirect_stdout(caught):
            print("caught")
        print("kept")
        return caught.getvalue()

    trace = captured(work)
    assert (trace.output, trace.stdout) == ("caught\n", "kept\n")


def test_an_agent_that_replaces_the_streams_keeps_its_own(screen: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream the agent puts in place stays there; what it passes on is kept, then shown."""

    class Shouting:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, text: str) -> int:
            return int(self.stream.write(text.upper()))

        def flush(self) -> None:
            self.stream.flush()

    def work() -> None:
        sys.stdout = Shouting(sys.stdout)  # type: ignore[assignment]
        sys.stderr = Shouting(sys.stderr)  # type: ignore[assignment]
        sys.breakpointhook = print
        print("kept")
        print("kept too", file=sys.stderr)

    for name in ("stdout", "stderr", "breakpointhook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # put back afterwards
    trace = captured(work)
    assert (trace.stdout, trace.stderr) == ("KEPT\n", "KEPT TOO\n")
    assert isinstance(sys.stdout, Shouting)
    assert sys.breakpointhook is print
    print("shown")
    assert captured(lambda: print("again")).stdout == "again\n"
    assert screen.shown() == "SHOWN\n"


def test_a_run_that_has_ended_takes_nothing_more(screen: Shown) -> None:
    """What a thread prints or calls after its run has been recorded is counted, and neither kept nor shown."""
    kept: list[Any] = []

    @fluxloop.tool()
    def tool() -> str:
        with fluxloop.span("inside"):
            fluxloop.event("too")
        return "as ever"

    def agent(text: str) -> None:
        kept.extend(map(fluxloop.carry_context, (print, sys.stdout.buffer.write, tool)))
        scope = current.get()
        assert scope is not None
        kept.append(scope[0].late)

    with captured_output():
        trace = run_once(agent, "hi")
        late_print, late_write, late_tool, late = kept
        late_print("late")
        late_write(b"too")
        assert late_tool() == "as ever"
    late_print("print")
    assert (trace.stdout, trace.observations) == (None, ())
    assert (late.calls, late.characters, late.first) == (3, len("late\ntoo"), "trace_001")
    assert screen.shown() == "print\n"


def test_a_stream_is_used_as_a_context_manager(screen: Shown) -> None:
    """`with sys.stdout:` in an agent does not close the screen."""

    def work() -> None:
        with sys.stdout as out:
            out.write("a")

    assert captured(work).stdout == "a"
    assert not sys.stdout.closed


def test_streams_without_a_buffer_take_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the screen is a notebook's, which has no bytes, they are written as text."""
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    with captured_output():
        sys.stdout.buffer.write(b"shown")
        sys.stdout.buffer.flush()
        trace = run_once(lambda text: sys.stdout.buffer.write(b"kept") and None, "hi")
    assert (trace.stdout, notebook.getvalue()) == ("kept", "shown")


def test_a_process_without_streams_runs() -> None:
    """Where a service has closed its output, runs keep theirs and other prints vanish, as ever."""
    code = """
import sys
sys.stdout = sys.stderr = None
from fluxloop.testing import run_once
from fluxloop.tracing.output import captured_output
with captured_output():
    print("vanishes", flush=True)
    print(sys.stdout.isatty(), file=sys.stderr)
    trace = run_once(lambda text: print("kept"), "hi")
assert sys.stdout is None
assert trace.stdout == "kept\\n", trace
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_breakpoint_outside_a_run_is_left_to_its_hook(screen: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of the user's own is called with its arguments, and inside a run the terminal is its."""
    called: list[Any] = []
    told: list[int] = []
    monkeypatch.setattr(sys, "breakpointhook", lambda *args, **kwargs: called.append((args, kwargs)))

    def agent(text: str) -> None:
        print("before")
        breakpoint("here", key=1)
        print("after")

    with captured_output(debugging=lambda: told.append(1)):
        breakpoint()
        assert told == []
        trace = run_once(agent, "hi")
    assert called == [((), {}), (("here",), {"key": 1})]
    assert told == [1]
    assert trace.stdout == "before\n"
    assert screen.shown() == "after\n"
