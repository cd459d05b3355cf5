"""Whole lines to the end of a file, and one file in the place of another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fluxloop.store.lines import LineFile, replace


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    """Nothing waits for the file to be closed."""
    path = tmp_path / "lines"
    path.write_bytes(b"zero\n")
    file = LineFile(path)
    file.append(b"one\n")
    assert path.read_bytes() == b"zero\none\n"
    file.append(b"two\nthree\n")
    assert path.read_bytes() == b"zero\none\ntwo\nthree\n"
    file.close()


def test_a_short_write_goes_on_or_says_why(tmp_path: Path) -> None:
    """A file that may not grow takes a part first; the error comes after, and what was taken stays."""
    script = """
import resource, signal, sys
from pathlib import Path
from fluxloop.store.lines import LineFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
file = LineFile(Path(sys.argv[1]))
file.append(b"x" * 59 + b"\\n")
try:
    file.append(b"y" * 59 + b"\\n")
except OSError as error:
    print(type(error).__name__)
"""
    path = tmp_path / "lines"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert path.read_bytes() == b"x" * 59 + b"\n" + b"y" * 40


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Readers see the old or the new content, never a part, and nothing else is left."""
    path = tmp_path / "summary.json"
    contents = [bytes([byte]) * 200_000 for byte in b"abc"]
    replace(path, contents[0])
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for content in contents:
            replace(path, content)
    stop.set()
    reader.join()
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["summary.json"]


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o777])
def test_a_new_file_has_the_permissions_of_its_directory(tmp_path: Path, umask: int) -> None:
    """Whatever the umask is, which an agent may change; a file that was there keeps its own."""
    tmp_path.chmod(0o750)
    before = os.umask(umask)
    try:
        replace(tmp_path / "file", b"")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        (tmp_path / "file").chmod(0o604)
        replace(tmp_path / "file", b"again")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o604
    finally:
        assert os.umask(before) == umask


def test_a_replacement_that_fails_leaves_the_old(tmp_path: Path) -> None:
    """No temporary file stays behind."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").write_text("")
    with pytest.raises(OSError, match="target"):
        replace(tmp_path / "target", b"new")
    assert os.listdir(tmp_path) == ["target"]


def test_what_a_failed_write_left_can_be_cut_off(tmp_path: Path) -> None:
    """The size is that of whole lines, and the next line stands behind them."""
    path = tmp_path / "lines"
    file = LineFile(path)
    file.append(b"one\n")
    before = file.size
    path.write_bytes(path.read_bytes() + b"tw")
    file.cut(before)
    file.append(b"three\n")
    assert path.read_bytes() == b"one\nthree\n"
    assert file.size == 10
    file.close()
    again = LineFile(path)
    assert again.size == 10
    again.close()


def test_lines_can_be_synced_from_any_thread(tmp_path: Path) -> None:
    """While others are written."""
    file = LineFile(tmp_path / "lines")
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            file.sync()

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(200):
        file.append(b"%d\n" % number)
    stop.set()
    thread.join()
    assert (tmp_path / "lines").read_bytes() == b"".join(b"%d\n" % number for number in range(200))
    file.close()


def test_a_write_of_nothing_is_no_error(tmp_path: Path) -> None:
    """And writes nothing."""
    file = LineFile(tmp_path / "lines")
    file.append(b"")
    file.append(b"one\n")
    assert (file.size, file.path.read_bytes()) == (4, b"one\n")
    file.check()
    file.close()
