"""What is secret, by name and by value, and how it is masked."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from operator import itemgetter
from typing import Any

from fluxloop.tracing.secret_forms import (
    broken,
    escaped,
    in_base64,
    is_secret,
    looks_secret,
    secrets_of,
    secrets_within,
    squeezed,
)
from fluxloop.tracing.secret_names import Secrecy, secrecy

MASK = "***"
BROKEN_LENGTH = 16
"""Characters from which a text is masked also where lines break it; two words of a poem are no password."""
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

_FOLDERS = frozenset({"PWD", "OLDPWD"})  # where a shell is and was


def _longest_first(text: str) -> tuple[int, str]:
    return -len(text), text


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
        "_beginnings",
        "_broken",
        "_environment",
        "_escaped",
        "_literal",
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
        self._literal: tuple[str, ...] = ()
        """These and their Base64, the longest first."""
        self._escaped: dict[str, tuple[str, re.Pattern[str]]] = {}
        """Those that some notation escapes, each with a part that it keeps and the pattern of all its forms."""
        self._broken: dict[str, str] = {}
        """Those that are long enough to be broken into lines, each without its white space."""
        self._beginnings: tuple[str, ...] = ()
        """Two parts of each of these: one is whole wherever a line ends."""
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
            for text in dict.fromkeys(_secrets_in(name)):
                texts[text] = (*texts.get(text, ()), name)
        known = self._environment
        if any(known.get(text) != named for text, named in texts.items()):
            gone = [text for text in known if text not in texts]
            self._environment = {**{text: known[text] for text in gone[-MAX_KNOWN:]}, **texts}
            self._collect()
        self._size, self._watched, self._values = size, watched, values  # last: until then others look, too

    def _collect(self) -> None:
        names: dict[str, frozenset[str]] = {}
        configured = ((text, (name,)) for text, name in self._secrets.items())
        for text, named in (*configured, *self._environment.items()):
            names[text] = names.get(text, frozenset()).union(named)
        secrets = tuple(sorted(names, key=_longest_first))
        for secret in secrets:
            for encoded in in_base64(secret):
                names[encoded] = names.get(encoded, frozenset()).union(names[secret])
        self._names = names  # first, for other threads mask meanwhile
        self.needles = secrets
        self._literal = tuple(sorted(names, key=_longest_first))
        self._escaped = {secret: found for secret in secrets if (found := escaped(secret))}
        unbroken = ((secret, squeezed(secret)) for secret in secrets)
        self._broken = {secret: text for secret, text in unbroken if len(text) >= BROKEN_LENGTH}
        self._beginnings = tuple({part for secret in self._broken for part in (secret[:8], secret[8:16])})
        self.numbers = {int(secret): secret for secret in secrets if secret.isascii() and secret.isdigit()}
        if self._patterns:
            self.shortest = 0
        elif secrets:
            self.shortest = len(self._literal[-1])
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
        is_shown = False
        for needle in reversed(self._literal):  # the shortest first, for most texts are shorter than most keys
            if len(needle) > length:
                break
            if needle in text:
                is_shown = True
                break
        if is_shown or (self._escaped and self._shows_escaped(text)):
            text = self._without_secrets(text)
        if "\n" in text and self._beginnings:
            text = self._without_broken(text)
        return self._without_patterns(text) if self._patterns else text

    def _shows_escaped(self, text: str) -> bool:
        if "\\" in text or "%" in text or "&" in text or "+" in text:  # one of them stands in every escaped form
            for kept, pattern in self._escaped.values():
                if kept in text and pattern.search(text):
                    return True
        return False

    def _without_secrets(self, text: str) -> str:
        for needle in self._literal:  # the longest first, for it may hold others
            masked = text
            if needle in self._escaped:
                kept, pattern = self._escaped[needle]
                masked = pattern.sub(MASK, masked) if kept in masked else masked
            masked = masked.replace(needle, MASK)
            if masked != text:
                text = masked
                self.found(needle)
        return text

    def _without_broken(self, text: str) -> str:
        for beginning in self._beginnings:
            if beginning in text:
                break
        else:
            return text
        whole = squeezed(text)
        for needle, unbroken in self._broken.items():
            if unbroken in whole:
                text = broken(unbroken).sub(MASK, text)
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
        text = data.decode("utf-8", "surrogateescape")
        masked = self.text(text)
        return data if masked == text else masked.encode("utf-8", "surrogateescape")

    def holds(self, text: str) -> bool:
        """Tell whether the text contains a known secret."""
        return any(self._finds(needle, text) for needle in self._literal)

    def _finds(self, needle: str, text: str) -> bool:
        if needle in text:
            return True
        kept, pattern = self._escaped.get(needle, (None, None))
        return kept is not None and kept in text and pattern is not None and pattern.search(text) is not None

    def masks_in(self, text: str) -> tuple[str, ...]:
        """Return the names of all that would mask something in the text, which stays as it is."""
        length = len(text)
        if length < self.shortest:
            return ()
        names: tuple[str, ...] = ()
        for needle in reversed(self._literal):
            if len(needle) > length:
                break
            if self._finds(needle, text):
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
            said = secrecy(str(name)) if isinstance(plain, dict) else Secrecy.NONE
            if not secret and said is Secrecy.TEXTS:
                yield from ((text, inner) for one in _looking_secret(item) for text in _kept(secrets_of(one), inner))
            yield from secrets_by_key(item, inner, secret=secret or said is Secrecy.ALL)
    elif isinstance(plain, str):
        yield from ((text, key) for text in _kept(secrets_of(plain) if secret else secrets_within(plain), key))
    elif secret and isinstance(plain, int) and not isinstance(plain, bool):
        yield from ((text, key) for text in _kept([str(plain)], key))


def _looking_secret(plain: Any) -> Iterator[str]:
    items = plain if isinstance(plain, list | tuple) else [plain]
    return (one for one in items if isinstance(one, str) and looks_secret(one))


def _kept(texts: Iterable[str], name: str) -> Iterator[str]:
    return (text for text in texts if is_secret(text, name))


def _secret_variables() -> list[str]:
    # Iterating takes a list, made in one step: other threads may change what is in it.
    return [name for name in os.environ if _said(name) or any(True for _ in _secrets_in(name))]


def _said(name: str) -> Secrecy:
    return Secrecy.NONE if name in _FOLDERS else secrecy(name)


def _secrets_in(name: str) -> Iterator[str]:
    """What is secret of a variable: its value, or where the name says nothing what in it is secret by itself."""
    value, said = os.environ.get(name, ""), _said(name)
    is_named = said is Secrecy.ALL or (said is Secrecy.TEXTS and looks_secret(value))
    return _kept(secrets_of(value) if is_named and not _is_path(value) else secrets_within(value), name)


def _is_path(value: str) -> bool:
    # As in GOOGLE_APPLICATION_CREDENTIALS; a key may begin with a slash, too.
    return os.path.isabs(value) and os.path.exists(value)
