"""Model and token usage, read from what a model call returned."""

from __future__ import annotations

from typing import Any

from fluxloop.records import Usage

# OpenAI (chat, responses), Anthropic, LangChain, Gemini, Ollama, in this order.
_USAGE_KEYS = ("usage", "usage_metadata", "token_usage", "usageMetadata")
_INPUT_KEYS = ("input_tokens", "prompt_tokens", "prompt_token_count", "promptTokenCount", "prompt_eval_count")
_OUTPUT_KEYS = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "candidatesTokenCount",
    "eval_count",
)
# Anthropic counts cached tokens beside `input_tokens`; OpenTelemetry's GenAI conventions
# (gen_ai.usage.input_tokens) and OpenAI count them within.
_CACHE_KEYS = ("cache_creation_input_tokens", "cache_read_input_tokens")
_MODEL_KEYS = ("model", "model_name", "model_version", "modelVersion")
_NESTED_KEYS = ("message", "response", "response_metadata", "llm_output")


def find_usage(output: Any) -> Usage | None:
    """Return the token usage a captured response tells, or None.

    Args:
        output: plain data, as `capture` gives it: one response, or a list of streamed chunks,
            of which the last figures count (LangChain's are added up, as LangChain does).
    """
    tokens: tuple[int | None, int | None] = (None, None)
    for part in _parts(output):
        found = _tokens(part)
        add = part.get("type") == "AIMessageChunk"
        tokens = (_then(tokens[0], found[0], add), _then(tokens[1], found[1], add))
    return None if tokens == (None, None) else Usage(*tokens)


def _then(so_far: int | None, found: int | None, add: bool) -> int | None:
    if so_far is None or found is None:
        return so_far if found is None else found
    return so_far + found if add else found


def find_model(output: Any) -> str | None:
    """Return the model's name a captured response tells, or None."""
    for part in _parts(output):
        for key in _MODEL_KEYS:
            if isinstance(name := part.get(key), str):
                return name
    return None


def _parts(output: Any) -> list[dict[str, Any]]:
    responses = output if isinstance(output, list) else [output]
    parts = []
    for response in responses:
        if isinstance(response, dict):
            parts.append(response)
            parts.extend(response[key] for key in _NESTED_KEYS if isinstance(response.get(key), dict))
    return parts


def _tokens(part: dict[str, Any]) -> tuple[int | None, int | None]:
    for key in _USAGE_KEYS:
        if isinstance(usage := part.get(key), dict):
            return _count(usage, _INPUT_KEYS, _CACHE_KEYS), _count(usage, _OUTPUT_KEYS)
    return _count(part, _INPUT_KEYS), _count(part, _OUTPUT_KEYS)


def _count(usage: dict[str, Any], keys: tuple[str, ...], beside: tuple[str, ...] = ()) -> int | None:
    for key in keys:
        if (count := _whole(usage.get(key))) is not None:
            return count + sum(_whole(usage.get(other)) or 0 for other in beside)
    return None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
