"""Which names say that their value is secret."""

from __future__ import annotations

import re
from functools import lru_cache

MASK = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = frozenset(
    {"key", "apikey", "token", "secret", "password", "passwd", "passphrase", "credential", "credentials"}
)
_HARMLESS_BEFORE_KEY = frozenset({"primary", "foreign", "public", "sort", "partition", "cache"})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell by its words whether a name says secret: `OPENAI_API_KEY`, `dbPassword`; not `monkey` or `max_tokens`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    for index, word in enumerate(words):
        if word not in _SECRET:
            continue
        if word == "key" and (index == 0 or words[index - 1] in _HARMLESS_BEFORE_KEY):
            continue
        return True
    return False
