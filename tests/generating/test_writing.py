"""Files of inputs, and what they are read back as."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxloop.exceptions import GenerationError, OutputError
from fluxloop.generating import generate
from fluxloop.generating.writing import write_entries
from fluxloop.inputs.cases import inputs_from

HOSTILE = [
    "two\nlines\r\nand\rmore\n",
    "nul \0 and \x1b[31mred\x1b[0m and \x7f \x80\x85\x9f",
    "\u2028line\u2029paragraph \ufeffmark \ufffe\uffff",
    "\u202eright to left\u202c שלום مرحبا",
    "🎉👩‍👩‍👧 𝒳",
    "- a: [b, {c: &d *e !f |g >h 'i \"j %k @l `m #n",
    "---\n...\n",
    "'''\"\"\"\\\\",
    "null",
    "0x10",
    "",
    " ",
    "<script>alert(1)</script> | [x](y) ```",
    "x" * 1_000_000,
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def entry(id: str, input: Any) -> dict[str, Any]:
    return {"id": id, "input": input, "persona": None, "source_id": id}


def read(path: Path) -> list[Any]:
    return [case.input for case in inputs_from(path).cases]


@pytest.mark.parametrize("suffix", [".yaml", ".jsonl"])
def test_hostile_texts_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    """Whatever a text holds, alone or inside another value, the reader of inputs reads it."""
    path = tmp_path / f"inputs{suffix}"
    inputs = [value for text in HOSTILE for value in (text, {"text": text, "list": [text]})]
    write_entries(path, (entry(str(n), value) for n, value in enumerate(inputs)), overwrite=False, remark="of a test")
    assert read(path) == inputs


def test_yaml_is_what_a_person_would_write(tmp_path: Path) -> None:
    """A key a line, quoted texts, and where it comes from at the top."""
    write_entries(tmp_path / "a.yaml", [entry("a", {"text": "hi", "n": [1]})], overwrite=False, remark="of a test")
    assert (tmp_path / "a.yaml").read_text() == (
        '# of a test\ngenerated_inputs:\n  - id: "a"\n    input: {"text": "hi", "n": [1]}\n'
        '    persona: null\n    source_id: "a"\n'
    )


@settings(deadline=None)
@given(st.lists(JSON, min_size=1, max_size=4), st.sampled_from([".yaml", ".jsonl"]))
def test_any_value_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, inputs: list[Any], suffix: str
) -> None:
    """Numbers stay numbers, and texts that look like numbers texts."""
    path = tmp_path_factory.mktemp("values") / f"inputs{suffix}"
    write_entries(path, (entry(str(n), value) for n, value in enumerate(inputs)), overwrite=False, remark="of a test")
    assert read(path) == inputs
    assert [type(value) for value in read(path)] == [type(value) for value in inputs]


def test_hostile_base_inputs_are_varied_like_any_other(tmp_path: Path) -> None:
    """Both formats read back as the same inputs, the base inputs among them as they were."""
    config = {"base_inputs": HOSTILE, "personas": [{"name": HOSTILE[3]}]}
    found = [read(generate(config, output=tmp_path / f"a{suffix}", limit=80).path) for suffix in (".yaml", ".jsonl")]
    assert found[0] == found[1]
    assert found[0][: len(HOSTILE)] == HOSTILE
    assert len(set(found[0])) == 80


def test_a_key_too_long_for_yaml_is_told(tmp_path: Path) -> None:
    """And leaves no file; JSONL takes it."""
    inputs = [entry("a", {"k" * 2000: 1})]
    with pytest.raises(OutputError, match="too long for YAML"):
        write_entries(tmp_path / "a.yaml", inputs, overwrite=False, remark="")
    assert list(tmp_path.iterdir()) == []
    write_entries(tmp_path / "a.jsonl", inputs, overwrite=False, remark="")
    assert read(tmp_path / "a.jsonl") == [{"k" * 2000: 1}]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Nothing is seen of one whose entries break off, or that has none; what was there stays."""
    path = tmp_path / "new" / "a.yaml"

    def broken() -> Any:
        yield entry("a", "hi")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_entries(path, broken(), overwrite=False, remark="")
    assert write_entries(path, [], overwrite=False, remark="") == 0
    assert list(path.parent.iterdir()) == []
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_entries(path, broken(), overwrite=True, remark="")
    assert (path.read_text(), list(path.parent.iterdir())) == ("old", [path])


def test_a_file_that_comes_to_be_there_meanwhile_stays(tmp_path: Path) -> None:
    """Without overwriting, nobody's work is lost to a race."""
    path = tmp_path / "a.jsonl"

    def late() -> Any:
        yield entry("a", "hi")
        path.write_text("another's")

    with pytest.raises(OutputError, match="has come to be there meanwhile"):
        write_entries(path, late(), overwrite=False, remark="")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("another's", [path])


def test_overwriting_goes_through_a_link(tmp_path: Path) -> None:
    """The link stays one, and the file it names is replaced."""
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a.jsonl", tmp_path / "a.jsonl"
    target.write_text("old")
    link.symlink_to(target)
    write_entries(link, [entry("a", "hi")], overwrite=True, remark="")
    assert link.is_symlink()
    assert read(target) == ["hi"]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """Not those of a temporary one."""
    path, other = tmp_path / "a.jsonl", tmp_path / "other"
    write_entries(path, [entry("a", "hi")], overwrite=False, remark="")
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With its name and what the system says."""
    (tmp_path / "folder").write_text("is a file")
    with pytest.raises(GenerationError, match=f"a.jsonl: cannot be written: {os.strerror(errno.EEXIST)}"):
        write_entries(tmp_path / "folder" / "a.jsonl", [entry("a", "hi")], overwrite=False, remark="")
