"""What is secret, by name and by value, and how it is masked."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import Any

MASK = "***"
MIN_LENGTH = 8
"""Characters from which a text is masked wherever it appears; a shorter one stands in too many others."""
NEVER = sys.maxsize
"""As many characters no text has."""
MAX_KNOWN = 256
"""Values of the environment remembered after they have gone from it."""

# What is behind `os.environ`, which costs four times as much and is asked in each run; its keys may be bytes.
_variables: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_key: Callable[[str], Any] = os.environ.encodekey if hasattr(os.environ, "_data") else str

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# At the end of any word: PGPASSWORD is one, and secretary is none of them.
_SECRET_ENDS = ("password", "passwords", "passwd", "pwd", "passphrase", "secret", "secrets")
_SECRET_WORDS = frozenset({"credential", "credentials", "authorization", "apikey", "apikeys"})
_SECRET_LAST = frozenset({"key", "token"})
_HARMLESS_BEFORE = {
    "key": frozenset(
        {
            *("", "primary", "foreign", "public", "sort", "partition", "cache", "idempotency", "answer", "object"),
            *("row", "range", "group", "routing", "lookup", "index", "item", "issue", "document", "translation"),
        }
    ),
    "token": frozenset(
        {
            *("next", "page", "continuation", "eos", "bos", "pad", "stop", "first", "last", "per", "unk", "sep"),
            *("cls", "mask", "special"),
        }
    ),
}
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^@/\s]+)@")  # as in DATABASE_URL
_KEEPERS_OF_KEYS = frozenset({"api", "access", "secret", "private"})
_FOLDERS = frozenset({"PWD", "OLDPWD"})  # where a shell is and was


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


class Redaction:
    """What is masked in what a run shows: values under secret names, and known secrets in any text.

    The environment's secrets are those of the process that uses it: sent to another, it reads
    that one's. They are looked for again whenever the number of variables or a secret has changed,
    because an agent may load its environment while it runs.

    Args:
        enabled: False masks nothing.
        patterns: regular expressions; what they match is masked too.
        secrets: texts to mask beside those of the environment.

    Example:
        >>> redaction = Redaction(secrets=["correct horse"])
        >>> redaction.text("the password is correct horse")
        'the password is ***'
    """

    __slots__ = (
        "_environment",
        "_patterns",
        "_secrets",
        "_size",
        "_values",
        "_watched",
        "by_name",
        "is_needed",
        "needles",
        "numbers",
        "shortest",
    )

    def __init__(self, *, enabled: bool = True, patterns: Sequence[str] = (), secrets: Iterable[str] = ()) -> None:
        self.by_name = enabled
        """Whether values under secret names are masked."""
        self._patterns = tuple(re.compile(pattern) for pattern in patterns) if enabled else ()
        self._secrets = frozenset(secrets) if enabled else frozenset()
        self._environment: dict[str, None] = {}
        self.needles: tuple[str, ...] = ()
        """Texts that are masked wherever they appear, the longest first."""
        self.numbers: frozenset[int] = frozenset()
        """The same of those that are numbers."""
        self.shortest: int = NEVER
        """Texts of fewer characters hold nothing to mask."""
        self.is_needed = False
        """Whether there is anything to look for in texts."""
        self._size = -1
        """How many variables the environment had when it was last looked at."""
        self._watched: Callable[[Any], Any] | None = None
        """Gives the values of those with secret names."""
        self._values: Any = None
        self._collect()
        self.refresh()

    def __repr__(self) -> str:
        return f"<Redaction: {len(self.needles)} texts, {len(self._patterns)} patterns>" if self.by_name else "<None>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, self._settings()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Redaction) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash(self._settings())

    def _settings(self) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
        return self.by_name, tuple(pattern.pattern for pattern in self._patterns), tuple(sorted(self._secrets))

    def refresh(self) -> None:
        """Look for secrets in the environment, if it has changed; those known stay known."""
        size, watched = len(_variables), self._watched
        try:  # not `suppress`, which costs more than the rest
            if not self.by_name or (size == self._size and (watched is None or watched(_variables) == self._values)):
                return
        except KeyError:
            pass  # one has gone, and another come
        names = _secret_variables()
        watched, values = itemgetter(*map(_key, names)) if names else None, None
        with suppress(KeyError):  # gone since
            # Taken first: what another thread changes meanwhile is then found the next time.
            values = None if watched is None else watched(_variables)
        texts = dict.fromkeys(text for name in names for text in _secrets_in(name) if is_long_enough(text))
        if texts.keys() - self._environment.keys():
            gone = [text for text in self._environment if text not in texts]
            self._environment = dict.fromkeys([*gone[-MAX_KNOWN:], *texts])
            self._collect()
        self._size, self._watched, self._values = size, watched, values  # last: until then others look, too

    def _collect(self) -> None:
        needles = {form for text in (*self._secrets, *self._environment) for form in _forms(text)}
        self.needles = tuple(sorted(needles, key=lambda needle: (-len(needle), needle)))
        self.numbers = frozenset(int(needle) for needle in needles if needle.isascii() and needle.isdigit())
        if self._patterns:
            self.shortest = 0
        elif needles:
            self.shortest = len(self.needles[-1])
        self.is_needed = self.shortest < NEVER

    def also(self, secrets: Iterable[str]) -> Redaction:
        """Return one that masks further texts, for a run that has secrets of its own."""
        more = Redaction.__new__(Redaction)
        more.by_name, more._patterns, more._environment = self.by_name, self._patterns, self._environment
        more._secrets = self._secrets.union(secrets)
        more._size, more._watched, more._values = self._size, self._watched, self._values
        more.shortest = self.shortest
        more._collect()
        return more

    def text(self, text: str) -> str:
        """Return the text with what is secret masked."""
        length = len(text)
        if length < self.shortest:
            return text
        for needle in reversed(self.needles):  # the shortest first, for most texts are shorter than most keys
            if len(needle) > length:
                break
            if needle in text:
                for longest in self.needles:
                    text = text.replace(longest, MASK)
                break
        for pattern in self._patterns:
            text = pattern.sub(_masked, text)
        return text

    def data(self, data: bytes) -> bytes:
        """Return bytes, be they text or not, with known secrets masked."""
        if len(data) < self.shortest:
            return data
        for needle in self.needles:
            encoded = needle.encode("utf-8", "surrogateescape")
            if encoded in data:
                data = data.replace(encoded, MASK.encode())
        return data

    def holds(self, text: str) -> bool:
        """Tell whether the text contains a known secret."""
        return any(needle in text for needle in self.needles)


def _made(enabled: bool, patterns: Sequence[str], secrets: Sequence[str]) -> Redaction:
    return Redaction(enabled=enabled, patterns=patterns, secrets=secrets)


NOTHING = Redaction(enabled=False)
"""Masks nothing: for values that no run shows."""


def _masked(match: re.Match[str]) -> str:
    return MASK if match[0] else ""


def without_secrets(text: str) -> str:
    """Return the text with the environment's secrets masked, for messages outside any experiment."""
    return Redaction().text(text)


def secret_texts(plain: Any, *, secret: bool = False) -> Iterator[str]:
    """Yield the texts, and integers as texts, under secret names in plain data that are long enough to look for.

    Args:
        plain: plain data, of bounded depth.
        secret: whether all of it is under such a name.
    """
    if isinstance(plain, dict):
        for key, item in plain.items():
            yield from secret_texts(item, secret=secret or is_secret_name(str(key)))
    elif isinstance(plain, list | tuple):
        for item in plain:
            yield from secret_texts(item, secret=secret)
    elif secret and isinstance(plain, str | int) and not isinstance(plain, bool) and is_long_enough(str(plain)):
        yield str(plain)


def is_long_enough(text: str) -> bool:
    """Tell whether a secret can be looked for in texts; asterisks are somebody's mask already."""
    return len(text) >= MIN_LENGTH and not text.isspace() and text.strip("*") != ""


def _secret_variables() -> list[str]:
    # Iterating takes a list, made in one step: other threads may change what is in it.
    return [
        name
        for name in os.environ
        if (is_secret_name(name) and name not in _FOLDERS) or _URL_PASSWORD.search(os.environ.get(name, ""))
    ]


def _secrets_in(name: str) -> list[str]:
    """The value of a variable, or of one whose name says nothing the passwords of the URLs in it."""
    value = os.environ.get(name, "")
    if is_secret_name(name):
        return [value]
    found: list[str] = _URL_PASSWORD.findall(value)
    if "%" in value:
        from urllib.parse import unquote  # only who has such a password pays for it

        return [*found, *map(unquote, found)]
    return found


@lru_cache(maxsize=4 * MAX_KNOWN)
def _forms(secret: str) -> frozenset[str]:
    """The secret as it may stand in a text: bare, quoted, or in parts."""
    return frozenset(_quoted(secret))


def _quoted(secret: str) -> Iterator[str]:
    # Only who has secrets pays for them.
    import json
    from urllib.parse import quote, quote_plus

    texts = [secret, secret.encode("utf-8", "backslashreplace").decode()]
    if secret.lstrip().startswith("{"):  # the key file of a service account
        with suppress(ValueError, RecursionError):
            texts += secret_texts(json.loads(secret))
    for text in texts.copy():  # a key of many lines is indented in a traceback, and joined on the screen
        lines = [line.strip() for line in text.splitlines()]
        if len(lines) > 1 and not text.lstrip().startswith("{"):
            texts += [line for line in lines if is_long_enough(line) and not line.startswith("-----")]
    for text in texts:
        yield text
        yield repr(text)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        for quoted in (quote, quote_plus):
            yield quoted(text, safe="", errors="backslashreplace")
        yield quote(text, errors="backslashreplace")
