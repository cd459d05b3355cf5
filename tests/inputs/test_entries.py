"""Entries of any source: what they may hold, which are taken, and what is told of those that are wrong."""

from __future__ import annotations

import csv
import enum
import io
import json
from collections import UserDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.exceptions import InputError
from fluxloop.inputs.cases import Inputs, Selection, inputs_from
from fluxloop.records import Case


class Members(enum.Enum):
    """What Python goes through although it is a class."""

    A = "a"


class Record(pydantic.BaseModel):
    """What Python goes through field by field."""

    input: str = "hi"


A_LIST = "give a list of texts, or of mappings with 'input'"


def lines(*entries: Any) -> str:
    """Entries as JSON lines."""
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def told(source: Any, **options: Any) -> list[str]:
    """What is told of entries from Python."""
    with pytest.raises(InputError) as caught:
        inputs_from(source, **options)
    return str(caught.value).splitlines()


def test_fields_of_an_entry(read: Any) -> None:
    """Every field has its place; other keys go into the metadata, where the entry's own metadata goes before them."""
    entry = {"input": "q", "id": 7, "persona": "p", "expected": {"a": 1}, "source_id": 3}
    entry |= {"metadata": {"x": 1, "topic": "mine"}, "topic": "theirs", "level": 2}
    (case,) = read("i.jsonl", lines(entry)).cases
    assert case == Case(0, "7", "q", "p", {"a": 1}, {"topic": "mine", "level": 2, "x": 1, "source_id": "3"})
    assert case.source_id == "3"


def test_bare_entries(read: Any) -> None:
    """A text is an input by itself; nothing is made up beside it."""
    (case,) = read("i.jsonl", lines("hi")).cases
    assert case == Case(0, "input_001", "hi")


@pytest.mark.parametrize("value", [0, False, "", None, 0.0, [], {}])
def test_empty_inputs_are_inputs(read: Any, value: Any) -> None:
    """0, false and an empty text are inputs."""
    (case,) = read("i.jsonl", lines({"input": value})).cases
    assert (type(case.input), case.input) == (type(value), value)


def test_empty_metadata(read: Any) -> None:
    """Fields that are null are as if they were not there."""
    (case,) = read("i.jsonl", lines({"input": "a", "metadata": {}, "persona": None, "id": None})).cases
    assert case == Case(0, "input_001", "a")


def test_default_ids_are_positions(read: Any) -> None:
    """An id that is not given is the position, whatever is selected; beyond 999 it grows."""
    inputs = read("i.jsonl", lines(*range_of(1001)), selection=Selection(ids=("input_1001", "input_002")))
    assert [(case.index, case.id) for case in inputs.cases] == [(1, "input_002"), (1000, "input_1001")]


def range_of(count: int) -> list[str]:
    """So many inputs."""
    return [f"question {number}" for number in range(count)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "expected a text or a mapping with 'input', got 3"),
        (True, "expected a text or a mapping with 'input', got true"),
        (None, "expected a text or a mapping with 'input', got nothing"),
        (["a"], "expected a text or a mapping with 'input', got a list"),
        ({}, "no 'input'; it has no keys"),
        ({"id": "x"}, "no 'input'; it has 'id'"),
        ({"id": "x", "q": 1}, "no 'input'; it has 'id', 'q'; name the one to use with --map input=q"),
        ({"a": 1, "Question": 1}, "no 'input'; it has 'a', 'Question'; name the one to use with --map input=Question"),
        ({"Input": 1}, "no 'input'; it has 'Input'; name the one to use with --map input=Input"),
        ({"a b": 1}, "no 'input'; it has 'a b'; name the one to use with --map 'input=a b'"),
        ({"input": "a", "id": [1]}, "id: expected a text or an integer, got a list"),
        ({"input": "a", "id": True}, "id: expected a text or an integer, got true"),
        ({"input": "a", "id": 1.5}, "id: expected a text or an integer, got 1.5"),
        ({"input": "a", "id": " "}, "id: expected a text or an integer, got ' '"),
        ({"input": "a", "source_id": {}}, "source_id: expected a text or an integer, got a mapping"),
        ({"input": "a", "persona": 3}, "persona: expected a text, got 3"),
        ({"input": "a", "persona": False}, "persona: expected a text, got false"),
        ({"input": "a", "metadata": "x" * 99}, "metadata: expected a mapping, got '" + "x" * 78 + "…"),
        ({"input": "a", "metadata": [1]}, "metadata: expected a mapping, got a list"),
    ],
)
def test_wrong_entries(faults: Any, entry: Any, message: str) -> None:
    """A wrong entry is told with its line, what was expected and what was found."""
    assert faults("i.jsonl", lines("ok", entry)) == [f"i.jsonl:2: {message}"]
    assert told(["ok", entry]) == [f"inputs:2: {message}"]


def test_all_wrong_entries_up_to_a_limit(faults: Any) -> None:
    """Problems are told together, until reading is not worth its while."""
    assert len(faults("i.jsonl", lines(*range(19), "ok"))) == 19
    found = faults("i.jsonl", lines(*range(100)))
    assert found[19:] == ["i.jsonl:20: expected a text or a mapping with 'input', got 19",
                          "i.jsonl: reading stopped after 20 problems"]  # fmt: skip


def test_the_same_mistake_in_many_entries_is_told_once(faults: Any) -> None:
    """At the first line it is in, with how many more there are."""
    found = faults("i.csv", "question\n" + "hi\n" * 500)
    assert len(found) == 1
    assert found[0].startswith("i.csv:2: no 'input'; it has 'question'")
    assert found[0].endswith("(and so for 499 more entries)")


def test_entries_before_a_broken_line(faults: Any) -> None:
    """What was found before the file broke off is told too."""
    assert [line.partition(": ")[0] for line in faults("i.jsonl", lines(3) + "{")] == ["i.jsonl:1", "i.jsonl:2"]


def test_map(read: Any) -> None:
    """`--map` takes a field from another key; what stood in its place is gone, the rest stays."""
    text = "question,input,who,expected,topic\nq1,old,novice,x,t\n,old,,,\n"
    names = {"input": "question", "persona": "who", "expected": "topic"}
    assert list(read("i.csv", text, names=names).cases) == [
        Case(0, "input_001", "q1", "novice", "t"),
        Case(1, "input_002", ""),
    ]


def test_map_one_key_twice(read: Any) -> None:
    """One key may serve for two fields."""
    (case,) = read("i.jsonl", lines({"q": "a"}), names={"input": "q", "expected": "q"}).cases
    assert (case.input, case.expected, case.metadata) == ("a", "a", None)


def test_map_of_texts(read: Any) -> None:
    """A bare text needs no map."""
    (case,) = read("i.jsonl", lines("a"), names={"input": "q"}).cases
    assert case.input == "a"


def test_map_of_what_is_not_there(faults: Any) -> None:
    """A key that is not there is told with those that are."""
    assert faults("i.jsonl", lines({"question": "a", "x": 1}), names={"input": "q"}) == [
        "i.jsonl:1: no 'q', which is to be taken as input; it has 'question', 'x'"
    ]


def named(id: Any) -> dict[str, Any]:
    """An entry of this id."""
    return {"input": "a", "id": id}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("i.jsonl", lines(named("x"), "b", named("x")), "i.jsonl:3: the id 'x' is that of line 1"),
        ("i.jsonl", lines("a", {"input": "b", "id": "input_001"}), "i.jsonl:2: the id 'input_001' is that of line 1"),
        ("i.jsonl", lines(named(1), named("1")), "i.jsonl:2: the id '1' is that of line 1"),
        ("i.yaml", "- {input: a, id: x}\n\n- input: b\n  id: x\n", "i.yaml:3: the id 'x' is that of line 1"),
        ("i.yaml", "[{input: a, id: x}, {input: b, id: x}]", "i.yaml:1: the id 'x' is that of line 1"),
        ("i.csv", 'input,id\n"a\na",x\nb,y\nc,x\n', "i.csv:5: the id 'x' is that of line 2"),
    ],
)  # fmt: skip
def test_duplicate_ids(faults: Any, name: str, text: str, message: str) -> None:
    """Two inputs of one id are told with the lines of both."""
    assert faults(name, text) == [f"{message} already; ids must differ"]


def test_every_duplicate(faults: Any) -> None:
    """Each repetition is told, also of what is not selected."""
    entries = [{"input": "a", "id": id} for id in ("x", "y", "x", "z", "y", "x")]
    found = faults("i.jsonl", lines(*entries), selection=Selection(ids=("z",)))
    assert [line.partition(": ")[0] for line in found] == ["i.jsonl:3", "i.jsonl:5"]
    assert found[0].endswith("the id 'x' is that of line 1 already; ids must differ (and so for 1 more entry)")


ENTRIES = (
    {"input": "a", "persona": "novice"},
    {"input": "b", "persona": "expert"},
    {"input": "c", "persona": "novice"},
    {"input": "d"},
)


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        (Selection(), "abcd"),
        (Selection(limit=2), "ab"),
        (Selection(limit=9), "abcd"),
        (Selection(personas=("novice",)), "ac"),
        (Selection(personas=("novice", "expert")), "abc"),
        (Selection(personas=("novice",), limit=1), "a"),
        (Selection(ids=("input_004", "input_001")), "ad"),
        (Selection(personas=("novice",), ids=("input_003", "input_004")), "c"),
    ],
)
def test_selection(read: Any, selection: Selection, found: str) -> None:
    """Personas and ids choose, the limit counts what they leave, and the file's order stays."""
    for inputs in (read("i.jsonl", lines(*ENTRIES), selection=selection), inputs_from(ENTRIES, selection=selection)):
        assert "".join(case.input for case in inputs.cases) == found
        assert len(inputs.cases) == len(found)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(personas=("x",)), "no input has the persona 'x'; personas here: expert, novice"),
        (Selection(personas=("novice", "x", "y")), "no input has the persona 'x', 'y'; personas here: expert, novice"),
        (
            Selection(ids=("x", "input_001")),
            "no input has the id 'x'; ids here: input_001, input_002, input_003, input_004",
        ),
        (
            Selection(personas=("novice",), ids=("input_002",)),
            "no input has both one of the personas and one of the ids selected",
        ),
    ],
)
def test_selecting_what_is_not_there(faults: Any, selection: Selection, message: str) -> None:
    """A selection of what is not there is told with what there is, even beside one that is."""
    assert faults("i.jsonl", lines(*ENTRIES), selection=selection) == [f"i.jsonl: {message}"]


def test_what_there_is_in_bounds(faults: Any) -> None:
    """A long file does not make a long message."""
    (line,) = faults("i.jsonl", lines(*range_of(500)), selection=Selection(ids=("x",)))
    assert line.endswith("input_019, input_020, …")
    (line,) = faults("i.jsonl", lines("a"), selection=Selection(personas=("x",)))
    assert line.endswith("no input has the persona 'x'; personas here: no input has one")


def test_a_persona_far_down(read: Any) -> None:
    """A persona is found after any number of others."""
    entries = [{"input": "a", "persona": f"p{number}"} for number in range(1500)]
    assert len(read("i.jsonl", lines(*entries), selection=Selection(personas=("p1499",))).cases) == 1


def test_limit_still_reads_all(faults: Any) -> None:
    """Entries beyond the limit are checked too: the file is right or wrong as a whole."""
    assert faults("i.jsonl", lines("a", 3), selection=Selection(limit=1)) != []


def test_check(faults: Any) -> None:
    """What cannot be run is told with its line; what is not selected is not checked."""
    problem = {"check": lambda case: "cannot" if case.input != "a" else None}
    assert faults("i.jsonl", lines("a", "b"), **problem) == ["i.jsonl:2: cannot"]
    assert len(inputs_from(["a", "b"], selection=Selection(limit=1), **problem).cases) == 1


def test_python_entries() -> None:
    """Python gives texts, mappings and cases, in any iterable; an input may be any object and is passed as it is."""
    thing = object()
    case = Case(5, "mine", "c")
    inputs = inputs_from(entry for entry in ("a", {"input": thing, "x": {1, 2}}, case))
    assert [c.id for c in inputs.cases] == ["input_001", "input_002", "mine"]
    second = list(inputs.cases)[1]
    assert second.input is thing
    assert second.metadata == {"x": [1, 2]}


@pytest.mark.parametrize(
    ("source", "got", "way_out"),
    [
        ("hi", "'hi'", "for one input, give ['hi']"),
        ("x" * 99, "a long text", "for one input, give […]"),
        (b"hi", "bytes", "decode it, and give a list"),
        ({"input": "a"}, "a mapping", "for one input, give [{…}]"),
        ({"inputs": ["a"]}, "a mapping", "give what is below 'inputs'"),
        (Case(0, "i", "hi"), "an object of class Case", "for one input, give it in a list"),
        ({"a", "b"}, "a set", "it has no order, by which inputs are numbered: give a list, as sorted(…)"),
        (io.StringIO("a\nb\n"), "an object of class StringIO", "give the path of a YAML, JSONL or CSV file, or a list"),
        *((5, "5", A_LIST), (None, "nothing", A_LIST), (True, "true", A_LIST)),
        *((len, "an object of class builtin_function_or_method", A_LIST), (str, "the class str", A_LIST)),
        *((Members, "the class Members", A_LIST), (Record(), "an object of class Record", A_LIST)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_of_entries(source: Any, got: str, way_out: str) -> None:
    """Nothing is taken for a list of inputs only because Python can go through it; the message says what to give."""
    assert told(source) == [f"inputs: expected a list of entries, got {got}; {way_out}"]


def test_an_object_as_an_entry() -> None:
    """An object is an input, but no entry; the message says how it becomes one."""
    assert told([Members.A]) == [
        "inputs:1: expected a text or a mapping with 'input', got <Members.A: 'a'>; give {\"input\": …} with it"
    ]


def test_an_array_of_texts() -> None:
    """The items of an array are Python's own texts."""
    (case,) = inputs_from(np.array(["hi"])).cases
    assert type(case.input) is str


def test_half_characters_of_python() -> None:
    """Text that no file could hold is kept as near as can be, in ids too."""
    entry = {"input": "\ud800", "id": "\ud800", "persona": "\udfff"}
    first, second = inputs_from([entry, {"input": "a", "id": "\ud801"}]).cases
    assert first.input == "\ud800"
    assert first.id.isascii()
    assert first.persona is not None
    assert first.persona.isascii()
    assert first.id != second.id


@pytest.mark.parametrize("source", [MappingProxyType({"input": "a", "x": 1}), UserDict(input="a", x=1)])
def test_any_mapping(source: Any) -> None:
    """An entry may be any mapping."""
    assert list(inputs_from([source]).cases) == [Case(0, "input_001", "a", metadata={"x": 1})]


def test_no_python_entries() -> None:
    """No inputs is a mistake."""
    assert told([]) == ["inputs: holds no inputs; it needs at least one"]


SAME = [
    ("i.yaml", "- input: a\n  topic: x\n- input: 'b, c'\n  persona: p\n"),
    ("i.jsonl", '{"topic": "x", "input": "a"}\n{"persona": "p", "input": "b, c", "id": null}\n'),
    ("i.csv", 'persona,input,topic\n,a,x\np,"b, c",\n'),
]


def test_equal_digests(read: Any) -> None:
    """The same inputs have one digest, however they are written."""
    digests = {read(name, text).digest for name, text in SAME}
    assert digests == {inputs_from([{"input": "a", "topic": "x"}, {"input": "b, c", "persona": "p"}]).digest}


@pytest.mark.parametrize(
    "entries",
    [
        ["a", "c"],
        ["b", "a"],
        ["a", "b", "c"],
        ["a"],
        ["ab"],
        ["a", {"input": "b", "persona": "p"}],
        ["a", {"input": "b", "id": "x"}],
        ["a", {"input": "b", "expected": "x"}],
        ["a", {"input": "b", "x": "x"}],
    ],
)
def test_different_digests(entries: list[Any]) -> None:
    """Inputs that are changed, reordered, added or taken away have another digest."""
    assert inputs_from(entries).digest != inputs_from(["a", "b"]).digest


def test_digest_of_a_selection() -> None:
    """The digest is of what is selected."""
    assert inputs_from(["a", "b"], selection=Selection(limit=1)).digest == inputs_from(["a"]).digest


@pytest.mark.parametrize(("name", "text"), SAME)
def test_later_edits_do_not_show(read: Any, name: str, text: str) -> None:
    """What was checked is what is streamed, as often as needed, whatever becomes of the file."""
    inputs = read(name, text)
    before = list(inputs.cases)
    Path(name).write_text("edited")
    assert list(inputs.cases) == before
    Path(name).unlink()
    assert list(inputs.cases) == before
    assert len(inputs.cases) == 2


def test_two_passes_at_once(read: Any) -> None:
    """Two passes over the inputs do not disturb each other."""
    cases = read("i.jsonl", lines("a", "b")).cases
    assert [(one.input, other.input) for one in cases for other in cases] == [
        ("a", "a"),
        ("a", "b"),
        ("b", "a"),
        ("b", "b"),
    ]


def test_the_file_of_the_spill_goes(read: Any) -> None:
    """What was put on disk for the inputs has no name, and is closed with them."""
    inputs = read("i.jsonl", lines("a"))
    file = inputs.cases._file
    assert not isinstance(file.name, str)
    del inputs
    assert file.closed


def test_passes_do_not_disturb_each_other(read: Any) -> None:
    """Two passes over the inputs at once see all of them, also across the chunks they are read in."""
    texts = [f"{number} " + "x" * 5000 for number in range(200)]
    cases = read("i.jsonl", lines(*texts)).cases
    assert [(a.input, b.input) for a, b in zip(cases, cases, strict=True)] == [(t, t) for t in texts]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)
# What may stand in a YAML file without an escape.
printable = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"], exclude_characters="\ufeff"), max_size=15
)


def json_values(texts: Any) -> Any:
    """Any value of JSON with such texts."""
    scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts
    scalars |= st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    )


def json_entries(texts: Any) -> Any:
    """Entries with such texts."""
    values = json_values(texts)
    optional = {"persona": texts, "expected": values, "source_id": st.integers(), "other": values}
    optional["metadata"] = st.dictionaries(texts, values, max_size=2)
    return st.lists(st.fixed_dictionaries({"input": values}, optional=optional), min_size=1, max_size=4)


def via(tmp: Path, name: str, content: str) -> Inputs:
    """Inputs of a file with this content."""
    path = tmp / name
    path.write_bytes(content.encode())
    return inputs_from(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    return tmp_path_factory.mktemp("inputs")


@given(listed=json_entries(texts))
def test_any_entries_through_jsonl(folder: Path, listed: list[dict[str, Any]]) -> None:
    """Whatever entries JSON lines hold, the cases are those of the same entries in Python."""
    assert same(via(folder, "i.jsonl", lines(*listed)), listed)


@given(listed=json_entries(printable))
def test_any_entries_through_yaml(folder: Path, listed: list[dict[str, Any]]) -> None:
    """Whatever entries a YAML list holds, the cases are those of the same entries in Python."""
    text = "generated_inputs:\n" + "".join(f"- {json.dumps(entry, ensure_ascii=False)}\n" for entry in listed)
    assert same(via(folder, "i.yaml", text), listed)


ROWS = st.lists(st.fixed_dictionaries({"input": texts, "persona": texts, "topic": texts}), min_size=1, max_size=4)


@given(rows=ROWS.filter(lambda rows: any(any(row.values()) for row in rows)))
def test_any_rows_through_csv(folder: Path, rows: list[dict[str, str]]) -> None:
    """Whatever cells a CSV file holds, the cases are those of the same texts in Python, empty ones left out.

    A row without a cell that is not empty is no row at all.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["input", "persona", "topic"])
    writer.writeheader()
    writer.writerows(rows)
    found = via(folder, "i.csv", text.getvalue())
    there = [row for row in rows if any(row.values())]
    assert same(found, [{key: cell for key, cell in row.items() if cell or key == "input"} for row in there])
    assert found.empty_rows == len(rows) - len(there)


def same(inputs: Inputs, listed: list[dict[str, Any]]) -> bool:
    """Whether the cases are those of the entries, and the digest as well."""
    expected = inputs_from(listed)
    plain = msgspec.json.decode(msgspec.json.encode(list(expected.cases)), type=list[Case])
    return list(inputs.cases) == plain and inputs.digest == expected.digest
