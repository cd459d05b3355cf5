"""Arguments of the library where a list or a mapping belongs: nothing is taken letter by letter, or key by key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment, MemorySink
from fluxloop.arguments import as_list, as_mapping
from fluxloop.exceptions import ConfigError
from fluxloop.generating import generate
from fluxloop.testing import run_once


def experiment(**options: Any) -> Any:
    return Experiment(target=str.upper, inputs=["a"], **options)


def once(**options: Any) -> Any:
    return run_once(str.upper, "a", **options)


def generated(**options: Any) -> Any:
    return generate({"base_inputs": ["a"]}, **options)


LISTS: list[tuple[Callable[..., Any], str, str]] = [
    (experiment, "personas", "['novice']"),
    (experiment, "input_ids", "['input_001']"),
    (experiment, "settings", "['runner.iterations=3']"),
    (experiment, "sinks", "[MemorySink()]"),
    (once, "inject", "['persona']"),
    (once, "import_places", "[Path('src')]"),
    (generated, "personas", "['novice']"),
    (generated, "strategies", "['base']"),
]


@pytest.mark.parametrize(("call", "name", "example"), LISTS)
def test_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, name: str, example: str) -> None:
    """A text, a mapping, one object or nothing is refused at once, with how a list is written."""
    monkeypatch.chdir(tmp_path)
    for value, got in ((b"a", "bytes"), ({"a": 1}, "a mapping"), (5, "5"), (str, "the class str"), (None, "nothing")):
        with pytest.raises(ConfigError) as caught:
            call(**{name: value})
        assert str(caught.value) == f"{name}: expected a list, as {example}, got {got}"
    with pytest.raises(ConfigError) as caught:
        call(**{name: "novice"})
    assert str(caught.value) == f"{name}: expected a list, as ['novice'], got 'novice'"
    assert list(tmp_path.iterdir()) == []


MAPPINGS: list[tuple[Callable[..., Any], str, str]] = [
    (experiment, "input_map", '{"input": "question"}'),
    (experiment, "overrides", '{"runner.iterations": 3}'),
    (once, "args", '{"model": "small"}'),
    (once, "metadata", '{"level": 2}'),
]


@pytest.mark.parametrize(("call", "name", "example"), MAPPINGS)
def test_mappings(call: Any, name: str, example: str) -> None:
    """A text or a list in the place of a mapping is refused with how one is written."""
    for value, got in (("a", "'a'"), (["a"], "a list"), ({"a"}, "a set"), (5, "5")):
        with pytest.raises(ConfigError) as caught:
            call(**{name: value})
        assert str(caught.value) == f"{name}: expected a mapping, as {example}, got {got}"


def test_one_sink_is_no_list() -> None:
    """A sink by itself is told where it goes."""
    with pytest.raises(ConfigError, match=r"sinks: expected a list, as \[MemorySink\(\)\], got an object of class Mem"):
        experiment(sinks=MemorySink())


def test_a_setting_is_not_shown() -> None:
    """What stands behind an equals sign may be secret."""
    with pytest.raises(ConfigError) as caught:
        experiment(settings="runner.args.key=0815")
    assert str(caught.value) == "settings: expected a list, as ['runner.iterations=3'], got a text"


@pytest.mark.parametrize("value", [["a"], ("a",), {"a": 1}.keys(), iter(["a"])], ids=lambda value: type(value).__name__)
def test_what_is_a_list(value: Any) -> None:
    """Any other iterable is taken."""
    assert as_list("personas", value, "[…]") == ["a"]
    assert as_mapping("overrides", {"a": 1}, "{…}") == {"a": 1}
