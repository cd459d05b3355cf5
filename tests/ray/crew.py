"""Agents for a cluster: each test has a copy in the project that it ships."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import resource
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import fluxloop


def node() -> int:
    """The node this is on: the process that started the relay that started this one."""
    with open(f"/proc/{os.getppid()}/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[1])


def note(place: str, text: str) -> None:
    with open(place, "a") as file:
        file.write(text + "\n")


# Faults


def faulty(text: str, place: str) -> Any:
    """Do what the text says."""
    return getattr(Faults, text)(place) if hasattr(Faults, text) else text


class Faults:
    """What goes wrong, by name."""

    @staticmethod
    def exits(place: str) -> None:
        print("last words")
        os._exit(7)

    @staticmethod
    def segfaults(place: str) -> None:
        ctypes.string_at(0)

    @staticmethod
    def kills_itself(place: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def wants_memory(place: str) -> int:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
        try:
            return len(bytearray(16 << 30))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    @staticmethod
    def hangs(place: str) -> None:
        time.sleep(1000)  # hangs here

    @staticmethod
    def hangs_deaf(place: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(1000)

    @staticmethod
    def holds_the_interpreter(place: str) -> None:
        ctypes.PyDLL(None).sleep(1000)

    @staticmethod
    def returns_what_cannot_be_pickled(place: str) -> Any:
        return threading.Lock()

    @staticmethod
    def returns_much(place: str) -> str:
        return "much " * 10_000_000

    @staticmethod
    def leaves_a_process(place: str) -> int:
        child = subprocess.Popen(["sleep", "1000"])
        note(place, str(child.pid))
        return child.pid

    @staticmethod
    def leaves_a_process_and_dies(place: str) -> None:
        Faults.leaves_a_process(place)
        os._exit(8)

    @staticmethod
    def has_threads(place: str) -> int:
        numbers: list[int] = []
        threads = [threading.Thread(target=numbers.append, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return sum(numbers)

    @staticmethod
    def changes_directory(place: str) -> str:
        os.chdir("/")
        return os.getcwd()

    @staticmethod
    def raises(place: str) -> None:
        raise LookupError("nothing there")


# Nodes that go


def on_a_node(text: str, place: str) -> int:
    """Answer where this is; what comes last waits until a node that joined has work."""
    here = node()
    note(place, str(here))
    while text == "last" and here in (old := known(place)) and not set(noted(place)) - old:
        time.sleep(0.01)
    time.sleep(0.05)
    return here


async def on_a_node_async(text: str, place: str) -> int:
    note(place, str(node()))
    await asyncio.sleep(0.1)
    return node()


def known(place: str) -> set[int]:
    """The nodes that were there from the beginning."""
    return {int(number) for number in Path(place + ".known").read_text().split()}


def noted(place: str) -> list[int]:
    return [int(number) for number in Path(place).read_text().split()]


# Async neighbours


async def neighbours(text: str, place: str) -> str:
    """End soon, or never, in the way that the text says; elsewhere, once that has been ended."""
    note(place, text)
    ill = Path(place + ".ill")
    if text in ("blocks", "lingers"):
        ill.write_text(str(os.getpid()))
    while not ill.exists() or not (pid := ill.read_text()):
        await asyncio.sleep(0.01)
    beside = int(pid) == os.getpid()
    for _ in range(30 if beside else 80):
        if not Path("/proc", pid).exists():
            break
        await asyncio.sleep(0.01)
    if text == "blocks":
        time.sleep(1000)
    while text == "lingers":
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
    return text


# Classes


class Classy:
    """An agent that is built, entered and left."""

    def __init__(self) -> None:
        self.place = Path(__file__).with_name("place.txt").read_text()
        self.calls = 0
        note(self.place, f"built {os.getpid()}")

    def __enter__(self) -> Classy:
        note(self.place, f"entered {os.getpid()}")
        return self

    def __exit__(self, *error: object) -> None:
        note(self.place, f"left {os.getpid()}")

    def run(self, text: str) -> list[int]:
        time.sleep(0.02)
        self.calls += 1
        return [os.getpid(), self.calls]


# What a run is given


def tells(text: str) -> dict[str, Any]:
    run = fluxloop.current_run()
    assert run is not None
    time.sleep(0.02)
    return {"seed": run.seed, "drawn": random.Random(run.seed).random()}


def keeps_to_a_rate(text: str) -> list[float]:
    time.sleep(0.01)
    with fluxloop.rate_limit("model", "10/s"):
        return [time.time(), node()]


def starts(text: str) -> list[float]:
    return [time.time(), node()]


def variables(text: str) -> list[str | None]:
    print(os.environ.get("CREW_TOKEN"))
    return [os.environ.get(name) for name in ("CREW_TOKEN", "CREW_PLAIN", "CREW_OTHER")]


def stops(text: str, place: str) -> str:
    """Fail at two of the inputs."""
    note(place, text)
    if text in ("5", "15"):
        raise LookupError(text)
    return text


def nothing(text: str) -> None:
    return None


def gate(text: str, place: str) -> str:
    """Wait until the file `<place>.go` is there."""
    note(place, text)
    while not Path(place + ".go").exists():
        time.sleep(0.01)  # stops here
    return text


def hangs(text: str, place: str) -> str:
    if text == "dies":
        os._exit(7)
    if text == "hangs":
        child = subprocess.Popen(["sleep", "1000"])
        note(place, f"{os.getpid()} {child.pid}")
        time.sleep(1000)
    return text


def holds_the_interpreter(text: str, place: str) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    note(place, f"{os.getpid()} {child.pid}")
    ctypes.PyDLL(None).sleep(1000)


def where(text: str) -> int:
    return node()


def threads(text: str) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")
