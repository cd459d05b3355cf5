"""A new experiment's directory appears whole, under a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import OutputError, SinkError
from fluxloop.listing import list_experiments
from fluxloop.store.layout import name_problem
from fluxloop.store.lock import DirectoryLock, writer_of
from fluxloop.store.new_directory import new_directory

SECOND = 1_730_471_422.9
NAME = "demo_20241101_143022"
DOCUMENTS = {"config.yaml": b"name: demo\n", "summary.json": b"{}\n"}
CLAIM = f"""
import sys
from pathlib import Path
from fluxloop.store.new_directory import new_directory
sys.stdin.read()
for _ in range(20):
    with new_directory(Path(sys.argv[1]), "demo", {SECOND}, {DOCUMENTS}) as lock:
        print(lock.path, flush=True)
"""


def made(parent: Path, name: str = "demo") -> Path:
    with new_directory(parent, name, SECOND, DOCUMENTS) as lock:
        return lock.path


@given(st.text(st.characters(exclude_categories=())))
def test_a_name_without_problem_makes_a_directory(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Whatever is not refused can be created, inside its parent."""
    parent = tmp_path_factory.getbasetemp() / "names"
    if name_problem(name) is None:
        path = made(parent, name)
        assert path.parent == parent
        assert {file.name: file.read_bytes() for file in path.iterdir()} == DOCUMENTS


def test_others_of_the_same_second_are_numbered(tmp_path: Path) -> None:
    """A file, a link or a directory with something in it keeps its name, and nothing else is left."""
    parent = tmp_path / "new" / "folder"
    assert [made(parent).name for _ in range(2)] == [NAME, f"{NAME}_2"]
    (parent / f"{NAME}_3").write_text("a file")
    (parent / f"{NAME}_4").symlink_to(tmp_path)
    (parent / f"{NAME}_5").symlink_to("nowhere")
    assert made(parent).name == f"{NAME}_6"
    assert sorted(path.name for path in parent.iterdir()) == [NAME, *(f"{NAME}_{number}" for number in range(2, 7))]


def test_it_is_held_from_the_moment_it_appears(tmp_path: Path) -> None:
    """Under its new name, until the context ends."""
    with new_directory(tmp_path, "demo", SECOND, DOCUMENTS) as lock:
        assert lock.path == tmp_path / NAME
        assert f"pid {os.getpid()} on " in str(writer_of(lock.path))
        with pytest.raises(OutputError, match="another process writes to it"):
            DirectoryLock(lock.path).__enter__()
    assert writer_of(lock.path) is None
    assert {file.name for file in lock.path.iterdir()} == set(DOCUMENTS)


def test_each_is_its_own_and_none_is_ever_seen_half_born(tmp_path: Path) -> None:
    """Threads and processes that begin in the same second share no directory; whoever looks finds all in each."""
    parent = tmp_path / "new"
    parent.mkdir()
    command = [sys.executable, "-c", CLAIM, str(parent)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    claimed: list[str] = []
    half_born: list[Path] = []
    looked = threading.Event()
    is_over = threading.Event()

    def claim() -> None:
        claimed.extend(str(made(parent)) for _ in range(20))

    def look() -> None:
        while not is_over.is_set():
            for path in parent.glob("[!.]*"):
                half_born.extend(path / name for name in DOCUMENTS if not (path / name).exists())
            looked.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    looked.wait()
    threads = [threading.Thread(target=claim) for _ in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        claimed += process.communicate()[0].split()
    is_over.set()
    watcher.join()
    assert half_born == []
    assert len(claimed) == len(set(claimed)) == 220
    assert sorted(claimed) == sorted(map(str, parent.iterdir()))


def test_one_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """With the folder, the reason and the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot create the experiment directory: .* --output-dir"):
        made(tmp_path / "file")
    with pytest.raises(OutputError, match="Not a directory") as raised:
        made(tmp_path / "file" / "below")
    assert raised.value.path == tmp_path / "file" / "below"


def test_one_whose_documents_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """No directory, and none that is being made."""
    with (
        pytest.raises(SinkError, match="cannot be written"),
        new_directory(tmp_path, "demo", SECOND, {"config.yaml": b"", "no/such.folder": b""}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_starts_have_left_is_taken_away(tmp_path: Path) -> None:
    """When it is old and nobody writes to it; no other hidden folder is touched, and none is listed."""
    names = [f".{NAME}.0000000{number}.new" for number in range(3)]
    others = [f".{NAME}.00000003", ".mine.new", f".{NAME}"]
    for name in [*names, *others]:
        (tmp_path / name).mkdir()
        for document, content in DOCUMENTS.items():
            (tmp_path / name / document).write_bytes(content)
    old, held, young = (tmp_path / name for name in names)
    with DirectoryLock(held):
        for path in (old, held, *(tmp_path / name for name in others)):
            os.utime(path, (SECOND - 4000, SECOND - 4000))
        os.utime(young, (SECOND - 10, SECOND - 10))
        made(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {held.name, young.name, *others, NAME}
    assert {one.path.name for one in list_experiments(tmp_path)} == {".mine.new", f".{NAME}", NAME}
