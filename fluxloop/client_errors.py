"""What the error of a client library says about a service: a status, a wait, a lost connection.

It is read from the shape of the error. No library is imported, and unknown libraries are understood too:

- a number where libraries keep the status of an answer, for example in `status_code`;
- where there is no number, a word of the service, for example `ThrottlingException` or `overloaded_error`;
- the name of the class or of a base class, for example `ReadTimeout`.

Only the classes of installed packages are read so. An exception that the agent's own code defines may
have a `status_code` or be named `TimeoutError`, and says nothing about a service.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from fluxloop.clock import time_ns
from fluxloop.interrupt import Abandoned

# Known wherever their files are: also in a folder that holds the agent as well, as on AWS Lambda.
_CLIENTS = frozenset(
    {
        *("openai", "anthropic", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp"),
        "urllib",
    }
)
# Packages that answer requests, or steer a browser or a terminal: their errors are the agent's failures.
_OF_AGENTS = re.compile(
    r"(aiohttp\.web|tornado\.web|(starlette|fastapi|werkzeug|flask|quart|django|rest_framework|ninja|falcon|sanic"
    r"|litestar|bottle|pyramid|playwright|patchright|selenium|pyppeteer|pexpect)(\.|$))"
)
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")

# The standard library has no such shapes; these are its classes, by package.
_LOST_IN_PYTHON = {
    "builtins": frozenset({"ConnectionError", "TimeoutError"}),
    "asyncio": frozenset({"IncompleteReadError"}),
    "http": frozenset({"IncompleteRead", "BadStatusLine"}),
    "socket": frozenset({"gaierror"}),
    "ssl": frozenset({"SSLEOFError", "SSLZeroReturnError", "SSLSyscallError"}),
}
_LOST = re.compile(
    r".*(Connect(ion|or)?Error"
    r"|Connection(Closed|Failure|Lost|Refused|Reset|Aborted|Dropped|Timeout)(Error|Exception)?"
    r"|Disconnected(Error)?|NetworkError|Timed?[oO]ut(Error|Exception)?"
    r"|RemoteProtocolError|ProxyError|ChunkedEncodingError|ClientPayloadError|ResponseStreamingError"
    r"|IncompleteRead(Error)?|NoResponseError|ServiceRe(quest|sponse)Error|AutoReconnect)"
)
# Of these libraries alone: names that mean something else in another.
_LOST_THERE = frozenset({("urllib3.exceptions", "ProtocolError"), ("websockets.exceptions", "InvalidMessage")})
# Names of what some library derives from such a class, though another attempt ends the same.
_REFUSED = re.compile(r"Auth|Certificate|BadRequest|Forbidden|Denied|InvalidU|Unsupported|MaxConnections|ClosedOK")

# Codes with which a WebSocket is closed by a service that goes away, fails or has too much to do.
_CLOSED = frozenset({1001, 1006, 1011, 1012, 1013, 1014})
# Words for a status, without case, punctuation and a last `error` or `exception`.
_WORDS = {
    **dict.fromkeys(("authentication", "unauthenticated", "unauthorized", "invalidapikey"), 401),
    **dict.fromkeys(("unrecognizedclient", "invalidsignature", "expiredtoken", "invalidclienttokenid"), 401),
    **dict.fromkeys(("accessdenied", "permission", "permissiondenied"), 403),
    **dict.fromkeys(("timeout", "requesttimeout", "modeltimeout"), 408),
    **dict.fromkeys(("aborted", "transactioninprogress", "priorrequestnotcomplete"), 409),
    **dict.fromkeys(("ratelimit", "ratelimitexceeded", "toomanyrequests", "resourceexhausted", "slowdown"), 429),
    **dict.fromkeys(("throttling", "throttled", "requestthrottled", "ec2throttled", "requestlimitexceeded"), 429),
    **dict.fromkeys(("limitexceeded", "bandwidthlimitexceeded", "provisionedthroughputexceeded"), 429),
    "modelnotready": 429,
    **dict.fromkeys(("server", "api", "internal", "internalserver", "internalfailure", "modelstreamerror"), 500),
    **dict.fromkeys(("unknown", "dataloss"), 500),
    **dict.fromkeys(("overloaded", "unavailable", "serviceunavailable"), 503),
    "deadlineexceeded": 504,
}
# What openai and others answer with 429 that waiting does not end.
_SPENT = frozenset(
    {
        *("insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
    }
)
# As the class has them: an exception of an agent's may have put something else in their place.
_CAUSE: Any = vars(BaseException)["__cause__"]
_ARGS: Any = vars(BaseException)["args"]
_MAX_WAIT = 86_400.0


@lru_cache(maxsize=1024)
def _is_of_agents(module: str) -> bool:
    return _OF_AGENTS.match(module) is not None


@lru_cache(maxsize=1024)
def _is_installed(module: str) -> bool:
    # A program that an installed package starts, for example a notebook's, is the user's all the same.
    if _is_of_agents(module) or module in ("__main__", "__mp_main__"):
        return False
    if package_of(module) in _CLIENTS:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return isinstance(file, str) and _INSTALLED.search(file) is not None


def package_of(module: str) -> str:
    """Return the first part of a module's name."""
    return module.partition(".")[0]


def _is_a_clients(kind: type, own: str) -> bool:
    return _is_installed(kind.__module__) and package_of(kind.__module__) != own


def _tells_status(error: BaseException, own: str) -> bool:
    """Whether its numbers are a service's: a class of the agent's may have added them to its base."""
    modules = [kind.__module__ for kind in type(error).__mro__]
    if any(map(_is_of_agents, modules)):
        return False
    return _is_a_clients(type(error), own) or any(package_of(module) in _CLIENTS for module in modules)


def status_of(error: BaseException, own: str = "") -> int | None:
    """Return the HTTP status, from 400, of the answer that the error tells of, or None.

    Args:
        own: the agent's own package, which may be installed too.
    """
    if not _tells_status(error, own):
        return None
    for number in _numbers(error):
        if isinstance(number, int) and 400 <= number <= 599:
            return int(number)
    words = (_WORDS.get(_normal(word)) for word in _words(error))
    return next((status for status in words if status is not None), None)


def _numbers(error: BaseException) -> Iterator[Any]:
    response = _get(error, "response")
    if isinstance(response, Mapping):  # botocore, whose word for it says more than its status, often 400
        yield _WORDS.get(_normal(_at(response, "Error", "Code")))
        yield _at(response, "ResponseMetadata", "HTTPStatusCode")
        return
    for name in ("status_code", "http_status", "status"):
        yield _get(error, name)
    for name in ("status_code", "status"):
        yield _get(response, name)
    if _is_an_answer(error):
        code = _plain(error, "code")
        yield 503 if isinstance(code, int) and code in _CLOSED else code
    if type(error).__name__ == "ResponseError":  # of urllib3, whose `Retry` has seen one too many
        match = re.fullmatch(r"too many (\d{3}) error responses", str(error))
        yield int(match[1]) if match else None


def _words(error: BaseException) -> Iterator[str]:
    """What a service calls its failure."""
    code = _plain(error, "code")
    if callable(code) and any(kind.__name__ == "RpcError" for kind in type(error).__mro__):
        code = code()
    candidates = [_get(value, "name") for value in (code, _get(error, "status"))]  # gRPC's are enumerations
    if _is_an_answer(error):
        names = ("code", "status", "type", "provider_error_code", "provider_error_type")
        candidates += [_plain(error, name) for name in names]
    body = _body(error)
    candidates += [_at(body, name) for name in ("type", "code", "status")]
    return (word for word in candidates if isinstance(word, str))


def _is_an_answer(error: BaseException) -> bool:
    """Whether it has a place for an answer: a bare `code` may be of a database."""
    return any(hasattr(error, name) for name in ("response", "headers", "body"))


def _normal(word: Any) -> str:
    letters = re.sub(r"[^a-z0-9]", "", word.lower()) if isinstance(word, str) else ""
    return re.sub(r"(error|exception)$", "", letters)


def _body(error: BaseException) -> Any:
    """What the answer holds of the error, where it came as JSON."""
    for name in ("body", "details"):  # google-genai has it as `details`
        body = _get(error, name)
        if isinstance(body, Mapping):
            return body.get("error", body)
    return None


def _details(error: BaseException) -> Iterator[Mapping[Any, Any]]:
    """The details of an answer of Google's."""
    details = _at(_body(error), "details")
    return (one for one in details if isinstance(one, Mapping)) if isinstance(details, list) else iter(())


def is_key_refused(error: BaseException, own: str = "") -> bool:
    """Return whether a service has refused the key it was called with, or what the key may not do."""
    if status_of(error, own) in (401, 403):
        return True
    return any(_at(one, "reason") == "API_KEY_INVALID" for one in _details(error))  # Gemini, with status 400


def is_spent(error: BaseException) -> bool:
    """Return whether a service says that a quota is used up, or that another attempt is of no use."""
    return any(word in _SPENT for word in _words(error)) or _header(error, "x-should-retry") == "false"


def is_lost(error: BaseException, own: str = "") -> bool:
    """Return whether the error's class, or a base class, is of a lost connection or of an answer out of time.

    Args:
        own: the agent's own package, which may be installed too.
    """
    for kind in type(error).__mro__:
        module, name = kind.__module__, kind.__name__
        if name in _LOST_IN_PYTHON.get(package_of(module), ()) or (module, name) in _LOST_THERE:
            return True
        if _is_a_clients(kind, own):
            if (code := _get(_get(error, "rcvd"), "code")) is not None:  # how a WebSocket was closed
                return code in _CLOSED
            if _REFUSED.search(name):
                return False
            if _LOST.fullmatch(name):
                return True
    return False


def is_of_tls(error: BaseException) -> bool:
    """Return whether the error is one of TLS itself: a certificate that is refused once is refused again."""
    return type(error).__module__ == "ssl" and type(error).__name__ not in _LOST_IN_PYTHON["ssl"]


def origins(error: BaseException) -> Iterator[BaseException]:
    """Yield what the error comes from: by `from`, or as its library keeps it."""
    kept = [_CAUSE.__get__(error)]
    if any(_is_installed(kind.__module__) for kind in type(error).__mro__):
        attributes = _get(error, "__dict__")
        kept += [*_ARGS.__get__(error), _at(attributes, "kwargs", "error")]
        kept += attributes.values() if type(attributes) is dict else ()
    return (origin for origin in kept if isinstance(origin, BaseException))


def wait_of(error: BaseException) -> float | None:
    """Return for how many seconds the service asks to be left alone, from 0 to a day, or None."""
    for read in (_milliseconds, _retry_after, _attribute, _retry_info):
        try:
            seconds = read(error)
        except Abandoned:
            raise
        except BaseException:  # nonsense, or an exception as hostile as any object
            continue
        if seconds is not None and not math.isnan(seconds):
            return min(max(seconds, 0.0), _MAX_WAIT)
    return None


def _milliseconds(error: BaseException) -> float | None:
    text = _header(error, "retry-after-ms")
    return None if text is None else float(text) / 1000


def _retry_after(error: BaseException) -> float | None:
    """A `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3)."""
    text = _header(error, "retry-after")
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        from datetime import UTC
        from email.utils import parsedate_to_datetime

        date = parsedate_to_datetime(text)
        # In the oldest of its three forms a date names no zone; it is always GMT.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time_ns() / 1e9


def _attribute(error: BaseException) -> float | None:
    seconds = _plain(error, "retry_after")
    return float(seconds) if isinstance(seconds, int | float) else None


def _retry_info(error: BaseException) -> float | None:
    delays = (_at(one, "retryDelay") for one in _details(error))
    return next((float(delay.removesuffix("s")) for delay in delays if isinstance(delay, str)), None)


def _header(error: BaseException, name: str) -> str | None:
    response = _get(error, "response")
    headers = _at(response, "ResponseMetadata", "HTTPHeaders")
    for holder in (response, error):
        headers = headers or _get(holder, "headers")
    if not callable(_get(headers, "get")):
        return None
    for key in (name, name.title()):
        if (value := headers.get(key)) is not None:
            return str(value)
    return None


def _get(value: Any, name: str) -> Any:
    """An attribute; None where there is none, or where looking at it fails."""
    try:
        return getattr(value, name, None)
    except Abandoned:
        raise
    except BaseException:  # an exception may be as hostile as any object
        return None


def _plain(error: BaseException, name: str) -> Any:
    """An attribute that is stored: of those that are computed, some warn that they are deprecated."""
    return None if isinstance(_get(type(error), name), property) else _get(error, name)


def _at(value: Any, *path: str) -> Any:
    """What stands at a path of keys, None where it leads nowhere."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
