"""Which names say that their value is secret."""

from __future__ import annotations

import pytest

from fluxloop.tracing.redaction import is_secret_name

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
