"""A small order desk: a chat service on the standard library, as it might run in production.

Its handler takes a nested payload and a callback through which it answers, and is recorded when
`FLUXLOOP_RECORD_ARGS=true` and `FLUXLOOP_RECORDING_FILE` say so. Start it with `python server.py 8765`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fluxloop

ORDERS = {"A-17": "shipped on Monday", "B-42": "waiting for a part"}


class UnknownOrderError(Exception):
    """The shop has no such order."""


@fluxloop.tool()
def order_status(number: str) -> str:
    """Look an order up."""
    if number not in ORDERS:
        raise UnknownOrderError(f"there is no order {number}")
    return ORDERS[number]


@fluxloop.record()
@fluxloop.agent()
def handle(data: dict[str, Any], send: Callable[[str], None]) -> None:
    """Answer a message by whatever `send` is; several answers to one message are fine."""
    customer = data["customer"]
    send(f"Hello {customer['name']}!")
    numbers = re.findall(r"\b[A-Z]-\d+\b", data["message"]["content"])
    for number in numbers:
        send(f"Order {number}: {order_status(number)}.")
    if not numbers:
        send("Which order is it about? Its number looks like A-17.")


class Desk(BaseHTTPRequestHandler):
    """POST /chat with the payload as JSON; the answers come back as a list."""

    def do_POST(self) -> None:
        """Hand the payload to the handler, as any framework would."""
        answers: list[str] = []
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            handle(payload, send=answers.append)
            status, body = 200, {"answers": answers}
        except UnknownOrderError as error:
            status, body = 404, {"answers": answers, "error": str(error)}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the screen for what matters."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8765), Desk)
    print(f"listening on http://127.0.0.1:{server.server_port}/chat", flush=True)
    server.serve_forever()
