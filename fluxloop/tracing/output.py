"""What the agent prints and logs, kept with its run.

While an experiment runs, `sys.stdout` and `sys.stderr` are stand-ins that ask which run the
writing code is in; who took a stream before is led to its stand-in by the stream's own `write`.
What is written outside any run goes on to the screen.

A stand-in may be taken, too, as by a logger that is made when the agent is imported. It serves
whichever experiment runs when it is written to, and passes everything on when none does.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol
from weakref import WeakValueDictionary

from attrs import frozen

from fluxloop.tracing.context import OpenRun, current, given_up
from fluxloop.tracing.redaction import NOTHING, Redaction


class Aside(Protocol):
    """Makes room for a text that is written beside the progress bar, for as long as the context lasts."""

    def __call__(self, stream: Any, text: str, /) -> AbstractContextManager[Any]: ...


def _nothing_aside(stream: Any, text: str, /) -> AbstractContextManager[None]:
    return nullcontext()


@frozen(eq=False)
class _Listener:
    """Who asks for the output of runs, as an experiment does."""

    aside: Aside
    debugging: Callable[[], None]
    redaction: Redaction
    keeps: bool


_lock = threading.Lock()
_listeners: list[_Listener] = []
_breakpoint_hook: Callable[..., Any] | None = None
"""The one that was there before."""


@contextmanager
def captured_output(
    aside: Aside = _nothing_aside,
    debugging: Callable[[], None] = lambda: None,
    redaction: Redaction = NOTHING,
    *,
    keeps: bool = True,
) -> Iterator[None]:
    """Keep what runs print and log with them, for as long as the context lasts.

    Args:
        aside: entered around what goes on to the screen.
        debugging: called when an agent calls `breakpoint()`, which has the terminal from then on.
        redaction: what is masked in what goes on to the screen.
        keeps: False when all goes on to the screen, as runs that are not captured say themselves.
    """
    listener = _Listener(aside, debugging, redaction, keeps)
    with _lock:
        if not _listeners:
            _install()
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
            if not _listeners:
                _uninstall()


def screen(stream: Any) -> Any:
    """Return what writes to the screen past the stand-ins, as a progress bar does; inside a run the stream itself."""
    if stream is None or current.get() is not None:
        return stream
    with _lock:
        return _stand_in(stream, "stderr")._direct


def _install() -> None:
    global _breakpoint_hook
    # The errors first: where both are one stream, what was taken of it is more often a logger's.
    sys.stderr, sys.stdout = errors, output = _stand_in(sys.stderr, "stderr"), _stand_in(sys.stdout, "stdout")
    errors._lead_here()
    output._lead_here()
    if sys.breakpointhook is not _breakpoint:
        _breakpoint_hook, sys.breakpointhook = sys.breakpointhook, _breakpoint


def _uninstall() -> None:
    # What the agent put there itself stays.
    if sys.breakpointhook is _breakpoint and _breakpoint_hook is not None:
        sys.breakpointhook = _breakpoint_hook
    if given_up:  # what these still print is for nobody to see
        return
    for stand_in in list(_stand_ins.values()):
        stand_in._let_go()
    if isinstance(sys.stdout, _Stream):
        sys.stdout = sys.stdout._stream
    if isinstance(sys.stderr, _Stream):
        sys.stderr = sys.stderr._stream


def _breakpoint(*args: Any, **kwargs: Any) -> Any:
    scope = current.get()
    if scope is not None:
        scope[0].uncaptured = True
        for listener in _listeners:
            listener.debugging()
    hook = _breakpoint_hook or sys.__breakpointhook__
    if hook is sys.__breakpointhook__ and os.environ.get("PYTHONBREAKPOINT", "") in ("", "pdb.set_trace"):
        import pdb  # only who debugs pays for it

        # Not through the hook, which would stop in this frame instead of the agent's.
        pdb.Pdb(**kwargs).set_trace(sys._getframe(1))
        return None
    return hook(*args, **kwargs)


def _redactions() -> Iterator[Redaction]:
    """What is masked on the screen, in a run that is shown there and outside any."""
    scope = current.get()
    own = (scope[0].redaction,) if scope else ()
    for redaction in (*own, *(listener.redaction for listener in tuple(_listeners))):
        redaction.refresh()
        yield redaction


@contextmanager
def _aside(stream: Any, text: str) -> Iterator[None]:
    with ExitStack() as stack:
        for listener in tuple(_listeners):
            stack.enter_context(listener.aside(stream, text))
        yield


_stand_ins: WeakValueDictionary[tuple[int, str], _Stream] = WeakValueDictionary()
"""By the stream, which lives as long as its stand-in, and by name; one lives as long as somebody holds it."""


def _stand_in(stream: Any, name: str) -> _Stream:
    if isinstance(stream, _Stream):
        return stream
    made = _stand_ins.get((id(stream), name))
    if made is None:
        made = _stand_ins[id(stream), name] = _Stream(stream, name)
    return made


class _Stream:
    """A text stream that writes to the current run, else to the stream it stands in for."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._own_write: Any = None
        """The `write` that the stream has of its own, while another leads here."""
        self.buffer = _Bytes(self)
        self._direct = _Direct(self)
        self._name = name
        self._leading = self.write
        self._forwarding = threading.local()

    def _lead_here(self) -> None:
        """Lead here what is written to the stream by who took it before."""
        write = getattr(self._stream, "write", None)
        if write is None or self._own_write is not None or _is_leading(write):
            return
        self._own_write = write  # first: other threads write meanwhile
        try:
            self._stream.write = self._leading
        except (AttributeError, TypeError):  # an object that takes no attributes
            self._own_write = None

    def _let_go(self) -> None:
        """Undo it, unless another has put something before it since."""
        if self._own_write is None or self._stream.write is not self._leading:
            return
        del self._stream.write
        if getattr(self._stream, "write", None) != self._own_write:  # that was an attribute, too
            self._stream.write = self._own_write
        self._own_write = None

    def _run(self) -> OpenRun | None:
        """Return the run that has what is written now, or None when that goes on to the screen."""
        scope = current.get()
        if scope is None or scope[0].uncaptured:
            return None
        return scope[0] if _listeners or scope[0].closed else None

    def _live(self) -> Any:
        """Return the stream, or the one of today when it is closed, as that of a test that is over."""
        stream = self._stream
        if getattr(stream, "closed", False) and not getattr(self._forwarding, "is_on", False):
            now = getattr(sys, self._name)
            return now._stream if isinstance(now, _Stream) else now
        return stream

    def write(self, text: str) -> int:
        run = self._run()
        if run is None:
            return self._show(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if run.closed:
            run.late.add(run.face.id, characters=len(text))
        else:
            (run.stdout if self._name == "stdout" else run.stderr).append(text)
        return len(text)

    def _show(self, text: str) -> int:
        stream = self._live()
        if stream is None:  # a service without a terminal, where prints vanish
            return len(text)
        write = self._write_of(stream)
        if not isinstance(text, str):
            return int(write(text))
        shown = text
        for redaction in _redactions():
            shown = redaction.text(shown)
        self._forwarding.is_on = True
        try:
            with _aside(self._direct, shown):
                written = write(shown)
        finally:
            self._forwarding.is_on = False
        return len(text) if shown is not text or not written else int(written)

    def _write_of(self, stream: Any) -> Any:
        """Return the `write` that a stream has of its own."""
        if stream is self._stream and self._own_write is not None:
            return self._own_write
        write = stream.write
        return write.__self__._own_write if _is_leading(write) else write

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._run() is None and (stream := self._live()) is not None:
            stream.flush()

    def isatty(self) -> bool:
        """False where output is kept: colours and cursor movements would end up in the records."""
        is_kept = any(one.keeps for one in _listeners) if current.get() is None else self._run() is not None
        return not is_kept and self._direct.isatty()

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
        return getattr(self._live(), name)


def _is_leading(write: Any) -> bool:
    return isinstance(getattr(write, "__self__", None), _Stream)


class _Bytes:
    """The stream's `buffer`."""

    def __init__(self, text: _Stream) -> None:
        self._text = text

    def write(self, data: Any) -> int:
        buffer = getattr(self._text._live(), "buffer", None)
        if self._text._run() is not None or buffer is None:
            data = bytes(data)
            self._text.write(data.decode("utf-8", "backslashreplace"))
            return len(data)
        self._text.flush()
        shown = data
        for redaction in _redactions():
            shown = redaction.data(bytes(shown)) if redaction.is_needed else shown
        with _aside(self._text._direct, bytes(shown).decode("utf-8", "replace")):
            written = int(buffer.write(shown))
        return written if shown is data else len(bytes(data))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._text.flush()

    def close(self) -> None:
        """Close nothing: the stream behind is not the agent's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text._live().buffer, name)


class _Direct:
    """Writes to the stream as it is, past its stand-in."""

    def __init__(self, text: _Stream) -> None:
        self._text = text

    def write(self, text: str) -> int:
        stream = self._text._live()
        return int(self._text._write_of(stream)(text) or 0)

    def flush(self) -> None:
        self._text._live().flush()

    def isatty(self) -> bool:
        stream = self._text._live()
        return stream is not None and bool(stream.isatty())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text._live(), name)
