"""An experiment of very many done runs, taken up and verified; prints what that took as JSON.

python tests/durability/many.py FOLDER ITERATIONS make|floor|resume|verify
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import fluxloop
from fluxloop import Experiment
from fluxloop.plan import run_seed
from fluxloop.store.codec import encode

INPUTS = [f"question number {number}, ä" for number in range(1000)]
SEED = 5


@fluxloop.tool
def look(text: str) -> str:
    return text.upper()


def agent(text: str) -> str:
    return look(text)


def make(folder: Path, iterations: int) -> None:
    """Let one iteration run, and write the others, but for the very last run."""
    result = Experiment(target=agent, inputs=INPUTS, seed=SEED, name="many", output_dir=folder).run()
    names = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
    observations, traces, summaries = (open(result.path / name, "ab") for name in names)  # noqa: SIM115
    first = list(result)
    for iteration in range(1, iterations):
        for trace in first[: -1 if iteration == iterations - 1 else None]:
            number = iteration * len(first) + trace.input_index + 1
            trace.trace_id = f"trace_{number:04d}"
            trace.iteration = iteration
            trace.seed = run_seed(SEED, trace.input_id, iteration)
            for one in trace.observations:
                one.trace_id = trace.trace_id
                observations.write(encode(one) + b"\n")
            traces.write(encode(trace) + b"\n")
            summaries.write(encode(trace.summary()) + b"\n")
    for file in (observations, traces, summaries):
        file.close()


def floor(path: Path, iterations: int) -> None:
    """What nobody can do without: read every line once, and decode it."""
    for name in ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl"):
        with (path / name).open("rb") as lines:
            for line in lines:
                msgspec.json.decode(line)


def resume(path: Path, iterations: int) -> None:
    """Run the one that is left."""
    experiment = Experiment.resume(path, target=agent, inputs=INPUTS, iterations=iterations)
    summary = experiment.run().summary
    assert (summary.status, summary.total_traces) == ("completed", iterations * len(INPUTS))


def verify(path: Path, iterations: int) -> None:
    """Find nothing wrong."""
    verification = fluxloop.load(path).verify()
    assert verification.is_sound, str(verification)
    assert verification.runs == iterations * len(INPUTS)


def peak() -> float:
    """The most memory this process has had; what `getrusage` tells may be its parent's."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    folder, iterations, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if what == "make":
        make(folder, iterations)
        return
    (path,) = folder.iterdir()
    steps: dict[str, Any] = {"floor": floor, "resume": resume, "verify": verify}
    began = time.perf_counter()
    steps[what](path, iterations)
    took = time.perf_counter() - began
    print(json.dumps({"seconds": took, "megabytes": peak()}))


if __name__ == "__main__":
    main()
