"""The JSON Schema accepts and refuses what loading a configuration does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

import fluxloop
from fluxloop.config import model
from fluxloop.config.convert import _LIMITED, structure, structure_as
from fluxloop.config.load import load_config
from fluxloop.config.model import ExperimentConfig, SinkConfig
from fluxloop.config.schema import DIALECT, SHAPES, docs_of, json_schema, shape_of
from fluxloop.generating.settings import load_material
from fluxloop.scaffold.schemas import schema_of

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()
CHECK = Draft202012Validator(SCHEMA)


def below(path: str, value: Any) -> dict[str, Any]:
    """A configuration with one key."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def keys(kind: type[Any] = ExperimentConfig, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in attrs.fields(kind):
        name = f"{prefix}{field.name}"
        yield from keys(hints[field.name], f"{name}.") if attrs.has(hints[field.name]) else [name]


KEYS = list(keys())
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**63 - 1, 2**63, -(2**63) + 1, -(2**63), 0.5, -0.5, 1.5, 10**9, 2 * 10**9),
    *(float("inf"), "", " ", "a", "a/b", ".", "..", "...", "a\x07b", "x" * 200, "x" * 201),
    *("1", "0", "10", "0.5", "1.5", "95%", "0%", "100%", "101%", "12.5 %", "90s", "30m", "1h30m", "1 h 30 m", "0s"),
    *("1h 5", "60/min", "60 / min", "5/s", "1000/h", "0/s", "60/day", "60", "2/8", "0/8", "8/0", "2/8/9", "a.b:c"),
    *("auto", "inline", "processes", "ray", "dask", "jsonl", "csv", "last", "first", "all", "persona", "input"),
    *([], ["a"], ["persona"], ["persona", "other"], [1], [None], [["a"]], ["a", {"sink": "b:c"}], [{"args": {}}]),
    *([{"sink": "a:b", "args": None}], [{"sink": "a:b", "arg": {}}], [{"sink": 1}]),
    *({}, {"a": 1}, {"a": "b"}, {"input": "q"}, {"input": 1}, {"input": None}, {"question": "q"}),
    *({"target": "a:b"}, {"iteration": 0}, {"target": "a:b", "iteration": -1}, {"iteration": True}, {"targt": "a"}),
]


def agrees(config: dict[str, Any]) -> tuple[bool, bool]:
    """What loading says, and what the schema says."""
    return not structure(config)[1], CHECK.is_valid(config)


def test_it_is_a_schema_of_its_dialect() -> None:
    """Of 2020-12, which it names; the inputs' likewise."""
    for name in ("simulation", "input"):
        Draft202012Validator.check_schema(schema_of(name))
        assert schema_of(name)["$schema"] == DIALECT


@pytest.mark.parametrize("key", KEYS)
def test_each_key_takes_what_loading_takes(key: str) -> None:
    """Of every value of a long list, what loading refuses the schema refuses, and the other way round."""
    for value in VALUES:
        loading, schema = agrees(below(key, value))
        assert schema is loading, f"{key}: {value!r}: loading says {loading}, the schema {schema}"


@pytest.mark.parametrize("value", [None, {}, [], "a", 1, {"unknown": 1}, {"Target": "a:b"}])
def test_sections_and_the_whole_are_strict(value: Any) -> None:
    """A section may be empty; an unknown key, or what is no mapping, is refused at every level."""
    for section in ("runner", "inputs", "replay_args", "output", "runer"):
        loading, schema = agrees({section: value})
        assert schema is loading, section
    loading, schema = agrees(below("runner.ray", value))
    assert schema is loading
    if not (value is None or value == []):
        assert CHECK.is_valid(value) is (value == {})


_NUMBER = st.integers() | st.floats(allow_nan=False).filter(lambda number: not number.is_integer())
_SPACE = st.sampled_from(["", " "])
_PARTS = st.builds(
    "{}{}{}{}".format, _SPACE, st.decimals(0, 120, places=1) | st.integers(0, 120), _SPACE, st.sampled_from(["", "%"])
)
_TIMES = st.lists(st.builds("{}{}".format, st.integers(0, 99), st.sampled_from(["", "h", "m", "s", " s"])), max_size=3)
_RATES = st.builds("{}/{}".format, st.integers(0, 99), st.sampled_from(["s", "min", "h", "hour", "d", ""]))
_WORDS = st.text("ab./\\ \x00\x7f~", max_size=3).filter(lambda text: "\0" not in text)
_KEYS = st.sampled_from(
    [
        *("fail_under", "seed", "name", "runner.iterations", "runner.max_failures", "runner.max_time"),
        *("runner.start_rate", "runner.timeout_seconds", "runner.max_retries", "inputs.limit"),
    ]
)


@settings(deadline=None)
@given(_KEYS, _NUMBER | _PARTS | _TIMES.map("".join) | _RATES | _WORDS)
def test_limits_are_those_of_loading(key: str, value: Any) -> None:
    """Numbers, shares, times, rates and names as people write them are told alike."""
    loading, schema = agrees(below(key, value))
    assert schema is loading


def test_what_a_schema_cannot_tell_is_let_through() -> None:
    """A whole number with a point, a shard beyond the last, a pattern that is none: loading says it."""
    for key, value in {
        "runner.iterations": 2.0,
        "runner.shard": "9/8",
        "output.redact_patterns": ["("],
        "name": "ü" * 150,
        "description": "a\0b",
    }.items():
        assert agrees(below(key, value)) == (False, True), key


@pytest.mark.parametrize("key", [key for key in KEYS if not key.endswith(("args", "map", "values", "providers"))])
def test_references_to_the_environment_stand_anywhere(key: str) -> None:
    """`${NAME}` is no fault, whatever the key's limits; `$${NAME}`, which is a text, is one where no text may be."""
    kind = json_schema()
    for part in key.split("."):
        kind = kind["properties"][part]
    is_list = "array" in str(kind.get("type"))
    assert CHECK.is_valid(below(key, ["${NAME}"] if is_list else "${NAME}"))
    assert CHECK.is_valid(below("runner.iterations", "$${NAME}")) is False


def test_every_type_with_limits_has_a_shape() -> None:
    """A type that the converter checks is one the schema knows."""
    for kind in _LIMITED:
        assert shape_of(kind, False), kind
    with pytest.raises(TypeError, match="no schema for <class 'bytes'>; add it to SHAPES"):
        shape_of(bytes, True)


def test_it_tells_defaults_and_what_a_key_is() -> None:
    """Every key has the docstring and the default of its class."""
    seen = []
    for path in KEYS:
        shape: Any = SCHEMA
        kind: Any = ExperimentConfig
        default: Any = ExperimentConfig()
        for part in path.split("."):
            shape = shape["properties"][part]
            told = docs_of(kind)
            kind = get_type_hints(kind)[part]
            default = getattr(default, part)
        assert shape["description"] == told[path.split(".")[-1]]
        assert shape["default"] == (list(default) if isinstance(default, tuple) else default)
        seen.append(shape["description"])
    assert "How many times each input is run." in seen
    runner = SCHEMA["properties"]["runner"]
    assert runner["description"] == "How the agent is called."
    assert runner["properties"]["ray"]["description"] == "The cluster, with `executor: ray`."


def test_examples_are_ones() -> None:
    """What the schema gives as examples loads."""
    assert sum("examples" in shape for shape in SHAPES.values()) >= 5
    for kind, shape in SHAPES.items():
        for example in shape.get("examples", ()):
            assert structure_as(kind, example)[1] == []


def documents() -> list[Path]:
    """The configurations of the examples and of a new project."""
    found = [*ROOT.glob("examples/*/configs/*.yaml"), *ROOT.glob("fluxloop/scaffold/project/configs/*.yaml")]
    assert len(found) >= 6
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_are_valid(path: Path) -> None:
    """The configurations in the repository, and of `init`, keep to their schemas."""
    data = YAML(typ="safe", pure=True).load(path.read_text())
    errors = [*Draft202012Validator(schema_of(path.stem)).iter_errors(data)]
    assert errors == []


def agent(text: str, api_key: str) -> str:
    return text


def test_a_snapshot_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config.yaml`, as an experiment writes it."""
    monkeypatch.chdir(tmp_path)
    config = {"runner": {"args": {"api_key": "sk-123456789"}, "max_failures": "10%", "max_time": "1h"}}
    result = fluxloop.Experiment(config, target=agent, inputs=["a"]).run()
    data = YAML(typ="safe", pure=True).load((result.path / "config.yaml").read_text())

    assert data["runner"]["max_time"] == 3600
    assert [*CHECK.iter_errors(data)] == []


INPUTS: list[dict[str, Any]] = [
    {},
    {"base_inputs": []},
    {"base_inputs": ["a"]},
    {"base_inputs": "a"},
    {"base_inputs": [{"input": 1, "id": 3, "persona": None, "metadata": {}, "more": 1}]},
    {"base_inputs": [{"input": 1, "id": " "}]},
    {"base_inputs": [{"input": 1, "id": True}]},
    {"base_inputs": [{"question": "a"}]},
    {"base_inputs": [{"input": 1, "persona": 1}]},
    {"base_inputs": [{"input": 1, "metadata": ["a"]}]},
    {"base_inputs": [1]},
    *(
        {"base_inputs": ["a"], "personas": personas}
        for personas in (None, [], ["a"], [{}], [{"name": "a"}], [{"name": "a", "goals": "b"}], [None])
    ),
    {"base_inputs": ["a"], "personas": [{"name": "a", "knowledge": ["b"], "description": None}]},
    {"base_inputs": ["a"], "personas": [{"name": "a", "goal": ["b"]}]},
    *(
        {"base_inputs": ["a"], "input_generation": section}
        for section in (
            *(None, {}, [], {"mode": "llm"}, {"mode": "ai"}, {"limit": 0}, {"limit": 1}, {"limit": "${N}"}),
            *({"strategies": ["surface"]}, {"strategies": ["surfac"]}, {"parallel": 0}, {"api_key": "${KEY}"}),
            *({"args": {"temperature": 1}}, {"timeout_seconds": -1}, {"tempo": 1}, {"greetings": []}),
        )
    ),
]


@pytest.mark.parametrize("data", INPUTS, ids=json.dumps)
def test_the_schema_of_inputs_takes_what_generating_takes(data: dict[str, Any]) -> None:
    """`configs/input.yaml` is checked as `fluxloop generate inputs` checks it."""
    try:
        load_material(data, overrides={})
        loading = True
    except fluxloop.ConfigError:
        loading = False
    assert Draft202012Validator(schema_of("input")).is_valid(data) is loading


def test_docstrings_are_read_of_every_class() -> None:
    """Also of a sink's, and of one without any."""
    assert docs_of(SinkConfig)["sink"] == "`module:Class`."
    assert docs_of(model.OutputConfig).keys() == {field.name for field in attrs.fields(model.OutputConfig)}
    assert load_config({}).config.runner.iterations == 1
