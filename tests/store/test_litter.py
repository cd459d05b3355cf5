"""What kills leave beside outputs is swept by the next call, and nothing else is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fluxloop
from fluxloop import Experiment
from fluxloop.generating.writing import write_entries
from fluxloop.store.litter import held, prefix

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing tells what is in use")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment to be merged or reported."""
    folder = tmp_path_factory.mktemp("shard")
    return Experiment(target=str.upper, inputs=["a"], shard="1/1", output_dir=folder).run().path


def merge(shard: Path, folder: Path) -> None:
    fluxloop.merge([shard], folder / "merged")


def generate(shard: Path, folder: Path) -> None:
    write_entries(folder / "in.jsonl", [{"input": "a"}], overwrite=True, remark="")


def report(shard: Path, folder: Path) -> None:
    fluxloop.load(shard).to_markdown(folder)


def make(path: Path, *, is_old: bool = True) -> Path:
    path.mkdir()
    (path / "part").write_text("part")
    if is_old:
        os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize(("act", "name"), [(merge, "merged"), (generate, "in.jsonl"), (report, "report")])
def test_litter_is_swept(shard: Path, tmp_path: Path, act: Callable[[Path, Path], object], name: str) -> None:
    """Only what has our name, is old, and belongs to no process that lives."""
    folder = tmp_path / "out"
    folder.mkdir()
    left = make(folder / f"{prefix(name)}aaaaaaaa")
    file = folder / f"{prefix(name)}ffffffff"
    file.write_text("half")
    os.utime(file, (0, 0))
    others = [
        make(folder / f"{prefix(name)}bbbbbbbb", is_old=False),
        make(folder / f"{prefix('other')}cccccccc"),
        make(folder / f".{name}.original"),
    ]
    busy = make(folder / f"{prefix(name)}dddddddd")
    (folder / f"{prefix(name)}eeeeeeee").symlink_to(others[1])
    with held(busy):
        act(shard, folder)
    assert not left.exists()
    assert not file.exists()
    assert all((path / "part").exists() for path in (*others, busy))
    assert (folder / f"{prefix(name)}eeeeeeee").is_symlink()
