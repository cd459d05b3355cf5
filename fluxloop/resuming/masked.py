"""Whether what is masked among the arguments is what it was, without telling what it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fluxloop.system import System
from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import MASK

MASKED = "masked_arguments"
"""Where `ran_on` has the digests."""
_ADDRESS = re.compile(rb" at 0x[0-9a-fA-F]+")
_DECIDING = (("runner", "args"), ("runner", "input_template"), ("replay_args", "values"))
# A short password could be found by trying all, so each try takes 16 MB and some 50 ms.
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1


def masked_arguments(config: Mapping[str, Any], shown: Mapping[str, Any], before: object = None) -> dict[str, str]:
    """Return a digest of each argument of which something is masked, with the salt that they share.

    Args:
        config: the arguments as they are, as plain data.
        shown: the same with secrets masked.
        before: what this gave when the experiment was begun, whose salt makes the two comparable.
    """
    hidden: dict[str, list[Any]] = {}
    for path, value in _masked(config, shown, ()):
        if any(path[: len(one)] == one for one in _DECIDING):
            hidden.setdefault(".".join(path[:3]), []).append((path, capture(value)))
    if not hidden:
        return {}
    salt = _salt(before)
    return {"salt": salt, **{key: _digest(values, salt) for key, values in hidden.items()}}


def changed(before: object, now: object) -> list[str]:
    """Return the keys of the masked arguments that are others than they were."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping) or before.get("salt") != now.get("salt"):
        return []
    return [key for key in now if key in before and before[key] != now[key]]


def _masked(value: Any, shown: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if shown == MASK and value != MASK:
        yield path, value
    elif isinstance(value, Mapping) and isinstance(shown, Mapping):
        if len(value) != len(shown):  # of two keys that are masked one is shown
            yield path, value
            return
        for (key, item), one in zip(value.items(), shown.values(), strict=True):
            yield from _masked(item, one, (*path, str(key)))
    elif isinstance(value, list | tuple) and isinstance(shown, list):
        for number, (item, one) in enumerate(zip(value, shown, strict=False)):
            yield from _masked(item, one, (*path, str(number)))


def _salt(before: object) -> str:
    salt = before.get("salt") if isinstance(before, Mapping) else None
    return salt if isinstance(salt, str) and salt else System.urandom(16).hex()


def _digest(values: list[Any], salt: str) -> str:
    data = _ADDRESS.sub(b"", msgspec.json.encode(values))  # of an object it tells nothing
    return hashlib.scrypt(data, salt=salt.encode(), n=_COST, r=_BLOCK, p=_PARALLEL, dklen=16).hex()
