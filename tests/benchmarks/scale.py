"""What the one process that writes takes, and so how far a single experiment goes.

    python -m tests.benchmarks.scale           # a minute
    python -m tests.benchmarks.scale --ray     # as long again; needs the extra `ray`

Prints CPU time of that process for each run, and its inverse, the runs a second at which it would
be busy all the time. CPU time, because other work on the machine changes it least. Where the agent
runs elsewhere its own time is not in it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fluxloop
from fluxloop import Experiment
from fluxloop.executors.base import Executor
from fluxloop.records import Attempt
from fluxloop.runner import Task
from fluxloop.schedule import Schedule
from tests.benchmarks.executors import INPUTS, peak_megabytes

WORDS = "word " * 300


@fluxloop.tool
def search(query: str) -> str:
    """Find something."""
    return query


@fluxloop.generation
def model(messages: list[dict[str, str]]) -> dict[str, str]:
    """Answer in 300 words."""
    return {"role": "assistant", "content": WORDS}


def nothing(text: str) -> str:
    """Answer at once."""
    return text


def one_tool(text: str) -> str:
    """Call one tool."""
    return search(text)


def talkative(text: str) -> str:
    """Call a model and a tool five times, with 2 kB each time."""
    answer = text
    for _ in range(5):
        search(WORDS[:250])
        answer = model([{"role": "system", "content": WORDS[:500]}, {"role": "user", "content": text}])["content"]
    return answer


def slow(text: str) -> str:
    """Call one tool, and wait."""
    time.sleep(0.05)
    return search(text)


class Ready:
    """Give back attempts that were made before, so that all the time is the writer's."""

    def __init__(self, target: Callable[[str], Any]) -> None:
        self._target = target

    def run(self, task: Task, schedule: Schedule) -> Iterator[Sequence[Attempt]]:
        """Run the agent once, and say the same of every run."""
        model: Attempt | None = None
        with task.open() as runner:
            while taken := schedule.take():
                batch = []
                while taken and len(batch) < 100:
                    if model is None:
                        model = runner.run(*taken)
                    batch.append(_like(model, taken[0]))
                    taken = schedule.take() if len(batch) < 100 else None
                yield batch


def _like(model: Attempt, planned: Any) -> Attempt:
    parts = dict(vars(model), planned=planned)
    return Attempt(**parts)


def measured(target: Callable[[str], Any], executor: Executor | str, runs: int, **options: Any) -> tuple[float, float]:
    """Return CPU microseconds of this process and bytes on disk, for each run."""
    with tempfile.TemporaryDirectory() as place:
        experiment = Experiment(
            target=target, inputs=INPUTS, iterations=runs // 100, output_dir=place, executor=executor, **options
        )
        before = time.process_time()
        result = experiment.run()
        spent = time.process_time() - before
        assert result.summary.successful == runs
        size = sum(file.stat().st_size for file in Path(result.path).iterdir())
    return spent / runs * 1e6, size / runs


def report(name: str, cpu: float, size: float) -> None:
    """Print a row."""
    print(f"{name:58}  {cpu:7.0f} µs  {1e6 / cpu:9,.0f}/s  {size / 1000:6.2f} kB", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the one process that writes takes for each run.")
    parser.add_argument("--ray", action="store_true", help="also on a local cluster of Ray")
    parser.add_argument("--runs", type=int, default=20_000)
    asked = parser.parse_args(arguments)
    runs = asked.runs
    print(f"{'runs':58}  {'CPU':>10}  {'at most':>11}  {'on disk':>9}")
    for name, target in (("nothing", nothing), ("one tool call", one_tool), ("ten calls, 10 kB", talkative)):
        report(f"the writer alone, {name}", *measured(target, Ready(target), runs))
        report(f"processes at 2, {name}", *measured(target, "processes", runs, parallel=2))
    if asked.ray:
        import ray

        ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=20)
        measured(nothing, "ray", 100, parallel=2)
        for name, target in (("nothing", nothing), ("one tool call", one_tool), ("ten calls, 10 kB", talkative)):
            report(f"ray at 2, {name}", *measured(target, "ray", runs, parallel=2))
        report("ray at 20, 50 ms each, so one by one", *measured(slow, "ray", 4_000, parallel=20))
    before = peak_megabytes()
    measured(nothing, Ready(nothing), 25 * runs)
    print(f"memory of the writer: {peak_megabytes() - before:.0f} MB more for {25 * runs:,} runs")
    print(f"Python {sys.version.split()[0]}, {resource.getpagesize()} bytes a page")


if __name__ == "__main__":
    main()
