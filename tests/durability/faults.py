"""The system calls of one process, counted, and one of them made to fail or to be the last."""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable
from typing import Any

from fluxloop.system import System

CRASHED = 86
"""What a process ends with that was made to crash."""


class Faults:
    """Count every change to the files below a folder; do at one of them as told.

    Args:
        under: the folder.
        journal: a line a step is written here, before it is done.
        do: `count`, `fail`, `exit before` or `exit after`.
        at: the number of the step, from 1.
        error: its errno.
        lasts: whether all that follow fail, too, but for those that give room.
    """

    def __init__(
        self, under: str, journal: str, do: str = "count", at: int = 0, error: int = 5, lasts: bool = False
    ) -> None:
        self._under, self._do, self._at, self._error, self._lasts = under, do, at, error, lasts
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._write = os.write
        self._exit = os._exit
        self._link = os.readlink
        self._count = 0
        self._lock = threading.Lock()

    def step(self, what: str, where: Any, act: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        """Do it, unless it is to fail."""
        place = self._place(where)
        if place is None:
            return act()
        with self._lock:
            self._count += 1
            number = self._count
            fails = self._do == "fail" and (
                number == self._at or (self._lasts and number > self._at and what not in ("unlink", "ftruncate"))
            )
            told = "failed" if fails else "done"
            self._write(self._journal, f"{number}\t{what}\t{place}\t{told}\n".encode())
        if fails:
            half()  # as a disk does that fills
            raise OSError(self._error, os.strerror(self._error))
        if number == self._at and self._do == "exit before":
            half()
            self._exit(CRASHED)
        try:
            return act()
        finally:
            if number == self._at and self._do == "exit after":
                self._exit(CRASHED)

    def _place(self, where: Any) -> str | None:
        """The path below the folder, None for one elsewhere."""
        try:
            path = self._link(f"/proc/self/fd/{where}") if isinstance(where, int) else os.path.abspath(where)
        except (OSError, TypeError, ValueError):
            return None
        if isinstance(path, bytes) or not path.startswith(self._under):
            return None
        return path[len(self._under) :].strip("/") or "."

    def install(self) -> None:
        """Take the place of the system's."""
        for name in ("fsync", "fdatasync", "ftruncate", "chmod", "mkdir", "rmdir", "unlink", "write"):
            self._patch(name)
        for name in ("posix_fallocate", "sendfile"):
            if hasattr(os, name):
                self._patch(name)
        for name in ("replace", "rename"):
            self._patch(name, argument=1)
        self._patch_open()
        self._patch_files()

    def _patch(self, name: str, argument: int = 0) -> None:
        real = getattr(os, name)

        def patched(*args: Any, **options: Any) -> Any:
            return self.step(name, args[argument], lambda: real(*args, **options))

        setattr(os, name, patched)
        if hasattr(System, name):
            setattr(System, name, patched)

    def _patch_open(self) -> None:
        real = os.open

        def patched(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if not flags & os.O_CREAT:
                return real(path, flags, *args, **options)
            return self.step("create", path, lambda: real(path, flags, *args, **options))  # type: ignore[no-any-return]

        os.open = System.open = patched  # type: ignore[assignment]

    def _patch_files(self) -> None:
        faults, real = self, builtins.open

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                write = super().write

                def half() -> None:
                    write(bytes(data)[: len(data) // 2])

                return faults.step("write", self.fileno(), lambda: write(data), half)  # type: ignore[no-any-return]

        def made(file: Any, mode: str, buffering: int) -> Any:
            raw = File(file, mode.replace("b", ""))
            return raw if buffering == 0 else io.BufferedWriter(raw)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
            if "b" not in mode or not set(mode) & set("wax") or "+" in mode or faults._place(file) is None:
                return real(file, mode, buffering, *args, **options)
            if isinstance(file, int):
                return made(file, mode, buffering)
            return faults.step("create", file, lambda: made(file, mode, buffering))

        builtins.open = opened  # type: ignore[assignment]
        io.open = opened  # type: ignore[assignment]
        os.fdopen = opened  # type: ignore[assignment]
