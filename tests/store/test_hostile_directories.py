"""Directories that somebody has made to do harm: a message or a result, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment

ROOT = Path(__file__).parents[2]

CHECK = """
import json, re, resource, sys
import fluxloop.merging, fluxloop.reports.markdown, fluxloop.verifying
from fluxloop.exceptions import FluxloopError
from fluxloop.listing import list_experiments

def load(path): return fluxloop.load(path).headline()
def verify(path): return str(fluxloop.verifying.verify(path))
def parse(path): return str(fluxloop.load(path).to_markdown(overwrite=True))
def listed(path): return str(list_experiments(path))
def merge(path): return str(fluxloop.merge([path], path + ".merged", allow_partial=True))

told = []
with open("/proc/self/status") as status:
    size = int(re.search(r"VmSize:\\s+(\\d+) kB", status.read())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (100 << 20),) * 2)
for path in sys.argv[1:]:
    for do in (load, verify, parse, listed, merge):
        try:
            said = do(path)
        except FluxloopError as error:
            said = str(error)
        told.append((path, do.__name__, said))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment, and a shard of one."""
    folder = tmp_path_factory.mktemp("hostile")

    @fluxloop.agent()
    def agent(text: str) -> str:
        if text == "b":
            raise ValueError("cannot")
        return text

    for name, shard in (("whole", None), ("shard", "1/2")):
        result = Experiment(
            target=agent, inputs=["a", "b", "c"], iterations=2, shard=shard, output_dir=folder, name=name
        ).run()
        result.path.rename(folder / name)
    return folder


def said_of(*directories: Path) -> dict[tuple[str, str], str]:
    """What each command says of directories, in a process that may take 100 MB more than it has."""
    command = [sys.executable, "-c", CHECK, *map(str, directories)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {(Path(path).name, name): said for path, name, said in json.loads(done.stdout)}


def changed(source: Path, place: Path, **figures: Any) -> Path:
    """A copy whose second run has other figures, in both files that tell them."""
    shutil.copytree(source, place)
    for name in ("traces.jsonl", "trace_summary.jsonl"):
        lines = (place / name).read_text().splitlines()
        record = json.loads(lines[1])
        trace_id = record["trace_id"]
        record |= {key: value for key, value in figures.items() if key in record}
        for observation in record.get("observations", ()):
            observation["trace_id"] = record["trace_id"]
        lines[1] = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        (place / name).write_text("\n".join(lines) + "\n")
    observations = place / "observations.jsonl"
    new = json.dumps(figures.get("trace_id", trace_id))
    observations.write_text(observations.read_text().replace(f'"trace_id":"{trace_id}"', f'"trace_id":{new}'))
    summary = json.loads((place / "summary.json").read_text()) | {"status": "running"}  # so that load counts
    (place / "summary.json").write_text(json.dumps(summary))
    return place


ABSURD = {
    "input_index": [10**9, 10**12, 2**63, 2**64, 10**4000, -1],
    "iteration": [2**63, 10**30, -1],
    "attempts": [2**63, 0],
    "seed": [2**64, -1],
    "duration_ms": [1e300, -1e300],
    "usage": [{"input_tokens": 2**64, "output_tokens": None}],
}


def test_absurd_figures_are_damage(begun: Path, tmp_path: Path) -> None:
    """They are told with file and line, and take neither memory nor the command with them."""
    cases = [(name, value) for name, values in ABSURD.items() for value in values]
    places = [
        changed(begun / kind, tmp_path / f"{kind}{number}", **{name: value})
        for number, (name, value) in enumerate(cases)
        for kind in ("whole", "shard")
    ]
    said = said_of(*places)
    for number, (name, value) in enumerate(cases):
        for case, command in [(f"whole{number}", "load"), (f"whole{number}", "verify"), (f"shard{number}", "merge")]:
            assert "traces.jsonl:2" in said[case, command], (name, value, said[case, command])


def test_figures_that_are_merely_far_off_cost_no_memory(begun: Path, tmp_path: Path) -> None:
    """An index or a number that a huge experiment could have is taken as it is."""
    places = [
        changed(begun / "whole", tmp_path / "index", input_index=999_999_999),
        changed(begun / "whole", tmp_path / "number", trace_id="trace_999999999"),
    ]
    said = said_of(*places)
    assert all("6 runs" in said[place.name, "load"] for place in places)
    assert all("6 runs are whole" in said[place.name, "verify"] for place in places)


@pytest.mark.parametrize("key", ["inputs", "iterations", "id_digits"])
def test_an_absurd_plan_costs_no_memory(key: str, begun: Path, tmp_path: Path) -> None:
    """What the summary says of the plan is believed only as far as it costs nothing."""
    for kind in ("whole", "shard"):
        place = changed(begun / kind, tmp_path / kind)
        summary = json.loads((place / "summary.json").read_text())
        summary["ran_on"][key] = 10**12
        (place / "summary.json").write_text(json.dumps(summary))
    assert said_of(tmp_path / "whole", tmp_path / "shard")
