"""What is secret, by name and by value, and how it is masked."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from operator import itemgetter
from typing import Any

from fluxloop.tracing.well_known import WELL_KNOWN

MASK = "***"
MIN_LENGTH = 8
"""Characters from which a text is masked wherever it appears; a shorter one stands in too many others."""
NEVER = sys.maxsize
"""As many characters no text has."""
MAX_KNOWN = 256
"""Values of the environment remembered after they have gone from it."""

CONFIGURATION, INPUTS, PATTERNS, NAMES = "configuration", "inputs", "output.redact_patterns", "secret names"
"""What masks beside variables and keys of the configuration, which have their own names."""

noted: ContextVar[set[str] | None] = ContextVar("fluxloop_masked", default=None)
"""Where the run that the calling code is in notes what masked something in it."""

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


def note(names: Iterable[str]) -> None:
    """Note for the run the calling code is in what masked something, by name; outside a run nothing."""
    masked = noted.get()
    if masked is not None:
        masked.update(names)


@contextmanager
def noting(masked: set[str]) -> Iterator[None]:
    """Let what is masked in the context be noted there, for a run that the calling code is not in."""
    token = noted.set(masked)
    try:
        yield
    finally:
        noted.reset(token)


class Redaction:
    """What is masked in what a run shows: values under secret names, and known secrets in any text.

    The environment's secrets are those of the process that uses it: sent to another, it reads
    that one's. They are looked for again whenever the number of variables or a secret has changed,
    because an agent may load its environment while it runs.

    Args:
        enabled: False masks nothing.
        patterns: regular expressions; what they match is masked too.
        secrets: texts to mask beside those of the environment, or a mapping that gives each a name.

    Example:
        >>> redaction = Redaction(secrets=["correct horse"])
        >>> redaction.text("the password is correct horse")
        'the password is ***'
    """

    __slots__ = (
        "_environment",
        "_names",
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

    def __init__(
        self,
        *,
        enabled: bool = True,
        patterns: Sequence[str] = (),
        secrets: Iterable[str] | Mapping[str, str] = (),
    ) -> None:
        self.by_name = enabled
        """Whether values under secret names are masked."""
        self._patterns = tuple(re.compile(pattern) for pattern in patterns) if enabled else ()
        named = secrets if isinstance(secrets, Mapping) else dict.fromkeys(secrets, CONFIGURATION)
        self._secrets: dict[str, str] = dict(named) if enabled else {}
        """Each with the name of where it stands."""
        self._environment: dict[str, tuple[str, ...]] = {}
        """Each with the variables it stands in."""
        self._names: dict[str, frozenset[str]] = {}
        """What each needle is known by."""
        self.needles: tuple[str, ...] = ()
        """Texts that are masked wherever they appear, the longest first."""
        self.numbers: dict[int, str] = {}
        """The same of those that are numbers, each with its needle."""
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

    def _settings(self) -> tuple[bool, tuple[str, ...], tuple[tuple[str, str], ...]]:
        return self.by_name, tuple(pattern.pattern for pattern in self._patterns), tuple(sorted(self._secrets.items()))

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
        texts: dict[str, tuple[str, ...]] = {}
        for name in names:
            for text in _secrets_in(name):
                if is_secret(text, name):
                    texts[text] = (*texts.get(text, ()), name)
        known = self._environment
        if any(known.get(text) != named for text, named in texts.items()):
            gone = [text for text in known if text not in texts]
            self._environment = {**{text: known[text] for text in gone[-MAX_KNOWN:]}, **texts}
            self._collect()
        self._size, self._watched, self._values = size, watched, values  # last: until then others look, too

    def _collect(self) -> None:
        needles: dict[str, frozenset[str]] = {}
        configured = ((text, (name,)) for text, name in self._secrets.items())
        for text, names in (*configured, *self._environment.items()):
            for form in _forms(text):
                needles[form] = needles.get(form, frozenset()).union(names)
        self._names = needles  # first, for other threads mask meanwhile
        self.needles = tuple(sorted(needles, key=lambda needle: (-len(needle), needle)))
        self.numbers = {int(needle): needle for needle in needles if needle.isascii() and needle.isdigit()}
        if self._patterns:
            self.shortest = 0
        elif needles:
            self.shortest = len(self.needles[-1])
        self.is_needed = self.shortest < NEVER

    def also(self, secrets: Iterable[str]) -> Redaction:
        """Return one that masks further texts, for a run that has secrets of its own."""
        more = Redaction.__new__(Redaction)
        more.by_name, more._patterns, more._environment = self.by_name, self._patterns, self._environment
        more._secrets = {**dict.fromkeys(secrets, INPUTS), **self._secrets}
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
                text = self._without_needles(text)
                break
        return self._without_patterns(text) if self._patterns else text

    def _without_needles(self, text: str) -> str:
        for needle in self.needles:  # the longest first, for it may hold others
            if needle in text:
                text = text.replace(needle, MASK)
                self.found(needle)
        return text

    def _without_patterns(self, text: str) -> str:
        for pattern in self._patterns:
            masked = pattern.sub(_masked, text)
            if masked != text:
                note((PATTERNS,))
                text = masked
        return text

    def found(self, needle: str) -> None:
        """Note what masks a needle, for the run it was found in."""
        note(self._names.get(needle, ()))

    def data(self, data: bytes) -> bytes:
        """Return bytes, be they text or not, with known secrets masked."""
        if len(data) < self.shortest:
            return data
        for needle in self.needles:
            encoded = needle.encode("utf-8", "surrogateescape")
            if encoded in data:
                data = data.replace(encoded, MASK.encode())
                self.found(needle)
        return data

    def holds(self, text: str) -> bool:
        """Tell whether the text contains a known secret."""
        return any(needle in text for needle in self.needles)

    def masks_in(self, text: str) -> tuple[str, ...]:
        """Return the names of all that would mask something in the text, which stays as it is."""
        length = len(text)
        if length < self.shortest:
            return ()
        names: tuple[str, ...] = ()
        for needle in reversed(self.needles):
            if len(needle) > length:
                break
            if needle in text:
                names += tuple(self._names.get(needle, ()))
        if any(match[0] for pattern in self._patterns for match in pattern.finditer(text)):
            names += (PATTERNS,)
        return tuple(sorted(set(names)))


def _made(enabled: bool, patterns: Sequence[str], secrets: Sequence[tuple[str, str]]) -> Redaction:
    return Redaction(enabled=enabled, patterns=patterns, secrets=dict(secrets))


NOTHING = Redaction(enabled=False)
"""Masks nothing: for values that no run shows."""


def _masked(match: re.Match[str]) -> str:
    return MASK if match[0] else ""


def without_secrets(text: str) -> str:
    """Return the text with the environment's secrets masked, for messages outside any experiment."""
    return Redaction().text(text)


def secret_texts(plain: Any, *, secret: bool = False) -> Iterator[str]:
    """Yield the texts, and integers as texts, under secret names in plain data that are to be looked for.

    Args:
        plain: plain data, of bounded depth.
        secret: whether all of it is under such a name.
    """
    return (text for text, _ in secrets_by_key(plain, secret=secret))


def secrets_by_key(plain: Any, key: str = "", *, secret: bool = False) -> Iterator[tuple[str, str]]:
    """Yield what `secret_texts` does, each with the dotted key it stands under."""
    if isinstance(plain, dict | list | tuple):
        for name, item in plain.items() if isinstance(plain, dict) else enumerate(plain):
            inner = f"{key}.{name}" if key else str(name)
            is_named = isinstance(plain, dict) and is_secret_name(str(name))
            yield from secrets_by_key(item, inner, secret=secret or is_named)
    elif secret and isinstance(plain, str | int) and not isinstance(plain, bool) and is_secret(str(plain), key):
        yield str(plain), key


def is_secret(text: str, name: str = "") -> bool:
    """Tell whether a value under a secret name is looked for in texts.

    It is not if it is short, if everybody knows it, if its name says it already, as that of
    `SHOPDATA_PASSWORD=shopdata`, or if it is somebody's mask.
    """
    if len(text) < MIN_LENGTH or text.isspace() or not text.strip("*"):
        return False
    plain = text.casefold()
    return plain not in WELL_KNOWN and plain.replace("-", "_") not in name.casefold().replace("-", "_")


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
            texts += [line for line in lines if is_secret(line) and not line.startswith("-----")]
    for text in texts:
        yield text
        yield repr(text)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        for quoted in (quote, quote_plus):
            yield quoted(text, safe="", errors="backslashreplace")
        yield quote(text, errors="backslashreplace")
