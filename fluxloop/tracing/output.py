"""What the agent prints and logs, kept with its run.

While an experiment runs, `sys.stdout` and `sys.stderr` are stand-ins that ask which run the
writing code is in. What is written outside any run goes on to the screen.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TextIO

from fluxloop.tracing.context import OpenRun, current
from fluxloop.tracing.redaction import NOTHING, Redaction

Aside = Callable[[], AbstractContextManager[Any]]
"""Clears the progress bar while something else is written."""

_lock = threading.Lock()
_captures: list[_Capture] = []


@contextmanager
def captured_output(
    aside: Aside = nullcontext,
    debugging: Callable[[], None] = lambda: None,
    redaction: Redaction = NOTHING,
) -> Iterator[None]:
    """Keep what runs print and log with them, for as long as the context lasts.

    Args:
        aside: entered around what goes on to the screen.
        debugging: called when an agent calls `breakpoint()`, which has the terminal from then on.
        redaction: what is masked in what goes on to the screen.
    """
    user = (aside, debugging, redaction)
    with _lock:
        if not _captures:
            _captures.append(_Capture())
        capture = _captures[0]
        capture.users.append(user)
    try:
        yield
    finally:
        with _lock:
            capture.users.remove(user)
            if not capture.users:
                capture.restore()
                _captures.clear()


class _Capture:
    """The stand-ins, installed once however many experiments run in this process."""

    def __init__(self) -> None:
        self.users: list[tuple[Aside, Callable[[], None], Redaction]] = []
        self._streams = (sys.stdout, sys.stderr)
        self._stand_ins = (_Stream(self, sys.stdout, "stdout"), _Stream(self, sys.stderr, "stderr"))
        sys.stdout, sys.stderr = self._stand_ins
        self._hook = sys.breakpointhook
        sys.breakpointhook = self._breakpoint
        pairs = zip(self._streams, self._stand_ins, strict=True)
        self._handlers = _redirect_handlers({id(own): made for own, made in pairs if own is not None})

    def restore(self) -> None:
        # What the agent put there itself stays.
        if sys.stdout is self._stand_ins[0]:
            sys.stdout = self._streams[0]
        if sys.stderr is self._stand_ins[1]:
            sys.stderr = self._streams[1]
        if sys.breakpointhook == self._breakpoint:
            sys.breakpointhook = self._hook
        for handler, stream in self._handlers:
            if handler.stream in self._stand_ins:
                handler.setStream(stream)

    def aside(self) -> AbstractContextManager[Any]:
        return self.users[-1][0]() if self.users else nullcontext()

    def redactions(self) -> list[Redaction]:
        """What is masked on the screen, in a run that is shown there and outside any."""
        scope = current.get()
        return [*([scope[0].redaction] if scope else []), *(redaction for *_, redaction in self.users)]

    def _breakpoint(self, *args: Any, **kwargs: Any) -> Any:
        scope = current.get()
        if scope is not None:
            scope[0].uncaptured = True
            for _, debugging, _ in self.users:
                debugging()
        if self._hook is sys.__breakpointhook__ and os.environ.get("PYTHONBREAKPOINT", "") in ("", "pdb.set_trace"):
            import pdb  # only who debugs pays for it

            # Not through the hook, which would stop in this frame instead of the agent's.
            pdb.Pdb(**kwargs).set_trace(sys._getframe(1))
            return None
        return self._hook(*args, **kwargs)


def _redirect_handlers(stand_ins: dict[int, Any]) -> list[tuple[logging.StreamHandler[Any], TextIO]]:
    """Point the log handlers that write to the screen at the stand-ins."""
    loggers = [logging.getLogger(), *list(logging.Logger.manager.loggerDict.values())]
    redirected = []
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and id(handler.stream) in stand_ins:
                redirected.append((handler, handler.stream))
                handler.setStream(stand_ins[id(handler.stream)])
    return redirected


class _Stream:
    """A text stream that writes to the current run, else to the stream it stands in for."""

    def __init__(self, capture: _Capture, stream: Any, name: str) -> None:
        self._capture = capture
        self._stream = stream
        self._part = name
        self.buffer = _Bytes(self, getattr(stream, "buffer", None))

    def _run(self) -> OpenRun | None:
        scope = current.get()
        if scope is None or scope[0].uncaptured:
            return None
        # What a run given up still prints goes into its record, which is written already.
        return None if scope[0].closed and not scope[0].discarded else scope[0]

    def write(self, text: str) -> int:
        run = self._run()
        if run is None:
            if self._stream is None:  # a service without a terminal, where prints vanish
                return len(text)
            shown = text
            if isinstance(text, str):
                for redaction in self._capture.redactions():
                    redaction.refresh()
                    shown = redaction.text(shown)
            with self._capture.aside():
                written = self._stream.write(shown)
            return len(text) if shown is not text or not written else int(written)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        (run.stdout if self._part == "stdout" else run.stderr).append(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._run() is None and self._stream is not None:
            self._stream.flush()

    def isatty(self) -> bool:
        """False inside a run: colours and cursor movements would end up in its record."""
        return self._run() is None and self._stream is not None and bool(self._stream.isatty())

    def close(self) -> None:
        """Close nothing: the stream behind is not the agent's."""

    def detach(self) -> _Bytes:
        """Return the buffer, and let nothing go."""
        return self.buffer

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes:
    """The stream's `buffer`."""

    def __init__(self, text: _Stream, buffer: Any) -> None:
        self._text = text
        self._buffer = buffer

    def write(self, data: Any) -> int:
        if self._text._run() is None and self._buffer is not None:
            self._text.flush()
            shown = data
            for redaction in self._text._capture.redactions():
                redaction.refresh()
                shown = redaction.data(bytes(shown)) if redaction.is_needed else shown
            written = int(self._buffer.write(shown))
            return written if shown is data else len(bytes(data))
        data = bytes(data)
        self._text.write(data.decode("utf-8", "backslashreplace"))
        return len(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._text.flush()

    def close(self) -> None:
        """Close nothing: the stream behind is not the agent's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._buffer, name)
