"""The secrets that a value holds, and the forms in which a text may show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from fluxloop.tracing.secret_names import is_secret_name
from fluxloop.tracing.well_known import WELL_KNOWN

MIN_LENGTH = 8
"""Characters from which a text is masked wherever it appears; a shorter one stands in too many others."""
MAX_RUNS = 500
"""Special characters, and texts between them, up to which escaped forms are looked for: more take long to compile."""

# The password of a URL ends at the last @ before the path. A long user without one is a token, as in git's URLs.
_URL = re.compile(r"""://(?:([^/\s:@"'<>]*):([^/\s"'<>]+)|([A-Za-z0-9_-]{20,}))@""")
# As in an ODBC string; `{name}`, `$NAME` and `<name>` stand for something that is put there.
_PAIR = re.compile(
    r"""(?<![\w.-])([A-Za-z][\w.-]*(?: [A-Za-z]+)?)\s*=\s*("[^"]*"|'[^']*'|[^\s;,&"'{$<%(\[][^\s;,&"']*)"""
)
_SCHEME = re.compile(r"(?:bearer|basic|token|apikey|api-key|digest|negotiate|key)\s+(\S+)", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"[^\s:/]+:([^\s:/]\S*)")
_IN_LISTS = re.compile(r"[,;\n\r]")


def is_secret(text: str, name: str = "") -> bool:
    """Tell whether a value under a secret name is looked for in texts.

    It is not if it is short, if everybody knows it, if its name says it already, as that of
    `SHOPDATA_PASSWORD=shopdata`, or if it is somebody's mask.
    """
    if len(text) < MIN_LENGTH or text.isspace() or not text.strip("*"):
        return False
    plain = text.casefold()
    return plain not in WELL_KNOWN and plain.replace("-", "_") not in name.casefold().replace("-", "_")


def looks_secret(text: str) -> bool:
    """Tell whether a text is one word that may be a secret, for names that only sometimes say so."""
    return is_secret(text) and not any(map(str.isspace, text.strip()))


def secrets_within(value: str) -> Iterator[str]:
    """Yield the secrets in a text whose name says nothing: passwords of its URLs, and `password=…` in it."""
    yield from _in_urls(value)
    if "=" in value:
        for name, found in _PAIR.findall(value):
            if is_secret_name(name):
                for text in _decoded(found.strip("\"'")):
                    yield from secrets_of(text)


def _in_urls(value: str) -> Iterator[str]:
    if "://" in value:
        for user, password, token in _URL.findall(value):
            if token or password != user:
                yield from _decoded(password or token)


def tells_password(text: str) -> bool:
    """Tell whether a literal text of a configuration has a password in it, in a URL however short."""
    if any(one.casefold() not in WELL_KNOWN and "${" not in one and one.strip("*") for one in _in_urls(text)):
        return True
    return any(is_secret(one) and "${" not in one for one in secrets_within(text))


def secrets_of(value: str) -> Iterator[str]:
    """Yield what is secret of a value under a secret name: itself without what surrounds it, and its parts."""
    text = value.strip()
    yield text
    if len(text) < MIN_LENGTH:
        return
    if text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
        yield text
    if text[:1] in ("[", "{"):
        yield from _of_json(text)
        return
    yield from secrets_within(text)
    if scheme := _SCHEME.fullmatch(text):
        yield scheme[1]
        yield from _of_basic(scheme[1])
    elif pair := _USER_AND_PASSWORD.fullmatch(text):
        yield pair[1]
    parts = [part.strip() for part in _IN_LISTS.split(text)]
    if len(parts) > 1:  # a list, or a key of many lines, which is indented in a traceback
        yield from (part.strip("\"'") for part in parts if not part.startswith("-----"))
    # Words of a passphrase stand in other texts; keys hold more than letters.
    elif len(words := text.split()) > 1 and all(looks_secret(word) and not word.isalpha() for word in words):
        yield from words


def _decoded(text: str) -> Iterator[str]:
    yield text
    if "%" in text:
        from urllib.parse import unquote  # only who has such a password pays for it

        yield unquote(text)


def _of_basic(encoded: str) -> Iterator[str]:
    import base64

    with suppress(ValueError):
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        if colon:
            yield f"{user}:{password}"
            yield password


def _of_json(text: str) -> Iterator[str]:
    import json

    with suppress(ValueError, RecursionError):
        plain = json.loads(text)
        yield from _in_plain(plain, secret=isinstance(plain, list))


def _in_plain(plain: object, *, secret: bool) -> Iterator[str]:
    if isinstance(plain, dict):
        for name, item in plain.items():
            yield from _in_plain(item, secret=secret or is_secret_name(name))
    elif isinstance(plain, list):
        for item in plain:
            yield from _in_plain(item, secret=secret)
    elif isinstance(plain, str):
        yield from secrets_of(plain) if secret else secrets_within(plain)
    elif secret and isinstance(plain, int) and not isinstance(plain, bool):
        yield str(plain)


# What every notation leaves as it is; a secret of nothing else has no escaped form.
_SAFE = re.compile(r"[A-Za-z0-9_.-]+")
_RUNS = re.compile(r"\\+|[A-Za-z0-9_.-]+|.", re.DOTALL)
_LETTERS = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f", "\a": "a", "\v": "v", "\0": "0"}
# Each level of quoting doubles the backslashes; a URL has them as %5C.
_ESCAPING = r"(?:\\*+|(?i:%(?:25)*+5C)++)"


@lru_cache(maxsize=1024)
def escaped(secret: str) -> tuple[str, re.Pattern[str]] | None:
    """Return how to find a secret as `repr`, JSON, HTML and URLs write it, on however many levels.

    Returns:
        A part of the secret that stands in each of the forms, and the pattern of all of them;
        None when they are all alike, or too many.
    """
    runs = _RUNS.findall(secret)
    if _SAFE.fullmatch(secret) or len(runs) > MAX_RUNS:
        return None
    start = "" if _SAFE.match(secret) else r"(?<!\\)(?<!%5[Cc])"  # a run of backslashes is looked at once
    pattern = start + "".join(map(_in_any_notation, runs))
    return max(_SAFE.findall(secret), key=len, default=""), re.compile(pattern)


def _in_any_notation(run: str) -> str:
    if _SAFE.match(run):
        return re.escape(run)
    if run[0] == "\\":
        return rf"(?:\\{{{len(run)},}}+|(?i:%(?:25)*+5C){{{len(run)},}}+)"
    return _special(run)


def _special(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:  # half a character, or a byte of the environment that is no text
        data = character.encode("utf-8", "surrogateescape" if 0xDC80 <= code <= 0xDCFF else "surrogatepass")
    else:
        data = character.encode()
    hexes = [f"{byte:02x}" for byte in data]
    ways = []
    if character in _LETTERS:
        ways.append(_LETTERS[character])
    if character == " ":
        ways.append(r"\+")
    units = character.encode("utf-16-be", "surrogatepass").hex()
    numbers = [_ESCAPING.join(f"u{units[at : at + 4]}" for at in range(0, len(units), 4)), f"U{code:08x}"]
    numbers += [_ESCAPING.join(f"x{one}" for one in hexes), "".join(f"%(?:25)*{one}" for one in hexes)]
    if code < 256:
        numbers.append(f"x{code:02x}")
    ways.append(f"(?i:{'|'.join(numbers)})")
    names = "|".join([f"#0*{code}", f"(?i:#x0*{code:x})", *_entities(character)])
    ways.append(f"&(?:amp;){{0,3}}(?:{names});")
    if character == "&":
        ways.append("&(?:amp;){1,3}")
    ways.append(re.escape(character))  # last, for `%` begins `%25`
    return f"{_ESCAPING}(?:{'|'.join(ways)})"


def _entities(character: str) -> list[str]:
    from html.entities import codepoint2name

    named = codepoint2name.get(ord(character))
    return [named] if named else ["apos"] if character == "'" else []


@lru_cache(maxsize=1024)
def in_base64(secret: str) -> tuple[str, ...]:
    """Return what a secret is in Base64, in both alphabets, without what depends on what follows it."""
    import base64

    data = secret.encode("utf-8", "surrogatepass")
    encoded = base64.b64encode(data).decode()[: 8 * len(data) // 6]
    return tuple({encoded, encoded.replace("+", "-").replace("/", "_")})


@lru_cache(maxsize=1024)
def broken(secret: str) -> re.Pattern[str]:
    """Return the pattern of a secret that is broken into lines."""
    return re.compile(r"\s*+".join(map(re.escape, squeezed(secret))))


def squeezed(text: str) -> str:
    """Return the text without white space."""
    return "".join(text.split())
