"""The files of an experiment directory that are replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from fluxloop.exceptions import SinkError
from fluxloop.store.lines import replace


def write_document(path: Path, content: bytes) -> None:
    """Put the content in the place of the file.

    Raises:
        SinkError: it cannot be written; the file is as it was.
    """
    try:
        replace(path, content)
    except OSError as error:
        raise SinkError(f"{path.name} cannot be written: {error.strerror or error}") from error


def to_json(record: Any) -> bytes:
    """Return a record as JSON for people, a line a key."""
    try:
        text = msgspec.json.encode(record)
    except OverflowError:  # a whole number of more than 64 bits, as a summary of another's may hold
        text = json.dumps(msgspec.to_builtins(record)).encode()
    return msgspec.json.format(text, indent=2) + b"\n"
