"""The file calls are recorded to, if any.

It is opened for each line: what the service does to its descriptors, its processes and its log
files then does no harm, and that costs as much as asking whether an open one still fits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

SWITCH, FILE = "FLUXLOOP_RECORD_ARGS", "FLUXLOOP_RECORDING_FILE"

# `os.environ` decodes at each look-up, which would be most of what a call costs while nothing is recorded.
_variables: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_encoded: Any = getattr(os.environ, "encodekey", str)
_SWITCH, _FILE = _encoded(SWITCH), _encoded(FILE)
_ON = {_encoded(word) for word in ("true", "TRUE", "True", "1", "yes", "on")}

_chosen: str | None = None
"""What the program has asked for; `""` for nothing to be recorded, None to go by the environment."""
_named: tuple[Any, str | None] = (None, None)
"""The file as the environment tells it, and where that was when it was first told."""
_errors = 0


def choose(path: str | os.PathLike[str] | None) -> None:
    """Record to this file from now on; None for none, whatever the environment says."""
    global _chosen
    _chosen = "" if path is None else os.path.abspath(os.fspath(path))


def current_file() -> str | None:
    """Return where calls are recorded, or None."""
    if _chosen is not None:
        return _chosen or None
    switch = _variables.get(_SWITCH)
    return None if switch is None else _from_environment(switch)


def _from_environment(switch: Any) -> str | None:
    global _named
    if switch not in _ON:
        return None
    told = _variables.get(_FILE)
    if not told:
        failed(f"{SWITCH} is set, but {FILE} names no file")
        return None
    if _named[0] != told:
        _named = (told, os.path.abspath(os.fsdecode(told)))  # a service may change its directory later
    return _named[1]


def append(path: str, line: bytes) -> None:
    """Write a whole line to the end of the file, in one step that other writers cannot cut in two.

    Raises:
        OSError: it cannot be written, or only in part.
    """
    # A pipe that nobody reads is an error then, and no wait.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    try:
        written = os.write(descriptor, line)
        if written < len(line):
            os.write(descriptor, b"\n")  # so that at least the next line is whole
            raise OSError(f"only {written} of {len(line)} bytes fit")
    finally:
        os.close(descriptor)


def failed(what: str) -> None:
    """Count a call that could not be recorded, and tell of the first."""
    global _errors
    _errors += 1
    if _errors == 1:
        import logging  # services watch their log; a warning could be turned into an exception

        logging.getLogger("fluxloop.recording").warning(
            "a call was not recorded: %s; this is told once, fluxloop.recording_errors() counts", what
        )


def recording_errors() -> int:
    """Return how many calls this process could not record.

    Example:
        >>> import fluxloop
        >>> fluxloop.recording_errors()
        0
    """
    return _errors
