"""A copy of any object by way of `pickle`, in which classes and functions need no name to be found by."""

from __future__ import annotations

import io
import pickle
from types import MappingProxyType
from typing import Any

from fluxloop.tracing.copies import FIXED, SHARED


def pickled_copy(value: Any) -> Any:
    """Return a copy of the value and all that is in it, but for what is shared by its nature.

    Raises:
        Exception: something in it cannot be pickled.
    """
    file, shared = io.BytesIO(), list[Any]()
    _Pickler(file, shared).dump(value)
    file.seek(0)
    return _Unpickler(file, shared).load()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._shared = shared

    def persistent_id(self, value: Any) -> int | None:
        kind = type(value)
        if kind is not object and (kind in FIXED or not issubclass(kind, SHARED)):
            return None
        self._shared.append(value)
        return len(self._shared) - 1

    def reducer_override(self, value: Any) -> Any:
        return (MappingProxyType, (dict(value),)) if type(value) is MappingProxyType else NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, number: Any) -> Any:
        return self._shared[number]
