"""Handlers of a service, to be called with recorded arguments."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fluxloop


def handle(data: dict[str, Any], send: Any = None) -> Any:
    """Return what it was given, and change it afterwards, as a careless agent does."""
    given = {**data}
    data.clear()
    return given


async def handle_later(data: dict[str, Any]) -> Any:
    """The same, while other runs go on."""
    await asyncio.sleep(0)
    return handle(data)


def chat(messages: list[dict[str, str]], *, locale: str = "en") -> Any:
    """Return the contents, and the language."""
    return [*(message["content"] for message in messages), locale]


def ask(question: str, /, style: str, *rest: str, **more: Any) -> Any:
    """Return all there is."""
    return [question, style, *rest, more]


def sends(data: dict[str, Any], send: Any) -> None:
    """Answer twice through a sync callback."""
    send(data["content"])
    with fluxloop.span("second"):
        send("again", to=data.get("user"))


async def awaits(data: dict[str, Any], send: Any) -> None:
    """Answer through an async callback, in each way there is to wait for one."""
    await send(data["content"])
    await asyncio.gather(send("gathered"), asyncio.create_task(send("a task")))
    if inspect.isawaitable(later := send("asked")):
        await later


def from_a_thread(data: dict[str, Any], send: Any) -> None:
    """Answer from a thread that knows nothing of the run."""
    thread = threading.Thread(target=send, args=(data["content"],))
    thread.start()
    thread.join()


def sends_oddly(data: dict[str, Any], send: Any) -> None:
    """Send nothing, two things, and one by name."""
    assert not send()
    send(1, data["content"])
    send(text="by name")


def returns(data: dict[str, Any], send: Any) -> str:
    """Answer both ways."""
    send("sent")
    return "returned"


def both(data: dict[str, Any], send_message_callback: Any, cb: Any) -> Any:
    """What the earlier fluxloop recorded."""
    send_message_callback(f"{data['content']} {data.get('html')}")
    cb("done")


def notified(data: dict[str, Any], tools: dict[str, Any]) -> Any:
    """Use what a callback returns."""
    return tools["notify"](data["content"])


def fake_notify(text: str) -> str:
    """Stand in for a real one."""
    return f"noted {text}"


@contextmanager
def opened() -> Iterator[Any]:
    """Give the function only once it is entered."""
    yield handle


class Service:
    """A handler that is a method."""

    def handle(self, data: dict[str, Any], send: Any = None) -> Any:
        return data["content"]


not_callable = 3
