"""Entries → a file of inputs, there whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from fluxloop.exceptions import GenerationError, OutputError
from fluxloop.store.lines import sync, sync_directory
from fluxloop.store.litter import held, prefix, sweep

_BUFFER = 1 << 18

# What JSON may hold as it is, and YAML must not, or takes for the end of a line.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONGEST_KEY = 1000
"""Characters of a key on its line, by the rules of YAML less the quotes."""


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check that a file of inputs may be written.

    Raises:
        OutputError: its suffix says no format, or it is there already.
    """
    if path.suffix.lower() not in _FORMATS:
        raise OutputError(path, f"expected a file that ends in {', '.join(_FORMATS)}, got {path.suffix or 'no suffix'}")
    if path.is_dir():
        raise OutputError(path, "is a folder; expected a file")
    if not overwrite and os.path.lexists(path):
        raise OutputError(path, "is there already; --overwrite replaces it, --output names another")


def write_entries(path: Path, entries: Iterable[Mapping[str, Any]], *, overwrite: bool, remark: str) -> int:
    """Write a file of inputs and return how many it holds; without any entry, no file is written.

    Args:
        path: the file; its suffix decides the format.
        entries: what it is to hold.
        overwrite: replace a file that is there.
        remark: how it came about, for readers, where the format has room for it.

    Raises:
        OutputError: the file is there already.
        GenerationError: it cannot be written.
    """
    head, encode = _FORMATS[path.suffix.lower()]
    count = 0
    with new_file(path, overwrite=overwrite) as file:
        for count, entry in enumerate(entries, 1):
            if count == 1:
                file.write(head(remark))
            file.write(encode(entry))
        if not count:
            raise _NothingError
    return count


class _NothingError(Exception):
    """There is nothing to write."""


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file that takes its name when the context ends well, and is gone when it does not."""
    target = Path(os.path.realpath(path)) if overwrite else path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, target.name)
        temporary = str(target.parent / f"{prefix(target.name)}{secrets.token_hex(6)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise GenerationError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        with held(temporary), os.fdopen(handle, "wb", _BUFFER) as file:
            yield file
            file.flush()
            sync(file.fileno())
        _publish(temporary, target, overwrite=overwrite)
        sync_directory(target.parent)
    except _NothingError:
        return
    except OSError as error:
        raise GenerationError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _publish(temporary: str, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike a renaming, it never takes the place of another file
            return
        except FileExistsError:
            raise OutputError(path, "has come to be there meanwhile; nothing was replaced") from None
        except OSError:  # a file system without links
            check_output(path, overwrite=False)
    os.replace(temporary, path)


def encode_line(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line of JSON."""
    return msgspec.json.encode(entry) + b"\n"


def _yaml_item(entry: Mapping[str, Any]) -> bytes:
    """An entry as an item of a YAML list: keys a line each, with values as JSON, which YAML reads as the same."""
    lines = [f"{'  - ' if not index else '    '}{key}: {_yaml_value(entry[key])}\n" for index, key in enumerate(entry)]
    return "".join(lines).encode()


def _yaml_value(value: Any) -> str:
    text = msgspec.json.encode(value)
    if isinstance(value, dict | list):
        text = msgspec.json.format(text, indent=0)  # with a space after each colon, which some readers of YAML need
        if any(len(key) > _LONGEST_KEY for key in _keys(value)):
            raise OutputError(Path("output"), "a key of an input is too long for YAML; give --output a .jsonl file")
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text.decode())


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _yaml_head(remark: str) -> bytes:
    return f"# {remark}\ngenerated_inputs:\n".encode()


def _no_head(remark: str) -> bytes:
    return b""


_YAML = (_yaml_head, _yaml_item)
_JSONL = (_no_head, encode_line)
_FORMATS: dict[str, tuple[Callable[[str], bytes], Callable[[Mapping[str, Any]], bytes]]] = {
    ".yaml": _YAML,
    ".yml": _YAML,
    ".jsonl": _JSONL,
    ".ndjson": _JSONL,
}
