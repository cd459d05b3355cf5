"""Which names say that their value is secret, and which values are none whatever their name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.tracing.redaction import MASK, MIN_LENGTH, Redaction, is_secret, is_secret_name, secret_texts
from fluxloop.tracing.well_known import WELL_KNOWN

SECRET = [
    "OPENAI_API_KEY",
    "apiKey",
    "api-key",
    "apikey",
    "dbPassword",
    "password",
    "passwd",
    "access_token",
    "AWS_SECRET_ACCESS_KEY",
    "client_secret",
    "credentials",
    "Passphrase",
    "PrivateKey",
    "PGPASSWORD",
    "MYSQL_PWD",
    "AWS_SECRETS",
    "AWS_ACCESS_KEY_ID",
    "api_keys",
    "authorization",
]
HARMLESS = [
    "monkey",
    "keyboard",
    "max_tokens",
    "tokens",
    "key",
    "primary_key",
    "publicKey",
    "sort_key",
    "tokenizer",
    "secretary",
    "token_count",
    "next_token",
    "idempotency_key",
    "id",
    "",
    "名前",
]


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_told(name: str) -> None:
    """A word for a secret makes the name one, however the words are joined."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_other_names_are_harmless(name: str) -> None:
    """A word that only contains or counts secrets is none, nor is a key that opens nothing."""
    assert not is_secret_name(name)


# Values that everybody knows

REAL = [
    "sk-proj-abcdefghijklmnopqrstuvwx",
    "ghp_0123456789abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123456789012-abcdefghijkl",
    "correct horse battery staple",
    "hunter2hunter2",
    "Tr0ub4dor&3",
    "postgres-production-7f3a",
    "mypassword-of-2024",
    "development-key-1",
    "passwords of the shop",
]


@pytest.mark.parametrize("value", REAL)
def test_a_real_secret_is_masked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a whole value that everybody knows is none: what holds such a word, or follows it, is a secret."""
    monkeypatch.setenv("SERVICE_PASSWORD", value)
    assert Redaction().text(f"with {value}.") == "with ***."


@given(word=st.sampled_from(sorted(WELL_KNOWN)), change=st.sampled_from([str, str.upper, str.title]))
def test_a_well_known_value_is_none(word: str, change: Callable[[str], str]) -> None:
    """In any case of its letters, where it stands alone; with more at either end it is one."""
    value = change(word)
    assert not is_secret(value)
    assert list(secret_texts({"password": value})) == []
    assert list(secret_texts({"password": f"{value}-7f3a9c"})) == [f"{value}-7f3a9c"]


def test_well_known_values_are_long_enough_to_matter() -> None:
    """Shorter ones are looked for in no text; each stands there as it is compared."""
    assert {word for word in WELL_KNOWN if len(word) < MIN_LENGTH or word != word.casefold()} == set()


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("SHOPDATA_PASSWORD", "shopdata", False),
        ("SHOPDATA_PASSWORD", "ShopData", False),
        ("SHOP_DATA_PASSWORD", "shop-data", False),
        ("SHOPDATA_PASSWORD", "shopdata_password", False),
        ("SHOPDATA_PASSWORD", "shopdata1", True),
        ("PASSWORD", "shopdata", True),
    ],
)
def test_what_the_name_of_a_variable_says_is_no_secret(
    name: str, value: str, is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is given away by a value that its own name tells."""
    monkeypatch.setenv(name, value)
    assert (Redaction().text(value) == MASK) is is_one
    assert Redaction(secrets=[value]).text(value) == MASK


def test_another_variable_of_the_same_value_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that also stands where a user name is expected, as some services want it, stays a secret."""
    monkeypatch.setenv("PAYMENT_USER", "sk-live-0123456789")
    monkeypatch.setenv("PAYMENT_API_KEY", "sk-live-0123456789")
    assert Redaction().text("sk-live-0123456789") == MASK
