"""Placeholders filled for each run, and the path to the answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.calling.template import fill, mentions, pick
from fluxloop.testing import run_once

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.text(), st.text(), st.text(), st.text())
def test_text_is_put_in_as_it_is(before: str, between: str, value: str, other: str) -> None:
    """Braces in a value are never taken for placeholders of the template."""
    hole, second = "{input}", "{run_id}"
    around = [part.replace("{", "(") for part in (before, between)]
    template = around[0] + hole + around[1] + second + hole + "."
    filled = fill(template, {"input": value, "run_id": other})
    assert filled == around[0] + value + around[1] + other + value + "."


@given(plain)
def test_a_lone_placeholder_becomes_the_value(value: Any) -> None:
    """Of whatever type, and as a copy."""
    filled = fill({"state": ["{input}", ("{input}",)]}, {"input": value})
    assert filled == {"state": [value, [value]]}
    if isinstance(value, list | dict):
        assert filled["state"][0] is not value
        assert filled["state"][0] is not filled["state"][1][0]


@given(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.lists(st.text()))
def test_a_placeholder_in_text_becomes_json(value: Any) -> None:
    """What is not text is told as JSON."""
    assert msgspec.json.decode(fill("{input} ", {"input": value})) == value


@given(plain)
def test_what_has_no_placeholder_is_copied(template: Any) -> None:
    """Other braces, numbers and keys stay; lists and mappings are new."""
    filled = fill(template, {"no such name": 1})
    assert filled == template
    if isinstance(template, list | dict):
        assert filled is not template


def test_other_braces_stay() -> None:
    """JSON, format fields and unknown names are no placeholders."""
    text = '{"a": {input}} {0} {{input}} {other} {'
    assert fill(text, {"input": "x"}) == '{"a": x} {0} {x} {other} {'
    assert fill({"{input}": 1}, {"input": "x"}) == {"{input}": 1}


def test_a_value_full_of_placeholders_reaches_the_agent() -> None:
    """A user who writes `{run_id}` or `{input}` gets it back as it is."""
    template = {"text": "<{input}> {run_id}", "whole": "{input}"}
    output = run_once(lambda text, whole: [text, whole], "{run_id} {input} {", input_template=template).output
    assert output[0].startswith("<{run_id} {input} {> ")
    assert output[1] == "{run_id} {input} {"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{run_id}", True),
        ("a {run_id} b", True),
        ({"a": ["x", {"b": "{run_id}"}]}, True),
        (("{run_id}",), True),
        ({"{run_id}": 1}, False),
        ("run_id", False),
        (7, False),
        (None, False),
    ],
)
def test_mentions_looks_everywhere_a_placeholder_counts(template: Any, expected: bool) -> None:
    """In texts at any depth, not in keys."""
    assert mentions(template, "run_id") is expected


# The answer


VALUE = {
    "messages": [{"content": "first"}, SimpleNamespace(content="last", parts=("a", "b"))],
    "0": "a key of digits",
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("messages.0.content", "first"),
        ("messages.-1.content", "last"),
        ("messages.-2.content", "first"),
        ("messages.1.parts.-1", "b"),
        ("0", "a key of digits"),
        ("none", None),
    ],
)
def test_a_path_goes_through_mappings_lists_and_attributes(path: str, expected: Any) -> None:
    """Keys, positions from both ends and attributes."""
    assert pick(VALUE, path) == expected


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("mesages", "no 'mesages' in the output, which has the keys messages, 0, none"),
        ("messages.2.content", "no '2' in messages, which has 2 items"),
        ("messages.-3", "no '-3' in messages, which has 2 items"),
        ("messages.--1", "no '--1' in messages, which has 2 items"),
        ("messages.²", "no '²' in messages, which has 2 items"),
        ("messages.last", "no 'last' in messages, which has 2 items"),
        ("messages.0.text", "no 'text' in messages.0, which has the keys content"),
        ("messages.1.text", "no 'text' in messages.1, which has the type SimpleNamespace"),
        ("none.text", "no 'text' in none, which has the type NoneType"),
        ("none.0", "no '0' in none, which has the type NoneType"),
    ],
)
def test_a_path_that_is_not_there_says_where_it_ends(path: str, told: str) -> None:
    """The message holds the whole path, the part that is missing and what there is."""
    with pytest.raises(LookupError) as raised:
        pick(VALUE, path)
    assert str(raised.value) == f"runner.output_path: {path}: {told}"


def test_an_empty_mapping_has_no_keys() -> None:
    """The message about an empty output says so."""
    with pytest.raises(LookupError, match="which has no keys"):
        pick({}, "answer")


def test_a_missing_answer_is_an_error_of_its_run() -> None:
    """The run is recorded as failed, with the path in its message."""
    trace = run_once(lambda text: {"reply": text}, "hi", output_path="answer")
    assert trace.status == "error"
    assert trace.error is not None
    assert trace.error.type == "LookupError"
    assert "no 'answer' in the output, which has the keys reply" in trace.error.message


@given(plain, st.lists(st.sampled_from(["a", "b", 0, -1]), max_size=4))
def test_a_path_finds_what_was_put_there(value: Any, steps: list[Any]) -> None:
    """Building a nest around a value and following the same steps gives the value."""
    nest = value
    for step in reversed(steps):
        nest = {step: nest} if isinstance(step, str) else [nest]
    if steps:
        assert pick(nest, ".".join(map(str, steps))) == value
