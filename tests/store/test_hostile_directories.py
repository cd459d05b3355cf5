"""Directories that somebody has made to do harm: a message or a result, and nothing else."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import fluxloop
from fluxloop import Experiment
from fluxloop.exceptions import FluxloopError
from fluxloop.listing import list_experiments
from fluxloop.reports.experiments import experiments_json, experiments_table
from fluxloop.reports.rows import text_table
from fluxloop.store.layout import LINE_FILES
from fluxloop.verifying import verify

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


VALUES: tuple[Any, ...] = (
    *(None, True, -1, 2**63, 10**30, 1e308, "", "\x1b[2J\u202e", "running", "y" * 100_000, [], {}),
    *([None], [[1]], {"a": 1}, "HUGE", "INFINITE", "DEEP"),
)
"""What may stand where something else belongs; the last three are written as no Python value is."""


def written(record: Any) -> str:
    """A record as JSON, which is YAML, too."""
    text = json.dumps(record).replace('"HUGE"', "9" * 5000).replace('"INFINITE"', "1e999")
    return text.replace('"DEEP"', "[" * 1200 + "]" * 1200)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a record something stands."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def put(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The record with another value at a place."""
    if not path:
        return value
    copy = dict(record) if isinstance(record, dict) else list(record)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


def commands(path: Path) -> Iterator[Callable[[], object]]:
    """All that reads a directory."""
    work = path.parent / "work"
    shutil.rmtree(work, ignore_errors=True)

    def load() -> None:
        result = fluxloop.load(path)
        text_table(result.table())
        result.headline(), result.exit_code, result.gate_passed, result._repr_html_()
        list(result.summaries())
        list(map(repr, result))

    yield load
    yield lambda: str(verify(path))
    yield lambda: fluxloop.load(path).to_markdown(work / "report")
    yield lambda: experiments_table(list_experiments(path))
    yield lambda: experiments_json(list_experiments(path))
    yield lambda: fluxloop.merge([path], work / "merged", allow_partial=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "whole") for name in ("summary.json", "config.yaml", *LINE_FILES)),
        *((name, "shard") for name in ("summary.json", "traces.jsonl")),
    ],
)
def test_any_value_anywhere_is_a_message_or_a_result(name: str, kind: str, begun: Path, tmp_path: Path) -> None:
    """Each place of each file holds something else in turn, and every command comes to an end of its own."""
    place = tmp_path / kind
    shutil.copytree(begun / kind, place)
    first, _, rest = (place / name).read_text().partition("\n")
    is_lines = name.endswith(".jsonl")
    record = json.loads(first) if is_lines else YAML(typ="safe").load((place / name).read_text())
    values = itertools.cycle(VALUES)
    for path in places(record):
        value = next(values)
        if name == "config.yaml" and value == "DEEP":  # which is slow to be refused
            value = next(values)
        (place / name).write_text(written(put(record, path, value)) + (f"\n{rest}" if is_lines else "\n"))
        if name == "traces.jsonl" and path:  # in both, so that it is not the difference that is told
            short = json.loads((begun / kind / "trace_summary.jsonl").read_text().partition("\n")[0])
            if path[0] in short:
                text = (begun / kind / "trace_summary.jsonl").read_text().partition("\n")[2]
                changed_short = put(short, path, value) if path[-1] != "traceback" else short
                (place / "trace_summary.jsonl").write_text(written(changed_short) + f"\n{text}")
        for command in commands(place):
            with suppress(FluxloopError):
                command()
    assert {path.name for path in tmp_path.iterdir()} <= {kind, "work"}


@pytest.mark.parametrize(
    "figures",
    [
        {"status": "interrupted", "stop_reason": "Signals"},
        {"total_traces": -1},
        {"total_traces": 2**63},
        {"ran_on": {"from_python": 1}},
        {"ran_on": {"from_python": [1]}},
        {"ran_on": {"inputs": 3, "id_digits": 3, "deep": "DEEP"}},
        {"ran_on": {"inputs": 3, "id_digits": 3, "large": 10**30}},
        {"remarks": "DEEP"},
        {"masked": {"A": 10**30}},
    ],
)
@pytest.mark.parametrize("kind", ["whole", "shard"])
def test_a_strange_summary_is_a_message_or_a_result(
    figures: dict[str, Any], kind: str, begun: Path, tmp_path: Path
) -> None:
    """What only a summary holds, and no line of the files could contradict."""
    place = tmp_path / kind
    shutil.copytree(begun / kind, place)
    summary = json.loads((place / "summary.json").read_text())
    (place / "summary.json").write_text(written({**summary, **figures}))
    for command in commands(place):
        with suppress(FluxloopError):
            command()
