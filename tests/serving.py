"""An HTTP service on loopback that misbehaves as told."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from attrs import Factory, frozen

Fault = Literal["hang", "reset", "cut"]


@frozen
class Answer:
    """What a request gets: a status with headers and JSON, or no whole answer at all."""

    status: int = 200
    headers: Mapping[str, str] = Factory(dict)
    body: Any = Factory(dict)
    fault: Fault | None = None
    """Hang: nothing comes, until the service closes. Reset: the connection is torn down. Cut: half the body comes."""


@frozen
class Asked:
    """A request, as the service saw it."""

    path: str
    headers: Mapping[str, str]
    arrived: float
    """On `time.monotonic`."""
    body: bytes = b""


class Service:
    """Answer each request as the function given says; each connection has a thread.

    Example:
        >>> import httpx
        >>> with Service(lambda asked: Answer(503)) as service:
        ...     httpx.get(service.url).status_code
        503
    """

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        """Every request, in the order of arrival."""
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Service:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="service", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        for connection in self._connections.copy():
            with suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()  # waits for the threads


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, address: Any) -> None:
        """Nothing: a client that gives up is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        self.server.service._connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.service._connections.discard(self.request)
        super().finish()

    def do_GET(self) -> None:
        arrived = time.monotonic()
        service = self.server.service
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = Asked(self.path, dict(self.headers.items()), arrived, body)
        service.asked.append(asked)
        answer = service.answer(asked)
        if answer.fault == "hang":
            service.closing.wait()
            self.close_connection = True
        elif answer.fault == "reset":
            self._reset()
        else:
            self._send(answer)

    do_POST = do_GET  # noqa: N815  (as the library looks for it)

    def _reset(self) -> None:
        """Close without a word of goodbye: with no time to linger the system sends a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        self.close_connection = True

    def _send(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        if answer.fault == "cut":
            self.send_header("content-length", str(2 * len(body)))
            self.close_connection = True
        else:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def closed_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
