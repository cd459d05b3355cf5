"""Token usage and model, read from the shapes in which model calls answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import LLMResult

import fluxloop
from fluxloop.records import Observation, Usage
from fluxloop.testing import run_once
from fluxloop.tracing.usage import find_usage

pytestmark = pytest.mark.clients
cohere = pytest.importorskip("cohere")
groq = pytest.importorskip("groq.types.chat")
mistralai = pytest.importorskip("mistralai.client.models")
gemini = pytest.importorskip("google.genai.types")


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
    "fraction": {"usage": {"input_tokens": 1.5, "output_tokens": 1e300}, "model": 1},
    "no number": {"usage": {"input_tokens": float("nan"), "output_tokens": float("inf")}},
    "negative": {"usage": {"input_tokens": -1, "output_tokens": -2.0}},
    "only parts": {"usage": {"cache_read_input_tokens": 5, "reasoning_tokens": 3, "total_tokens": 8}},
    "token texts": {"x_groq": {"debug": {"input_tokens": ["H", "i"]}}},
    "text counts": {"usage": {"input_tokens": "1", "output_tokens": "2"}, "model": None},
    "too large": {"usage": {"input_tokens": 2**70, "output_tokens": 2**62}},
    "odd names": {"id": [1], "type": ["message"], "object": {}, "usage": {"tokens": 3, "billed_units": []}},
    "deep": [[OPENAI_CHAT]],
}


@pytest.mark.parametrize(("response", "usage", "model"), RESPONSES.values(), ids=list(RESPONSES))
def test_usage_and_model_are_read_from_responses(response: Any, usage: Usage | None, model: str | None) -> None:
    """Every common shape of response tells its tokens and its model, recorded output or not."""
    for options in ({}, {"capture_output": False}):
        observation = record(response, **options)
        assert (observation.usage, observation.model) == (usage, model)
        assert (observation.output is None) == bool(options)


PLAIN: dict[str, tuple[str, dict[str, Any], Usage]] = {
    # How genai-prices calls the service and its way of answering; the answer; what it says and we say.
    "OpenAI chat": ("openai chat", OPENAI_CHAT, Usage(19, 10)),
    "OpenAI responses": ("openai responses", OPENAI_RESPONSE, Usage(36, 87)),
    "OpenAI embeddings": (
        "openai embeddings",
        {"model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        Usage(8, None),
    ),
    "OpenAI reasoning": (
        "openai chat",
        {
            "model": "o3",
            "usage": {
                "prompt_tokens": 30,
                "completion_tokens": 500,
                "total_tokens": 530,
                "completion_tokens_details": {"reasoning_tokens": 448, "audio_tokens": 0},
            },
        },
        Usage(30, 500),
    ),
    "Anthropic": ("anthropic", ANTHROPIC, Usage(1209, 393)),
    "Anthropic by Bedrock": ("aws anthropic", ANTHROPIC, Usage(1209, 393)),
    "Anthropic by Vertex": ("google anthropic", ANTHROPIC, Usage(1209, 393)),
    "Bedrock Converse": (
        "aws",
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
            "stopReason": "end_turn",
            "usage": {
                "inputTokens": 9,
                "outputTokens": 225,
                "totalTokens": 1444,
                "cacheReadInputTokens": 1200,
                "cacheWriteInputTokens": 10,
            },
            "metrics": {"latencyMs": 1200},
        },
        Usage(1219, 225),
    ),
    "Bedrock Converse, without the cache in the total": (
        "aws",
        {"usage": {"inputTokens": 9, "outputTokens": 225, "totalTokens": 234, "cacheReadInputTokens": 1200}},
        Usage(1209, 225),
    ),
    "Gemini": ("google", GEMINI, Usage(4, 7)),
    "Gemini thinking": (
        "google",
        {
            "modelVersion": "gemini-2.5-pro",
            "usageMetadata": {
                "promptTokenCount": 10,
                "cachedContentTokenCount": 6,
                "candidatesTokenCount": 20,
                "thoughtsTokenCount": 500,
                "toolUsePromptTokenCount": 70,
                "totalTokenCount": 600,
            },
        },
        Usage(80, 520),
    ),
    "Gemini, cut off while it thought": (
        "google",
        {"usageMetadata": {"promptTokenCount": 10, "thoughtsTokenCount": 500, "totalTokenCount": 510}},
        Usage(10, 500),
    ),
    "Cohere": (
        "cohere",
        {
            "id": "c14c80c3",
            "finish_reason": "COMPLETE",
            "usage": {
                "billed_units": {"input_tokens": 5.0, "output_tokens": 418.0},
                "tokens": {"input_tokens": 71.0, "output_tokens": 418.0},
            },
        },
        Usage(5, 418),
    ),
    "Cohere, not billed": (
        "cohere tokens",
        {"usage": {"billed_units": None, "tokens": {"input_tokens": 71.0, "output_tokens": 418.0}}},
        Usage(71, 418),
    ),
    "Cohere embeddings": (
        "cohere embeddings",
        {"embeddings": {}, "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 2.0}}},
        Usage(2, None),
    ),
    "Groq": (
        "groq",
        {
            "model": "llama-3.3-70b-versatile",
            "usage": {"queue_time": 0.03, "prompt_tokens": 18, "completion_tokens": 556, "total_time": 0.46},
        },
        Usage(18, 556),
    ),
    "Mistral": (
        "mistral",
        {"model": "mistral-large", "usage": {"prompt_tokens": 16, "completion_tokens": 34, "total_tokens": 50}},
        Usage(16, 34),
    ),
    "DeepSeek": (
        "deepseek chat",
        {
            "model": "deepseek-chat",
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
                "completion_tokens_details": {"reasoning_tokens": 15},
            },
        },
        Usage(100, 20),
    ),
    "xAI": (
        "x-ai chat",
        {
            "model": "grok-4",
            "usage": {
                "prompt_tokens": 10120,
                "completion_tokens": 1499,
                "total_tokens": 14428,
                "prompt_tokens_details": {"cached_tokens": 128},
                "completion_tokens_details": {"reasoning_tokens": 2809},
            },
        },
        Usage(10120, 4308),
    ),
    "xAI responses": (
        "x-ai responses",
        {
            "model": "grok-4",
            "usage": {
                "input_tokens": 32,
                "output_tokens": 103,
                "total_tokens": 135,
                "output_tokens_details": {"reasoning_tokens": 94},
            },
        },
        Usage(32, 103),
    ),
    "Databricks": (
        "databricks chat",
        {
            "model": "databricks-claude",
            "usage": {
                "prompt_tokens": 10000,
                "completion_tokens": 50,
                "total_tokens": 10050,
                "cache_read_input_tokens": 9900,
            },
        },
        Usage(10000, 50),
    ),
    "Perplexity": (
        "perplexity",
        {"model": "sonar", "usage": {"prompt_tokens": 14, "completion_tokens": 70, "total_tokens": 84}},
        Usage(14, 70),
    ),
    "Cloudflare": (
        "cloudflare",
        {
            "result": {"response": "Hi", "model": "llama", "usage": {"prompt_tokens": 20, "completion_tokens": 8}},
            "success": True,
        },
        Usage(20, 8),
    ),
    "MiniMax": (
        "minimax",
        {"model": "MiniMax-M2", "usage": {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 4}},
        Usage(11, 3),
    ),
}
"""Answers that genai-prices reads too, and as we do."""

OTHERS: dict[str, tuple[Any, Usage | None]] = {
    # What genai-prices does not read, or not from this shape; and where we differ, with the reason.
    "LiteLLM, as of Anthropic": (
        {
            "usage": {
                "prompt_tokens": 10_000,
                "completion_tokens": 50,
                "total_tokens": 10_050,
                "cache_read_input_tokens": 9_900,
                "cache_creation_input_tokens": 0,
            }
        },
        Usage(10_000, 50),
    ),
    "a gateway that counts the cache beside the prompt": (
        {"usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 230, "cache_read_input_tokens": 80}},
        Usage(180, 50),
    ),
    "a gateway with empty names beside": (
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "input_tokens": 0,
                "output_tokens": 0,
            }
        },
        Usage(10, 5),
    ),
    # genai-prices adds what is in the cache whatever the total says.
    "Strands, as of OpenAI": (
        {"usage": {"inputTokens": 100, "outputTokens": 10, "totalTokens": 110, "cacheReadInputTokens": 80}},
        Usage(100, 10),
    ),
    # genai-prices adds citations to the output, for their price. They are in no total, and read rather than written.
    "Perplexity's research": (
        {
            "usage": {
                "prompt_tokens": 33,
                "completion_tokens": 7163,
                "total_tokens": 7196,
                "citation_tokens": 20016,
                "reasoning_tokens": 73997,
            }
        },
        Usage(33, 81160),
    ),
    "AI SDK": (
        {"usage": {"inputTokens": 12, "outputTokens": 3, "totalTokens": 15, "cachedInputTokens": 8}},
        Usage(12, 3),
    ),
    "AI SDK, all steps": (
        {
            "usage": {"inputTokens": 12, "outputTokens": 3},
            "totalUsage": {"inputTokens": 30, "outputTokens": 9},
            "response": {"modelId": "m"},
        },
        Usage(30, 9),
    ),
    "AI SDK, older": ({"usage": {"promptTokens": 12, "completionTokens": 3}}, Usage(12, 3)),
    "pydantic-ai usage": (
        {"usage": {"input_tokens": 1209, "cache_read_tokens": 1000, "output_tokens": 4}},
        Usage(1209, 4),
    ),
    "pydantic-ai, older": ({"request_tokens": 51, "response_tokens": 4, "total_tokens": 55}, Usage(51, 4)),
    "LangChain, cached": (
        AIMessage(
            "Hi",
            usage_metadata={
                "input_tokens": 1209,
                "output_tokens": 4,
                "total_tokens": 1213,
                "input_token_details": {"cache_read": 1000, "cache_creation": 188},
            },
            response_metadata={"usage": ANTHROPIC["usage"], "model_name": "claude"},
        ),
        Usage(1209, 4),
    ),
    "LlamaIndex": ({"text": "Hi", "additional_kwargs": {"prompt_tokens": 3, "completion_tokens": 2}}, Usage(3, 2)),
    "LlamaIndex, raw": ({"message": {"role": "assistant", "blocks": []}, "raw": OPENAI_CHAT}, Usage(19, 10)),
    "OpenTelemetry": (
        {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 3, "gen_ai.usage.cache_read.input_tokens": 80},
        Usage(100, 3),
    ),
    "Gemini live": (
        {"usage_metadata": {"prompt_token_count": 5, "response_token_count": 6, "thoughts_token_count": 7}},
        Usage(5, 13),
    ),
    "Gemini interaction": (
        {
            "usage": {
                "total_input_tokens": 5,
                "total_output_tokens": 6,
                "total_thought_tokens": 7,
                "total_tool_use_tokens": 8,
                "total_cached_tokens": 3,
                "total_tokens": 26,
            }
        },
        Usage(13, 13),
    ),
    "Gemini SDK": (
        gemini.GenerateContentResponse(
            model_version="gemini-2.5-pro",
            usage_metadata=gemini.GenerateContentResponseUsageMetadata(
                prompt_token_count=10, candidates_token_count=20, thoughts_token_count=500, total_token_count=530
            ),
        ),
        Usage(10, 520),
    ),
    "Gemini stream": (
        [
            {"usageMetadata": {"promptTokenCount": 4, "thoughtsTokenCount": 30, "totalTokenCount": 34}},
            {"usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 3, "thoughtsTokenCount": 50}},
            {
                "usageMetadata": {
                    "promptTokenCount": 4,
                    "candidatesTokenCount": 9,
                    "thoughtsTokenCount": 50,
                    "totalTokenCount": 63,
                }
            },
        ],
        Usage(4, 59),
    ),
    "Bedrock stream": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Hi"}, "contentBlockIndex": 0}},
            {
                "metadata": {
                    "usage": {"inputTokens": 9, "outputTokens": 2, "totalTokens": 31, "cacheReadInputTokens": 20},
                    "metrics": {"latencyMs": 300},
                }
            },
        ],
        Usage(29, 2),
    ),
    "Anthropic by Bedrock, streamed": (
        [
            *ANTHROPIC_EVENTS[:-1],
            {
                "type": "message_stop",
                "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 25,
                    "outputTokenCount": 15,
                    "cacheReadInputTokenCount": 5,
                },
            },
        ],
        Usage(30, 15),
    ),
    "Bedrock's Llama": ({"generation": "Hi", "prompt_token_count": 12, "generation_token_count": 3}, Usage(12, 3)),
    "Cohere stream": (
        [
            {"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}},
            cohere.MessageEndV2ChatStreamResponse(
                delta=cohere.ChatMessageEndEventDelta(
                    usage=cohere.Usage(
                        billed_units=cohere.UsageBilledUnits(input_tokens=5.0, output_tokens=3.0),
                        tokens=cohere.UsageTokens(input_tokens=71.0, output_tokens=3.0),
                    )
                )
            ),
        ],
        Usage(5, 3),
    ),
    "Cohere, older": (
        {"text": "Hi", "meta": {"billed_units": {"input_tokens": 5.0, "output_tokens": 3.0}}},
        Usage(5, 3),
    ),
    "Groq stream": (
        [
            groq.ChatCompletionChunk.construct(id="1", model="llama", x_groq={"id": "req_1"}),
            groq.ChatCompletionChunk.construct(
                id="1", model="llama", x_groq={"usage": {"prompt_tokens": 18, "completion_tokens": 5}}
            ),
        ],
        Usage(18, 5),
    ),
    "Mistral stream": (
        [
            mistralai.CompletionEvent(
                data=mistralai.CompletionChunk(
                    id="1",
                    model="mistral-large",
                    choices=[],
                    usage=mistralai.UsageInfo(prompt_tokens=16, completion_tokens=4, total_tokens=20),
                )
            )
        ],
        Usage(16, 4),
    ),
    "Anthropic events that repeat names with nothing in them": (
        [
            ANTHROPIC_EVENTS[0],
            {"type": "message_delta", "usage": {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 15}},
        ],
        Usage(30, 15),
    ),
    "Anthropic events that tell the input at the end": (
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 0, "output_tokens": 0}}},
            {"type": "message_delta", "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 15}},
        ],
        Usage(30, 15),
    ),
    "whole answers": ([OPENAI_CHAT, {**OPENAI_CHAT, "id": "chatcmpl-2"}, ANTHROPIC], Usage(1247, 413)),
    "whole answers without an id": ([AIMessage("a", usage_metadata=LANGCHAIN.usage_metadata)] * 2, Usage(18, 6)),
    "one answer seen twice": ([OPENAI_RESPONSE, OPENAI_RESPONSE], Usage(36, 87)),
    "chunks and their sum": ([OPENAI_CHUNKS[-1], {**OPENAI_CHAT, "usage": OPENAI_CHUNKS[-1]["usage"]}], Usage(8, 2)),
}


@pytest.mark.parametrize(("oracle", "response", "usage"), PLAIN.values(), ids=list(PLAIN))
def test_usage_is_what_genai_prices_reads(oracle: str, response: dict[str, Any], usage: Usage) -> None:
    """A service's answer counts the tokens that the reader of its prices counts, without being told the service."""
    name, _, flavor = oracle.partition(" ")
    provider = get_snapshot().find_provider(None, name, None)
    _, read = provider.extract_usage(response, api_flavor=flavor or "default")
    assert (read.input_tokens, read.output_tokens) == (usage.input_tokens or 0, usage.output_tokens or 0)
    assert record(response).usage == usage


@pytest.mark.parametrize(("response", "usage"), OTHERS.values(), ids=list(OTHERS))
def test_tokens_are_counted_once_and_all(response: Any, usage: Usage | None) -> None:
    """Parts count beside a figure or within it as the service means them, wrapped and streamed alike."""
    assert record(response).usage == usage


COUNTS = st.integers(0, 1000)
NAMES = ("cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_tokens", "cache_read_tokens")


@given(
    st.sampled_from([("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")]),
    st.tuples(COUNTS, COUNTS),
    st.dictionaries(st.sampled_from(NAMES), COUNTS),
    st.booleans(),
)
def test_what_adds_up_to_the_total_is_the_usage(
    names: tuple[str, str], told: tuple[int, int], parts: dict[str, int], beside: bool
) -> None:
    """The total decides where the parts are, as far as they fit; no reading loses or invents tokens."""
    usage = dict(zip(names, told, strict=True)) | parts
    input, output = told
    read = find_usage({"usage": usage})
    assert read is not None
    assert read.input_tokens is not None
    assert read.output_tokens is not None
    assert input <= read.input_tokens <= input + sum(parts.values())
    assert output <= read.output_tokens <= output + sum(parts.values())

    total = read.input_tokens + read.output_tokens
    assert find_usage({"usage": {**usage, "total_tokens": total}}) == read  # a total that agrees changes nothing
    fits = sum(parts.values()) <= min(told)
    if not beside and fits:
        assert find_usage({"usage": {**usage, "total_tokens": input + output}}) == Usage(input, output)


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
