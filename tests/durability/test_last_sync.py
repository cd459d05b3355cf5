"""A disk that fails at the end: what is claimed goes by the first failure, whatever fails after it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxloop import Experiment, SinkError
from fluxloop.system import System


class Disk:
    """Takes all until it is broken."""

    is_broken = False

    def __init__(self) -> None:
        self.sync, self.write = System.fdatasync, System.write

    def fdatasync(self, handle: int) -> None:
        if self.is_broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.sync(handle)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """In the place of the real one, where files are put on it."""
    disk = Disk()
    monkeypatch.setattr(System, "fdatasync", disk.fdatasync)
    monkeypatch.setattr("fluxloop.store.lines._FULL_SYNC", None)
    monkeypatch.setattr("fluxloop.store.syncing.SYNC_AFTER", 60)
    return disk


def test_a_failed_last_sync_is_not_called_safe(tmp_path: Path, disk: Disk) -> None:
    """Though the summary, which fails after it, is what was raised before."""

    def agent(text: str) -> str:
        disk.is_broken = True
        return text

    with pytest.raises(SinkError, match="of 3 finished runs, 0 are known to be on the disk") as error:
        Experiment(target=agent, inputs=["a", "b", "c"], output_dir=tmp_path).run()
    assert str(error.value).startswith("the results cannot be closed: ")


def test_a_failed_write_does_not_hide_a_failed_sync_after_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is the reason, and what had been written before it is not called safe."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def agent(text: str) -> str:
        if text == "c":
            disk.is_broken = True
            monkeypatch.setattr("fluxloop.store.lines.LineFile.append", refuse)
        return text

    with pytest.raises(SinkError, match="of 2 finished runs, 0 are known to be on the disk") as error:
        Experiment(target=agent, inputs=["a", "b", "c"], output_dir=tmp_path).run()
    assert "No space left on device" in str(error.value)
