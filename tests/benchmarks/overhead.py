"""What a run costs, against the same loop written by hand, in one process.

    python -m tests.benchmarks.overhead

Prints the ratio of CPU times at 10,000 runs (median of five pairs), the time of a run, and by
how much time and memory a run grow from 1,000 to 100,000 runs. Quote the ratio, never the time:
machines differ, and other work on them more so.

The floor does what any honest loop would: it times the call, records the two traced calls, and
writes one line to each of three files without a buffer. It keeps no promise beyond that: nothing
is copied, no odd value survives, and an agent that raises ends it.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import fluxloop
from fluxloop import Experiment

INPUTS = [f"How do I start {number}?" for number in range(100)]


@fluxloop.tool()
def upper(text: str) -> str:
    """Do next to nothing, so that what is measured is fluxloop."""
    return text.upper()


@fluxloop.agent()
def agent(input_text: str) -> str:
    """Answer by way of one tool."""
    return "echo: " + upper(input_text)


def ours(runs: int, place: Path) -> None:
    """Run the agent through an experiment."""
    Experiment(target=agent, inputs=INPUTS, iterations=runs // len(INPUTS), output_dir=place).run()


def floor(runs: int, place: Path) -> None:
    """Run the same work in a loop written by hand, recording the same of each call."""
    encode = msgspec.json.encode
    spans: list[dict[str, Any]] = []
    inside: list[str] = []

    def observed(kind: str, name: str, parameter: str, function: Callable[[str], str], text: str) -> str:
        span: dict[str, Any] = {
            "id": f"{random.getrandbits(64):016x}",
            "parent_id": inside[-1] if inside else None,
            "type": kind,
            "name": name,
            "start_time": datetime.now(UTC).isoformat(),
            "input": {parameter: text},
            "error": None,
            "metadata": None,
        }
        spans.append(span)
        inside.append(span["id"])
        began = time.perf_counter()
        try:
            span["output"] = output = function(text)
            return output
        finally:
            span["duration_ms"] = (time.perf_counter() - began) * 1e3
            span["end_time"] = datetime.now(UTC).isoformat()
            inside.pop()

    def answer(text: str) -> str:
        return "echo: " + observed("tool", "upper", "text", str.upper, text)

    files = [open(place / name, "wb", buffering=0) for name in ("observations", "traces", "summaries")]  # noqa: SIM115
    for number in range(runs):
        text = INPUTS[number % len(INPUTS)]
        spans.clear()
        started, began = datetime.now(UTC).isoformat(), time.perf_counter()
        output = observed("agent", "agent", "input_text", answer, text)
        row = {
            "trace_id": f"trace_{number:05d}",
            "input_index": number % len(INPUTS),
            "iteration": number // len(INPUTS),
            "persona": None,
            "input": text,
            "output": output,
            "status": "ok",
            "error": None,
            "duration_ms": (time.perf_counter() - began) * 1e3,
            "start_time": started,
            "observation_count": len(spans),
        }
        for span in spans:
            span["trace_id"] = row["trace_id"]
        files[0].write(b"".join(encode(span) + b"\n" for span in spans))
        files[1].write(encode({**row, "observations": spans}) + b"\n")
        files[2].write(encode(row) + b"\n")
    for file in files:
        file.close()


def cpu_seconds(work: Callable[[int, Path], None], runs: int) -> float:
    """Return the CPU time of the work, its files in a folder of their own."""
    with tempfile.TemporaryDirectory() as place:
        began = time.process_time()
        work(runs, Path(place))
        return time.process_time() - began


def peak_megabytes() -> float:
    """Return the most memory this process has held."""
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(runs: int = 10_000, pairs: int = 5, growth_to: int = 100_000) -> dict[str, float]:
    """Return ratio, microseconds a run, and growth of time and memory."""
    for work in (ours, floor):
        cpu_seconds(work, 500)
    paired = [(cpu_seconds(ours, runs), cpu_seconds(floor, runs)) for _ in range(pairs)]
    small = statistics.median(cpu_seconds(ours, growth_to // 100) for _ in range(pairs)) * 100
    before = peak_megabytes()
    large = cpu_seconds(ours, growth_to)
    return {
        "ratio": statistics.median(one / other for one, other in paired),
        "us_a_run": statistics.median(one for one, _ in paired) / runs * 1e6,
        "growth": large / small,
        "memory_mb": peak_megabytes() - before,
    }


if __name__ == "__main__":
    print("  ".join(f"{name} {value:.2f}" for name, value in measure().items()))
