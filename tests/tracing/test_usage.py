"""Token usage and model, read from the shapes in which model calls answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import LLMResult

import fluxloop
from fluxloop.records import Observation, Usage
from fluxloop.testing import run_once


def record(response: Any, **options: Any) -> Observation:
    """Return the observation of a model call that gave this response."""

    @fluxloop.generation(**options)
    def call() -> Any:
        return response

    trace = run_once(lambda text: call() and None, "hi")
    (observation,) = trace.observations
    return observation


class Record(SimpleNamespace):
    """An object with attributes, as SDKs return."""


OPENAI_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 16},
    },
}
OPENAI_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
    "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 12}, "output_tokens": 87},
}
OPENAI_CHUNKS = [
    {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"delta": {"content": "H"}}], "usage": None},
    {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"delta": {"content": "i"}}], "usage": None},
    {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 2}},
]
OPENAI_EVENTS = [
    {"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
    {"type": "response.output_text.delta", "delta": "Hi"},
    {
        "type": "response.completed",
        "response": {"model": "gpt-5", "usage": {"input_tokens": 8, "output_tokens": 2}},
    },
]
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4",
    "content": [{"type": "text", "text": "Hi"}],
    "usage": {
        "input_tokens": 21,
        "cache_creation_input_tokens": 188,
        "cache_read_input_tokens": 1000,
        "output_tokens": 393,
    },
}
ANTHROPIC_EVENTS = [
    {
        "type": "message_start",
        "message": {
            "model": "claude-sonnet-4",
            "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1},
        },
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
]
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}]}}],
    "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 7, "totalTokenCount": 11},
    "modelVersion": "gemini-2.5-flash",
}
GEMINI_OBJECT = Record(
    usage_metadata=Record(prompt_token_count=4, candidates_token_count=7), model_version="gemini-2.5-flash"
)
LANGCHAIN = AIMessage(
    "Hi",
    usage_metadata={"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
    response_metadata={"model_name": "gpt-4o"},
)
LANGCHAIN_OLD = AIMessage(
    "Hi",
    response_metadata={"token_usage": {"prompt_tokens": 9, "completion_tokens": 3}, "model_name": "gpt-4o"},
)
LANGCHAIN_RESULT = LLMResult(
    generations=[],
    llm_output={"token_usage": {"prompt_tokens": 9, "completion_tokens": 3}, "model_name": "gpt-4o"},
)
LANGCHAIN_CHUNKS = [
    AIMessageChunk("H", usage_metadata={"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}),
    AIMessageChunk("i", usage_metadata={"input_tokens": 0, "output_tokens": 2, "total_tokens": 2}),
    AIMessageChunk("!", usage_metadata={"input_tokens": 0, "output_tokens": 1, "total_tokens": 1}),
    AIMessageChunk("", response_metadata={"model_name": "gpt-4o"}),
]
OLLAMA = {"model": "llama3", "message": {"content": "Hi"}, "prompt_eval_count": 26, "eval_count": 298}

RESPONSES: dict[str, tuple[Any, Usage | None, str | None]] = {
    "OpenAI chat": (OPENAI_CHAT, Usage(19, 10), "gpt-4o-2024-08-06"),
    "OpenAI chat object": (
        Record(model="gpt-4o", usage=Record(prompt_tokens=1, completion_tokens=2), _client=object()),
        Usage(1, 2),
        "gpt-4o",
    ),
    "OpenAI response": (OPENAI_RESPONSE, Usage(36, 87), "gpt-5"),
    "OpenAI chunks": (OPENAI_CHUNKS, Usage(8, 2), "gpt-4o"),
    "OpenAI events": (OPENAI_EVENTS, Usage(8, 2), "gpt-5"),
    "Anthropic": (ANTHROPIC, Usage(1209, 393), "claude-sonnet-4"),
    "Anthropic events": (ANTHROPIC_EVENTS, Usage(30, 15), "claude-sonnet-4"),
    "Gemini": (GEMINI, Usage(4, 7), "gemini-2.5-flash"),
    "Gemini object": (GEMINI_OBJECT, Usage(4, 7), "gemini-2.5-flash"),
    "LangChain": (LANGCHAIN, Usage(9, 3), "gpt-4o"),
    "LangChain, older": (LANGCHAIN_OLD, Usage(9, 3), "gpt-4o"),
    "LangChain result": (LANGCHAIN_RESULT, Usage(9, 3), "gpt-4o"),
    "LangChain chunks": (LANGCHAIN_CHUNKS, Usage(9, 3), "gpt-4o"),
    "Ollama": (OLLAMA, Usage(26, 298), "llama3"),
    "flat mapping": ({"text": "Hi", "input_tokens": 1, "output_tokens": 2, "model": "m"}, Usage(1, 2), "m"),
    "with the text": (("Hi", OPENAI_CHAT), Usage(19, 10), "gpt-4o-2024-08-06"),
    "nothing used": ({"usage": {"input_tokens": 0, "output_tokens": 0}}, Usage(0, 0), None),
    "input only": ({"usage": {"prompt_tokens": 5, "total_tokens": 5}, "model": "embed"}, Usage(5, None), "embed"),
    "output only": ({"usage": {"completion_tokens": 5}}, Usage(None, 5), None),
}
ODD: dict[str, Any] = {
    "text": "Hi",
    "nothing": None,
    "number": 5,
    "empty": {},
    "no mapping": {"usage": "many", "model": ["m"]},
    "boolean": {"usage": {"input_tokens": True, "output_tokens": False}, "model": True},
    "float": {"usage": {"input_tokens": 1.5, "output_tokens": 2.0}, "model": 1},
    "text counts": {"usage": {"input_tokens": "1", "output_tokens": "2"}, "model": None},
    "too large": {"usage": {"input_tokens": 2**70, "output_tokens": None}},
    "deep": [[OPENAI_CHAT]],
}


@pytest.mark.parametrize(("response", "usage", "model"), RESPONSES.values(), ids=list(RESPONSES))
def test_usage_and_model_are_read_from_responses(response: Any, usage: Usage | None, model: str | None) -> None:
    """Every common shape of response tells its tokens and its model, recorded output or not."""
    for options in ({}, {"capture_output": False}):
        observation = record(response, **options)
        assert (observation.usage, observation.model) == (usage, model)
        assert (observation.output is None) == bool(options)


@pytest.mark.parametrize("response", ODD.values(), ids=list(ODD))
def test_odd_figures_are_no_usage(response: Any) -> None:
    """What is no whole number counts nothing, and what is no text names no model."""
    observation = record(response, model="given")
    assert (observation.usage, observation.model) == (None, "given")


def test_the_model_a_response_tells_goes_before_the_one_given() -> None:
    """`model=` stands only where the response is silent, also while the call runs or after it failed."""

    @fluxloop.generation("ask", model="given")
    def fail() -> None:
        raise ValueError

    def agent(text: str) -> None:
        with pytest.raises(ValueError, match=r"^$"):
            fail()

    assert record(OPENAI_RESPONSE, model="given").model == "gpt-5"
    (observation,) = run_once(agent, "hi").observations
    assert (observation.name, observation.model) == ("ask", "given")


@pytest.mark.parametrize("name", ["OpenAI chunks", "OpenAI events", "Anthropic events", "LangChain chunks"])
def test_streams_tell_usage_and_model(name: str) -> None:
    """A generator or async generator of chunks is read like the list of them."""
    chunks, usage, model = RESPONSES[name]

    @fluxloop.generation
    def stream() -> Iterator[Any]:
        yield from chunks

    @fluxloop.generation
    async def stream_async() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    async def agent(text: str) -> None:
        assert list(stream()) == chunks
        assert [chunk async for chunk in stream_async()] == chunks

    trace = run_once(agent, "hi")
    assert trace.error is None
    assert [(o.usage, o.model) for o in trace.observations] == [(usage, model)] * 2


def test_the_usage_of_a_run_is_the_sum_of_its_calls() -> None:
    """A trace adds up what its model calls tell; other calls' figures do not count."""
    call = fluxloop.generation(lambda response: response)
    other = fluxloop.tool(lambda response: response)

    def agent(text: str) -> None:
        call(OPENAI_CHAT)
        call("no usage")
        call({"usage": {"completion_tokens": 5}})
        other(OPENAI_CHAT)

    assert run_once(agent, "hi").usage == Usage(19, 15)
