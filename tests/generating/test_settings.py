"""`configs/input.yaml`, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxloop.exceptions import ConfigError
from fluxloop.generating.settings import load_material


def faults(tmp_path: Path, text: str, **overrides: Any) -> list[str]:
    path = tmp_path / "configs" / "input.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_material(path, overrides=overrides)
    return [str(problem).removeprefix(str(path)) for problem in caught.value.problems]


def test_every_fault_is_told_at_its_place(tmp_path: Path) -> None:
    """All at once, each with line, column and, where one is near, the right name."""
    text = """\
personas:
  - name: novice
    descripton: new
  - goals: [a]
  -
base_inputs: [hi]
input_generation:
  mode: llms
  limit: ten
  parallel: 0
  api_key: 123456789
limit: 5
"""
    assert faults(tmp_path, text) == [
        ":3:5: personas.0.descripton: unknown key; did you mean 'description'?",
        ":4:5: personas.1.name: expected the key 'name'",
        ":5:4: personas.2.name: expected the key 'name'",
        ":8:9: input_generation.mode: expected one of deterministic, llm, got 'llms'",
        ":9:10: input_generation.limit: expected an integer >= 1, got 'ten'",
        ":10:13: input_generation.parallel: expected an integer >= 1, got 0",
        ":11:12: input_generation.api_key: expected a text",
        ":12:1: limit: unknown key; it belongs below input_generation:",
    ]


def test_faults_of_base_inputs_are_told_at_their_place(tmp_path: Path) -> None:
    """What an entry lacks, and what stands there twice."""
    text = """\
base_inputs:
  - {id: a, input: hi}
  - {question: hi}
  - {id: a, input: ho}
  - hi
  - 5
  - "\\ud800"
input_generation: {strategies: [surfce]}
personas: [{name: x}, {name: x}, {name: "\\udc00"}]
"""
    assert faults(tmp_path, text) == [
        ":3:5: base_inputs.1: no 'input'; it has 'question'; write it under input:",
        ":4:10: base_inputs.2.id: the same as base_inputs.0.id; expected each once",
        ":5:5: base_inputs.3: the same as base_inputs.0; expected each once",
        ":6:5: base_inputs.4: expected a text or a mapping with 'input', got 5",
        ":7:5: base_inputs.5: holds half a character (a lone surrogate), which no file of inputs can",
        ":8:33: input_generation.strategies.0: expected one of base, error_prone, surface, persona in mode"
        " deterministic, got 'surfce'",
        ":9:30: personas.1.name: the same as personas.0.name; expected each once",
        ":9:34: personas.2: holds half a character (a lone surrogate), which no file of inputs can",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ":1:1: the file is empty; expected at least base_inputs:"),
        ("- hi", ":1:1: expected a mapping with base_inputs:, got a list"),
        ("personas: []", ":1:1: base_inputs: expected at least one input to start from"),
        ("base_inputs: hi", ":1:14: base_inputs: expected a list, got 'hi'"),
        ("base_inputs: [a", ":1:16: not valid YAML: expected ',' or ']'"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, text: str, fault: str) -> None:
    """Say what they should be."""
    (told,) = faults(tmp_path, text)
    assert told.startswith(fault)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Says what it would hold."""
    with pytest.raises(ConfigError, match="no such file; it holds base_inputs and personas"):
        load_material(tmp_path / "input.yaml", overrides={})


def test_faults_of_options_name_the_option(tmp_path: Path) -> None:
    """They go before the file's values."""
    text = "base_inputs: [hi]\ninput_generation: {limit: ten, mode: llm}\n"
    assert faults(tmp_path, text, limit=0, strategies=["surface"]) == [
        "--limit: expected an integer >= 1, got 0",
    ]
    (told,) = faults(tmp_path, text, limit=1, strategies=["surface"])
    assert told.endswith("in mode llm, got 'surface'; it is one of --mode deterministic")
    assert told.startswith("--strategy: ")


def test_one_goal_or_piece_of_knowledge_needs_no_list() -> None:
    """A text stands for a list of one."""
    personas = [{"name": "novice", "goals": "find the guide", "knowledge": ["a", "b"]}]
    (novice,) = load_material({"base_inputs": ["hi"], "personas": personas}, overrides={}).config.personas
    assert (novice.goals, novice.knowledge) == (("find the guide",), ("a", "b"))


def test_references_in_inputs_are_texts() -> None:
    """Only the model's service is told by the environment: `${HOME}` in an input is what a user wrote."""
    material = load_material({"base_inputs": ["What is ${HOME}?"]}, overrides={})
    assert material.sources[0].text == "What is ${HOME}?"
