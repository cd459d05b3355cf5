"""What a generator has yielded, as one value."""

from __future__ import annotations

from typing import Any

from fluxloop.tracing.capture import Unfinished, capture
from fluxloop.tracing.redaction import NOTHING, Redaction


class StreamedOutput:
    """Collect the items of a stream, each captured as it passes.

    Args:
        redaction: what is masked in them.

    Example:
        >>> streamed = StreamedOutput()
        >>> streamed.add("Hel"); streamed.add("lo")
        >>> streamed.value()
        'Hello'
    """

    __slots__ = ("_items", "_redaction")

    def __init__(self, redaction: Redaction = NOTHING) -> None:
        self._redaction = redaction
        self._items: list[Any] = []

    def add(self, item: Any) -> None:
        """Take the next item."""
        self._items.append(capture(item, self._redaction))

    def capture(self, item: Any, unfinished: Unfinished, at_once: int | None = None) -> Any:
        """Return an item as plain data, as `capture` does, without keeping it."""
        return capture(item, self._redaction, unfinished=unfinished, at_once=at_once)

    def keep(self, plain: Any) -> None:
        """Take the next item as plain data."""
        self._items.append(plain)

    def value(self, returned: Any = None) -> Any:
        """Return the items as one text when all are texts, else as a list.

        Who records it captures it again, because a secret may have come in pieces.

        Args:
            returned: the generator's return value, the result of one that yielded nothing.
        """
        if not self._items:
            return capture(returned, self._redaction) if returned is not None else []
        if all(isinstance(item, str) for item in self._items):
            return "".join(self._items)
        return self._items
