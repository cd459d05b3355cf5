"""Several files in the place of others, all at once or not at all."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from fluxloop.store.rewriting import current_file, finish_rewrite, is_rewriting, rewriting
from tests.durability.faults import CRASHED
from tests.durability.lab import Lab

NAMES = ("one", "two", "three")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory with files to be replaced, and one to be kept."""
    for name in ("one", "two", "kept"):
        (tmp_path / name).write_text(f"old {name}")
    return tmp_path


def write_new(path: Path) -> None:
    with rewriting(path) as folder:
        for name in NAMES:
            (folder / name).write_bytes(f"new {name}".encode())


def content(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}


NEW = {**{name: f"new {name}" for name in NAMES}, "kept": "old kept"}


def test_new_files_take_the_place_of_old_ones(old: Path) -> None:
    """And come beside the others."""
    write_new(old)
    assert content(old) == NEW
    assert not is_rewriting(old)


def test_nothing_changes_when_it_fails(old: Path) -> None:
    """Whatever had been written is taken away."""
    before = content(old)

    def fail() -> None:
        with rewriting(old) as folder:
            (folder / "one").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert content(old) == before


def test_before_the_moment_of_change_a_crash_leaves_the_old(old: Path) -> None:
    """What was prepared is thrown away by the next."""
    before = content(old)
    (old / ".rewrite.new").mkdir()
    (old / ".rewrite.new" / "one").write_text("ne")
    assert is_rewriting(old)
    assert current_file(old, "one").read_text() == "old one"
    finish_rewrite(old)
    assert content(old) == before
    (old / ".rewrite.new").mkdir()
    (old / ".rewrite.new" / "four").write_text("ne")
    write_new(old)
    assert content(old) == NEW


@pytest.mark.parametrize("moved", range(4))
def test_after_the_moment_of_change_a_crash_leaves_the_new(old: Path, moved: int) -> None:
    """However many of the files were in their places, readers see all of them, and the next moves the rest."""
    (old / ".rewrite").mkdir()
    for number, name in enumerate(NAMES):
        (old / ("." if number < moved else ".rewrite") / name).write_text(f"new {name}")
    assert is_rewriting(old)
    assert {name: current_file(old, name).read_text() for name in (*NAMES, "kept")} == NEW
    finish_rewrite(old)
    assert content(old) == NEW
    finish_rewrite(old)
    assert content(old) == NEW


def test_a_crash_at_any_step_leaves_all_old_or_all_new(forking: Lab, tmp_path: Path) -> None:
    """A process that ends at its nth step on the disk, for every n."""
    script = "import sys\nfrom pathlib import Path\nfrom fluxloop.store.rewriting import rewriting\n"
    script += f"NAMES = {NAMES}\n{inspect.getsource(write_new)}\nwrite_new(Path(sys.argv[1]))\n"
    old = {"one": "old one", "two": "old two"}
    new = {name: f"new {name}" for name in NAMES}
    seen = []
    for number in range(1, 100):
        path = tmp_path / str(number)
        path.mkdir()
        for name, text in old.items():
            (path / name).write_text(text)
        faults = {"under": str(path), "do": "exit before", "at": number}
        done = forking.run(str(path), script=script, faults=faults)
        assert done.code in (0, CRASHED), done.told
        told = {name: current_file(path, name) for name in NAMES}
        assert {name: file.read_text() for name, file in told.items() if file.exists()} in (old, new)
        finish_rewrite(path)
        seen.append(content(path))
        if done.code == 0:
            break
    assert seen[-1] == new
    change = seen.index(new)
    assert change > 3
    assert seen == [old] * change + [new] * (len(seen) - change)
    assert os.listdir(tmp_path / str(len(seen))) != []
