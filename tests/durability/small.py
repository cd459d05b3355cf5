"""A small experiment with failures, runs of several observations, and more than ASCII."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

import fluxloop
from fluxloop import Experiment
from fluxloop.summary import Summary
from fluxloop.verifying import verify
from tests.durability.judging import read, runs_of, whole, whole_runs

INPUTS = ["größer", "bad", "漢字 🙂", "quiet"]
RUNS = 8


@fluxloop.tool
def look(text: str) -> str:
    if text == "bad":
        raise ValueError(f"{text}\n is not to be found: €")
    return text[::-1]


@fluxloop.agent
def agent(text: str) -> str:
    return look(text) + look("und ") + text


def begun(place: Path, **options: Any) -> Experiment:
    """The experiment as it is started."""
    return Experiment(target=agent, inputs=INPUTS, iterations=2, seed=3, output_dir=place, **options)


def resumed(path: Path, **options: Any) -> Experiment:
    """The experiment as it is taken up."""
    return Experiment.resume(path, target=agent, inputs=INPUTS, **options)


def check_resumed(path: Path, contents: dict[str, bytes], whole_one: Path) -> None:
    """A resume runs what is owed, keeps the rest as it was, and the result is as if nothing had happened."""
    for name, content in contents.items():
        (path / name).write_bytes(content)
    # An earlier resume here has counted runs of its own.
    (path / "summary.json").write_bytes((whole_one / "summary.json").read_bytes())
    kept = whole_runs(contents)
    is_whole = contents == read(whole_one)
    assert verify(path).is_sound == is_whole
    result = resumed(path).run()
    after = runs_of(path)
    assert after[: len(kept)] == kept
    assert sorted(map(whole, after)) == sorted(map(whole, runs_of(whole_one)))
    assert verify(path).is_sound
    first = msgspec.json.decode((whole_one / "summary.json").read_bytes(), type=Summary)
    for key in ("status", "total_traces", "passed", "failed", "planned", "not_run", "by_status", "observation_count"):
        assert getattr(result.summary, key) == getattr(first, key)
