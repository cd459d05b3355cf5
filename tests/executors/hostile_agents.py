"""A great many agents that do what no agent should, each in a line or two; the input says which."""

from __future__ import annotations

import asyncio
import builtins
import collections
import contextvars
import enum
import gc
import io
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import fluxloop
from tests.executors.faulty_agents import DEADLY, is_refused_memory
from tests.executors.spoiling_agents import SPOILING, fails, in_turn, sets

Agent = Callable[[], Any]


# What is raised


def throw(error: BaseException) -> Any:
    raise error


def made(kind: type[BaseException]) -> BaseException:
    """Return an exception of a kind, whatever it is made of."""
    if issubclass(kind, BaseExceptionGroup):
        return kind("many", [ValueError("one"), TypeError("two")])
    if issubclass(kind, UnicodeDecodeError):
        return kind("utf-8", b"\xff", 0, 1, "odd")
    if issubclass(kind, UnicodeEncodeError):
        return kind("ascii", "\xff", 0, 1, "odd")
    if issubclass(kind, UnicodeTranslateError):
        return kind("\xff", 0, 1, "odd")
    return kind("hostile")


BUILTIN = sorted(
    {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)},
    key=lambda kind: kind.__name__,
)
RAISING: dict[str, Agent] = {f"raises {kind.__name__}": (lambda kind=kind: throw(made(kind))) for kind in BUILTIN}


def odd_error(name: str, value: Any, base: type[BaseException] = Exception) -> Agent:
    """Raise an exception whose class has this attribute."""
    return lambda: throw(type("OddError", (base,), {name: value})("odd"))


def in_a_ring() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    raise one


def in_a_long_chain() -> None:
    error = ValueError("first")
    for number in range(5000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    raise error


def in_deep_groups() -> None:
    error: Exception = ValueError("leaf")
    for _ in range(2000):
        error = ExceptionGroup("deeper", [error])
    raise error


def with_attribute(name: str, value: Any) -> Agent:
    def agent() -> None:
        error = ValueError("set")
        setattr(error, name, value)
        raise error

    return agent


def with_hostile_notes() -> None:
    error = ValueError("noted")
    error.__notes__ = [OUTPUT_FAILING("__str__"), 7, None]  # type: ignore[list-item]
    raise error


def while_another_is_raised() -> None:
    try:
        throw(ValueError("first"))
    finally:
        throw(KeyboardInterrupt("second"))


def OUTPUT_FAILING(name: str) -> Any:  # noqa: N802 - a factory of classes' instances
    return type("Fails", (), {name: fails})()


def raised_by_compiled_code() -> None:
    exec(compile("\n" * 10**6 + "raise ValueError('far down')", "no such file\n\x1b[31m", "exec"))


class MetaError(type(Exception)):  # type: ignore[misc]
    """The class of exceptions whose class cannot be looked at."""

    __module__ = property(fails)  # type: ignore[assignment]

    def __repr__(cls) -> str:
        raise RuntimeError("no class")

    def __instancecheck__(cls, value: object) -> bool:
        raise RuntimeError("no instance")

    def __subclasscheck__(cls, value: type) -> bool:
        raise RuntimeError("no subclass")


ODD_ERRORS: dict[str, Agent] = {
    **{
        f"raises what fails in {name}": odd_error(name, fails)
        for name in ("__str__", "__repr__", "__eq__", "__hash__", "__reduce__", "__bool__", "__getattribute__")
    },
    **{
        f"raises what has a failing {name}": odd_error(name, property(fails))
        for name in ("args", "__class__", "__cause__", "__context__", "__traceback__", "__notes__", "__dict__")
    },
    "raises what is told in no text": odd_error("__str__", lambda self: 7),
    "raises what is told in surrogates": odd_error("__str__", lambda self: "\ud800\0\x1b[2J"),
    "raises what is told at length": lambda: throw(ValueError("x" * 50_000_000)),
    "raises what exits when told": odd_error("__str__", lambda self: sys.exit(5)),
    "raises what interrupts when told": odd_error("__str__", lambda self: throw(KeyboardInterrupt())),
    "raises what recurses when told": odd_error("__str__", lambda self: str(self)),
    "raises a group that fails to split": odd_error("split", fails, RuntimeError),
    "raises a group of no exceptions": lambda: throw(
        type("Odd", (ExceptionGroup,), {"exceptions": (1, None)})("odd", [ValueError()])
    ),
    "raises with hostile status": with_attribute("status_code", OUTPUT_FAILING("__int__")),
    "raises with a hostile response": with_attribute("response", OUTPUT_FAILING("__getattr__")),
    "raises with odd headers": with_attribute("headers", {1: object(), "retry-after": float("nan")}),
    "raises from a class that fails": lambda: throw(MetaError("Odd", (Exception,), {})("odd")),
    "raises with a name of its own": lambda: throw(type("\ud800 Odd\n\x1b[31m", (Exception,), {})("odd")),
    "raises with hostile notes": with_hostile_notes,
    "raises in a ring": in_a_ring,
    "raises in a long chain": in_a_long_chain,
    "raises in deep groups": in_deep_groups,
    "raises while another is raised": while_another_is_raised,
    "raises far down": raised_by_compiled_code,
    "raises no exception": lambda: throw("text"),  # type: ignore[arg-type]
    "raises a singleton again": partial(throw, ValueError("the same each time")),
}


# What is returned

METHODS = [
    *("__getattribute__", "__getattr__", "__iter__", "__len__", "__repr__", "__str__", "__bool__", "__eq__"),
    *("__hash__", "__reduce__", "__reduce_ex__", "__getstate__", "__deepcopy__", "__copy__", "__await__", "__next__"),
    *("__contains__", "__getitem__", "__int__", "__float__", "__index__", "__bytes__", "__format__", "__dir__"),
    *("__sizeof__", "__call__", "__fspath__", "__array__", "__enter__", "__aiter__", "keys", "items", "to_dict"),
    *("model_dump", "dict", "json", "tolist", "isoformat", "_asdict"),
]
PROPERTIES = [
    *("__class__", "__dict__", "__slots__", "__dataclass_fields__", "__attrs_attrs__", "model_fields", "dtype"),
    *("__name__", "__module__", "__doc__", "shape", "_fields", "__pydantic_fields__"),
]


def odd(*bases: type, **methods: Any) -> Any:
    """Return an instance of a class with these methods."""
    return type("Odd", bases, methods)()


def ring(value: Any) -> Any:
    value.append(value)
    return value


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def deep_mapping(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"deeper": value}
    return value


def ring_of_objects() -> Any:
    one, other = types.SimpleNamespace(), types.SimpleNamespace()
    one.other, other.other = other, one
    return one


def failing_generator() -> Iterator[int]:
    yield 1
    raise ValueError("no more")


def exiting_generator() -> Iterator[int]:
    yield 1
    sys.exit(3)


def stubborn_generator() -> Iterator[int]:
    try:
        yield 1
        raise ValueError("no more")
    finally:
        raise RuntimeError("not to be closed")


async def failing_async_generator() -> AsyncIterator[int]:
    yield 1
    raise ValueError("no more")


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


class Changing(Mapping[str, int]):
    """Has other keys each time it is looked at."""

    size = 0

    def __iter__(self) -> Iterator[str]:
        self.size += 1
        return iter([f"key {number}" for number in range(self.size)])

    def __len__(self) -> int:
        return -self.size if self.size > 3 else self.size

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)


def changed_by_a_thread() -> Any:
    """Return what a thread goes on to change."""
    value: dict[Any, Any] = {number: [number] for number in range(1000)}

    def change() -> None:
        for number in range(20_000):
            value[number + 1000] = number
            value.pop(number, None)

    threading.Thread(target=change, daemon=True).start()
    return value


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("no class attribute")


class OddEnum(enum.Enum):
    ONE = float("nan")

    @property
    def value(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no value")


def awaitable_of_itself() -> Any:
    class Awaits:
        def __await__(self) -> Iterator[Any]:
            return iter([self])

    return Awaits()


def closed_file() -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is to be closed already
    file.close()
    return file


def dead_reference() -> Any:
    return weakref.proxy(type("Gone", (), {})())


OUTPUTS: dict[str, Agent] = {
    **{f"returns what fails in {name}": partial(OUTPUT_FAILING, name) for name in METHODS},
    **{
        f"returns what has a failing {name}": partial(odd, **{name: property(fails)})
        for name in PROPERTIES
        if name != "__slots__"
    },
    "returns what lies about its class": lambda: odd(__class__=property(lambda self: dict)),
    "returns what lies about being a list": lambda: odd(__class__=property(lambda self: list)),
    "returns what lies about being text": lambda: odd(__class__=property(lambda self: str)),
    "returns what lies about its length": lambda: odd(__len__=lambda self: -1, __iter__=lambda self: iter("ab")),
    "returns what has everything": lambda: odd(__getattr__=lambda self, name: self),
    "returns what exits when seen": lambda: odd(__repr__=lambda self: sys.exit(3), __str__=lambda self: sys.exit(3)),
    "returns what interrupts when seen": lambda: odd(__repr__=lambda self: throw(KeyboardInterrupt())),
    "returns what recurses when seen": lambda: odd(__repr__=lambda self: repr([self])),
    "returns what is seen as no text": lambda: odd(__repr__=lambda self: 7),
    "returns what fails when it goes": lambda: odd(__del__=fails),
    "returns text that is not": lambda: odd(str, __str__=fails, __len__=fails, encode=fails, __iter__=fails),
    "returns a number that is not": lambda: odd(int, __repr__=fails, __str__=fails, __eq__=fails, __bool__=fails),
    "returns a float that is not": lambda: odd(float, __repr__=fails, __float__=fails, is_integer=fails),
    "returns a mapping that is not": lambda: odd(dict, items=fails, __iter__=fails, keys=fails, __len__=fails),
    "returns a list that is not": lambda: odd(list, __iter__=fails, __len__=fails, __getitem__=fails),
    "returns a tuple with odd names": lambda: odd(tuple, _fields=("a", 7, None)),
    "returns a mapping that changes": Changing,
    "returns what a thread changes": changed_by_a_thread,
    "returns a list in itself": lambda: ring([]),
    "returns a queue in itself": lambda: ring(collections.deque()),
    "returns objects in a ring": ring_of_objects,
    "returns a mapping in itself": lambda: (lambda value: value.update(me=value) or value)({}),
    "returns a deep list": lambda: deep(100_000),
    "returns a deep mapping": lambda: deep_mapping(100_000),
    "returns a huge number": lambda: 10**10_000,
    "returns numbers that are none": lambda: [float("nan"), float("inf"), -0.0, complex("nan")],
    "returns lone surrogates": lambda: {"\ud800": "\udfff", "\0": "\x1b[2J"},
    "returns keys that are no numbers": lambda: {float("nan"): 1, float("nan") + 0: 2},
    "returns odd keys": lambda: {None: 1, (1,): 2, b"\xff": 3, True: 4, frozenset([1]): 5, object(): 6},
    "returns keys that are seen alike": lambda: {1: "a", "1": "b", 1.5: "c", "1.5": "d"},
    "returns a failing generator": failing_generator,
    "returns an exiting generator": exiting_generator,
    "returns a stubborn generator": stubborn_generator,
    "returns a failing async generator": failing_async_generator,
    "returns a generator never started": lambda: (fails() for _ in [1]),
    "returns a coroutine": lambda: asyncio.sleep(0, "slept"),
    "returns a coroutine in a list": lambda: [asyncio.sleep(0)],
    "returns what awaits itself": awaitable_of_itself,
    "returns an instance of a failing class": lambda: Meta("Odd", (), {})(),
    "returns a failing class": lambda: Meta("Odd", (), {}),
    "returns an odd enumeration": lambda: OddEnum.ONE,
    "returns a mock": lambda: __import__("unittest.mock").mock.MagicMock(),
    "returns an exception": lambda: ValueError("returned"),
    "returns a closed file": closed_file,
    "returns a dead reference": dead_reference,
    "returns its frame": sys._getframe,
    "returns a module": lambda: sys,
    "returns all globals": globals,
    "returns its run": fluxloop.current_run,
    "returns bytes": lambda: memoryview(bytearray(range(256))),
    "returns not implemented": lambda: [NotImplemented, ..., type, object],
    "returns a great many": lambda: list(range(1_000_000)),
}


# What is printed


def closes_stdout() -> None:
    sys.stdout.close()


def replaces_stdout() -> None:
    sys.stdout = io.StringIO()
    print("elsewhere")


def prints_from_threads() -> None:
    def shout() -> None:
        for _ in range(100):
            print("x" * 100)

    for _ in range(4):
        threading.Thread(target=shout).start()


PRINTS: dict[str, Agent] = {
    "prints bytes": lambda: sys.stdout.buffer.write(b"\xff\xfe\0"),
    "prints surrogates": lambda: print("\ud800", file=sys.stderr),
    "prints control codes": lambda: print("\x1b[2J\x1b]0;title\7\r\b\0"),
    "prints a great deal": lambda: print("x" * 20_000_000),
    "prints what fails": lambda: print(OUTPUT_FAILING("__str__")),
    "prints no text": lambda: sys.stdout.write(7),  # type: ignore[arg-type]
    "prints from threads": prints_from_threads,
    "prints to a descriptor": lambda: os.write(1, b"raw\n"),
    "closes standard output": closes_stdout,
    "replaces standard output": replaces_stdout,
    "detaches standard output": lambda: sys.stdout.detach(),  # type: ignore[union-attr]
    "has no standard output": sets(sys, stdout=None, stderr=None),
    "has failing standard output": sets(sys, stdout=types.SimpleNamespace(write=fails, flush=fails)),
    "reconfigures standard output": lambda: sys.stdout.reconfigure(encoding="ascii"),  # type: ignore[union-attr]
    "reads standard input": lambda: sys.stdin.read(),
    "logs what fails": lambda: logging.getLogger("odd").error("%s %d", OUTPUT_FAILING("__str__")),
    "shuts logging down": logging.shutdown,
}


# What is observed


@fluxloop.tool
def helper(value: Any) -> Any:
    return value


@fluxloop.tool
def gives(count: int) -> Iterator[int]:
    yield from range(count)


def leaves_a_span_open() -> None:
    fluxloop.span("open").__enter__()


def closes_a_span_twice() -> None:
    with fluxloop.span("twice") as span:
        pass
    manager = fluxloop.span("again")
    manager.__enter__()
    manager.__exit__(None, None, None)
    manager.__exit__(None, None, None)
    span.set_output("late")  # type: ignore[attr-defined]


def closes_a_span_elsewhere() -> None:
    manager = fluxloop.span("elsewhere")
    manager.__enter__()
    thread = threading.Thread(target=manager.__exit__, args=(None, None, None))
    thread.start()
    thread.join()


def closes_spans_crossed() -> None:
    one, other = fluxloop.span("one"), fluxloop.span("other")
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)


def observes_in_threads() -> None:
    for number in range(20):
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(helper, number)).start()


def observes_to_the_end() -> Any:
    return fluxloop.tool(observes_to_the_end)()


TRACING: dict[str, Agent] = {
    "leaves a span open": leaves_a_span_open,
    "closes a span twice": closes_a_span_twice,
    "closes a span elsewhere": closes_a_span_elsewhere,
    "closes spans crossed": closes_spans_crossed,
    "observes in threads": observes_in_threads,
    "observes to the end": observes_to_the_end,
    "leaves an observed generator": lambda: next(gives(3)),  # type: ignore[call-overload]
    "observes what fails to be seen": lambda: [helper(OUTPUT_FAILING(name)) for name in METHODS] and None,
    "observes a name that is none": lambda: fluxloop.span(7).__enter__(),  # type: ignore[arg-type]
    "observes what is no function": lambda: fluxloop.tool(7),  # type: ignore[type-var]
    "observes a failing callable": lambda: fluxloop.tool(OUTPUT_FAILING("__call__"))(),
    "observes a class": lambda: fluxloop.tool(Changing)(),
    "observes a great deal": lambda: [helper(number) for number in range(5000)] and None,
    "observes what it changes": lambda: helper(value := [1]) and value.clear(),
    "observes in an empty context": lambda: contextvars.Context().run(helper, 1),
}


# What is left behind


def leaves_a_socket() -> None:
    LEFT.append(socket.create_server(("127.0.0.1", 0)))


def leaves_a_file() -> None:
    LEFT.append(open(os.path.join(tempfile.mkdtemp(dir="."), "left"), "w"))  # noqa: SIM115


def leaves_a_ring_that_fails() -> None:
    one = odd(__del__=fails)
    one.me = one


def leaves_a_timer_that_raises() -> None:
    threading.Timer(0.05, fails).start()


def leaves_a_fork() -> None:
    if not os.fork():
        time.sleep(30)
        os._exit(0)


def leaves_a_fork_that_returns() -> str:
    return "child" if not os.fork() else "parent"


def leaves_a_pool() -> None:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2)
    pool.submit(time.sleep, 1000)


LEFT: list[Any] = []
LEAVING: dict[str, Agent] = {
    "leaves a thread": lambda: threading.Thread(target=time.sleep, args=(1000,)).start(),
    "leaves a daemon": lambda: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(),
    "leaves a thread that raises": lambda: threading.Thread(target=throw, args=(SystemExit(9),)).start(),
    "leaves a thread that interrupts": lambda: threading.Thread(target=throw, args=(KeyboardInterrupt(),)).start(),
    "leaves a timer": leaves_a_timer_that_raises,
    "leaves a pool": leaves_a_pool,
    "leaves a process": lambda: subprocess.Popen(["sleep", "30"]),
    "leaves a process of a new session": lambda: subprocess.Popen(["sleep", "30"], start_new_session=True).pid,
    "leaves a zombie": lambda: subprocess.Popen(["true"]).pid,
    "leaves a fork": leaves_a_fork,
    "leaves a fork that returns": leaves_a_fork_that_returns,
    "leaves a child of multiprocessing": lambda: (
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,), daemon=True).start()
    ),
    "leaves a socket": leaves_a_socket,
    "leaves a file": leaves_a_file,
    "leaves a held lock": lambda: LEFT.append(threading.Lock()) or LEFT[-1].acquire(),
    "leaves a ring that fails": leaves_a_ring_that_fails,
    "leaves a failing exit": lambda: __import__("atexit").register(fails),
    "leaves a coroutine": lambda: LEFT.append(asyncio.sleep(0)),
    "leaves a loop": lambda: LEFT.append(asyncio.new_event_loop()),
}


# How it goes on


def recurses() -> Any:
    return recurses()


def catches_everything() -> None:
    for _ in range(10):
        try:
            recurses()
        except BaseException:  # what there is to be caught
            continue


def interrupts_itself() -> None:
    signal.raise_signal(signal.SIGUSR1) if signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, None) else fails()


def runs_an_experiment() -> Any:
    folder = tempfile.mkdtemp(dir=".")
    inner = fluxloop.Experiment(target=str.upper, inputs=["a"], output_dir=folder, progress=False, executor="threads")
    return inner.run().summary.passed


def allocates_until_refused() -> None:
    with suppress(MemoryError):
        bytearray(1 << 60)
    raise MemoryError


FLOW: dict[str, Agent] = {
    "recurses": recurses,
    "catches everything": catches_everything,
    "is refused memory": allocates_until_refused,
    "exits without a code": lambda: sys.exit(),
    "exits with text": lambda: sys.exit("text"),
    "exits with an object": lambda: sys.exit(object()),  # type: ignore[arg-type]
    "exits as the shell does": lambda: exit(3),
    "is interrupted": interrupts_itself,
    "runs an experiment": runs_an_experiment,
    "runs a loop": lambda: asyncio.run(asyncio.sleep(0, "ran")),
    "runs a loop that exits": lambda: asyncio.run(throw_async(SystemExit(4))),
    "gives a wrong number": lambda: throw(StopIteration(7)),
    "collects while it fails": in_turn(gc.collect, fails),
    "warns": lambda: warnings.warn("hostile", stacklevel=2),
    "compiles nonsense": lambda: compile("(" * 500, "x", "eval"),
    "evaluates too deep": lambda: eval("-" * 100_000 + "1"),
}
HANGING: dict[str, Agent] = {
    "returns what never ends in itself": lambda: odd(__iter__=lambda self: self, __next__=lambda self: self),
    "returns an endless generator": endless,
    "sleeps": lambda: time.sleep(1000),
    "waits for a lock": lambda: [lock := threading.Lock(), lock.acquire(), lock.acquire()],
    "waits for itself": lambda: threading.Event().wait(),
    "waits in exceptions": lambda: sleeps_on(),
    "computes": lambda: computes(),
    "waits for a child": lambda: subprocess.run(["sleep", "30"]),
    "waits to be seen": lambda: odd(__repr__=lambda self: time.sleep(1000)),
    "waits to be told": odd_error("__str__", lambda self: time.sleep(1000)),
}
"""What nothing ends in the thread of whoever called it."""


def computes() -> None:
    """Beyond its time, though not for the rest of the experiment."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        sum(range(1000))


def sleeps_on() -> None:
    while True:
        with suppress(BaseException):
            time.sleep(1000)


# What is changed for all


def set_handler(number: int, handler: Any) -> Agent:
    return lambda: signal.signal(number, handler)


def traces_frames(frame: Any, event: str, argument: Any) -> Any:
    if "fluxloop" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
        return None
    return None


CHANGING: dict[str, Agent] = {
    "ignores interrupts": set_handler(signal.SIGINT, signal.SIG_IGN),
    "ignores its end": set_handler(signal.SIGTERM, signal.SIG_IGN),
    "handles its children": set_handler(signal.SIGCHLD, signal.SIG_IGN),
    "is alarmed": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0),
    "blocks signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}),
    "traces frames": lambda: sys.settrace(traces_frames),
    "fails to trace": lambda: sys.settrace(fails),
    "fails to profile": lambda: sys.setprofile(fails),
    "has threads traced": lambda: threading.settrace(fails),
    "has a small limit of frames": lambda: sys.setrecursionlimit(200),
    "has a great limit of frames": lambda: sys.setrecursionlimit(50_000),
    "has small numbers": lambda: sys.set_int_max_str_digits(640),
    "switches at once": lambda: sys.setswitchinterval(1e-6),
    "changes the directory": lambda: os.chdir(tempfile.mkdtemp(dir=".")),
    "has another zone": lambda: (os.environ.update(TZ="Pacific/Kiritimati"), time.tzset()),
    "has small stacks": lambda: threading.stack_size(32768),
    "has a small threshold": lambda: gc.set_threshold(1, 1, 1),
    "fails to collect": lambda: gc.callbacks.append(fails),
    "has a failing display": sets(sys, displayhook=fails, breakpointhook=fails),
    "hears of events": lambda: sys.addaudithook(lambda event, arguments: None),
    "has another loop policy": lambda: asyncio.set_event_loop_policy(odd(asyncio.DefaultEventLoopPolicy)),
    "has no event loop": lambda: asyncio.set_event_loop(None),
    "has a root handler that fails": lambda: logging.getLogger().addHandler(odd(logging.Handler, emit=fails)),
    "patches builtins": sets(builtins, repr=fails, isinstance=isinstance, print=print),
    "patches exceptions": sets(builtins, ValueError=KeyError),
    "has a thread's excepthook that exits": sets(threading, excepthook=lambda *args: sys.exit(3)),
    **SPOILING,
}
del CHANGING["closes its streams"]  # its own test has it; here nothing could be read any more
SYNC: dict[str, Agent] = {
    **RAISING,
    **ODD_ERRORS,
    **OUTPUTS,
    **PRINTS,
    **TRACING,
    **LEAVING,
    **FLOW,
    "is refused memory by the system": is_refused_memory,
    **HANGING,
    **CHANGING,
}


# Coroutines

Coroutine = Callable[[], Awaitable[Any]]


async def throw_async(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def forever() -> None:
    await asyncio.Event().wait()


async def swallows_its_cancellation() -> str:
    with suppress(asyncio.CancelledError):
        await forever()
    return "swallowed"


async def swallows_every_cancellation() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await forever()


async def raises_after_cancellation() -> None:
    try:
        await forever()
    finally:
        raise RuntimeError("in the end")


async def waits_after_cancellation() -> None:
    try:
        await forever()
    finally:
        await forever()


async def exits_after_cancellation() -> None:
    try:
        await forever()
    finally:
        raise SystemExit(3)


def this() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancels_itself() -> None:
    this().cancel()
    await asyncio.sleep(0)


async def cancels_itself_and_goes_on() -> str:
    this().cancel()
    return "went on"


async def cancels_itself_often() -> None:
    for _ in range(100):
        this().cancel("again")
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def uncancels_itself() -> None:
    for _ in range(3):
        this().uncancel()


async def cancels_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


async def cancels_others() -> str:
    for task in asyncio.all_tasks() - {this()}:
        task.cancel()
    return "cancelled"


async def cancels_its_parent() -> None:
    parent = this()

    async def child() -> None:
        parent.cancel()

    await asyncio.gather(child(), asyncio.sleep(1))


class Awaits:
    """What is awaited gives what it is made of."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self.values


async def awaits(*values: Any) -> None:
    await Awaits(*values)


async def awaits_itself() -> None:
    await this()


async def awaits_a_future_of_another_loop() -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


async def awaits_twice() -> None:
    coroutine = asyncio.sleep(0)
    await coroutine
    await coroutine


async def awaits_what_is_no_awaitable() -> None:
    await OUTPUT_FAILING("__await__")


async def awaits_a_number() -> None:
    await odd(__await__=lambda self: 7)


async def returns_a_coroutine() -> Any:
    return asyncio.sleep(0, "inner")


async def returns_its_task() -> Any:
    return this()


async def returns_a_pending_future() -> Any:
    return asyncio.get_running_loop().create_future()


async def returns_many_awaitables() -> Any:
    async def deeper(depth: int) -> Any:
        return deeper(depth - 1) if depth else "bottom"

    return deeper(50)


def on(name: str, *arguments: Any) -> Coroutine:
    """Call a method of the loop."""

    async def agent() -> str:
        getattr(asyncio.get_running_loop(), name)(*arguments)
        await asyncio.sleep(0)
        return name

    return agent


async def shuts_generators_down() -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()


async def shuts_threads_down() -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


async def runs_the_loop_in_itself() -> None:
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))


async def runs_another_loop() -> None:
    asyncio.run(asyncio.sleep(0))


async def runs_another_loop_in_a_thread() -> Any:
    return await asyncio.to_thread(asyncio.run, asyncio.sleep(0, "ran"))


async def leaks_tasks() -> None:
    LEFT.extend(asyncio.create_task(forever()) for _ in range(50))


async def leaks_tasks_that_fail() -> None:
    asyncio.create_task(throw_async(ValueError("unseen")))  # noqa: RUF006 - it is to be lost


async def leaks_a_task_that_exits() -> None:
    asyncio.create_task(throw_async(SystemExit(7)))  # noqa: RUF006
    await asyncio.sleep(0.02)


async def leaks_a_task_that_interrupts() -> None:
    asyncio.create_task(throw_async(KeyboardInterrupt()))  # noqa: RUF006
    await asyncio.sleep(0.02)


async def leaks_a_generator() -> None:
    await failing_async_generator().__anext__()


async def leaks_a_stubborn_generator() -> None:
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await forever()
            yield 2

    LEFT.append(generator := stubborn())
    await generator.__anext__()


async def times_out_by_itself() -> None:
    async with asyncio.timeout(0.01):
        await forever()


async def times_out_wrongly() -> None:
    timeout = asyncio.timeout(None)
    await timeout.__aenter__()
    timeout.reschedule(asyncio.get_running_loop().time() - 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def times_out_in_the_past() -> None:
    async with asyncio.timeout(-1):
        await asyncio.sleep(1)


async def times_out_what_swallows() -> str:
    await asyncio.wait_for(swallows_its_cancellation(), 0.01)
    return "swallowed"


async def fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(throw_async(ValueError("one")))
        group.create_task(forever())
        group.create_task(throw_async(TypeError("two")))


async def exits_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(throw_async(SystemExit(3)))
        group.create_task(forever())


async def cancels_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(throw_async(asyncio.CancelledError()))
        this().cancel()
        await asyncio.sleep(0)


async def has_failing_callbacks() -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(fails)
    loop.call_soon(throw, asyncio.CancelledError())
    this().add_done_callback(fails)
    await asyncio.sleep(0.01)


async def has_a_callback_that_exits() -> None:
    asyncio.get_running_loop().call_soon(throw, SystemExit(5))
    await asyncio.sleep(0.01)


async def has_a_callback_that_interrupts() -> None:
    asyncio.get_running_loop().call_soon(throw, KeyboardInterrupt())
    await asyncio.sleep(0.01)


async def resets_foreign_variables() -> None:
    for variable in contextvars.copy_context():
        with suppress(ValueError, LookupError):
            variable.set(None)


async def resets_wrongly() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("odd")
    token = contextvars.copy_context().run(variable.set, 1)
    variable.reset(token)


async def blocks() -> None:
    time.sleep(1000)


async def never_gives_way() -> None:
    while True:
        await asyncio.sleep(0)


async def floods() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(100_000):
        loop.call_soon(int)
    await asyncio.sleep(0)


async def recurses_async() -> None:
    await recurses_async()


async def finishes_its_task() -> None:
    this().set_result(1)  # type: ignore[attr-defined]


async def has_its_coroutine_closed() -> None:
    coroutine = this().get_coro()
    assert coroutine is not None
    coroutine.close()


async def throws_into_its_coroutine() -> None:
    coroutine = this().get_coro()
    assert coroutine is not None
    coroutine.throw(ValueError("thrown"))


async def leaves_a_span_across_tasks() -> None:
    manager = fluxloop.span("across")
    manager.__enter__()

    async def close() -> None:
        manager.__exit__(None, None, None)

    await asyncio.create_task(close())


async def leaves_a_task_of_eager_kind() -> None:
    asyncio.get_running_loop().set_task_factory(lambda loop, coroutine, **rest: fails())
    asyncio.create_task(forever())  # noqa: RUF006


async def removes_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)


async def leaves_a_transport() -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socketpair()[0])
    LEFT.append((reader, writer))


async def leaves_a_child() -> None:
    LEFT.append(await asyncio.create_subprocess_exec("sleep", "30"))


async def forgets_its_loop() -> None:
    asyncio._set_running_loop(None)
    await asyncio.sleep(0.01)


COROUTINES: dict[str, Coroutine] = {
    "awaits for ever": forever,
    "swallows its cancellation": swallows_its_cancellation,
    "swallows every cancellation": swallows_every_cancellation,
    "raises after its cancellation": raises_after_cancellation,
    "waits after its cancellation": waits_after_cancellation,
    "exits after its cancellation": exits_after_cancellation,
    "cancels itself": cancels_itself,
    "cancels itself and goes on": cancels_itself_and_goes_on,
    "cancels itself often": cancels_itself_often,
    "uncancels itself": uncancels_itself,
    "cancels its parent": cancels_its_parent,
    "raises a cancellation": partial(throw_async, asyncio.CancelledError("of its own")),
    "raises the end of iteration": partial(throw_async, StopAsyncIteration()),
    "raises what cannot pass a coroutine": partial(throw_async, StopIteration(3)),
    "raises the end of a generator": partial(throw_async, GeneratorExit()),
    "raises an exit": partial(throw_async, SystemExit(3)),
    "raises an interrupt": partial(throw_async, KeyboardInterrupt()),
    "awaits what is no future": partial(awaits, 7),
    "awaits text": partial(awaits, "text"),
    "awaits nothing often": partial(awaits, *[None] * 1000),
    "awaits itself": awaits_itself,
    "awaits another loop's": awaits_a_future_of_another_loop,
    "awaits twice": awaits_twice,
    "awaits what fails": awaits_what_is_no_awaitable,
    "awaits a number": awaits_a_number,
    "returns another coroutine": returns_a_coroutine,
    "returns its task": returns_its_task,
    "returns a pending future": returns_a_pending_future,
    "returns coroutines of coroutines": returns_many_awaitables,
    "shuts generators down": shuts_generators_down,
    "runs the loop in itself": runs_the_loop_in_itself,
    "runs another loop": runs_another_loop,
    "runs another loop in a thread": runs_another_loop_in_a_thread,
    "leaks tasks": leaks_tasks,
    "leaks tasks that fail": leaks_tasks_that_fail,
    "leaks a generator": leaks_a_generator,
    "leaks a stubborn generator": leaks_a_stubborn_generator,
    "times out by itself": times_out_by_itself,
    "times out wrongly": times_out_wrongly,
    "times out in the past": times_out_in_the_past,
    "times out what swallows": times_out_what_swallows,
    "fails in a group": fails_in_a_group,
    "exits in a group": exits_in_a_group,
    "cancels in a group": cancels_in_a_group,
    "has failing callbacks": has_failing_callbacks,
    "resets foreign variables": resets_foreign_variables,
    "resets wrongly": resets_wrongly,
    "never gives way": never_gives_way,
    "floods the loop": floods,
    "recurses in coroutines": recurses_async,
    "finishes its task": finishes_its_task,
    "has its coroutine closed": has_its_coroutine_closed,
    "throws into its coroutine": throws_into_its_coroutine,
    "leaves a span across tasks": leaves_a_span_across_tasks,
    "leaves a transport": leaves_a_transport,
    "leaves an asyncio child": leaves_a_child,
    "replaces the handler of exceptions": on("set_exception_handler", fails),
    "has slow callbacks debugged": on("set_debug", True),
    "removes signal handlers": removes_signals,
}
LOOP_BREAKING: dict[str, Coroutine] = {
    "cancels all": cancels_all,
    "cancels others": cancels_others,
    "leaks a task that exits": leaks_a_task_that_exits,
    "leaks a task that interrupts": leaks_a_task_that_interrupts,
    "has a callback that exits": has_a_callback_that_exits,
    "has a callback that interrupts": has_a_callback_that_interrupts,
    "stops its loop": on("stop"),
    "closes its loop": on("close"),
    "shuts threads down": shuts_threads_down,
    "has no default executor": on("set_default_executor", None),
    "replaces the task factory": leaves_a_task_of_eager_kind,
    "blocks its loop": blocks,
    "forgets its loop": forgets_its_loop,
}
"""What reaches all that share the loop, so that plain runs stand beside it only one after the other."""
KINDS: list[dict[str, Any]] = [RAISING, ODD_ERRORS, OUTPUTS, PRINTS, TRACING, LEAVING, FLOW, HANGING, CHANGING]


def agent(text: str) -> Any:
    helper(text)
    print("at", text)
    if text in DEADLY:
        DEADLY[text][0]()
    return SYNC.get(text, lambda: text)()


async def coroutine(text: str) -> Any:
    await asyncio.sleep(0)
    helper(text)
    return await {**COROUTINES, **LOOP_BREAKING}[text]() if not text.startswith("plain") else text


async def agent_on_loop(text: str) -> Any:
    """Do on the event loop what a sync agent does."""
    await asyncio.sleep(0)
    return agent(text)
