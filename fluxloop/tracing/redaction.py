"""Which names say that their value is secret."""

from __future__ import annotations

import re
from functools import lru_cache

MASK = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# At the end of any word: PGPASSWORD is one, and secretary is none of them.
_SECRET_ENDS = ("password", "passwords", "passwd", "pwd", "passphrase", "secret", "secrets")
_SECRET_WORDS = frozenset({"credential", "credentials", "authorization", "apikey", "apikeys"})
_SECRET_LAST = frozenset({"key", "token"})
_HARMLESS_BEFORE = {
    "key": frozenset({"", "primary", "foreign", "public", "sort", "partition", "cache", "idempotency"}),
    "token": frozenset({"next", "page", "continuation", "eos", "bos", "pad", "stop"}),
}
_KEEPERS_OF_KEYS = frozenset({"api", "access", "secret", "private"})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell by its words whether a name says secret.

    `OPENAI_API_KEY`, `accessToken` and `db_password` do; `monkey`, `author` and `max_tokens` do not.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if any(word.endswith(_SECRET_ENDS) or word in _SECRET_WORDS for word in words):
        return True
    if words[-1:] == ["id"]:  # AWS_ACCESS_KEY_ID
        words = words[:-1]
    last, before = (["", "", *words])[-1], (["", "", *words])[-2]
    if last in _SECRET_LAST:
        return before not in _HARMLESS_BEFORE[last]
    return last == "keys" and before in _KEEPERS_OF_KEYS
