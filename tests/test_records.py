"""Records and their lines."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.clock import milliseconds, timestamp
from fluxloop.records import (
    Case,
    ErrorSummary,
    Observation,
    ObservedError,
    RunError,
    Trace,
    TraceSummary,
    Usage,
)
from fluxloop.store.codec import decode_trace, decode_trace_summary, encode
from fluxloop.tracing.capture import capture

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.frozensets(st.integers())
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)
captured = anything.map(capture)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(0, 1e9)
usages = st.none() | st.builds(Usage, st.none() | st.integers(0, 2**40), st.none() | st.integers(0, 2**40))
mappings = st.none() | st.dictionaries(texts, captured, max_size=3)
errors = st.builds(RunError, st.sampled_from(["agent", "infrastructure", "timeout"]), texts, texts, st.none() | texts)
observations = st.builds(
    Observation,
    id=texts,
    trace_id=texts,
    parent_id=st.none() | texts,
    attempt=st.integers(1, 9),
    type=st.sampled_from(["agent", "tool", "generation", "span", "event"]),
    name=texts,
    start_time=texts,
    end_time=st.none() | texts,
    duration_ms=st.none() | numbers,
    input=captured,
    output=captured,
    error=st.none() | st.builds(ObservedError, texts, texts),
    model=st.none() | texts,
    usage=usages,
    metadata=captured,
)
traces = st.builds(
    Trace,
    trace_id=texts,
    input_id=texts,
    input_index=st.integers(0, 50),
    iteration=st.integers(0, 9),
    persona=st.none() | texts,
    input=captured,
    output=captured,
    status=st.sampled_from(["ok", "error", "timeout", "crashed"]),
    passed=st.booleans(),
    error=st.none() | errors,
    duration_ms=numbers,
    start_time=texts,
    attempts=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    observation_count=st.integers(0, 9),
    usage=usages,
    end_time=texts,
    total_ms=numbers,
    metadata=mappings,
    expected=captured,
    errors=st.lists(errors, max_size=2).map(tuple),
    stdout=st.none() | texts,
    stderr=st.none() | texts,
    observations=st.lists(observations, max_size=2).map(tuple),
)


@given(traces)
def test_a_trace_survives_its_line(trace: Trace) -> None:
    """Encoded and decoded it is equal, and so is its short form; a line has no line break."""
    line = encode(trace)
    assert decode_trace(line) == trace
    assert decode_trace_summary(encode(trace.summary())) == trace.summary()
    assert b"\n" not in line


@given(traces)
def test_every_key_is_always_there(trace: Trace) -> None:
    """`null` when empty, in the order of the record."""
    assert list(msgspec.json.decode(encode(trace))) == [field.name for field in attrs.fields(Trace)]
    assert list(msgspec.json.decode(encode(trace.summary()))) == [field.name for field in attrs.fields(TraceSummary)]


@given(errors)
def test_the_short_form_of_an_error_has_no_traceback(error: RunError) -> None:
    """It keeps kind, type and message."""
    assert error.summary() == ErrorSummary(error.kind, error.type, error.message)


def test_a_source_is_text() -> None:
    """Whatever an entry gave as `source_id`, statistics get a text, or None."""

    def source(metadata: dict[str, Any] | None) -> str | None:
        return Case(0, "a", 1, metadata=metadata).source_id

    assert [source(m) for m in (None, {}, {"source_id": None}, {"source_id": 7}, {"source_id": "s"})] == [
        None,
        None,
        None,
        "7",
        "s",
    ]


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_times_are_iso_with_microseconds(seconds: int, rest: int) -> None:
    """UTC with Z, as Python's own datetime reads and writes it."""
    text = timestamp(seconds * 1_000_000_000 + rest)
    expected = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    assert text == expected.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert datetime.fromisoformat(text) == expected


def test_milliseconds_keep_microseconds() -> None:
    """What is finer is cut off."""
    assert milliseconds(1_234_567) == 1.234
    assert timestamp(time.time_ns()).endswith("Z")
