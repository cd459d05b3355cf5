"""What of a value is looked for, and the forms in which it is found."""

from __future__ import annotations

import base64
import html
import json
import re
import textwrap
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluxloop.testing import run_once
from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import BROKEN_LENGTH, MASK, Redaction
from fluxloop.tracing.secret_forms import is_secret

BASIC = base64.b64encode(b"someone:basic-0123456789").decode()
VALUES = {
    "a line end": ("API_KEY", "sk-trailing-0123456789\n", ["sk-trailing-0123456789"]),
    "spaces": ("API_KEY", " sk-spaces-0123456789 ", ["sk-spaces-0123456789"]),
    "quotes": ("API_KEY", "'sk-quoted-0123456789'", ["sk-quoted-0123456789"]),
    "commas": ("SIGNING_KEYS", "aaaaaaaa11111111, bbbbbbbb22222222", ["aaaaaaaa11111111", "bbbbbbbb22222222"]),
    "semicolons": ("API_KEYS", "aaaaaaaa11111111;bbbbbbbb22222222", ["aaaaaaaa11111111", "bbbbbbbb22222222"]),
    "words": ("API_KEYS", "aaaaaaaa11111111 bbbbbbbb22222222", ["aaaaaaaa11111111", "bbbbbbbb22222222"]),
    "lines": ("API_KEYS", "aaaaaaaa11111111\nbbbbbbbb22222222", ["aaaaaaaa11111111", "bbbbbbbb22222222"]),
    "JSON": ("API_KEYS", '["k1-aaaaaaaaaaaa", {"key": "k2-bbbbbbbbbbbb"}]', ["k1-aaaaaaaaaaaa", "k2-bbbbbbbbbbbb"]),
    "a bearer": ("AUTHORIZATION", "Bearer tok-0123456789abcdef", ["tok-0123456789abcdef"]),
    "a token": ("GITHUB_AUTH", "token tok-0123456789abcdef", ["tok-0123456789abcdef"]),
    "basic": ("AUTHORIZATION", f"Basic {BASIC}", [BASIC, "someone:basic-0123456789", "basic-0123456789"]),
    "a user": ("BASIC_AUTH", "someone:pass-0123456789", ["pass-0123456789"]),
    "a URL": ("DATABASE", "postgres://reader:p%40ssw0rd-1@db.local/app", ["p%40ssw0rd-1", "p@ssw0rd-1"]),
    "an odd URL": ("DATABASE", "postgres://reader:p@ssw0rd-1@db.local/app", ["p@ssw0rd-1"]),
    "a token in a URL": ("REMOTE", "https://ghp_0123456789abcdefghij@github.com/a/b", ["ghp_0123456789abcdefghij"]),
    "ODBC": ("STORE", "Server=db.local;User Id=reader;Password=pass-0123456789;", ["pass-0123456789"]),
    "headers": ("OTLP_HEADERS", "x-api-key=hdr-0123456789,x-team=blue-team-one", ["hdr-0123456789"]),
    "encoded headers": ("OTLP_HEADERS", "Authorization=Bearer%20tok-0123456789", ["tok-0123456789"]),
    "a query": ("SERVICE", "https://db.local/?access_token=tok-0123456789&page=first-page", ["tok-0123456789"]),
}


@pytest.mark.parametrize("case", VALUES)
def test_parts_of_a_value_are_masked(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent takes out of a variable, to use it, is as secret as the variable."""
    name, value, parts = VALUES[case]
    monkeypatch.setenv(name, value)
    for part in parts:
        assert Redaction().text(f"with {part}.") == "with ***."


def test_what_is_no_part_of_a_secret_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hosts, users, other fields, the words of a passphrase, and paths to files that are there."""
    monkeypatch.setenv("DATABASE_URL", "postgres://reader:p@ssw0rd-1@db.example/orders")
    monkeypatch.setenv("STORE", "Server=store.example;User Id=somebody-else;Password=pass-0123456789")
    monkeypatch.setenv("VAULT_PASSPHRASE", "elephant umbrella mountains")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    text = f"db.example store.example somebody-else elephant umbrella mountains reader {tmp_path}"
    assert Redaction().text(text) == text.replace("elephant umbrella mountains", MASK)


# Forms

FORMS: dict[str, Callable[[str], str]] = {
    "bare": str,
    "repr": lambda text: repr(text)[1:-1],
    "repr with both quotes": lambda text: repr(f"{text}'\"")[1:-4],
    "repr of repr": lambda text: repr(repr(text)[1:-1])[1:-1],
    "ascii": lambda text: ascii(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "unicode_escape": lambda text: text.encode("unicode_escape").decode(),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON of other programs": lambda text: json.dumps(text).replace("/", "\\/").replace("<", "\\u003C"),
    "JSON in JSON": lambda text: json.dumps({"a": json.dumps(text)}),
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps({"a": json.dumps(text)})),
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "HTML in HTML": lambda text: html.escape(html.escape(text)),
    "HTML in ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "URL": lambda text: quote(text, safe=""),
    "path": quote,
    "URL in lower case": lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text, safe="")),
    "form": quote_plus,
    "URL in URL": lambda text: quote(quote(text)),
    "JSON in URL": lambda text: quote(json.dumps(text)),
    "JSON in HTML": lambda text: html.escape(json.dumps(text)),
    "HTML in JSON": lambda text: json.dumps(html.escape(text)),
    "lines": lambda text: text if len(text.split()[0]) < BROKEN_LENGTH else f"{text[:9]}\n  {text[9:]}",
}
NO_BACKSLASH_AT_AN_END = re.compile(r"[^\\].*[^\\]", re.DOTALL)
texts = st.one_of(
    st.text(min_size=8, max_size=40),
    st.text("\\\"'%&<>+ /n5C;#xé😀\n\t", min_size=8, max_size=20),
    st.text("abcd0123-_./+=", min_size=8, max_size=40),
).filter(lambda text: text == text.strip() and is_secret(text) and bool(NO_BACKSLASH_AT_AN_END.fullmatch(text)))


@settings(max_examples=300, deadline=None)
@example(secret="0000000%", form="path", before="", after="")
@example(secret="0000000𐀀", form="JSON in URL", before="", after="")
@given(secret=texts, form=st.sampled_from(sorted(FORMS)), before=st.text(max_size=10), after=st.text(max_size=10))
def test_a_secret_is_masked_in_every_form(secret: str, form: str, before: str, after: str) -> None:
    """Nothing is left of it, and all around it stays."""
    redaction, shown = Redaction(secrets=[secret]), FORMS[form](secret)
    wrapping = FORMS[form]("SAFE")
    assert redaction.text(f"< {shown} >") == f"< {wrapping.replace('SAFE', MASK)} >"
    assert shown not in redaction.text(before + shown + after) or shown in before + after
    assert MASK in redaction.text(before + shown + after)
    assert redaction.data(shown.encode() + b"\xff") == wrapping.replace("SAFE", MASK).encode() + b"\xff"


@given(secret=texts)
def test_a_secret_in_base64_leaves_nothing_readable(secret: str) -> None:
    """In both alphabets, alone or with more behind it; what is left are bits of its last bytes."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        masked = Redaction(secrets=[secret]).text(encode(f"{secret}, and more".encode()).decode())
        assert masked.startswith(MASK)
        assert secret[-8:].encode() not in base64.b64decode(masked[3:] + "==", altchars=b"-_")


@given(secret=st.text("abcdef0123456789-_.", min_size=24, max_size=200), width=st.integers(40, 80))
def test_a_secret_that_is_broken_into_lines_is_masked(secret: str, width: int) -> None:
    """As a console, a mail program or a table breaks a long token."""
    lines = "\n    ".join(secret[at : at + width] for at in range(0, len(secret), width))
    assert Redaction(secrets=[secret]).text(f"token:\n    {lines}\nend") == f"token:\n    {MASK}\nend"
    words = "\n".join(textwrap.wrap(f"token: {secret}", width))
    assert MASK in Redaction(secrets=[secret]).text(words)


@settings(deadline=None)
@given(
    text=st.text("\\'\"&%;amp25C", max_size=3000), secret=st.text("\\'\"&%", min_size=8, max_size=40).filter(is_secret)
)
def test_text_of_nothing_but_escapes_is_searched_in_time(text: str, secret: str) -> None:
    """No text makes the search for a secret of nothing but special characters go back and forth."""
    Redaction(secrets=[secret]).text(text)
    Redaction(secrets=[secret]).text("\\" * 100_000 + "&amp;" * 2_000)


def test_long_values_are_read_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate in a variable, or a text of a configuration without a space, costs no more than its length."""
    monkeypatch.setenv("CERTIFICATE", "A" * 100_000 + "=")
    monkeypatch.setenv("SOME_TOKEN", "://" * 10_000 + "a:" * 10_000)
    Redaction(secrets=["sk-0123456789"]).text("x" * 100_000)


# Records


class Aliased(pydantic.BaseModel):
    """A model whose field has a harmless name in Python."""

    value: str = pydantic.Field(alias="api_key")
    plain: str = "stays"


@attrs.define
class Renamed:
    """As `Aliased`, of attrs."""

    value: str = attrs.field(alias="password")
    plain: str = "stays"


class Encoded(msgspec.Struct, rename={"value": "apiKey"}):
    """As `Aliased`, of msgspec."""

    value: str
    plain: str = "stays"


@pytest.mark.parametrize("record", [Aliased(api_key="short"), Renamed("short"), Encoded("short")])
def test_fields_are_judged_by_their_other_names_too(record: Any) -> None:
    """What is called a key outside the class is one inside it."""
    assert capture(record, Redaction()) == {"value": MASK, "plain": "stays"}


def test_names_of_fields_are_masked_like_any_text() -> None:
    """A record may be made of data, and then its fields are named by it."""
    made = namedtuple("made", ["n33dle_in_a_haystack", "other"])
    redaction = Redaction(secrets=["n33dle_in_a_haystack"])
    assert capture(made("a", "b"), redaction) == {MASK: "a", "other": "b"}
    assert run_once(lambda text: made("a", "b"), {"password": "n33dle_in_a_haystack"}).output == {
        MASK: "a",
        "other": "b",
    }
