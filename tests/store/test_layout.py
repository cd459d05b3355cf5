"""The names in an experiment directory, and claiming a new one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop import OutputError
from fluxloop.store.layout import claim_directory, directory_name, name_problem

SECOND = 1_730_471_422.9


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a\\b", "/a", "a\n", "a\x00", "\x7f", "\x9b", "\ud800"])
def test_a_name_that_is_no_path_component_is_refused(name: str) -> None:
    """Separators, dots alone, control characters and half characters."""
    assert "expected one path component" in str(name_problem(name))


@pytest.mark.parametrize("name", ["a", "baseline-test", "a b", "...", ".hidden", "naïve 測試", "é" * 100])
def test_other_names_are_taken(name: str) -> None:
    """Any text a file system takes."""
    assert name_problem(name) is None


def test_a_name_too_long_is_refused() -> None:
    """In bytes, because the file system counts them."""
    assert name_problem("é" * 101) == "expected at most 200 bytes, got 202"


@given(st.text(st.characters(exclude_categories=())))
def test_a_name_without_problem_makes_a_directory(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Whatever is not refused can be created, inside its parent."""
    parent = tmp_path_factory.getbasetemp() / "names"
    if name_problem(name) is None:
        path = claim_directory(parent, name, SECOND)
        assert path.parent == parent
        assert path.is_dir()
        path.rmdir()


def test_a_directory_is_named_by_its_second(tmp_path: Path) -> None:
    """In UTC; others of the same second are numbered."""
    assert directory_name("demo", SECOND) == "demo_20241101_143022"
    made = [claim_directory(tmp_path / "new" / "folder", "demo", SECOND).name for _ in range(3)]
    assert made == ["demo_20241101_143022", "demo_20241101_143022_2", "demo_20241101_143022_3"]


def test_each_claim_is_its_own(tmp_path: Path) -> None:
    """Threads and processes that claim in the same second never share a directory."""
    script = (
        "import sys; from pathlib import Path; from fluxloop.store.layout import claim_directory\n"
        "sys.stdin.read()\n"
        f"for _ in range(20): print(claim_directory(Path(sys.argv[1]), 'demo', {SECOND}))"
    )
    parent = tmp_path / "new"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    claimed: list[str] = []

    def claim() -> None:
        for _ in range(20):
            claimed.append(str(claim_directory(parent, "demo", SECOND)))

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
    assert len(claimed) == len(set(claimed)) == 220
    assert sorted(claimed) == sorted(map(str, parent.iterdir()))


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """With the folder, the reason and the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot create the experiment directory: .* --output-dir"):
        claim_directory(tmp_path / "file", "demo", SECOND)
    with pytest.raises(OutputError, match="Not a directory") as raised:
        claim_directory(tmp_path / "file" / "below", "demo", SECOND)
    assert raised.value.path == tmp_path / "file" / "below"
