"""YAML 1.2 in files of inputs: values and characters as they are written, whatever the C parser knows."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fluxloop.exceptions import InputError
from fluxloop.inputs import yaml_stream
from fluxloop.inputs.cases import inputs_from


def values(path: Path) -> list[Any]:
    """The bare inputs of a file."""
    return [case.input for case in inputs_from(path).cases]


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser in C, and the one there is where PyYAML was built without it."""
    if request.param == "Python":
        monkeypatch.setattr(yaml_stream, "_Parser", yaml.BaseLoader)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, text) for text in ("yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRUE")),
        *((text, text) for text in ("2001-12-14", "2001-12-14t21:59:43.10-05:00", "12:30:45", "1:20")),
        *((text, text) for text in ("1_000", "0b11", "0o8", "-0o7", "+0x1F", "0xA_B", "1_0.5", "_1")),
        *((text, text) for text in ("<<", "1e", "1.2.3", ".e1", "+", "=")),
        ("0o14", 12),
        ("014", 14),
        ("08", 8),
        ("0x1F", 31),
        ("+1", 1),
        ("-0", 0),
        ("18446744073709551616", 2**64),
        ("-123456789012345678901234567890", -123456789012345678901234567890),
        (".5", 0.5),
        ("1.", 1.0),
        (".5e1", 5.0),
        ("-2E+05", -200000.0),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("~", None),
        ("Null", None),
        ("TRUE", True),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("!!int '1'", 1),
        ("!!float 1", 1.0),
        ("!!null ''", None),
    ],
)
def test_core_schema(tmp_path: Path, text: str, value: Any) -> None:
    """What YAML 1.2 takes for a number, true, false or null arrives as such, and all else as the text it is."""
    file = tmp_path / "i.yaml"
    file.write_text(f"- input: {text}\n")
    (found,) = values(file)
    assert (type(found), found) == (type(value), value)


def test_not_a_number(tmp_path: Path) -> None:
    """`.nan` arrives as the number that is none."""
    (tmp_path / "i.yaml").write_text("- input: {a: .nan}\n")
    (found,) = values(tmp_path / "i.yaml")
    assert math.isnan(found["a"])


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "character", ["\x7f", "\x80", "\x85", "\x92", "\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff", "\U0010fffd", "😀"]
)
@pytest.mark.parametrize("form", ["{}", "'{}'", '"{}"', "[{}]", "|-\n    {}", ">-\n    {}"])
def test_characters_of_every_style(tmp_path: Path, character: str, form: str) -> None:
    """A character that ends no line in YAML 1.2 arrives as it is, and the lines below keep their numbers."""
    text = f"a{character}b{character}{character}"
    file = tmp_path / "i.yaml"
    file.write_text(f"- input: {form.format(text)}\n- ok\n", encoding="utf-8", newline="")
    lines = file.read_bytes().count(b"\n")
    (_, first), (line, _) = yaml_stream.stream_items(file)
    assert first["input"] in (text, [text])
    assert line == lines


@pytest.mark.usefixtures("parser")
def test_characters_by_the_million(tmp_path: Path) -> None:
    """Wherever the parts end in which a file is read, characters and pairs of escapes stay whole."""
    texts = [f"{'x' * (n % 97)}\x85\u2028\\ud83d\\ude00\U0010fffd" for n in range(3000)]
    (tmp_path / "i.yaml").write_text("".join(f'- "{text}"\n' for text in texts), encoding="utf-8")
    assert values(tmp_path / "i.yaml") == [text.replace("\\ud83d\\ude00", "😀") for text in texts]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud83d\ude00"', "😀"),
        (r'"\\ud83d\\ude00"', r"\ud83d\ude00"),
        (r"'\ud83d\ude00'", r"\ud83d\ude00"),
        (r"\ud83d\ude00", r"\ud83d\ude00"),
        (r'"\\\ud83d\ude00\U0010FFFD\udbff\udffd"', "\\😀\U0010fffd\U0010fffd"),
        (r"'\U0010FFFD'", r"\U0010FFFD"),
        (r'"\u2028\x85\x7F\0"', "\u2028\x85\x7f\0"),
    ],
)
def test_escapes(tmp_path: Path, text: str, value: str) -> None:
    """Two escapes in double quotes are one character, as in JSON, and text in every other style."""
    (tmp_path / "i.yaml").write_text(f"- {text}\n")
    assert values(tmp_path / "i.yaml") == [value]


@pytest.mark.parametrize("text", ["go to http://x.y/z", "a:b", "a::b", "x?y", "[a:b, http://x]"])
def test_colons_in_flow(tmp_path: Path, text: str) -> None:
    """A colon within a word is part of it, within braces and brackets, too."""
    (tmp_path / "i.yaml").write_text(f"- {{input: {text}, persona: a}}\n")
    expected = ["a:b", "http://x"] if text.startswith("[") else text
    assert [(case.input, case.persona) for case in inputs_from(tmp_path / "i.yaml").cases] == [(expected, "a")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    """YAML is UTF-8, or UTF-16 with its mark, and its lines end in any way of three."""
    text = end.join(["inputs:", "- 'ü\u2028'", "- {a: b}", ""])
    (tmp_path / "i.yaml").write_text(text, encoding=encoding, newline="")
    assert list(yaml_stream.stream_items(tmp_path / "i.yaml")) == [(2, "ü\u2028"), (3, {"a": "b"})]


@pytest.mark.parametrize(("levels", "count"), [(5, 100_000), (6, None), (60, None)])
def test_aliases_of_aliases(tmp_path: Path, levels: int, count: int | None) -> None:
    """Few lines that mean more than a million values are refused, before memory or time is spent on them."""
    lists = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, levels + 1))
    (tmp_path / "i.yaml").write_text(f"l0: &l0 lol\n{lists}inputs:\n- *l{levels}\n")
    items = yaml_stream.stream_items(tmp_path / "i.yaml")
    if count is None:
        with pytest.raises(InputError, match=r"i.yaml:7:5: means more than 1,000,000 values once its aliases"):
            list(items)
    else:
        ((_, value),) = items
        assert str(value).count("lol") == count


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON, escaped=st.booleans())
@example(value={"a": [2**64, -(2**70), 1e-320, "\x7f\x80\x85\u2028\ufeff\uffff", "\U0010fffd😀"]}, escaped=False)
@example(value=["\U0010fffd😀\\ud83d\\ude00"], escaped=True)
def test_json_is_the_same_in_every_format(tmp_path: Path, value: Any, escaped: bool) -> None:
    """What a value of JSON is arrives the same from YAML, from JSON lines, and a text from CSV, too."""
    line = json.dumps({"input": value}, ensure_ascii=escaped)
    (tmp_path / "i.yaml").write_text(f"- {line}\n", encoding="utf-8")
    (tmp_path / "i.jsonl").write_text(f"{line}\n", encoding="utf-8")
    found = [values(tmp_path / "i.yaml"), values(tmp_path / "i.jsonl")]
    if isinstance(value, str):
        with (tmp_path / "i.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["input", "id"], [value, "x"]])
        found.append(values(tmp_path / "i.csv"))
    assert [repr(one) for one in found] == [repr([value])] * len(found)
    assert inputs_from(tmp_path / "i.yaml").digest == inputs_from(tmp_path / "i.jsonl").digest
