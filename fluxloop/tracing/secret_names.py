"""Which names say that what stands under them is secret."""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from itertools import pairwise

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_GLUED = re.compile(r"[a-z]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# At the end of any word: PGPASSWORD is one, and secretary is none of them.
_ENDS = (
    *("password", "passwords", "passwd", "pwd", "passphrase", "passcode", "secret", "secrets", "apikey", "apikeys"),
    *("accesskey", "secretkey", "privatekey", "accesstoken", "authtoken", "refreshtoken", "sessiontoken"),
    *("csrftoken", "xsrftoken", "middlewaretoken", "connectionstring", "sessid", "jsessionid"),
)
_ANYWHERE = _words("credential credentials creds authorization jwt csrf xsrf otp totp mfa")
_PAIRS = {
    "key": _words("api access secret private encryption signing"),
    "keys": _words("api access secret private encryption signing ssh master service"),
    "token": _words("access auth bearer refresh api bot"),
    "tokens": _words("access auth bearer refresh api bot session secret"),
    "code": _words("auth"),
    "header": _words("auth"),
    "headers": _words("auth"),
    "string": _words("connection"),
    "str": _words("conn connection"),
    "signature": _words("amz goog hub hmac webhook stripe slack request"),
    "salt": _words("hash hashing security session key crypt cookie signing auth app"),
}
"""Words that say secret after others, wherever the two stand."""
_LAST = _words("key token auth cookie cookies dsn")
_AMBIGUOUS_LAST = _words("tokens pass session bearer pat sas")
_HARMLESS_BEFORE = {
    "key": _words(
        "primary foreign public sort partition cache idempotency answer object row range group routing lookup"
        " index item issue document translation dict map"
    ),
    "token": _words("next page continuation eos bos pad stop first last per unk sep cls mask special max min num n"),
    "tokens": _words(
        "max min num n input output total prompt completion cached cache reasoning thinking generated new audio image"
        " text special stop used per context"
    ),
    "session": _words("desktop"),
}
_ABOUT = _words(
    "url uri endpoint host server path file filename dir directory folder name type kind count counts limit budget"
    " usage length size ttl expiry expires expiration age at date policy method mode layout algorithm alg scheme"
    " provider issuer audience status enabled disabled required valid hint prompt reset strength version format prefix"
    " field label index position rotation class manager store sock arn link page"
)
"""Last words that tell something about a secret, and not the secret itself."""
_WHICH = _words(
    "prod production dev development stage staging test testing live sandbox local default old new current previous"
    " primary secondary backup value plain base"
)
"""Last words that tell which secret it is."""


class Secrecy(enum.IntEnum):
    """What of the values under a name is secret."""

    NONE = 0
    """Nothing, as far as the name tells."""
    TEXTS = 1
    """Texts that look like a secret: `tokens` are counted as often as they are kept secret."""
    ALL = 2
    """Whatever it is."""


@lru_cache(maxsize=4096)
def secrecy(name: str) -> Secrecy:
    """Tell by its words what a name says of its values."""
    words = [word.lower() for word in _WORDS.findall(name)]
    about = words[-1:]
    while words and words[-1] in _WHICH:
        words.pop()
    if words[-2:] == ["key", "id"]:  # AWS_ACCESS_KEY_ID
        words.pop()
    if not words or about[0] in _ABOUT:
        return Secrecy.NONE
    if any(word.endswith(_ENDS) for word in (*words, *_GLUED.findall(name.lower()))):
        return Secrecy.ALL
    pairs = pairwise(words)
    if not _ANYWHERE.isdisjoint(words) or any(before in _PAIRS.get(word, ()) for before, word in pairs):
        return Secrecy.ALL
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if before in _HARMLESS_BEFORE.get(last, ()) or words == ["key"]:
        return Secrecy.NONE
    if last in _LAST:
        return Secrecy.ALL
    return Secrecy.TEXTS if last in _AMBIGUOUS_LAST else Secrecy.NONE


def is_secret_name(name: str) -> bool:
    """Tell by its words whether a name says that all under it is secret.

    `OPENAI_API_KEY_2`, `accessToken` and `db_password` do; `monkey`, `author` and `max_tokens` do not.
    """
    return secrecy(name) is Secrecy.ALL
