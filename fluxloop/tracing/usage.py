"""Model and token usage, read from what a model call returned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from attrs import frozen

from fluxloop.records import Usage

MAX_TOKENS = 10**12
"""A larger figure counts something else than the tokens of a call."""


@frozen(kw_only=True)
class _Format:
    """The names under which a family of services tells its tokens.

    They are written in snake case and found in camel case too. Some services count a part of the
    tokens, such as cached ones, within the figure it belongs to, others beside it. Where the total
    tells which, it is believed; where it does not, `beside` and `within` say what is usual.
    """

    input: str
    output: str
    total: str = "total_tokens"
    beside_input: tuple[str, ...] = ()
    beside_output: tuple[str, ...] = ()
    within_input: tuple[str, ...] = ()
    within_output: tuple[str, ...] = ()

    def parts(self) -> Iterator[tuple[int, str, bool]]:
        """Yield each part: 0 for input and 1 for output, its name, and whether it is usually beside."""
        for side, names, beside in (
            (0, self.beside_input, True),
            (0, self.within_input, False),
            (1, self.beside_output, True),
            (1, self.within_output, False),
        ):
            for name in names:
                yield side, name, beside

    def read(self, figures: dict[str, int]) -> tuple[int | None, int | None]:
        """Return the input and output tokens that the figures tell in this format."""
        told = [figures.get(self.input), figures.get(self.output)]
        if told == [None, None]:
            return None, None
        parts = [(side, figures[name], beside) for side, name, beside in self.parts() if figures.get(name)]
        if parts:
            total = figures.get(self.total)
            usual = tuple(beside for _, _, beside in parts)
            readings = sorted(product((True, False), repeat=len(parts)), key=lambda besides: _differ(besides, usual))
            # A part is not larger than its whole.
            possible = [sums for besides in readings if (sums := _sums(told, parts, besides)) is not None]
            sums = next((sums for sums in possible if sums[0] + sums[1] == total), possible[0])
            with_parts = {side for side, _, _ in parts}
            told = [sums[side] if side in with_parts else told[side] for side in (0, 1)]
        return told[0], told[1]


def _differ(besides: tuple[bool, ...], usual: tuple[bool, ...]) -> int:
    return sum(1 for one, other in zip(besides, usual, strict=True) if one is not other)


def _sums(
    told: list[int | None], parts: list[tuple[int, int, bool]], besides: tuple[bool, ...]
) -> tuple[int, int] | None:
    """The input and output tokens when these parts are beside and the others within, None when they do not fit."""
    sums, within = [told[0] or 0, told[1] or 0], [0, 0]
    for (side, count, _), beside in zip(parts, besides, strict=True):
        if beside:
            sums[side] += count
        else:
            within[side] += count
    if within[0] > (told[0] or 0) or within[1] > (told[1] or 0):
        return None
    return sums[0], sums[1]


_CACHE = (
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",  # Bedrock's word for creation
)
_CACHE_COUNTS = ("cache_read_input_token_count", "cache_write_input_token_count")

_FORMATS = (
    # OpenAI's chat completions, which most services speak, gateways among them: all is within.
    # xAI counts what it reasons beside the completion, which its total tells.
    _Format(
        input="prompt_tokens",
        output="completion_tokens",
        within_input=(*_CACHE, "cache_read_tokens", "cache_write_tokens"),
        within_output=("reasoning_tokens",),
    ),
    # Anthropic and Bedrock's Converse (in camel case) count the cache beside. OpenAI's responses,
    # LangChain, pydantic-ai and the AI SDK count it within, and call it otherwise.
    _Format(
        input="input_tokens",
        output="output_tokens",
        beside_input=_CACHE,
        within_input=("cache_read_tokens", "cache_write_tokens"),
    ),
    # Gemini, in its REST API (in camel case) and its SDK.
    _Format(
        input="prompt_token_count",
        output="candidates_token_count",
        total="total_token_count",
        beside_input=("tool_use_prompt_token_count",),
        beside_output=("thoughts_token_count",),
    ),
    # Gemini live.
    _Format(
        input="prompt_token_count",
        output="response_token_count",
        total="total_token_count",
        beside_input=("tool_use_prompt_token_count",),
        beside_output=("thoughts_token_count",),
    ),
    # Gemini's interactions.
    _Format(
        input="total_input_tokens",
        output="total_output_tokens",
        beside_input=("total_tool_use_tokens",),
        beside_output=("total_thought_tokens",),
    ),
    # Models of Bedrock that are invoked by themselves, and the metrics at the end of their streams.
    _Format(
        input="input_token_count",
        output="output_token_count",
        total="total_token_count",
        beside_input=_CACHE_COUNTS,
    ),
    _Format(input="prompt_token_count", output="generation_token_count"),
    # Ollama.
    _Format(input="prompt_eval_count", output="eval_count"),
    # pydantic-ai before it spoke of input and output.
    _Format(input="request_tokens", output="response_tokens"),
    # OpenTelemetry's attributes, which count the cache within.
    _Format(input="gen_ai.usage.input_tokens", output="gen_ai.usage.output_tokens"),
    _Format(input="gen_ai.usage.prompt_tokens", output="gen_ai.usage.completion_tokens"),
)

_USAGE_KEYS = (
    "totalUsage",  # the AI SDK's sum over steps, beside the `usage` of the last one
    "usage",
    "usage_metadata",
    "usageMetadata",
    "token_usage",
    "tokenUsage",
    "amazon-bedrock-invocationMetrics",
    # Cohere tells both what it bills and what the model has read, with its own words around the user's.
    "billed_units",
    "tokens",
)
_NESTED_KEYS = (
    "message",
    "response",
    "response_metadata",
    "llm_output",
    "raw",
    "chunk",
    "data",
    "delta",
    "meta",
    "metadata",
    "additional_kwargs",
    "result",
    "x_groq",
    "_state",  # a result of pydantic-ai
)
_DETAIL_KEYS = ("completion_tokens_details", "completionTokensDetails")
_MODEL_KEYS = ("model", "model_name", "model_version", "modelVersion", "model_id", "modelId", "gen_ai.response.model")
_WHOLE_ANSWERS = frozenset({"chat.completion", "text_completion", "response", "message", "ai"})
"""What a whole answer says of its kind, under `object` or `type`: of OpenAI, Anthropic and LangChain."""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


_COUNTED = {name for one in _FORMATS for name in (one.input, one.output, *(name for _, name, _ in one.parts()))}
_NAMES = {spelled: name for name in _COUNTED | {one.total for one in _FORMATS} for spelled in (name, _camel(name))}


def find_usage(output: Any) -> Usage | None:
    """Return the token usage a captured response tells, or None.

    Args:
        output: plain data, as `capture` gives it: one response, or a list. The chunks of a stream
            are one response, of which the last figures count (LangChain's are added up, as
            LangChain does); whole responses are added up.
    """
    told = [(item, figures) for item in _responses(output) if (figures := _figures(item))]
    apart = all(_is_whole(item) for item, _ in told)
    answers: dict[Any, dict[str, int]] = {}
    for number, (item, figures) in enumerate(told):
        answer = answers.setdefault((_id(item) or number) if apart else None, {})
        adds_up = item.get("type") == "AIMessageChunk"
        for name, count in figures.items():
            if adds_up:
                answer[name] = answer.get(name, 0) + count
            elif count or name not in answer:  # the last event of some streams repeats names with nothing in them
                answer[name] = count
    tokens = [_tokens(figures) for figures in answers.values()]
    input, output = (_sum([one[side] for one in tokens]) for side in (0, 1))
    return None if input is None and output is None else Usage(input, output)


def find_model(output: Any) -> str | None:
    """Return the model's name a captured response tells, or None."""
    return next((name for item in _responses(output) if (name := _model(item)) is not None), None)


def _responses(output: Any) -> list[dict[str, Any]]:
    items = output if isinstance(output, list) else [output]
    return [item for item in items if isinstance(item, dict)]


def _is_whole(response: dict[str, Any]) -> bool:
    return any(isinstance(kind := response.get(key), str) and kind in _WHOLE_ANSWERS for key in ("object", "type"))


def _id(response: dict[str, Any]) -> str | None:
    own = response.get("id")
    return own if isinstance(own, str) else None


def _figures(part: dict[str, Any]) -> dict[str, int]:
    """The figures of the outermost usage in a response, by name."""
    for key in _USAGE_KEYS:
        if isinstance(usage := part.get(key), dict) and (figures := _figures(usage)):
            return figures
    figures = _own_figures(part)
    for key in _DETAIL_KEYS:
        if figures and isinstance(details := part.get(key), dict):
            figures = {**_own_figures(details), **figures}
    if not _COUNTED.isdisjoint(figures):
        return figures
    for key in _NESTED_KEYS:
        if isinstance(inner := part.get(key), dict) and (figures := _figures(inner)):
            return figures
    return {}


def _own_figures(part: dict[str, Any]) -> dict[str, int]:
    names = _NAMES
    return {names[key]: count for key, value in part.items() if key in names and (count := _whole(value)) is not None}


def _whole(value: Any) -> int | None:
    if type(value) is float and value.is_integer():  # as Cohere counts
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def _tokens(figures: dict[str, int]) -> tuple[int | None, int | None]:
    """Read the format that tells most; gateways add the names of another one with nothing in them."""
    readings = [(one.read(figures), (one.input in figures) + (one.output in figures)) for one in _FORMATS]
    return max(readings, key=lambda reading: (sum(map(bool, reading[0])), reading[1]))[0]


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _model(part: dict[str, Any]) -> str | None:
    for key in _MODEL_KEYS:
        if isinstance(name := part.get(key), str):
            return name
    inner = (part[key] for key in _NESTED_KEYS if isinstance(part.get(key), dict))
    return next((name for one in inner if (name := _model(one)) is not None), None)
