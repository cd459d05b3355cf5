"""What stands in for a callback of the service: it keeps what the agent sends through it."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, NoReturn

from fluxloop.tracing.capture import capture
from fluxloop.tracing.context import OpenRun, current

# The one object that tells these observations from a user's own, whatever those hold.
_COLLECTED: dict[str, Any] = {"provider": "builtin:collector"}


class Collector:
    """Take any call, awaited or not, and record it as an event of the run.

    Args:
        run: the run it is made for; it is called from any thread or task.
        name: what the callback is called in the recording.
    """

    def __init__(self, run: OpenRun, name: str) -> None:
        self._run = run
        self._name = name

    def __repr__(self) -> str:
        return f"<builtin:collector for {self._name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Nothing:
        run, scope = self._run, current.get()
        parent = scope[1] if scope is not None and scope[0] is run else None
        sent = args[0] if len(args) == 1 and not kwargs else _listed(args, kwargs)
        if run.closed:
            run.late.add(run.face.id, calls=1)
        else:
            redaction = run.redaction
            name = redaction.text(self._name)
            observation, start = run.observe("event", name, parent, capture(sent, redaction), None, _COLLECTED)
            run.end(observation, start)
        return Nothing()


def _listed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not kwargs:
        return list(args) if args else None
    return {"args": list(args), **kwargs} if args else kwargs


def collected(run: OpenRun) -> Any:
    """Return what the agent sent: the one thing, a list of several, or None."""
    sent = [one.input for one in run.observations if one.metadata is _COLLECTED]
    return sent[0] if len(sent) == 1 else sent or None


class Nothing(Coroutine[Any, Any, None]):
    """What a call of a callback gives: nothing, be it awaited, made a task of, or left alone."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "<nothing>"

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()

    def send(self, value: Any, /) -> NoReturn:
        raise StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> NoReturn:
        raise typ if val is None else val

    def close(self) -> None:
        pass
