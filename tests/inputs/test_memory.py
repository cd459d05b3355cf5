"""How much memory inputs take: measured in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import resource, sys
from pathlib import Path
from fluxloop.inputs.cases import inputs_from
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
inputs_from(Path(sys.argv[1]))
before = peak()
inputs = inputs_from(Path(sys.argv[2]))
assert sum(1 for case in inputs.cases) == len(inputs.cases) == int(sys.argv[3])
print(peak() - before)
"""

YAML_ENTRY = (
    "- input: How do I do the thing number {n}, and why does it not work as I expect it to?\n  persona: novice\n"
)
JSON_ENTRY = '{{"input": "How do I do the thing number {n}, and why does it not?", "persona": "novice"}}\n'
CSV_ENTRY = "How do I do the thing number {n} and why does it not?,novice\n"


def growth(folder: Path, suffix: str, entry: str, count: int, first: str = "") -> int:
    """Megabytes that so many entries take above what a few do."""
    few, many = folder / f"few.{suffix}", folder / f"many.{suffix}"
    few.write_text(first + "".join(entry.format(n=n) for n in range(100)))
    many.write_text(first + "".join(entry.format(n=n) for n in range(count)))
    command = [sys.executable, "-c", MEASURE, str(few), str(many), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) // 1024


@pytest.mark.parametrize(
    ("suffix", "entry", "first", "count"),
    [
        ("yaml", YAML_ENTRY, "generated_inputs:\n", 20_000),
        ("jsonl", JSON_ENTRY, "", 100_000),
        ("csv", CSV_ENTRY, "input,persona\n", 60_000),
    ],
)
def test_memory_is_flat(tmp_path: Path, suffix: str, entry: str, first: str, count: int) -> None:
    """Thousands of inputs take no more than a few bytes each."""
    assert growth(tmp_path, suffix, entry, count, first) <= 6


@pytest.mark.slow
def test_100_000_entries_of_yaml(tmp_path: Path) -> None:
    """100,000 entries of YAML stay under 60 MB."""
    assert growth(tmp_path, "yaml", YAML_ENTRY, 100_000, "generated_inputs:\n") < 60


@pytest.mark.slow
def test_1_000_000_lines_of_json(tmp_path: Path) -> None:
    """A million JSON lines take little more than the eight bytes of each id."""
    assert growth(tmp_path, "jsonl", JSON_ENTRY, 1_000_000) < 40
