"""What a user must know, from wherever it is noticed to the screen.

Not by `warnings`: with `-W error`, or a filter that an agent sets, a notice would end what it is about.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from fluxloop.visible import visible

Show = Callable[[str], None]


def _on_stderr(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed, or none
        sys.stderr.write(f"[WARN] {visible(text)}\n")


_show: ContextVar[Show] = ContextVar("fluxloop_notices", default=_on_stderr)


def notice(text: str) -> None:
    """Show a line to whoever runs this code's experiment, else on stderr."""
    _show.get()(text)


@contextmanager
def notices_to(show: Show) -> Iterator[None]:
    """Have the notices of this context, and of what is started in it, shown in another way."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)
