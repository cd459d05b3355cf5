"""The benchmark itself."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

BENCHMARK = runpy.run_path(str(Path(__file__).parent / "overhead.py"))


def test_the_benchmark_prints_what_it_promises() -> None:
    """It gives the ratio, the time of a run, and the growth of time and memory."""
    figures = BENCHMARK["measure"](runs=200, pairs=1, growth_to=10_000)

    assert set(figures) == {"ratio", "us_a_run", "growth", "memory_mb"}
    assert all(value >= 0 for value in figures.values())


def test_both_sides_do_the_same_work(tmp_path: Path) -> None:
    """The floor and the experiment write as many lines, with the same inputs and outputs."""
    (tmp_path / "floor").mkdir()
    BENCHMARK["floor"](300, tmp_path / "floor")
    BENCHMARK["ours"](300, tmp_path / "ours")
    (ours,) = (tmp_path / "ours").iterdir()

    for theirs, name in (
        ("observations", "observations.jsonl"),
        ("traces", "traces.jsonl"),
        ("summaries", "trace_summary.jsonl"),
    ):
        floor_lines = [json.loads(line) for line in (tmp_path / "floor" / theirs).read_text().splitlines()]
        our_lines = [json.loads(line) for line in (ours / name).read_text().splitlines()]
        assert len(floor_lines) == len(our_lines)
        if name != "observations.jsonl":
            assert [(f["input"], f["output"]) for f in floor_lines] == [(o["input"], o["output"]) for o in our_lines]
