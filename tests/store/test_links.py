"""A directory that somebody else has prepared: nothing outside it is read, cut, moved or written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fluxloop
from fluxloop import Experiment, FluxloopError
from fluxloop.listing import list_experiments
from fluxloop.store.files import regular
from fluxloop.store.layout import FILES
from fluxloop.verifying import verify

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")

PRECIOUS = b'{"precious": true}\n'
FOLDERS = (".rewrite", ".rewrite.new")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard, complete, with a run that was replaced."""
    place = tmp_path_factory.mktemp("whole")
    result = Experiment(target=str.upper, inputs=["a", "b"], shard="1/2", iterations=2, output_dir=place, seed=1).run()
    (result.path / "superseded.jsonl").touch()
    return result.path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody's."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("file", "traces.jsonl", "config.yaml"):
        (folder / name).write_bytes(PRECIOUS)
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mode) for file in folder.iterdir()}


def resume(path: Path) -> fluxloop.ExperimentResult:
    return Experiment.resume(path, target=str.upper, inputs=["a", "b"], iterations=3).run()


def resume_newest(path: Path) -> object:
    given = {"target": str.upper, "inputs": ["a", "b"], "iterations": 2, "shard": "1/2"}
    return Experiment(resume="auto", output_dir=path.parent, name=path.name.partition("_1of2")[0], **given).run()


def read(path: Path) -> object:
    result = fluxloop.load(path)
    return [*result, *result.summaries()]


READING: tuple[Callable[[Path], object], ...] = (
    read,
    verify,
    lambda path: list_experiments(path.parent),
    lambda path: fluxloop.load(path).to_markdown(path.parent / "report"),
    lambda path: fluxloop.merge([path], path.parent / "merged", allow_partial=True),
)


def tried(act: Callable[[Path], object], path: Path) -> str:
    """Do it, and return what it says against it."""
    try:
        act(path)
    except FluxloopError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_reached_by_a_link(whole: Path, outside: Path, tmp_path: Path, name: str) -> None:
    """Whatever takes the directory up or reads it leaves the target as it was; a resume says which file it is."""
    path = shutil.copytree(whole, tmp_path / whole.name)
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(outside / "file")
    before = content(outside)
    for act in READING:
        tried(act, path)
    tried(resume_newest, path)
    told = tried(resume, path)
    assert str(path / name) in told
    assert "is a link to" in told
    assert content(outside) == before
    assert (path / name).is_symlink()


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_nowhere_makes_no_file_there(whole: Path, outside: Path, tmp_path: Path, name: str) -> None:
    """Else an open for writing would make one at any place."""
    path = shutil.copytree(whole, tmp_path / whole.name)
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(outside / "new")
    for act in (*READING, resume):
        tried(act, path)
    assert not (outside / "new").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_holds_up_nobody(whole: Path, tmp_path: Path, name: str) -> None:
    """Nobody writes to its other end; it is refused, as a folder is."""
    path = shutil.copytree(whole, tmp_path / whole.name)
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    for act in READING:
        tried(act, path)
    assert tried(resume, path).endswith(f"{name}: is a pipe where a file belongs; move it away")
    (path / name).unlink()
    (path / name).mkdir()
    assert "is a folder where a file belongs" in tried(resume, path)


@pytest.mark.parametrize("name", FOLDERS)
def test_no_rewrite_is_finished_from_elsewhere(whole: Path, outside: Path, tmp_path: Path, name: str) -> None:
    """All files of the folder would be moved here, and be read as results."""
    path = shutil.copytree(whole, tmp_path / whole.name)
    (path / name).symlink_to(outside)
    before = content(outside)
    for act in READING:
        tried(act, path)
    assert f"{name} is a link to" in tried(resume, path)
    assert content(outside) == before


@pytest.mark.parametrize("name", [".lock", ".reserve"])
def test_no_file_is_reached_by_another_name_of_it(whole: Path, outside: Path, tmp_path: Path, name: str) -> None:
    """Neither is overwritten: a hard link is refused where a writer's name goes, and only its name is taken away."""
    path = shutil.copytree(whole, tmp_path / whole.name)
    os.link(outside / "file", path / name)
    before = content(outside)
    told = tried(resume, path)
    assert ("has another name" in told) == (name == ".lock")
    assert content(outside) == before


def test_a_link_to_the_whole_directory_is_the_users_own(whole: Path, tmp_path: Path) -> None:
    """As `last`, or a folder on a larger disk."""
    path = shutil.copytree(whole, tmp_path / whole.name)
    (tmp_path / "last").symlink_to(path)
    assert len(resume(tmp_path / "last")) == 3
    assert verify(tmp_path / "last").is_sound


def test_what_is_refused_is_closed_again(tmp_path: Path) -> None:
    """No descriptor is left behind."""
    os.mkfifo(tmp_path / "pipe")
    before = os.listdir("/dev/fd")
    with pytest.raises(OSError, match="is a pipe"):
        regular(tmp_path / "pipe", os.O_RDONLY)
    assert os.listdir("/dev/fd") == before
