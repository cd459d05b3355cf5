"""Which names say that their value is secret, and which values are none whatever their name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import MASK, Redaction, secret_texts
from fluxloop.tracing.secret_forms import MIN_LENGTH, is_secret
from fluxloop.tracing.secret_names import Secrecy, secrecy
from fluxloop.tracing.well_known import WELL_KNOWN


def names(text: str) -> list[str]:
    return text.split()


SECRET = names("""
    OPENAI_API_KEY apiKey api-key apikey dbPassword password passwd access_token AWS_SECRET_ACCESS_KEY
    client_secret credentials Passphrase PrivateKey PGPASSWORD MYSQL_PWD AWS_SECRETS AWS_ACCESS_KEY_ID
    api_keys authorization OPENAI_API_KEY_2 apiKey2 API_KEY_PROD OPENAI_API_KEY_FOR_TESTS api_key_old
    TOKEN_PROD token2 GITHUB_TOKEN_DEV APIKEY_1 XApiKey SIGNING_KEYS sshKeys auth auth_header
    Proxy-Authorization x_auth basicAuth auth_code cookie cookies Set-Cookie session_cookie jwt JWT_SECRET
    user_jwt csrf csrftoken X-CSRF-Token XSRF-TOKEN csrfmiddlewaretoken creds aws_creds connection_string
    AzureStorageConnectionString DB_CONN_STR dsn SENTRY_DSN otp totp_code mfa_code X-Amz-Signature
    stripe-signature hash_salt password_salt PASSWORD_HASH secret_key_base refresh_token refreshTokens
    bot_token X-Amz-Security-Token VAULT_SECRET_ID PHPSESSID JSESSIONID encryption_key APIKEY
    x-api-key SECRET_SAUCE clientSecret2 token
""")
SOMETIMES = names("""
    tokens user_tokens pass DB_PASS session user_session GH_PAT pat bearer sas AZURE_SAS
""")
HARMLESS = names("""
    monkey keyboard KEYBOARD_LAYOUT max_tokens input_tokens output_tokens total_tokens prompt_tokens
    num_tokens key keys primary_key publicKey PUBLIC_KEY sort_key tokenizer secretary token_count next_token
    idempotency_key id _ 名前 author authors authority authenticated auth_method auth_type auth_url AUTH_SERVER
    session_id sessionId XDG_SESSION_TYPE XDG_SESSION_ID SESSION_MANAGER DESKTOP_SESSION cookie_policy
    TOKEN_URL PASSWORD_RESET_URL password_policy password_length KEY_FILE POSTGRES_PASSWORD_FILE SSH_AUTH_SOCK
    secret_name secret_arn api_key_name csrf_enabled jwt_algorithm mfa_enabled mfa_method token_type
    expires_in token_limit token_usage tokens_per_minute passed passes passing bypass_rate compass path
    pattern patch patient salt sea_salt signature function_signature private is_private optional design
    assignment key_points keywords turkey key_id cache_key pinned credit answer_key authorization_url
    credentials_path passenger authored_by maxTokens cacheKey DB_PASSWORD_FILE 日本 model
""")


@pytest.mark.parametrize(
    ("name", "said"),
    [(name, said) for said, names in zip(Secrecy, (["", *HARMLESS], SOMETIMES, SECRET), strict=True) for name in names],
)
def test_names_are_judged_by_their_words(name: str, said: Secrecy) -> None:
    """A word for a secret makes the name one, however the words are joined; what only tells about one does not."""
    assert secrecy(name) is said


def test_under_some_names_only_what_looks_like_a_secret_is_one() -> None:
    """Counts, flags, short pieces, sentences and what stands deeper are what such a name means otherwise."""
    shown = {
        "tokens": 512,
        "session": {"turns": ["hello"], "user": "somebody-or-other"},
        "pass": True,
        "pat": "Patrick",
        "user_session": "a session about the weather",
        "user_tokens": ["Hello", " world"],
    }
    hidden = {"tokens": ["tok-0123456789", 3], "pass": "w-0123456789", "session": "abcdef0123456789"}
    assert capture(shown, Redaction()) == shown
    assert capture(hidden, Redaction()) == {"tokens": [MASK, 3], "pass": MASK, "session": MASK}


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
    assert f"{value}-7f3a9c" in secret_texts({"password": f"{value}-7f3a9c"})


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
