"""Files that follow to the disk."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from fluxloop.store.lines import LineFile, sync
from fluxloop.store.syncing import GroupSync, SyncError
from tests.waiting import wait_until


class Counting(LineFile):
    """Notes how much was there at each sync; may fail at one."""

    def __init__(self, path: Path, *, fails_at: int = 0) -> None:
        super().__init__(path)
        self.synced: list[int] = []
        self.threads: set[str] = set()
        self._fails_at = fails_at

    def sync(self) -> None:
        self.synced.append(self.size)
        self.threads.add(threading.current_thread().name)
        if len(self.synced) == self._fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync()


def test_a_write_is_synced_without_anybody_asking(tmp_path: Path) -> None:
    """In another thread, and once for all that was written meanwhile."""
    file = Counting(tmp_path / "lines")
    group = GroupSync([file])
    for _ in range(100):
        file.append(b"one\n")
        group.written(1)
    wait_until(lambda: file.synced)
    wait_until(lambda: group._synced == 100)
    assert file.threads == {"fluxloop-sync"}
    assert len(file.synced) < 100
    group.close()
    assert file.synced[-1] == 400
    file.close()


def test_the_end_syncs_what_was_written_last(tmp_path: Path) -> None:
    """And nothing when nothing was written."""
    file = Counting(tmp_path / "lines")
    group = GroupSync([file])
    file.append(b"one\n")
    group.written(1)
    group.close()
    assert file.synced == [4]
    idle = GroupSync([file])
    idle.close()
    assert file.synced == [4]
    file.close()


def test_a_failed_sync_is_never_tried_again(tmp_path: Path) -> None:
    """It is told at the next look and at the end, with what is known to be safe."""
    first, second = Counting(tmp_path / "one"), Counting(tmp_path / "two", fails_at=2)
    group = GroupSync([first, second])
    for expected in (1, 2):
        first.append(b"one\n")
        second.append(b"two\n")
        group.written(1)
        wait_until(lambda expected=expected: len(second.synced) == expected)

    def failed() -> bool:
        try:
            group.check()
        except SyncError as error:
            return (error.errno, error.safe) == (errno.EIO, 1)
        return False

    wait_until(failed)
    group.written(1)
    with pytest.raises(SyncError) as told:
        group.close()
    assert (told.value.safe, told.value.strerror) == (1, os.strerror(errno.EIO))
    assert (len(first.synced), len(second.synced)) == (2, 2)
    first.close()
    second.close()


def test_a_sync_that_fails_says_so(tmp_path: Path) -> None:
    """A file that cannot be synced is an error, not a matter of taste."""
    handle = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    os.close(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(handle)


def test_an_end_that_comes_while_a_sync_begins_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the moment in which the call for the sync is taken down."""
    monkeypatch.setattr("fluxloop.store.syncing.SYNC_AFTER", 0.01)

    class Late(threading.Event):
        def clear(self) -> None:
            ending.start()
            group._closing.wait()
            wait_until(self.is_set)
            super().clear()

    file = LineFile(tmp_path / "lines")
    group = GroupSync([file])
    group._due = Late()
    ending = threading.Thread(target=group.close, daemon=True)
    file.append(b"one\n")
    group.written(1)
    wait_until(lambda: ending.ident is not None and not ending.is_alive())
    file.close()
