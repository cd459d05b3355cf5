"""Whose failure an error is, told from the errors of real clients of a service that misbehaves."""

from __future__ import annotations

import asyncio
import errno
import http.client
import importlib
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import requests.adapters
import urllib3

from fluxloop.failures import infrastructure, is_named, may_pass, retry_after, wants_retry
from tests.serving import Answer, Asked, Service, closed_port

PASSING = (408, 409, 429, 500, 502, 503, 504, 529)
LASTING = (400, 401, 403, 404, 422)
DAY = 86_400.0

Client = Callable[[str, float], object]
"""Asks at an address, waits for so many seconds, and raises when that comes to nothing."""


def by_httpx(url: str, seconds: float) -> object:
    return httpx.get(url, timeout=seconds, verify=TLS).raise_for_status()


def by_httpx_async(url: str, seconds: float) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(timeout=seconds, verify=TLS) as client:
            (await client.get(url)).raise_for_status()

    asyncio.run(ask())


def by_requests(url: str, seconds: float) -> None:
    requests.get(url, timeout=seconds).raise_for_status()


def by_aiohttp(url: str, seconds: float) -> None:
    async def ask() -> None:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as client, client.get(url) as answer:
            await answer.read()

    asyncio.run(ask())


def by_urllib(url: str, seconds: float) -> object:
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:  # it is an open answer too
        error.close()
        raise


def by_openai(url: str, seconds: float, stream: bool = False) -> None:
    client = openai_client().with_options(base_url=url, timeout=seconds)
    answer: Any = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=stream)
    list(answer)


def by_openai_streamed(url: str, seconds: float) -> None:
    by_openai(url, seconds, stream=True)


def by_anthropic(url: str, seconds: float, stream: bool = False) -> None:
    client = anthropic_client().with_options(base_url=url, timeout=seconds)
    said: Any = [{"role": "user", "content": "hi"}]
    list(client.messages.create(model="m", max_tokens=9, messages=said, stream=stream))


def by_anthropic_streamed(url: str, seconds: float) -> None:
    by_anthropic(url, seconds, stream=True)


def by_http_client(url: str, seconds: float) -> None:
    place = httpx.URL(url)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.host, place.port, timeout=seconds)
    try:
        connection.request("GET", place.path)
        connection.getresponse().read()
    finally:
        connection.close()


def by_socket(url: str, seconds: float) -> None:
    place = httpx.URL(url)
    with socket.create_connection((place.host, place.port), seconds) as plain:
        plain.sendall(f"GET {place.path} HTTP/1.1\r\n\r\n".encode())
        plain.recv(1000)


def by_asyncio(url: str, seconds: float) -> None:
    async def ask() -> None:
        place = httpx.URL(url)
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            try:
                writer.write(f"GET {place.path} HTTP/1.1\r\n\r\n".encode())
                await reader.readexactly(1000)
            finally:
                writer.close()

    asyncio.run(ask())


OF_HTTP: list[Client] = [by_httpx, by_httpx_async, by_requests, by_aiohttp, by_urllib, by_openai, by_anthropic]
CLIENTS: list[Client] = [
    *OF_HTTP,
    *(by_openai_streamed, by_anthropic_streamed, by_http_client, by_socket, by_asyncio),
]

TLS = ssl.create_default_context()


@cache
def openai_client() -> Any:
    """A client of a library that takes a second to import, as the next: not in each process of the suite."""
    import openai

    return openai.OpenAI(api_key="k", max_retries=0)


@cache
def anthropic_client() -> Any:
    """As of OpenAI."""
    import anthropic

    return anthropic.Anthropic(api_key="k", max_retries=0)


STREAM = {"content-type": "text/event-stream"}
ANSWERS = {
    "hang": Answer(fault="hang"),
    "reset": Answer(fault="reset"),
    "cut": Answer(fault="cut", body={"half": "of it"}),
    "quota": Answer(429, body={"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}),
    "useless": Answer(503, {"x-should-retry": "false"}),
    "wait": Answer(429, {"Retry-After": "7"}),
    "wait-ms": Answer(529, {"Retry-After-Ms": "250", "Retry-After": "1"}),
    "openai-overloaded": Answer(200, STREAM, b'data: {"error": {"message": "Sorry", "type": "server_error"}}\n\n'),
    "openai-limited": Answer(200, STREAM, b'data: {"error": {"code": "rate_limit_exceeded"}}\n\n'),
    "openai-refused": Answer(200, STREAM, b'data: {"error": {"message": "No", "code": "invalid_prompt"}}\n\n'),
    "anthropic-overloaded": Answer(
        200, STREAM, b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n'
    ),
    "anthropic-refused": Answer(
        200, STREAM, b'event: error\ndata: {"type": "error", "error": {"type": "invalid_request_error"}}\n\n'
    ),
}


def as_the_path_says(asked: Asked) -> Answer:
    name = asked.path.split("/")[1]
    return Answer(int(name), body={"error": {"message": name}}) if name.isdigit() else ANSWERS[name]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Service(as_the_path_says) as service:
        yield service.url
        for client in (openai_client, anthropic_client):
            if client.cache_info().currsize:
                client().close()
                client.cache_clear()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def failure(call: Callable[..., object], *args: Any) -> Exception:
    """What a call raises."""
    try:
        call(*args)
    except Exception as error:
        return error
    raise AssertionError(f"{call} raised nothing")


def is_infrastructure(error: BaseException) -> bool:
    return infrastructure(error) is not None


@pytest.mark.parametrize("client", OF_HTTP)
def test_a_status_tells_whose_failure_it_is(client: Client, url: str) -> None:
    """408, 409, 429 and 5xx are the service's; any other status of 400 and more is the agent's."""
    told = {status: is_infrastructure(failure(client, f"{url}/{status}", 5)) for status in (*PASSING, *LASTING)}
    assert told == {**dict.fromkeys(PASSING, True), **dict.fromkeys(LASTING, False)}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", ["hang", "reset"])
def test_a_connection_that_breaks_is_infrastructure(client: Client, fault: str, url: str) -> None:
    """Whether no answer comes in time or a reset."""
    assert is_infrastructure(failure(client, f"{url}/{fault}", 0.1 if fault == "hang" else 5))


@pytest.mark.parametrize("client", [client for client in CLIENTS if client is not by_socket])
def test_half_an_answer_is_infrastructure(client: Client, url: str) -> None:
    """The connection was closed before the rest came."""
    assert is_infrastructure(failure(client, f"{url}/cut", 5))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_cannot_be_made_is_infrastructure(client: Client) -> None:
    """Nobody listens there, for now."""
    assert is_infrastructure(failure(client, f"http://127.0.0.1:{closed_port()}/", 5))


@pytest.mark.parametrize("client", [*OF_HTTP, by_http_client])
def test_a_connection_that_breaks_in_the_tls_handshake_is_infrastructure(client: Client) -> None:
    """Although it shows as an error of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = failure(client, f"https://127.0.0.1:{listening.getsockname()[1]}/", 5)
        thread.join()
    assert is_infrastructure(error)


@pytest.mark.parametrize("client", [*OF_HTTP, by_http_client])
def test_tls_that_cannot_be_agreed_on_is_the_agents_failure(client: Client, url: str) -> None:
    """As a certificate that is refused: another attempt is refused as well."""
    assert not is_infrastructure(failure(client, f"{url.replace('http', 'https')}/200", 5))


def test_a_name_none_of_whose_addresses_answers_is_infrastructure() -> None:
    """asyncio tells of several refusals only in words."""

    class Loop(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*stream, (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    with asyncio.Runner(loop_factory=Loop) as runner:
        error = failure(runner.run, asyncio.open_connection("service", closed_port()))
    assert type(error) is OSError
    assert is_infrastructure(error)


def test_a_service_that_requests_has_tried_again_in_vain_is_infrastructure(url: str) -> None:
    """By `Retry(status_forcelist=...)` the status stands in words only."""

    def ask(status: int) -> None:
        retries = urllib3.Retry(total=1, status_forcelist=[status], backoff_factor=0)
        with requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retries))
            session.get(f"{url}/{status}", timeout=5)

    assert is_infrastructure(failure(ask, 503))
    assert not is_infrastructure(failure(ask, 404))


def test_a_model_that_fails_in_the_middle_of_its_answer_is_infrastructure(url: str) -> None:
    """The status was 200 long before the service was overloaded; what else a stream refuses is the agent's."""
    for name in ("openai-overloaded", "openai-limited"):
        assert is_infrastructure(failure(by_openai_streamed, f"{url}/{name}", 5))
    assert not is_infrastructure(failure(by_openai_streamed, f"{url}/openai-refused", 5))
    assert is_infrastructure(failure(by_anthropic_streamed, f"{url}/anthropic-overloaded", 5))
    assert not is_infrastructure(failure(by_anthropic_streamed, f"{url}/anthropic-refused", 5))


@pytest.mark.frameworks
@pytest.mark.parametrize(("status", "expected"), [(503, True), (429, True), (400, False)])
def test_a_frameworks_error_is_what_it_comes_from(status: int, expected: bool, url: str) -> None:
    """pydantic-ai raises its own `from` the model library's."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, ModelHTTPError
    from pydantic_ai.exceptions import FallbackExceptionGroup
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(api_key="k", base_url=f"{url}/{status}", max_retries=0)
    agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client)))

    async def ask() -> None:
        async with client:
            await agent.run("hi")

    error = failure(asyncio.run, ask())
    assert isinstance(error, ModelHTTPError)
    assert is_infrastructure(error) is expected
    assert is_infrastructure(FallbackExceptionGroup("all models failed", [error])) is expected


class AgentError(Exception):
    """An agent's own."""


class Timeout(Exception):  # noqa: N818
    """An agent's own, named as that of requests."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("503"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError("Multiple exceptions: [Errno 111] Connection refused, [Errno 13] Permission denied"),
        OSError("Multiple exceptions: none"),
        AgentError("timed out"),
        Timeout("no answer"),
        type("TimeoutError", (Exception,), {"__module__": "my_agent"})(),
        type("RateLimitError", (Exception,), {"__module__": "my_agent", "status_code": 429})(),
        ssl.SSLCertVerificationError("certificate verify failed"),
        json.JSONDecodeError("Expecting value", "", 0),
        http.client.CannotSendRequest(),
        asyncio.CancelledError(),
        SystemExit(1),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_are_the_agents(error: BaseException) -> None:
    """Also those that are only named like a service's."""
    assert not is_infrastructure(error)


REQUEST: Any = httpx.Request("GET", "http://service")


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        *(OSError(number, "") for number in (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH)),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        *(ssl.SSLEOFError(), ssl.SSLZeroReturnError(), ssl.SSLSyscallError()),
        http.client.BadStatusLine("what?"),
        urllib.error.HTTPError("", HTTPStatus.SERVICE_UNAVAILABLE, "", http.client.HTTPMessage(), None),
        *(httpx.PoolTimeout(""), httpx.WriteError(""), httpx.ProxyError("")),
        *(requests.ConnectionError(), requests.ConnectTimeout(), requests.exceptions.ChunkedEncodingError()),
        *(requests.ReadTimeout(), requests.exceptions.ProxyError()),
        *(urllib3.exceptions.ProtocolError(), urllib3.exceptions.ProxyError("", OSError())),
        *(aiohttp.ServerDisconnectedError(), aiohttp.ServerTimeoutError(), aiohttp.ClientConnectionResetError()),
        type("ToolTimeout", (TimeoutError,), {"__module__": "my_agent"})(),
        type("Lost", (httpx.ReadError,), {"__module__": "my_agent"})(""),
    ],
    ids=repr,
)
def test_an_error_of_a_connection_needs_no_other_to_be_told(error: BaseException) -> None:
    """By its own class or one it is derived from, should what it comes from have been left out."""
    assert infrastructure(error) is error


@pytest.mark.parametrize("library", ["openai", "anthropic"])
@pytest.mark.parametrize("name", ["APIConnectionError", "APITimeoutError"])
def test_an_error_of_a_model_librarys_connection_needs_no_other_to_be_told(library: str, name: str) -> None:
    """By its own class, too."""
    error = getattr(importlib.import_module(library), name)(request=REQUEST)
    assert infrastructure(error) is error


def raised(error: Exception, **context: Exception) -> Exception:
    """An error raised in the course of another, `cause` with `from`."""

    def call() -> None:
        if "cause" in context:
            raise error from context["cause"]
        try:
            raise context["handled"]
        except Exception:
            raise error  # noqa: B904

    return failure(call)


def test_an_error_raised_from_a_services_is_infrastructure(url: str) -> None:
    """And the service's own is what is told; one raised while handling it is the agent's."""
    lost = failure(by_httpx, f"{url}/503", 5)
    assert infrastructure(raised(AgentError(), cause=raised(AgentError(), cause=lost))) is lost
    assert infrastructure(raised(AgentError(), handled=lost)) is None
    assert infrastructure(raised(AgentError(lost), cause=ValueError())) is None
    pool: Any = None
    assert infrastructure(urllib3.exceptions.MaxRetryError(pool, "/", lost)) is lost


def test_a_cycle_of_causes_comes_to_an_end() -> None:
    """And is nobody's but the agent's."""
    error, other = AgentError(), AgentError()
    error.__cause__, other.__cause__ = other, error
    assert infrastructure(error) is None


def test_a_group_is_infrastructure_when_all_of_it_is(url: str) -> None:
    """One failure of the agent's own makes it the agent's."""
    errors = [failure(by_httpx, f"{url}/reset", 5), raised(AgentError(), cause=ConnectionResetError())]
    assert is_infrastructure(ExceptionGroup("", [*errors, ExceptionGroup("", errors)]))
    assert not is_infrastructure(ExceptionGroup("", [*errors, ValueError()]))
    assert is_infrastructure(raised(AgentError(), cause=ExceptionGroup("", errors)))


def test_the_worst_of_a_group_decides(url: str) -> None:
    """The longest wait asked for is kept, and a member without hope leaves none to the group."""
    reset, wait, useless = (failure(by_httpx, f"{url}/{name}", 5) for name in ("reset", "wait", "useless"))
    for errors in itertools.permutations([reset, wait, ConnectionResetError()]):
        assert infrastructure(ExceptionGroup("", errors)) is wait
    for errors in itertools.permutations([reset, wait, useless]):
        assert infrastructure(ExceptionGroup("", errors)) is useless


def test_a_quota_used_up_is_infrastructure_but_not_tried_again(url: str) -> None:
    """Waiting does not help, nor does it where the service says so."""
    names = ["transient"]
    for client, path in ((by_openai, "quota"), (by_httpx, "useless"), (by_anthropic, "useless")):
        error = failure(client, f"{url}/{path}", 5)
        found = infrastructure(error)
        assert found is error
        assert not may_pass(error)
        assert not wants_retry(error, found, names)
        assert wants_retry(error, found, [*names, type(error).__name__])


@pytest.mark.parametrize("client", OF_HTTP)
def test_an_overload_is_tried_again_and_its_wait_obeyed(client: Client, url: str) -> None:
    """Each library keeps the headers in a place of its own, and none warns when it is looked at."""
    error, precise = failure(client, f"{url}/wait", 5), failure(client, f"{url}/wait-ms", 5)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert wants_retry(error, infrastructure(error), ["transient"])
        assert not wants_retry(error, infrastructure(error), ["ValueError"])
        assert (retry_after(error), retry_after(precise)) == (7.0, 0.25)
    assert warned == []


def holding(headers: Any) -> Exception:
    """An error that has something for headers."""
    return urllib.error.HTTPError("", 429, "", headers, None)


def asking(**headers: str) -> Exception:
    """The error of an answer with these headers."""
    answer = httpx.Response(429, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer.request = httpx.Request("GET", "http://service")
    return failure(answer.raise_for_status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": " 3 "}, 3.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "9" * 400}, DAY),
        ({"retry_after": "1e99"}, DAY),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "Sun, 99 Nov 1994 08:49:37 GMT"}, None),
        ({"retry_after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"retry_after": "Fri, 01 Jan 9999 00:00:00 GMT"}, DAY),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after_ms": "soon", "retry_after": "9"}, 9.0),
        ({"retry_after_ms": "nan"}, None),
    ],
)
def test_what_a_service_asks_for_is_read_with_care(headers: dict[str, str], seconds: float | None) -> None:
    """From nothing to a day; nonsense is no wish at all."""
    assert retry_after(asking(**headers)) == seconds
    assert retry_after(holding({name.replace("_", "-").title(): value for name, value in headers.items()})) == seconds


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_date_is_a_time_in_greenwich(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of the three forms of HTTP, wherever this computer is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        before = time.time()
        seconds = retry_after(asking(retry_after=time.strftime(form, time.gmtime(before + 1000))))
        after = time.time()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert seconds is not None
    assert 999 - (after - before) <= seconds <= 1000  # a date has whole seconds


def test_errors_without_headers_ask_for_nothing() -> None:
    """Nor do those whose headers are none."""
    for error in (ValueError(), ConnectionResetError(), holding(None), holding(["retry-after"]), holding({}), asking()):
        assert retry_after(error) is None
        assert may_pass(error)


class Trap:
    """An attribute that raises what it is told to when it is looked at."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __get__(self, instance: object, owner: type) -> Any:
        raise self.error


class HostileKind(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError("no name")


@pytest.mark.parametrize("trap", [RuntimeError("a trap"), SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("name", ["status_code", "response", "headers", "code", "body", "errno", "__cause__", "args"])
def test_an_error_that_raises_when_looked_at_does_no_harm(name: str, trap: BaseException) -> None:
    """It is told as well as it may be."""
    import openai

    for base in (Exception, OSError, httpx.HTTPStatusError, openai.APIStatusError, aiohttp.ClientError):
        kind: Any = type("Hostile", (base,), {"__module__": "my_agent", name: Trap(trap)})
        error = kind.__new__(kind)
        assert infrastructure(error) is None
        assert retry_after(error) is None
        assert may_pass(error)
        assert wants_retry(error, error, ["transient"])


def test_a_class_that_hides_its_name_does_no_harm() -> None:
    """It has none that `runner.retry_on` could hold."""
    error = HostileKind("Hidden", (Exception,), {})()
    assert not is_named(error, ["Exception"])
    assert not is_named(type("Nowhere", (Exception,), {"__module__": None})(), ["Nowhere"])
    assert infrastructure(error) is None


@pytest.mark.parametrize(
    ("error", "name", "expected"),
    [
        (KeyError(), "KeyError", True),
        (KeyError(), "LookupError", True),
        (KeyError(), "builtins.LookupError", True),
        (KeyError(), "Lookup", False),
        (KeyError(), "my_agent.KeyError", False),
        (KeyError(), "keyerror", False),
        (httpx.ReadTimeout(""), "httpx.TimeoutException", True),
        (httpx.ReadTimeout(""), "TimeoutError", False),
        (requests.ReadTimeout(), "requests.exceptions.Timeout", True),
        (requests.ReadTimeout(), "requests.Timeout", True),
        (requests.ReadTimeout(), "OSError", True),
        (aiohttp.ServerDisconnectedError(), "aiohttp.ClientError", True),
        (json.JSONDecodeError("", "", 0), "json.JSONDecodeError", True),
        (TimeoutError(), "asyncio.TimeoutError", False),
        (AgentError(), f"{AgentError.__module__}.AgentError", True),
    ],
)
def test_an_error_is_named_by_its_class_or_a_base(error: BaseException, name: str, expected: bool) -> None:
    """Bare, or after the module or package it comes from."""
    assert is_named(error, ["Other", name]) is expected
    assert not is_named(error, [])


def test_no_library_is_loaded_to_recognise_its_errors() -> None:
    """Nor anything else that costs time: agents' own processes load this too."""
    program = "import sys, fluxloop.failures; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    loaded = set(told.stdout.split())
    assert "fluxloop" in loaded
    unwanted = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp", "openai", "anthropic", "pydantic_ai"}
    assert not loaded & {*unwanted, "attr", "attrs", "cattrs", "ruamel", "msgspec", "asyncio", "http", "ssl", "email"}
