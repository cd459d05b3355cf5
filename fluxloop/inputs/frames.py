"""Data frames as inputs: each row an entry, each column a key. No package of frames is imported for it."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from fluxloop.exceptions import InputError, Problem
from fluxloop.inputs.readers import Row

_FRAMES = {
    ("pandas", "DataFrame"): lambda frame: _with_index(frame).to_dict("records"),
    ("polars", "DataFrame"): lambda frame: frame.to_dicts(),
    ("pyarrow", "Table"): lambda frame: frame.to_pylist(),
    ("pyarrow", "RecordBatch"): lambda frame: frame.to_pylist(),
}
_NAMES = ("DataFrame", "LazyFrame")
"""What classes of frames are called in packages that are not known here."""


class FrameRow(Row):
    """A row of a data frame, in which a cell that is missing is empty, and a text never is."""

    def is_empty(self, cell: Any) -> bool:
        return cell is None


def is_frame(source: Any) -> bool:
    """Tell whether a value is a data frame, of any package."""
    kind = type(source)
    return _known(kind) is not None or kind.__name__ in _NAMES or hasattr(kind, "__dataframe__")


def rows_of(frame: Any) -> list[Row]:
    """Return the rows of a data frame: missing cells as None, scalars of numpy as Python's own.

    Raises:
        InputError: the frame is of a package that is not known, or has two columns of one name.
    """
    known = _known(type(frame))
    if known is None:
        name = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__qualname__}"
        is_lazy = type(frame).__name__ == "LazyFrame"
        way_out = "collect() it first" if is_lazy else "give its rows, as a list of mappings"
        raise InputError([Problem("inputs", f"expected a list of entries, got a {name}; {way_out}")])
    columns = frame.schema.names if known[0] == "pyarrow" else list(frame.columns)
    twice = sorted({str(name) for name, count in Counter(columns).items() if count > 1})
    if twice:
        raise InputError([Problem("inputs", f"the frame has two columns {', '.join(map(repr, twice))}; rename one")])
    return [FrameRow({key: _plain(cell) for key, cell in row.items()}) for row in _FRAMES[known](frame)]


def _known(kind: type) -> tuple[str, str] | None:
    names = ((base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__)
    return next((name for name in names if name in _FRAMES), None)


def _with_index(frame: Any) -> Any:
    """The frame with its index as a column, where that has a name as columns have."""
    names = {name for name in frame.index.names if name is not None}
    return frame.reset_index() if names and not names & set(frame.columns) else frame


def _plain(cell: Any) -> Any:
    if type(cell).__module__ == "numpy" and hasattr(cell, "tolist"):
        cell = cell.tolist()
    is_missing = isinstance(cell, float | Decimal) and cell != cell
    return None if is_missing or type(cell).__name__ in ("NAType", "NaTType") else cell
