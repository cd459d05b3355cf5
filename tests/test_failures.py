"""Whose failure an error is, told from the errors of real clients of a service that misbehaves."""

from __future__ import annotations

import asyncio
import errno
import http.client
import importlib
import importlib.util
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
from collections.abc import Callable, Iterator, Mapping
from functools import cache, reduce
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import requests.adapters
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.failures import (
    RECOGNISED,
    Outages,
    infrastructure,
    is_named,
    is_overload,
    is_refusal,
    may_pass,
    own_package,
    retry_after,
    wants_retry,
)
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


SHAPES = """
import enum

class Answer:
    def __init__(self, **values):
        self.__dict__.update(values)

class Failure(Exception):
    def __init__(self, **values):
        super().__init__("no")
        self.__dict__.update(values)

class ReadTimeout(Failure): pass
class TimedOut(Failure): pass
class ServiceTimeoutError(Failure): pass
class ConnectionError(Failure): pass
class BusyError(ConnectionError): pass
class AuthenticationError(ConnectionError): pass
class MaxConnectionsError(ConnectionError): pass
class EndpointConnectionError(Failure): pass
class ConnectionClosed(Failure): pass
class ConnectionClosedOK(ConnectionClosed): pass
class Closed(Failure): pass
class NetworkError(Failure): pass
class BadRequest(NetworkError): pass
class TimeoutSetting(Failure): pass

class Code(enum.Enum):
    UNAVAILABLE = (14, "unavailable")
    RESOURCE_EXHAUSTED = (8, "exhausted")
    NOT_FOUND = (5, "not found")

class RpcError(Exception):
    def __init__(self, name):
        self.name = name
    def code(self):
        return Code[self.name]

class Warns(Failure):
    @property
    def code(self):
        import warnings
        warnings.warn("deprecated", DeprecationWarning)
        return 503
    retry_after = code
"""


def module_at(folder: Path, name: str, source: str) -> ModuleType:
    """A module loaded from a file of this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The same classes in an installed package and in the agent's own code."""
    folder = tmp_path_factory.mktemp("places")
    yield (
        module_at(folder / "lib" / "site-packages", "shapes_of_a_library", SHAPES),
        module_at(folder / "project", "shapes_of_an_agent", SHAPES),
    )
    for name in ("shapes_of_a_library", "shapes_of_an_agent"):
        del sys.modules[name]


OUTAGE, OVERLOAD, REFUSED, OWN = "outage", "overload", "refused", "own"


def verdict(error: BaseException, outages: Outages = RECOGNISED) -> str:
    """What is made of an error."""
    if (found := infrastructure(error, outages)) is not None:
        return OVERLOAD if is_overload(found) else OUTAGE
    return REFUSED if is_refusal(error, outages.own) else OWN


def aws(code: str, status: int) -> dict[str, Any]:
    return {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def in_stream(**error: Any) -> dict[str, Any]:
    return {"body": {"error": error}}


OF_A_LIBRARY: list[tuple[str, Callable[[Any], BaseException], str]] = [
    ("status_code", lambda m: m.Failure(status_code=429), OVERLOAD),
    ("status", lambda m: m.Failure(status=503), OUTAGE),
    ("http_status", lambda m: m.Failure(http_status=HTTPStatus.BAD_GATEWAY), OUTAGE),
    ("code beside an answer", lambda m: m.Failure(code=429, response=None), OVERLOAD),
    ("code of a WebSocket", lambda m: m.Failure(code=1011, response=None), OUTAGE),
    ("answer", lambda m: m.Failure(response=m.Answer(status_code=500)), OUTAGE),
    ("answer of aiohttp", lambda m: m.Failure(response=m.Answer(status=429)), OVERLOAD),
    ("unauthorized", lambda m: m.Failure(status_code=401), REFUSED),
    ("forbidden", lambda m: m.Failure(status_code=403), REFUSED),
    ("AWS", lambda m: m.Failure(response=aws("ServiceUnavailable", 503)), OUTAGE),
    ("AWS, throttled", lambda m: m.Failure(response=aws("ThrottlingException", 400)), OVERLOAD),
    ("AWS, another code", lambda m: m.Failure(response=aws("Odd", 500)), OUTAGE),
    ("in a stream", lambda m: m.Failure(**in_stream(type="overloaded_error")), OUTAGE),
    ("in a stream, a code", lambda m: m.Failure(**in_stream(code="rate_limit_exceeded")), OVERLOAD),
    ("gRPC", lambda m: m.RpcError("UNAVAILABLE"), OUTAGE),
    ("gRPC, exhausted", lambda m: m.RpcError("RESOURCE_EXHAUSTED"), OVERLOAD),
    ("gRPC, as a status", lambda m: m.Failure(status=m.Code.UNAVAILABLE), OUTAGE),
    ("read timeout", lambda m: m.ReadTimeout(), OUTAGE),
    ("timed out", lambda m: m.TimedOut(), OUTAGE),
    ("timeout error", lambda m: m.ServiceTimeoutError(), OUTAGE),
    ("connection", lambda m: m.ConnectionError(), OUTAGE),
    ("derived", lambda m: m.BusyError(), OUTAGE),
    ("endpoint", lambda m: m.EndpointConnectionError(), OUTAGE),
    ("closed", lambda m: m.ConnectionClosed(rcvd=None), OUTAGE),
    ("going away", lambda m: m.ConnectionClosedOK(rcvd=m.Answer(code=1001)), OUTAGE),
    ("kept by its library", lambda m: m.Failure(original=m.ReadTimeout()), OUTAGE),
    ("kept as botocore does", lambda m: m.Failure(kwargs={"error": m.ReadTimeout()}), OUTAGE),
]


@pytest.mark.parametrize(
    ("make", "expected"), [shape[1:] for shape in OF_A_LIBRARY], ids=[one[0] for one in OF_A_LIBRARY]
)
def test_a_shape_tells_where_a_library_defines_it(make: Any, expected: str, places: tuple[Any, Any]) -> None:
    """And nothing where the agent's own code does, or its own package that is installed too."""
    library, agent = places
    error = make(library)
    assert verdict(error) == expected
    assert verdict(make(agent)) == OWN
    assert verdict(error, Outages(own="shapes_of_a_library")) == OWN
    assert verdict(raised(AgentError(), cause=error)) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.Failure(),
        lambda m: m.Failure(status_code=400),
        lambda m: m.Failure(status_code=-1),
        lambda m: m.Failure(status_code=200),
        lambda m: m.Failure(status_code=1500),
        lambda m: m.Failure(status_code=True),
        lambda m: m.Failure(status_code="503"),
        lambda m: m.Failure(status_code=503.0),
        lambda m: m.Failure(code=503),
        lambda m: m.Failure(code="unavailable"),
        lambda m: m.Failure(code=1008, response=None),
        lambda m: m.Failure(response=aws("ValidationException", 400)),
        lambda m: m.Failure(response={"Error": None, "ResponseMetadata": []}),
        lambda m: m.Failure(body={"error": "overloaded_error"}),
        lambda m: m.Failure(body="overloaded_error"),
        lambda m: m.RpcError("NOT_FOUND"),
        lambda m: m.AuthenticationError(),
        lambda m: m.MaxConnectionsError(),
        lambda m: m.BadRequest(),
        lambda m: m.ConnectionClosedOK(rcvd=m.Answer(code=1000)),
        lambda m: m.ConnectionClosed(rcvd=m.Answer(code=1008)),
        lambda m: m.TimeoutSetting(),
        lambda m: m.Failure(kwargs={"error": "ReadTimeout"}),
    ],
)
def test_a_librarys_error_without_such_a_shape_is_the_agents(make: Any, places: tuple[Any, Any]) -> None:
    """Also where a number or a name is near to one."""
    assert verdict(make(places[0])) == OWN


@pytest.mark.parametrize("name", ["__main__", "__mp_main__"])
def test_the_program_itself_is_the_users(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an installed package has started it, as it does in a notebook."""
    module = ModuleType(name)
    module.__file__ = str(tmp_path / "site-packages" / "launcher.py")
    monkeypatch.setitem(sys.modules, name, module)
    assert verdict(type("ReadTimeout", (Exception,), {"__module__": name, "status_code": 503})()) == OWN


def test_a_status_in_a_class_of_the_agents_is_the_agents(places: tuple[Any, Any]) -> None:
    """Whatever it is derived from; a lost connection that it is derived from still counts."""
    library, _ = places

    class Mine(library.Failure):  # type: ignore[misc]
        pass

    class MineLost(library.ReadTimeout):  # type: ignore[misc]
        pass

    assert verdict(Mine(status_code=503)) == OWN
    assert verdict(MineLost()) == OUTAGE
    assert verdict(MineLost(), Outages(own="shapes_of_a_library")) == OWN


@pytest.mark.parametrize("package", ["starlette.exceptions", "aiohttp.web_exceptions", "playwright._impl._errors"])
def test_what_answers_requests_or_steers_a_browser_is_the_agents(package: str, tmp_path: Path) -> None:
    """A web framework's 503 is what the agent's own service answers; a browser waits for what the agent chose."""
    module = ModuleType(package)
    module.__file__ = str(tmp_path / "site-packages" / "x.py")
    error = type("TimeoutError", (Exception,), {"__module__": package, "status_code": 503})()
    before = sys.modules.get(package)
    sys.modules[package] = module
    try:
        assert verdict(error) == OWN
    finally:
        if before is None:
            del sys.modules[package]
        else:
            sys.modules[package] = before


def test_nothing_that_warns_is_looked_at(places: tuple[Any, Any]) -> None:
    """Libraries keep old attributes as properties that say so."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        error = places[0].Warns(response=None)
        assert (verdict(error), retry_after(error), may_pass(error)) == (OWN, None, True)
    assert warned == []


GEMINI = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.5s"}


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({"headers": {"retry-after": "7"}}, 7.0),
        ({"response": {"ResponseMetadata": {"HTTPHeaders": {"retry-after": "7"}}}}, 7.0),
        ({"retry_after": 2.5}, 2.5),
        ({"retry_after": 10**400}, None),
        ({"retry_after": "soon"}, None),
        ({"details": {"error": {"details": [{"@type": "other"}, GEMINI]}}}, 38.5),
        ({"body": {"error": {"details": [{"retryDelay": "soon"}]}}}, None),
        ({"body": {"error": {"details": "none"}}}, None),
    ],
)
def test_a_wait_is_found_where_libraries_keep_it(
    values: Mapping[str, Any], seconds: float | None, places: tuple[Any, Any]
) -> None:
    """In headers, in an attribute, in the details of the answer; also below the error that is told."""
    error = places[0].Failure(status_code=429, **values)
    assert retry_after(error) == seconds
    assert retry_after(raised(places[0].Failure(status_code=429), cause=error)) == seconds


def test_a_quota_used_up_is_found_below_a_frameworks_error(places: tuple[Any, Any]) -> None:
    """Which is of the same status, and leaves hope by itself."""
    spent = places[0].Failure(status_code=429, code="insufficient_quota", body=None)
    assert may_pass(places[0].Failure(status_code=429, body=None))
    assert not may_pass(spent)
    assert not may_pass(raised(places[0].Failure(status_code=429), cause=spent))


@pytest.mark.parametrize(
    ("names", "make", "expected"),
    [
        (("AgentError",), lambda: AgentError(), True),
        (("Exception",), lambda: AgentError(), True),
        (("tests.test_failures.AgentError",), lambda: AgentError(), True),
        (("Other",), lambda: AgentError(), False),
        ((), lambda: AgentError(), False),
        (("AgentError",), lambda: raised(ValueError(), cause=raised(KeyError(), cause=AgentError())), True),
        (("AgentError",), lambda: ExceptionGroup("", [AgentError(), ExceptionGroup("", [TimeoutError()])]), True),
        (("AgentError",), lambda: ExceptionGroup("", [AgentError(), ValueError()]), False),
        (("ExceptionGroup",), lambda: ExceptionGroup("", [ValueError()]), True),
        (("SSLCertVerificationError",), lambda: ssl.SSLCertVerificationError("no"), True),
    ],
)
def test_what_is_named_is_infrastructure(names: Any, make: Callable[[], BaseException], expected: bool) -> None:
    """By its class or a base class, as a cause, and in a group."""
    error = make()
    named = tuple(name.replace("tests.test_failures", AgentError.__module__) for name in names)
    found = infrastructure(error, Outages(named))
    assert (found is not None) is expected
    assert wants_retry(error, found, ["transient"]) is expected


@pytest.mark.parametrize(
    ("target", "package"),
    [
        ("my_agent.main:run", "my_agent"),
        ("my_agent:Agent.run", "my_agent"),
        (failure, __name__.partition(".")[0]),
        (httpx.Client().get, ""),  # a method of a library's object says nothing of the agent
        (AgentError, ""),
        (object(), ""),
    ],
)
def test_the_agents_package_is_told_by_its_target(target: object, package: str) -> None:
    """Its exceptions are its own failures, also where it is installed."""
    assert own_package(target) == package


def test_very_deep_causes_come_to_an_end() -> None:
    """What lies too deep is not looked for."""

    def wrapped(depth: int) -> BaseException:
        def wrap(cause: BaseException, _: int) -> BaseException:
            error = AgentError()
            error.__cause__ = cause
            return error

        return reduce(wrap, range(depth), TimeoutError())

    assert is_infrastructure(wrapped(20))
    assert not is_infrastructure(wrapped(10_000))
    assert not is_refusal(wrapped(10_000))


def test_errors_that_hold_each_other_are_looked_at_once(places: tuple[Any, Any]) -> None:
    """However many ways lead from one to another."""
    errors = [places[0].Failure() for _ in range(20)]
    for error in errors:
        error.__dict__.update({str(number): other for number, other in enumerate(errors)})
    assert (verdict(errors[0]), retry_after(errors[0]), may_pass(errors[0])) == (OWN, None, True)
    errors[-1].status_code = 503
    assert infrastructure(errors[0]) is errors[-1]
    group: BaseException = TimeoutError()
    for _ in range(20):
        group = ExceptionGroup("", [group, group])  # type: ignore[list-item]
    assert is_infrastructure(group)


def test_a_group_that_holds_very_many_is_looked_at_in_part() -> None:
    """It is the agent's, as one of which not all is known."""
    assert is_infrastructure(ExceptionGroup("", [TimeoutError() for _ in range(5_000)]))
    assert not is_infrastructure(ExceptionGroup("", [TimeoutError() for _ in range(20_000)]))


class Liar(ExceptionGroup[Exception]):
    """A group that says something else about itself."""

    @property
    def exceptions(self) -> Any:
        return itertools.repeat(TimeoutError())


def test_a_group_that_lies_about_its_members_is_not_asked() -> None:
    """What it was made of counts."""
    assert not is_infrastructure(Liar("", [ValueError()]))
    assert is_infrastructure(Liar("", [TimeoutError()]))


PIECES = st.sampled_from([TimeoutError, ValueError, ConnectionResetError, KeyError])


@given(st.recursive(PIECES.map(lambda kind: kind()), lambda inner: st.lists(inner, min_size=1, max_size=3).map(tuple)))
def test_a_group_of_groups_is_what_its_leaves_are(tree: Any) -> None:
    """All of them of infrastructure, or it is the agent's."""

    def built(node: Any) -> Any:
        return ExceptionGroup("", [built(one) for one in node]) if isinstance(node, tuple) else node

    def leaves(node: Any) -> Iterator[BaseException]:
        if not isinstance(node, tuple):
            yield node
        else:
            for one in node:
                yield from leaves(one)

    expected = all(isinstance(leaf, OSError) for leaf in leaves(tree))
    assert is_infrastructure(built(tree)) is expected
    assert is_infrastructure(raised(AgentError(), cause=built(tree))) is expected


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
