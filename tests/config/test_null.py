"""`null` and `none` lift any value that may be null, from wherever they come."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from fluxloop import ConfigError, Experiment
from fluxloop.config import ExperimentConfig, load_config
from fluxloop.config.convert import is_section
from fluxloop.generating import generate
from fluxloop_cli.main import main

SET: dict[str, Any] = {
    "name": "demo",
    "description": "text",
    "tags": ["a"],
    "seed": 5,
    "fail_under": 0.5,
    "runner.target": "agent:run",
    "runner.args": {"model": "small"},
    "runner.inject": ["persona"],
    "runner.input_template": {"messages": ["{input}"]},
    "runner.output_path": "answer",
    "runner.working_directory": "there",
    "runner.python_path": ["src"],
    "runner.timeout_seconds": 5.0,
    "runner.max_crash_retries": 2,
    "runner.retry_on": ["OSError"],
    "runner.infrastructure": ["OSError"],
    "runner.start_rate": "5/s",
    "runner.max_failures": 3,
    "runner.max_time": 30.0,
    "runner.shard": "1/2",
    "runner.ray.address": "auto",
    "runner.ray.env": ["KEY"],
    "inputs.file": "inputs.jsonl",
    "inputs.map": {"input": "question"},
    "inputs.personas": ["novice"],
    "inputs.ids": ["input_001"],
    "inputs.limit": 3,
    "replay_args.recording_file": "calls.jsonl",
    "replay_args.override_param_path": "data.content",
    "replay_args.callable_providers": {"send": "builtin:collector"},
    "replay_args.values": {"key": "x"},
    "output.sinks": ["sinks:Sink"],
    "output.redact_patterns": ["x+"],
}
"""A value for each key that may be null."""


def keys(kind: type[Any] = ExperimentConfig, above: str = "") -> Iterator[tuple[str, bool]]:
    """Every key with its dotted name, and whether it may be null."""
    hints = get_type_hints(kind)
    for field in attrs.fields(kind):
        if is_section(field):
            yield from keys(type(field.default), f"{above}{field.name}.")
        else:
            of = hints[field.name]
            is_optional = get_origin(of) in (Union, types.UnionType) and type(None) in get_args(of)
            yield above + field.name, is_optional or get_origin(of) in (tuple, dict)


NULLABLE = [key for key, is_nullable in keys() if is_nullable]
OTHERS = [key for key, is_nullable in keys() if not is_nullable]


def at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def document(key: str) -> dict[str, Any]:
    """A configuration with a value for one key."""
    *sections, name = key.split(".")
    data: dict[str, Any] = {name: SET[key]}
    for section in reversed(sections):
        data = {section: data}
    return data


def sources(key: str, text: str) -> Iterator[dict[str, Any]]:
    """The text from each source that knows only texts, and None from a program."""
    yield {"settings": [f"{key}={text}"]}
    if "." in key:
        yield {"environment": {f"FLUXLOOP_{key.upper().replace('.', '__')}": text}}
    yield {"overrides": {key: None}}


def test_the_table_is_whole() -> None:
    """It has a value for each key that may be null."""
    assert set(SET) == set(NULLABLE)


@pytest.mark.parametrize("text", ["null", "none", "None", " NULL "])
@pytest.mark.parametrize("key", NULLABLE)
def test_a_value_that_may_be_null_is_lifted(key: str, text: str) -> None:
    """By --set, by a variable and in overrides; the file's value is gone."""
    before = at(load_config(document(key), environment={}).config, key)
    for source in sources(key, text):
        lifted = at(load_config(document(key), **{"environment": {}, **source}).config, key)
        assert before
        assert lifted in (None, (), {})


@pytest.mark.parametrize("text", ["null", "none"])
@pytest.mark.parametrize("key", OTHERS)
def test_a_value_that_cannot_be_null_says_what_is_expected(key: str, text: str) -> None:
    """In one line, with the source and the key."""
    for source in sources(key, text):
        with pytest.raises(ConfigError) as caught:
            load_config({}, **{"environment": {}, **source})
        (problem,) = caught.value.problems
        assert "expected" in problem.message
        assert key.lower() in str(problem).lower()


def test_texts_of_the_file_and_of_arguments_stay_texts() -> None:
    """`none` is a word in a file, and what an agent gets may be called so, as an effort of reasoning."""
    data = {"description": "none", "runner": {"args": {"effort": "low"}}}
    config = load_config(data, settings=["runner.args.effort=none", "tags=[none]"], environment={}).config
    assert (config.description, config.runner.args, config.tags) == ("none", {"effort": "none"}, ("none",))


ARGUMENTS = {
    "target": "runner.target",
    "name": "name",
    "seed": "seed",
    "limit": "inputs.limit",
    "fail_under": "fail_under",
    "timeout_seconds": "runner.timeout_seconds",
    "max_failures": "runner.max_failures",
    "max_time": "runner.max_time",
    "shard": "runner.shard",
    "inputs": "inputs.file",
}
"""Arguments of `Experiment` whose key may be null."""


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_lifts_a_value(argument: str) -> None:
    """None leaves it to the configuration, and the text `none` lifts what that says."""
    key = ARGUMENTS[argument]
    assert at(Experiment(document(key), **{argument: None}).config, key) is not None
    shown = YAML(typ="safe").load(Experiment(document(key), **{argument: "none"}).show_config())
    for name in key.split("."):
        shown = shown[name]
    assert shown != SET[key]
    assert shown is None or argument in ("name", "seed")  # these are made where there are none


@pytest.mark.parametrize("argument", ["iterations", "parallel", "max_retries", "executor", "output_dir"])
def test_another_argument_says_what_is_expected(argument: str) -> None:
    """It is no way around the key's limits."""
    with pytest.raises(ConfigError, match="expected"):
        Experiment(**{argument: "none"})


OPTIONS = {
    "--limit": "inputs.limit",
    "--fail-under": "fail_under",
    "--timeout": "runner.timeout_seconds",
    "--max-failures": "runner.max_failures",
    "--max-time": "runner.max_time",
    "--shard": "runner.shard",
    "--target": "runner.target",
    "--inputs": "inputs.file",
}


@pytest.mark.parametrize("text", ["none", "null"])
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_lifts_a_value(option: str, text: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else it takes, and without a file that it would need."""
    monkeypatch.chdir(tmp_path)
    key = OPTIONS[option]
    YAML(typ="safe").dump(document(key), tmp_path / "c.yaml")
    told = CliRunner().invoke(main, ["config", "show", "-c", "c.yaml", option, text], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    shown = YAML(typ="safe").load(told.output)
    for name in key.split("."):
        shown = shown[name]
    assert shown is None


@pytest.mark.parametrize("option", ["--iterations", "--parallel", "--max-retries", "--executor", "--output-dir"])
def test_another_option_says_what_is_expected(option: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 2."""
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["config", "show", "--target", "a:b", option, "none"])
    assert told.exit_code == 2
    assert "expected" in told.output or "is not a valid integer" in told.output


def test_a_seed_of_a_generation_is_lifted(tmp_path: Any) -> None:
    """It follows from the output's name then."""
    data = {"base_inputs": ["How?"], "input_generation": {"seed": 5, "limit": 1}}
    made = [generate(data, output=tmp_path / "inputs.jsonl", seed=seed, overwrite=True) for seed in (None, "none")]
    plain = generate({"base_inputs": ["How?"]}, output=tmp_path / "inputs.jsonl", limit=1, overwrite=True)
    assert [one.seed for one in made] == [5, plain.seed]
