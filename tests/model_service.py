"""An OpenAI-compatible service on loopback that answers as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from tests.serving import Answer, Asked, Service

Chat = Mapping[str, Any]
"""The body of a request for a completion."""

INPUT_TOKENS, OUTPUT_TOKENS = 11, 7


def model_service(reply: Callable[[Chat], Answer | str | Mapping[str, Any]]) -> Service:
    """Return a service whose model replies as the function says.

    Args:
        reply: given a request, a text, the name and arguments of tools to call, or a whole answer.

    Example:
        >>> from openai import OpenAI
        >>> with model_service(lambda chat: "42") as service:
        ...     client = OpenAI(base_url=f"{service.url}/v1", api_key="none")
        ...     asked = [{"role": "user", "content": "?"}]
        ...     client.chat.completions.create(model="m", messages=asked).choices[0].message.content
        '42'
    """
    numbers = count(1)

    def answer(asked: Asked) -> Answer:
        if asked.path != "/v1/chat/completions":
            return Answer(404, body={"error": {"message": f"no such path: {asked.path}"}})
        chat = json.loads(asked.body)
        replied = reply(chat)
        if isinstance(replied, Answer):
            return replied
        calls = [] if isinstance(replied, str) else [(f"call_{next(numbers)}", *call) for call in replied.items()]
        return Answer(body=completion(chat, replied if isinstance(replied, str) else None, calls))

    return Service(answer)


def completion(chat: Chat, text: str | None, calls: list[tuple[str, str, Any]] | None = None) -> dict[str, Any]:
    """Return the body of an answer."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for id, name, arguments in calls
        ]
    choice = {"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message, "logprobs": None}
    total = INPUT_TOKENS + OUTPUT_TOKENS
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": chat["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": total},
    }


def overloaded(seconds: float = 0.01) -> Answer:
    """Return the answer of a service that wants to be left alone for so long."""
    body = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
    return Answer(429, {"retry-after": str(seconds)}, body)
