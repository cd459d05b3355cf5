"""Files of inputs: YAML, JSONL and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment
from fluxloop.exceptions import InputError
from fluxloop.inputs.cases import inputs_from

NOT_UTF8 = "not UTF-8 text; save the file as UTF-8"


def values(inputs: Any) -> list[Any]:
    """The bare inputs."""
    return [case.input for case in inputs.cases]


@pytest.mark.parametrize(
    "text",
    [
        "generated_inputs:\n- hi\n- input: bye\n",
        "inputs:\n- hi\n- input: bye\n",
        "- hi\n- input: bye\n",
        "[hi, {input: bye}]",
        "\ufeff- hi\n- input: bye\n",
        "%YAML 1.2\n---\n- hi\n- input: bye\n...\n",
        "made_by: {model: x, list: [1, {a: b}]}\ninputs: [hi, {input: bye}]\nversion: 1\n",
        "? [odd, key]\n: x\ninputs: [hi, {input: bye}]\n",
    ],
)
def test_yaml_forms(read: Any, text: str) -> None:
    """A list stands alone or under `generated_inputs` or `inputs`; other keys are passed over."""
    inputs = read("i.yaml", text)
    assert [(case.index, case.id, case.input) for case in inputs.cases] == [
        (0, "input_001", "hi"),
        (1, "input_002", "bye"),
    ]


def test_yaml_values(read: Any) -> None:
    """An input is any value of YAML 1.2, and of the tags `!!binary` and `!!set`."""
    text = """\
- input: 0
- input: false
- input: ""
- input:
- input: 1.5
- input: "10"
- input: [1, {a: b}]
- input: {a: {b: [null, true]}}
- input: |
    two
    lines
- input: 2024-01-02
- input: -.inf
- input: !!binary aGk=
- input: !!set {a}
"""
    assert values(read("i.yml", text)) == [
        0,
        False,
        "",
        None,
        1.5,
        "10",
        [1, {"a": "b"}],
        {"a": {"b": [None, True]}},
        "two\nlines\n",
        "2024-01-02",
        float("-inf"),
        b"hi",
        {"a"},
    ]


def test_yaml_anchors(read: Any) -> None:
    """Anchors hold from one item to the next, and from keys above the list; merge keys merge."""
    text = """\
base: &base {persona: novice, input: none}
inputs:
- &first {input: &text hi, persona: p}
- *first
- input: *text
- {<<: *base, input: mine}
- <<: *base
"""
    assert [(case.input, case.persona) for case in read("i.yaml", text).cases] == [
        ("hi", "p"),
        ("hi", "p"),
        ("hi", None),
        ("mine", "novice"),
        ("none", "novice"),
    ]


def test_yaml_anchored_list(read: Any) -> None:
    """The list itself may have an anchor and a tag."""
    assert values(read("i.yaml", "inputs: &all !!seq [a, b]\n")) == ["a", "b"]


def test_yaml_alias_in_itself(read: Any) -> None:
    """A value may hold itself."""
    (value,) = values(read("i.yaml", "- input: &a {x: *a}\n"))
    assert value["x"] is value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "i.yaml:1: the file is empty; expected a list of inputs"),
        ("# nothing\n", "i.yaml:1: the file is empty; expected a list of inputs"),
        ("hello", "i.yaml:1: expected a list of inputs, or generated_inputs: with a list below"),
        ("\nnull", "i.yaml:2: expected a list of inputs, or generated_inputs: with a list below"),
        ("[]", "i.yaml: holds no inputs; it needs at least one"),
        ("generated_inputs: []\n", "i.yaml: holds no inputs; it needs at least one"),
        ("\ngenerated_inputs:\n", "i.yaml:2: generated_inputs: expected a list"),
        ("inputs: {a: 1}\n", "i.yaml:1: inputs: expected a list"),
        ("inputs: *x\n", "i.yaml:1: inputs: expected a list"),
        ("x: 1\ny: [1]\n", "i.yaml:1: no 'generated_inputs' or 'inputs' here; it has x, y"),
        ("{}", "i.yaml:1: no 'generated_inputs' or 'inputs' here; it has no keys"),
        ("inputs: [a]\ngenerated_inputs: [b]\n", "i.yaml:2: 'generated_inputs' beside 'inputs'; expected one list"),
        ("inputs: [a]\ninputs: [b]\n", "i.yaml:2: 'inputs' beside 'inputs'; expected one list of inputs"),
        ("- a\n---\n- b\n", "i.yaml:2: a second document begins here; expected one"),
        ("- a\n- *x\n", "i.yaml:2: the alias *x names nothing above it"),
        ("- a\nb: c\n", "i.yaml:2:1: not valid YAML: did not find expected '-' indicator"),
        ("- 'a\n", "i.yaml:2:1: not valid YAML: found unexpected end of stream"),
        ("- {input: a, input: b}\n", "i.yaml:1:14: the key 'input' stands here a second time"),
        ("- {1: a, true: b}\n", "i.yaml:1:10: the key True stands here a second time"),
        ("- {<<: a}\n", "i.yaml:1:8: <<: expected a mapping, or a list of mappings"),
        ("- ok\n- !mine a\n", "i.yaml:2:3: the tag !mine is not known here; leave it out, or put the text in quotes"),
        ("- !!python/object/apply:os.system [ls]\n", "i.yaml:1:3: the tag !!python/object/apply:os.system is not"),
        ("- !!timestamp 2024-01-02\n", "i.yaml:1:3: the tag !!timestamp is not known here"),
        ("- !!binary x\n", "i.yaml:1:3: !!binary: expected Base64"),
        ("- ok\n- !!bool x\n", "i.yaml:2:3: !!bool: got 'x', which is none"),
        ("- 1e400\n", "i.yaml:1:3: 1e400 is more than a number can be; write .inf, or put it in quotes, as a text"),
        ("- " + "9" * 5000, "i.yaml:1:3: a number of 5000 digits is too long; put it in quotes, as a text"),
        ('- "\\ud83d"\n', "i.yaml:1:6: not valid YAML: found invalid Unicode character escape code"),
        ("- [a, :b]\n", "i.yaml:1:7: not valid YAML: did not find expected node content (while parsing a flow node);"
            " a text that begins with : goes in quotes"),
        ("- ? {a: b}\n  : c\n", "i.yaml:1:5: a key must be a text or a number"),
        ("- input: &a " + "[" * 90 + "]" * 90 + "\n- input: " + "[" * 90 + "*a" + "]" * 90, "i.yaml:1: nested deeper"),
        ("- ok\n- " + "[" * 102 + "]" * 102, "i.yaml:2: nested deeper than 100 levels"),
        ("- " + "{a: " * 50_000, "i.yaml:1: nested deeper than 100 levels"),
        ("x: " + "[" * 102 + "]" * 102, "i.yaml:1: nested deeper than 100 levels"),
        (b"- a\n- \xff\n", f"i.yaml:2: {NOT_UTF8}"),
        ("- a\n- é\n".encode("latin-1"), f"i.yaml:2: {NOT_UTF8}"),
        (b"- a\n- b\x00\n", r"i.yaml:2:4: the character U+0000 must be written as an escape in double quotes: \x00"),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_malformed_yaml(faults: Any, text: str | bytes, message: str) -> None:
    """What is no list of inputs is told in one line with its place."""
    (line,) = faults("i.yaml", text)
    assert line.startswith(message)


@pytest.mark.parametrize("text", ["-\ta: 1\n\tb: 2\n", "inputs:\n\t- a\n", "- a: 1\n\tb: 2\n"])
def test_yaml_tabs(faults: Any, text: str) -> None:
    """A tab is told as what it is."""
    (line,) = faults("i.yaml", text)
    assert "tab" in line


def test_jsonl(read: Any) -> None:
    """A line of JSON is an input, a text or a mapping; blank lines, `\\r\\n` and a byte order mark do no harm."""
    text = '\ufeff"hi"\r\n\n  \n{"input": [1, null], "id": 7}\r\n{"input": "ü\\u2028\u2028"}'
    assert [(case.index, case.id, case.input) for case in read("i.jsonl", text).cases] == [
        (0, "input_001", "hi"),
        (1, "7", [1, None]),
        (2, "input_003", "ü\u2028\u2028"),
    ]


def test_suffixes(read: Any) -> None:
    """The suffix tells the format, in small letters or large."""
    found = [values(read(name, '"hi"\n')) for name in ("i.jsonl", "i.ndjson", "I.JSONL")]
    found += [values(read(name, "- hi\n")) for name in ("i.yaml", "i.YML")]
    found += [values(read(name, "input\nhi\n")) for name in ("i.csv", "i.CSV")]
    assert found == [["hi"]] * 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "i.jsonl: holds no inputs; it needs at least one"),
        ("\ufeff", "i.jsonl: holds no inputs; it needs at least one"),
        ("\n \n", "i.jsonl: holds no inputs; it needs at least one"),
        ('"a"\n{"input": "a"\n', "i.jsonl:2: not valid JSON: Input data was truncated"),
        ("\n{'input': 'a'}\n", "i.jsonl:2: not valid JSON: JSON is malformed: object keys must be strings (byte 1)"),
        ('{"input": "a"}{"input": "b"}\n', "i.jsonl:1: not valid JSON: JSON is malformed: trailing characters"),
        ('{"input": NaN}\n', "i.jsonl:1: not valid JSON: JSON is malformed: invalid character (byte 10)"),
        ('"a"\n"b"\x00\n', "i.jsonl:2: not valid JSON: JSON is malformed: trailing characters"),
        (b'"a"\n"\xff"\n', f"i.jsonl:2: {NOT_UTF8}"),
        ('"a"\n'.encode("utf-16"), f"i.jsonl:1: {NOT_UTF8}"),
        (r'{"input": "\\ud83d \ud83d\ude00 \ud83d"}', r"i.jsonl:1:33: \ud83d is half a character; write both halves"),
        (r'"\ude00\ud83d"', r"i.jsonl:1:2: \ude00 is half a character"),
        ('"a\x1bb"', r"i.jsonl:1:3: the character U+001B must be written as an escape: \u001b"),
        ('"\x0c"', r"i.jsonl:1:2: the character U+000C must be written as an escape: \u000c"),
        ('"a"\x0c\n', "i.jsonl:1: not valid JSON: JSON is malformed: trailing characters (byte 4)"),
        ('{"1e999": 1e400}', "i.jsonl:1:11: 1e400 is more than a number can be; write a text"),
        ('{"input": ' + "[" * 50_000 + "]" * 50_000 + "}", "i.jsonl:1: nested too deeply"),
        ("null\n", "i.jsonl:1: expected a text or a mapping with 'input', got nothing"),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_malformed_jsonl(faults: Any, text: str | bytes, message: str) -> None:
    """A line that is no JSON is told with its number."""
    (line,) = faults("i.jsonl", text)
    assert line.startswith(message)


@pytest.mark.parametrize(("text", "line"), [('"a"\n{"input": "b"},\n', 2), ('[\n"a"\n]\n', 1), ('"a",\n"b"', 1)])
def test_a_json_array_over_lines(faults: Any, text: str, line: int) -> None:
    """An array of JSON is told apart from lines of JSON, with what is expected."""
    (told,) = faults("i.jsonl", text)
    assert told.startswith(f"i.jsonl:{line}: not valid JSON: ")
    assert told.endswith("; expected one value a line, with no comma behind it and no list around all")


def test_csv(read: Any) -> None:
    """Rows below a header are inputs; an empty cell is absent except in `input`, and so is a cell that is not there."""
    text = '\ufeff input ,persona,id,topic\n"a, ""b""",novice,x,\n"two\nlines"\n,expert,,t\n\n'
    assert [(c.id, c.input, c.persona, c.metadata) for c in read("i.csv", text).cases] == [
        ("x", 'a, "b"', "novice", None),
        ("input_002", "two\nlines", None, None),
        ("input_003", "", "expert", {"topic": "t"}),
    ]


@pytest.mark.parametrize(
    ("text", "found", "empty"),
    [
        ("input,expected\nhi,yo\n,\n,\n", [("input_001", "hi")], 2),
        ("input,expected\n,\nhi,yo\n,\nbye,\n", [("input_001", "hi"), ("input_002", "bye")], 2),
        ('input\nhi\n""\n\n', [("input_001", "hi")], 1),
        (",input\n0,hi\n1,\n", [("input_001", "hi")], 1),
        ("input,id\nhi,x\n,y\n", [("x", "hi"), ("y", "")], 0),
        ("input,expected\n ,\n", [("input_001", " ")], 0),
    ],
)
def test_rows_of_a_csv_that_are_none(read: Any, text: str, found: list[Any], empty: int) -> None:
    """A row whose cells are all empty is no input: it is passed over, counted, and takes no id."""
    inputs = read("i.csv", text)
    assert [(case.id, case.input) for case in inputs.cases] == found
    assert inputs.empty_rows == empty


def test_a_repeated_id_below_empty_rows(faults: Any) -> None:
    """Empty rows do not shift what is told of the others."""
    text = "input,id\n,\na,x\n,\nb,x\nc,\n"
    assert faults("i.csv", text) == ["i.csv:5: the id 'x' is that of line 3 already; ids must differ"]


def test_empty_rows_are_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An experiment says how many rows it has skipped, and runs the others."""
    (tmp_path / "i.csv").write_text("input,expected\nhi,yo\n,\n,\n")
    result = Experiment(target=str.upper, inputs=tmp_path / "i.csv", output_dir=tmp_path, progress=True).run()
    assert [trace.output for trace in result] == ["HI"]
    assert capfd.readouterr().err.count("Loaded 1 input (2 empty rows skipped)\n") == 1


def test_rows_that_are_all_none(faults: Any) -> None:
    """A table of empty rows holds no inputs."""
    assert faults("i.csv", "input,a\n,\n,\n") == ["i.csv: holds no inputs; it needs at least one"]


@pytest.mark.parametrize("text", ["input\r\na\r\nb\r\n", "input\ra\rb\r", "input\na\nb", "\n\ninput\na\nb\n"])
def test_csv_line_ends(read: Any, text: str) -> None:
    """Lines end in any way, the last need not, and blank ones before the header do no harm."""
    assert values(read("i.csv", text)) == ["a", "b"]


def test_csv_columns_without_name(read: Any) -> None:
    """Columns without a name, as a data frame's index or trailing commas leave them, are passed over."""
    assert [(c.input, c.metadata) for c in read("i.csv", ",input,,x\n0,a,,1\n1,b,?,\n").cases] == [
        ("a", {"x": "1"}),
        ("b", None),
    ]


def test_csv_keeps_text_whole(read: Any) -> None:
    """A cell may be long, hold NUL, and look like a number: it is text all the same."""
    long = "x" * 200_000
    assert values(read("i.csv", f"input\na\x00b\n10\n{long}\n")) == ["a\x00b", "10", long]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "i.csv: holds no inputs; it needs at least one"),
        ("\n\n", "i.csv: holds no inputs; it needs at least one"),
        ("input\n", "i.csv: holds no inputs; it needs at least one"),
        ("input\n\n\n", "i.csv: holds no inputs; it needs at least one"),
        ("input,a,input,a\n", "i.csv:1: the header names 'a', 'input' twice"),
        (
            'input\n"two\nlines"\n\n\nHello, world\n',
            "i.csv:6: more cells (2) than the header has columns (1); is a comma not quoted?",
        ),
        ('input\n"a\n', "i.csv:2: not valid CSV: unexpected end of data; is a quote not closed?"),
        ('input\n"x\ny"\n"a"b\n', "i.csv:4: not valid CSV: ',' expected after '\"'"),
        ("input;persona\na;b\n", "i.csv:1: expected columns separated by commas, got them separated by ';'"),
        ("\ninput\tpersona\na\tb\n", r"i.csv:2: expected columns separated by commas, got them separated by '\t'"),
        (b"input\na\n\xff\n", f"i.csv:3: {NOT_UTF8}"),
        ("input\na\n".encode("utf-16"), f"i.csv:1: {NOT_UTF8}"),
        (
            "hello there\nhow are you\n",
            "i.csv:2: no 'input'; it has 'hello there'; name the one to use with --map 'input=hello there'",
        ),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_malformed_csv(faults: Any, text: str | bytes, message: str) -> None:
    """A row that is wrong is told with the line it begins on."""
    (line,) = faults("i.csv", text)
    assert line == message


def test_late_bad_bytes_of_a_csv(faults: Any) -> None:
    """The line of a bad byte is right far into a file too."""
    assert faults("i.csv", b"input\n" + b"hello\n" * 50_000 + b"\xe9\n") == [f"i.csv:50002: {NOT_UTF8}"]


def test_csv_leaves_the_module_as_it_was(read: Any) -> None:
    """The limit of the csv module's cells is put back."""
    import csv

    before = csv.field_size_limit()
    read("i.csv", "input\na\n")
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(("name", "found"), [("i.txt", ".txt"), ("i", "no suffix"), ("i.json", ".json")])
def test_unknown_suffix(faults: Any, name: str, found: str) -> None:
    """A file of another format is refused with the list of those that are read."""
    assert faults(name, "a") == [
        f"{name}: expected a file that ends in .yaml, .yml, .jsonl, .ndjson, .csv, got {found}"
    ]


@pytest.mark.parametrize("text", ["What is a lambda?", "hello", "x" * 5000])
def test_a_text_that_is_no_file(text: str) -> None:
    """A text in the place of a file is told with where texts go."""
    with pytest.raises(InputError) as caught:
        inputs_from(Path(text))
    (problem,) = caught.value.problems
    assert problem.where == (text if len(text) < 200 else text[:200] + "…")
    assert problem.message == (
        "no such file; expected a file that ends in .yaml, .yml, .jsonl, .ndjson, .csv, got no suffix; "
        "from Python, give texts in a list, as inputs=['…']"
    )


@pytest.mark.parametrize("suffix", ["yaml", "jsonl", "csv"])
def test_files_that_cannot_be_read(tmp_path: Path, suffix: str) -> None:
    """A file that is missing, a folder or unreadable is told with the system's reason and what to do."""
    folder, missing, unreadable = (tmp_path / f"{name}.{suffix}" for name in ("folder", "missing", "unreadable"))
    folder.mkdir()
    unreadable.symlink_to("/proc/self/mem")
    told = []
    for path in (folder, missing, unreadable):
        with pytest.raises(InputError) as caught:
            inputs_from(path)
        told.append(str(caught.value))
    assert told == [
        f"{folder}: inputs: Is a directory; name another with --inputs",
        f"{missing}: inputs: no such file; name another with --inputs",
        f"{unreadable}: inputs: Input/output error; name another with --inputs",
    ]
