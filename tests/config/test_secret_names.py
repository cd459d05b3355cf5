"""Which names say that their value is secret."""

from __future__ import annotations

import pytest

from fluxloop.tracing.redaction import is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "api_key",
        "apiKey",
        "apikey",
        "APIKEY",
        "api-key",
        "x-api-key",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "private_key",
        "GITHUB_TOKEN",
        "accessToken",
        "token",
        "SECRET",
        "SECRET_SAUCE",
        "client_secret",
        "clientSecret2",
        "PASSWORD",
        "DB_PASSWORD_FILE",
        "dbPassword",
        "passwd",
        "passphrase",
        "credentials",
    ],
)
def test_secret_names(name: str) -> None:
    """Names with the word key, token, secret or password say secret, however they are joined."""
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "monkey",
        "author",
        "authored_by",
        "max_tokens",
        "maxTokens",
        "input_tokens",
        "tokenizer",
        "turkey",
        "keyboard",
        "key",
        "key_points",
        "keys",
        "primary_key",
        "sort_key",
        "cacheKey",
        "public_key",
        "secretary",
        "passenger",
        "model",
        "日本",
    ],
)
def test_other_names(name: str) -> None:
    """Words that merely hold such letters, counts of tokens and keys that open nothing stay."""
    assert not is_secret_name(name)
