"""Files of inputs → their entries, each with its line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fluxloop.exceptions import InputError, Problem
from fluxloop.inputs.json_problem import json_problem
from fluxloop.inputs.text import not_text

Entries = Iterator[tuple[int, Any]]
"""Line (from 1) and entry."""


def _own_csv() -> Any:
    """What the `csv` module rests on, with a limit of its own: that of `csv` holds for the whole process."""
    spec = importlib.util.find_spec("_csv")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.field_size_limit(1 << 30)
    return module


_csv = _own_csv()


class Row(dict[str, Any]):
    """A row of a table, in which an empty cell may mean that there is none."""

    def is_empty(self, cell: Any) -> bool:
        """Tell whether a cell holds nothing."""
        return bool(cell == "")

    @property
    def is_none(self) -> bool:
        """True when all its cells are empty, as those below the last row of a spreadsheet."""
        return all(map(self.is_empty, self.values()))


def read_jsonl(path: Path) -> Entries:
    """Read one JSON value a line; blank lines are passed over.

    Raises:
        InputError: a line is not JSON, or not UTF-8.
    """
    decode = msgspec.json.Decoder().decode
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.isspace() or not line:
                continue
            try:
                yield number, decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InputError([json_problem(f"{path}:{number}", line, error)]) from None
            except RecursionError:
                raise InputError([Problem(f"{path}:{number}", "nested too deeply")]) from None


def read_csv(path: Path) -> Entries:
    """Read rows below a header.

    Raises:
        InputError: a row has more cells than the header, or the file is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _rows(path, _csv.reader(file, strict=True))
    except UnicodeDecodeError:
        raise InputError([not_text(path)]) from None


def _rows(path: Path, reader: Any) -> Entries:
    line = 1
    try:
        header: list[str] = []
        while not header:
            line = reader.line_num + 1
            header = [name.strip() for name in next(reader)]
        _check_header(f"{path}:{line}", header)
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) > len(header):
                what = f"more cells ({len(cells)}) than the header has columns ({len(header)}); is a comma not quoted?"
                raise InputError([Problem(f"{path}:{line}", what)])
            if cells:
                row = Row(zip(header, cells, strict=False))
                row.pop("", None)  # a column without a name, as an index or trailing commas leave one
                yield line, row
            line = reader.line_num + 1
    except StopIteration:
        return
    except _csv.Error as error:
        hint = "; is a quote not closed?" if "end of data" in str(error) else ""
        raise InputError([Problem(f"{path}:{line}", f"not valid CSV: {error}{hint}")]) from None


def _check_header(where: str, header: list[str]) -> None:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise InputError([Problem(where, f"the header names {', '.join(map(repr, twice))} twice")])
    other = next((mark for mark in (";", "\t") if mark in header[0]), None)
    if len(header) == 1 and other:
        raise InputError([Problem(where, f"expected columns separated by commas, got them separated by {other!r}")])


def read_yaml(path: Path) -> Entries:
    """Read a YAML list, item by item; see `yaml_stream`."""
    from fluxloop.inputs.yaml_stream import stream_items  # only YAML pays for YAML

    return stream_items(path)


READERS: dict[str, Callable[[Path], Entries]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
}
