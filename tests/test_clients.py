"""Whose failure an error is, told from the errors of many clients of a service that misbehaves."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

from fluxloop.failures import infrastructure, is_overload, is_refusal, may_pass, retry_after
from tests.serving import Answer, Asked, Service, closed_port

pytestmark = [
    pytest.mark.clients,
    # What the clients warn of on import and when they are left open is not looked at here.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Client = Callable[[str, float], object]
"""Asks at an address, waits for so many seconds, and raises when that comes to nothing."""

SAID: Any = [{"role": "user", "content": "hi"}]


def by_groq(url: str, seconds: float, stream: bool = False) -> None:
    import groq

    with groq.Groq(api_key="k", base_url=url, timeout=seconds, max_retries=0) as client:
        answer: Any = client.chat.completions.create(model="m", messages=SAID, stream=stream)
        list(answer)


def by_groq_streamed(url: str, seconds: float) -> None:
    by_groq(url, seconds, stream=True)


def by_mistral(url: str, seconds: float) -> None:
    from mistralai.client import Mistral

    with Mistral(api_key="k", server_url=url, timeout_ms=round(seconds * 1000)) as client:
        client.chat.complete(model="m", messages=SAID)


def by_cohere(url: str, seconds: float) -> None:
    import cohere

    client: Any = cohere.ClientV2("k", base_url=url, timeout=seconds)
    client.chat(model="m", messages=SAID, request_options={"max_retries": 0})


def by_ollama(url: str, seconds: float) -> None:
    import ollama

    ollama.Client(host=url, timeout=seconds).chat(model="m", messages=SAID)


def genai_client(url: str, seconds: float) -> Any:
    from google import genai

    options = genai.types.HttpOptions(base_url=url, timeout=round(seconds * 1000))
    return genai.Client(api_key="k", http_options=options)


def by_genai(url: str, seconds: float) -> None:
    with closing(genai_client(url, seconds)) as client:
        client.models.generate_content(model="m", contents="hi")


def by_genai_async(url: str, seconds: float) -> None:
    async def ask() -> None:
        async with genai_client(url, seconds).aio as client:
            await client.models.generate_content(model="m", contents="hi")

    asyncio.run(ask())


def by_google_api_core(url: str, seconds: float) -> None:
    """As the clients of Google's REST services: requests, and an error from its answer."""
    import requests
    from google.api_core import exceptions

    answer = requests.get(url, timeout=seconds)
    if answer.status_code >= 400:
        raise exceptions.from_http_response(answer)


def by_bedrock(url: str, seconds: float) -> None:
    client = bedrock_client(url, seconds)
    client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}])


def bedrock_client(url: str, seconds: float) -> Any:
    import botocore.session
    from botocore.config import Config

    patience = {"connect_timeout": seconds, "read_timeout": seconds, "retries": {"total_max_attempts": 1}}
    return botocore.session.Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(**patience),
    )


def by_websockets(url: str, seconds: float) -> None:
    from websockets.sync.client import connect

    with connect(url.replace("http", "ws"), open_timeout=seconds) as connection:
        connection.recv(timeout=seconds)


def by_websockets_async(url: str, seconds: float) -> None:
    from websockets.asyncio.client import connect

    async def ask() -> None:
        # By itself it tries again after a 5xx, for ever.
        async for connection in connect(
            url.replace("http", "ws"), open_timeout=seconds, process_exception=lambda error: error
        ):
            await connection.recv()

    asyncio.run(ask())


OF_HTTP: list[Client] = [
    *(by_groq, by_groq_streamed, by_mistral, by_cohere, by_ollama, by_genai, by_genai_async),
    *(by_google_api_core, by_bedrock, by_websockets, by_websockets_async),
]


STREAM = {"content-type": "text/event-stream"}


def as_the_path_says(asked: Asked) -> Answer:
    name = asked.path.split("/")[1]
    if name == "wait":
        return Answer(429, {"Retry-After": "7"}, {"message": "slow down"})
    if name.isdigit():
        return Answer(int(name), body={"error": {"message": name}, "message": name})
    if name == "overloaded":
        return Answer(200, STREAM, b'event: error\ndata: {"error": {"message": "Sorry", "type": "server_error"}}\n\n')
    if name == "gemini":
        return Answer(429, body=GEMINI_WAIT)
    if name == "gemini-key":
        return Answer(400, body=GEMINI_KEY)
    if name == "aws":
        code = asked.path.split("/")[2]
        return Answer(400, {"x-amzn-errortype": code}, {"message": "no"})
    return Answer(fault=name)  # type: ignore[arg-type]


GEMINI_WAIT = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.5s"},
        ],
    }
}
GEMINI_KEY = {
    "error": {
        "code": 400,
        "status": "INVALID_ARGUMENT",
        "message": "API key not valid. Please pass a valid API key.",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
    }
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Service(as_the_path_says) as service:
        yield service.url


@pytest.fixture(scope="module", autouse=True)
def left_open() -> Iterator[None]:
    """What clients leave open is collected here, where nobody looks at it."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def failure(call: Callable[..., object], *args: Any) -> BaseException:
    """What a call raises."""
    try:
        call(*args)
    except Exception as error:
        return error
    raise AssertionError(f"{call} raised nothing")


def verdict(error: BaseException) -> tuple[bool, bool, bool]:
    """Whether it is of infrastructure, whether everybody is to wait, and whether a key was refused."""
    found = infrastructure(error)
    return found is not None, found is not None and is_overload(found), is_refusal(error)


OUTAGE, OVERLOAD, REFUSED, OWN = (True, False, False), (True, True, False), (False, False, True), (False, False, False)
VERDICTS = {
    **dict.fromkeys((400, 404, 422), OWN),
    **dict.fromkeys((401, 403), REFUSED),
    **dict.fromkeys((408, 409, 500, 502, 503, 504, 529), OUTAGE),
    429: OVERLOAD,
}


@pytest.mark.parametrize("client", OF_HTTP)
def test_a_status_tells_whose_failure_it_is(client: Client, url: str) -> None:
    """Wherever the library keeps it."""
    assert {status: verdict(failure(client, f"{url}/{status}", 5)) for status in VERDICTS} == VERDICTS


@pytest.mark.parametrize("client", OF_HTTP)
def test_the_wait_that_a_service_asks_for_is_obeyed(client: Client, url: str) -> None:
    """Wherever the library keeps the headers; ollama's throws them away."""
    found = infrastructure(failure(client, f"{url}/wait", 5))
    assert found is not None
    assert (retry_after(found), may_pass(found)) == (None if client is by_ollama else 7.0, True)


@pytest.mark.parametrize("client", OF_HTTP)
@pytest.mark.parametrize("fault", ["hang", "reset", "nobody"])
def test_a_connection_that_breaks_is_infrastructure(client: Client, fault: str, url: str) -> None:
    """No answer in time, a reset, or nobody there."""
    place = f"http://127.0.0.1:{closed_port()}" if fault == "nobody" else f"{url}/{fault}"
    assert verdict(failure(client, place, 0.2 if fault == "hang" else 5)) == OUTAGE


WITHOUT_A_BODY = (by_websockets, by_websockets_async)
TAKING_HALF = (by_bedrock,)
"""Half an answer is an answer to it."""


@pytest.mark.parametrize("client", [one for one in OF_HTTP if one not in (*WITHOUT_A_BODY, *TAKING_HALF)])
def test_half_an_answer_is_infrastructure(client: Client, url: str) -> None:
    """The connection was closed before the rest came."""
    assert verdict(failure(client, f"{url}/cut", 5)) == OUTAGE


@pytest.mark.parametrize("client", [one for one in OF_HTTP if one not in (*WITHOUT_A_BODY, by_ollama)])
def test_tls_that_cannot_be_agreed_on_is_the_agents_failure(client: Client, url: str) -> None:
    """Though it is an error of a connection; ollama's hides what it was."""
    assert verdict(failure(client, url.replace("http", "https"), 5)) == OWN


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *[(code, OVERLOAD) for code in ("ThrottlingException", "TooManyRequestsException", "SlowDown")],
        *[(code, OVERLOAD) for code in ("ProvisionedThroughputExceededException", "RequestLimitExceeded")],
        *[(code, OUTAGE) for code in ("ServiceUnavailableException", "InternalServerException")],
        *[(code, OUTAGE) for code in ("ModelTimeoutException", "RequestTimeout", "InternalFailure")],
        *[(code, REFUSED) for code in ("UnrecognizedClientException", "AccessDeniedException")],
        *[(code, OWN) for code in ("ValidationException", "ResourceNotFoundException", "ModelErrorException")],
    ],
)
def test_the_words_of_aws_say_more_than_its_status(code: str, expected: Any, url: str) -> None:
    """Which is 400 for many of them."""
    assert verdict(failure(by_bedrock, f"{url}/aws/{code}", 5)) == expected


def test_a_stream_of_aws_that_fails_is_infrastructure() -> None:
    """Its words begin in lower case, and each has the status 400."""
    from botocore.exceptions import EventStreamError

    def broken(code: str) -> BaseException:
        metadata: Any = {"HTTPStatusCode": 400}
        return EventStreamError({"Error": {"Code": code}, "ResponseMetadata": metadata}, "ConverseStream")

    assert verdict(broken("throttlingException")) == OVERLOAD
    assert verdict(broken("modelStreamErrorException")) == OUTAGE
    assert verdict(broken("validationException")) == OWN


def test_a_stream_that_tells_of_an_overload_is_infrastructure(url: str) -> None:
    """The status was 200 long before."""
    assert verdict(failure(by_groq_streamed, f"{url}/overloaded", 5)) == OUTAGE


@pytest.mark.parametrize("client", [by_genai, by_genai_async])
def test_the_details_of_gemini_are_read(client: Client, url: str) -> None:
    """It tells in the body how long to wait, and refuses a key with the status 400."""
    found = infrastructure(failure(client, f"{url}/gemini", 5))
    assert found is not None
    assert retry_after(found) == 38.5
    assert verdict(failure(client, f"{url}/gemini-key", 5)) == REFUSED


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1001, OUTAGE), (1011, OUTAGE), (1012, OUTAGE), (1013, OUTAGE), (1000, OWN), (1003, OWN), (1008, OWN)],
)
def test_a_websocket_is_closed_with_a_code(code: int, expected: Any) -> None:
    """Which tells a service that fails from one that has had enough of what it was sent."""
    from websockets.sync.server import serve

    with serve(lambda connection: connection.close(code), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        error = failure(by_websockets, f"http://127.0.0.1:{server.socket.getsockname()[1]}", 5)
        server.shutdown()
        thread.join()
    assert verdict(error) == expected


@contextmanager
def answering(line: bytes | None) -> Iterator[int]:
    """A port at which every command gets this line, or a reset."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):  # closed
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        if line is None:
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        while line is not None and connection.recv(1000):
                            connection.sendall(line)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (None, OUTAGE),
        (b"-LOADING Redis is loading the dataset in memory\r\n", OUTAGE),
        (b"", OUTAGE),
        (b"-NOAUTH Authentication required.\r\n", OWN),
        (b"-WRONGTYPE Operation against a key\r\n", OWN),
    ],
    ids=["reset", "loading", "silence", "refused", "wrong"],
)
def test_redis(line: bytes | None, expected: Any) -> None:
    """One that is away, loads or is silent is no failure of the agent's; one that refuses is."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with answering(line) as port:
        patience: Any = {"socket_timeout": 0.2 if line == b"" else 5, "retry": Retry(NoBackoff(), 0)}
        client = redis.Redis(port=port, protocol=2, driver_info=None, **patience)
        with closing(client):
            assert verdict(failure(client.get, "a")) == expected


def test_redis_that_is_not_there() -> None:
    """Nobody listens."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with closing(redis.Redis(port=closed_port(), retry=Retry(NoBackoff(), 0))) as client:
        assert verdict(failure(client.get, "a")) == OUTAGE


GRPC = {
    **dict.fromkeys(("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN"), OUTAGE),
    **dict.fromkeys(("UNAUTHENTICATED", "PERMISSION_DENIED"), REFUSED),
    **dict.fromkeys(("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"), OWN),
    "RESOURCE_EXHAUSTED": OVERLOAD,
}


@pytest.fixture
def grpc_port() -> Iterator[int]:
    """A service of gRPC whose methods are the names of codes, with which they end."""
    import grpc

    def end(name: str) -> Any:
        def unary(request: bytes, context: Any) -> bytes:
            context.abort(grpc.StatusCode[name], "told so")
            return b""

        return grpc.unary_unary_rpc_method_handler(unary)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = grpc.method_handlers_generic_handler("s", {name: end(name) for name in GRPC})
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def test_the_codes_of_grpc(grpc_port: int) -> None:
    """Also where google.api_core, the base of Google's clients, makes its own errors of them."""
    import grpc
    from google.api_core import grpc_helpers

    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        calls = {name: channel.unary_unary(f"/s/{name}") for name in GRPC}
        assert {name: verdict(failure(call, b"")) for name, call in calls.items()} == GRPC
        wrapped = {name: grpc_helpers.wrap_errors(call) for name, call in calls.items()}
        told = {name: verdict(failure(call, b"")) for name, call in wrapped.items()}
    assert told == {**GRPC, "UNIMPLEMENTED": OUTAGE}  # told as 501


def test_the_codes_of_grpc_on_a_loop(grpc_port: int) -> None:
    """Whose errors are of another class."""
    import grpc.aio

    async def ask() -> dict[str, BaseException]:
        errors: dict[str, BaseException] = {}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            for name in GRPC:
                try:
                    await channel.unary_unary(f"/s/{name}")(b"")
                except Exception as error:
                    errors[name] = error
        return errors

    assert {name: verdict(error) for name, error in asyncio.run(ask()).items()} == GRPC


def test_a_service_of_grpc_that_is_not_there() -> None:
    """Nobody listens."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{closed_port()}") as channel:
        assert verdict(failure(channel.unary_unary("/s/m"), b"")) == OUTAGE


def test_a_retry_that_is_given_up_is_what_it_was_for() -> None:
    """google.api_core and tenacity end with an error of their own."""
    import tenacity
    from google.api_core import exceptions, retry

    def busy() -> None:
        raise exceptions.ServiceUnavailable("no")

    def wrong() -> None:
        raise exceptions.BadRequest("no")

    always = retry.if_exception_type(exceptions.GoogleAPICallError)
    for call, expected in ((busy, OUTAGE), (wrong, OWN)):
        patient = retry.Retry(predicate=always, initial=0.001, timeout=0.01)(call)
        assert verdict(failure(patient)) == expected
        assert verdict(failure(tenacity.retry(stop=tenacity.stop_after_attempt(2))(call))) == expected


async def asked_by_pydantic_ai(name: str, url: str) -> None:
    """Run an agent on a model that uses this client, and close the client."""
    from pydantic_ai import Agent

    async with AsyncExitStack() as stack:
        model: Any
        if name == "bedrock":
            from pydantic_ai.models.bedrock import BedrockConverseModel
            from pydantic_ai.providers.bedrock import BedrockProvider

            client = stack.enter_context(closing(bedrock_client(url, 5)))
            model = BedrockConverseModel("m", provider=BedrockProvider(bedrock_client=client))
        elif name == "google":
            from pydantic_ai.models.google import GoogleModel
            from pydantic_ai.providers.google import GoogleProvider

            client = stack.enter_context(closing(genai_client(url, 5)))
            await stack.enter_async_context(client.aio)
            model = GoogleModel("m", provider=GoogleProvider(client=client))
        elif name == "groq":
            from groq import AsyncGroq
            from pydantic_ai.models.groq import GroqModel
            from pydantic_ai.providers.groq import GroqProvider

            groq = await stack.enter_async_context(AsyncGroq(api_key="k", base_url=url, max_retries=0))
            model = GroqModel("m", provider=GroqProvider(groq_client=groq))
        else:
            from mistralai.client import Mistral
            from pydantic_ai.models.mistral import MistralModel
            from pydantic_ai.providers.mistral import MistralProvider

            mistral = await stack.enter_async_context(Mistral(api_key="k", server_url=url))
            model = MistralModel("m", provider=MistralProvider(mistral_client=mistral))
        await Agent(model, retries=0).run("hi")


@pytest.mark.parametrize("name", ["bedrock", "google", "groq", "mistral"])
def test_a_framework_over_any_of_them(name: str, url: str) -> None:
    """pydantic-ai raises its own errors, which tell what they come from."""

    def failed(place: str) -> BaseException:
        return failure(asyncio.run, asked_by_pydantic_ai(name, place))

    told = {status: verdict(failed(f"{url}/{status}")) for status in (400, 401, 429, 503)}
    assert told == {status: VERDICTS[status] for status in told}
    found = infrastructure(failed(f"{url}/wait"))
    assert found is not None
    assert retry_after(found) == 7.0
    for place in (f"{url}/reset", f"http://127.0.0.1:{closed_port()}"):
        assert verdict(failed(place)) == OUTAGE
