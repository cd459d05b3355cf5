"""One writer for a directory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fluxloop import OutputError
from fluxloop.store.lock import DirectoryLock, LockedError, writer_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing keeps a second writer out there")


def test_the_first_has_it_and_the_second_is_told_who(tmp_path: Path) -> None:
    """Also in one process; once the first is done, the directory is free and holds nothing of it."""
    with DirectoryLock(tmp_path) as lock:
        assert lock.is_supported
        told = str(writer_of(tmp_path))
        assert told.startswith(f"pid {os.getpid()} on ")
        with pytest.raises(LockedError, match=f"another process writes to it .pid {os.getpid()} on "):
            DirectoryLock(tmp_path).__enter__()
    assert writer_of(tmp_path) is None
    assert os.listdir(tmp_path) == []
    with DirectoryLock(tmp_path):
        pass


def test_what_a_crash_leaves_means_nothing(tmp_path: Path) -> None:
    """A process that was killed holds no lock, whatever the file says."""
    script = """
import os, sys
from pathlib import Path
from fluxloop.store.lock import DirectoryLock
DirectoryLock(Path(sys.argv[1])).__enter__()
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert "pid " in (tmp_path / ".lock").read_text()
    assert writer_of(tmp_path) is None
    with DirectoryLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"pid {os.getpid()} on ")


def test_a_child_neither_keeps_nor_frees_it(tmp_path: Path) -> None:
    """The lock is the parent's own: a child that leaves the context takes nothing away."""
    with DirectoryLock(tmp_path) as lock:
        child = os.fork()
        if child == 0:
            lock.__exit__(None, None, None)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert writer_of(tmp_path) is not None
        assert (tmp_path / ".lock").exists()


def test_of_many_one_has_it_at_a_time(tmp_path: Path) -> None:
    """Though each takes the file away when it is done."""
    inside = most = taken = 0
    gate = threading.Lock()

    def write() -> None:
        nonlocal inside, most, taken
        for _ in range(50):
            try:
                with DirectoryLock(tmp_path):
                    with gate:
                        inside, taken = inside + 1, taken + 1
                        most = max(most, inside)
                    with gate:
                        inside -= 1
            except LockedError:
                pass

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert most == 1
    assert taken > 4


def test_a_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """As what it is, and nothing stays open."""
    with pytest.raises(OutputError, match="cannot be written to: No such file"):
        DirectoryLock(tmp_path / "gone").__enter__()


def test_a_lock_that_cannot_say_who_has_it_is_let_go(tmp_path: Path) -> None:
    """A full disk has no room for the few words; the lock is not kept by a file nobody knows of."""
    script = """
import resource, signal, sys
from pathlib import Path
from fluxloop import OutputError
from fluxloop.store.lock import DirectoryLock, writer_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, -1))
path = Path(sys.argv[1])
try:
    DirectoryLock(path).__enter__()
except OutputError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
print(writer_of(path))
"""
    assert resource.RLIM_INFINITY == -1
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}: cannot be written to: File too large\nNone\n"
