"""What a wrong configuration file is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxloop.config import load_config
from fluxloop.exceptions import ConfigError


def test_all_faults_at_once(faults: Any) -> None:
    """Every fault of a file is told at once, each with its line, its column and its key, in the order of the file."""
    text = """\
runner:
  target: 3
  iterations: ten
  inject: [persona, peroson]
output:
  format: parquet
  sinks:
  - args: {}
tags: a
seed: 1.5
runer: {}
"""
    assert faults(text) == [
        "c.yaml:2:11: runner.target: expected a text, got 3",
        "c.yaml:3:15: runner.iterations: expected an integer >= 1, got 'ten'",
        "c.yaml:4:21: runner.inject.1: expected one of persona, iteration, metadata, expected, got 'peroson'",
        "c.yaml:6:11: output.format: expected 'jsonl', got 'parquet'",
        "c.yaml:8:5: output.sinks.0.sink: expected the key 'sink'",
        "c.yaml:9:7: tags: expected a list, got 'a'",
        "c.yaml:10:7: seed: expected an integer, got 1.5",
        "c.yaml:11:1: runer: unknown key; did you mean 'runner'?",
    ]


def test_problems_carry_their_data(faults: Any) -> None:
    """The exception holds each problem as data too."""
    with pytest.raises(ConfigError) as caught:
        load_config({"runner": {"iterations": 0}, "nam": "x"}, environment={})
    assert [(problem.where, problem.key) for problem in caught.value.problems] == [
        ("configuration", "runner.iterations"),
        ("configuration", "nam"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner:\n  itrations: 3\n", "c.yaml:2:3: runner.itrations: unknown key; did you mean 'iterations'?"),
        ("runner:\ntarget: a:b\n", "c.yaml:2:1: target: unknown key; it belongs below runner:"),
        ("inputs_file: a\n", "c.yaml:1:1: inputs_file: unknown key; it is inputs.file now"),
        (
            "replay_args: {select: some}\n",
            "c.yaml:1:23: replay_args.select: expected last, first, all, or a mapping of target and iteration, got"
            " 'some'",
        ),
        (
            "replay_args: {select: {iteration: -1}}\n",
            "c.yaml:1:35: replay_args.select.iteration: expected an integer >= 0, got -1",
        ),
        (
            "replay_args: {select: {itertion: 1}}\n",
            "c.yaml:1:24: replay_args.select.itertion: unknown key; did you mean 'iteration'?",
        ),
        ("recording_file: a.jsonl\n", "c.yaml:1:1: recording_file: unknown key; it belongs below replay_args:"),
        ("runner: {ray: {adress: a}}\n", "c.yaml:1:16: runner.ray.adress: unknown key; did you mean 'address'?"),
        (
            "runner:\n  ray:\n    nodes: 3\n",
            "c.yaml:3:5: runner.ray.nodes: unknown key; expected one of address, num_cpus, env",
        ),
        ("runner:\n  num_cpus: 2\n", "c.yaml:2:3: runner.num_cpus: unknown key; it belongs below runner.ray:"),
        ("num_cpus: 2\n", "c.yaml:1:1: num_cpus: unknown key; it belongs below runner.ray:"),
        ("ray: {}\n", "c.yaml:1:1: ray: unknown key; it belongs below runner:"),
        ("outputs: {}\n", "c.yaml:1:1: outputs: unknown key; did you mean 'output'?"),
        ("output: {sinks: [{snk: a, sink: b}]}", "c.yaml:1:19: output.sinks.0.snk: unknown key; did you mean 'sink'?"),
        (
            "output:\n  where: x\n",
            "c.yaml:2:3: output.where: unknown key; expected one of directory, format, sinks, redact, redact_patterns,"
            " mode",
        ),
        ("inputs:\n  map: {inptu: a}\n", "c.yaml:2:9: inputs.map.inptu: unknown key; did you mean 'input'?"),
        (
            "inputs:\n  map:\n    who: a\n",
            "c.yaml:3:5: inputs.map.who: unknown key; "
            "expected one of input, id, persona, expected, source_id, metadata",
        ),
        (
            "x: 1\n",
            "c.yaml:1:1: x: unknown key; "
            "expected one of name, description, tags, seed, fail_under, runner, inputs, replay_args, output",
        ),
    ],
)  # fmt: skip
def test_unknown_keys(faults: Any, text: str, message: str) -> None:
    """An unknown key is told where it stands, with the name it is near to or all that there are."""
    assert faults(text) == [message]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("ten", "'ten'"),
        ('"10"', "'10'"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("false", "false"),
        ("0", "0"),
        ("-1", "-1"),
        ("null", "nothing"),
        ("", "nothing"),
        ("[1]", "a list"),
        ("{a: 1}", "a mapping"),
        ("1e3", "1000.0"),
        ("x" * 100, "'" + "x" * 78 + "…"),
    ],
)
def test_iterations_are_an_integer_from_1(faults: Any, value: str, found: str) -> None:
    """`iterations` takes an integer from 1 and nothing that merely could become one."""
    assert faults(f"runner:\n  iterations: {value}\n")[0].endswith(
        f"runner.iterations: expected an integer >= 1, got {found}"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("runner", "[]", "expected a mapping, got a list"),
        ("runner", "text", "expected a mapping, got 'text'"),
        ("inputs", "3", "expected a mapping, got 3"),
        ("output", "true", "expected a mapping, got true"),
        ("runner.args", "[]", "expected a mapping, got a list"),
        ("runner.ray", "auto", "expected a mapping, got 'auto'"),
        ("runner.inject", "persona", "expected a list, got 'persona'"),
        ("runner.inject", "{persona: 1}", "expected a list, got a mapping"),
        ("runner.python_path", "lib", "expected a list, got 'lib'"),
        ("runner.target", "[a]", "expected a text, got a list"),
        ("runner.output_path", "3", "expected a text, got 3"),
        ("inputs.map", "[a]", "expected a mapping, got a list"),
        ("inputs.personas", "novice", "expected a list, got 'novice'"),
        ("inputs.limit", "0", "expected an integer >= 1, got 0"),
        ("inputs.file", "[a]", "expected a text, got a list"),
        ("inputs.file", '"a\\0b"', "expected a text without NUL, got 'a\\x00b'"),
        ("output.directory", "3", "expected a text, got 3"),
        ("output.format", "csv", "expected 'jsonl', got 'csv'"),
        ("output.format", "[jsonl]", "expected 'jsonl', got a list"),
        ("output.sinks", "{sink: a}", "expected a list, got a mapping"),
        ("description", "[a]", "expected a text, got a list"),
        ("seed", "x", "expected an integer, got 'x'"),
        ("seed", "true", "expected an integer, got true"),
    ],
)
def test_wrong_types(faults: Any, key: str, value: str, message: str) -> None:
    """A value of another type than its key takes is refused, never converted."""
    *sections, last = key.split(".")
    text = "".join(f"{section}:\n  " for section in sections) + f"{last}: {value}\n"
    assert [line.partition(": ")[2] for line in faults(text)] == [f"{key}: {message}"]


def test_every_item_of_a_list_and_a_map(faults: Any) -> None:
    """Wrong items of lists and mappings are told one by one, with their own places."""
    text = "tags: [a, 1, [b]]\ninputs:\n  map:\n    input: 3\n    id: [x]\n"
    assert faults(text) == [
        "c.yaml:1:11: tags.1: expected a text, got 1",
        "c.yaml:1:14: tags.2: expected a text, got a list",
        "c.yaml:4:12: inputs.map.input: expected a text, got 3",
        "c.yaml:5:9: inputs.map.id: expected a text, got a list",
    ]


def test_sinks(load: Any, faults: Any) -> None:
    """A sink is `module:Class` or a mapping of `sink` and `args`; anything else is told."""
    sinks = load("output:\n  sinks:\n  - m:A\n  - {sink: m:B, args: {x: 1}}\n").config.output.sinks
    assert [(sink.sink, sink.args) for sink in sinks] == [("m:A", {}), ("m:B", {"x": 1})]
    assert faults("output:\n  sinks: [3, null, [a], {sink: 3}, {sink: a, args: b}]\n") == [
        "c.yaml:2:11: output.sinks.0: expected a mapping, got 3",
        "c.yaml:2:14: output.sinks.1: expected a mapping, got nothing",
        "c.yaml:2:20: output.sinks.2: expected a mapping, got a list",
        "c.yaml:2:32: output.sinks.3.sink: expected a text, got 3",
        "c.yaml:2:52: output.sinks.4.args: expected a mapping, got 'b'",
    ]


@pytest.mark.parametrize(
    "text",
    ["runner:\ninputs:\noutput:\n", "{}", "runner:\n  args:\n  inject:\n", "runner:\n  ray:\n", "seed:\ntags:\n"],
)
def test_empty_sections(load: Any, text: str) -> None:
    """A section whose keys are all commented out is as if it were not there."""
    assert load(text).config == load_config(None, environment={}).config


@pytest.mark.parametrize(
    ("value", "share"),
    [("0.95", 0.95), ("95%", 0.95), ('"95%"', 0.95), ("'0.95'", 0.95), ("50 %", 0.5), ("1", 1.0), ("100%", 1.0),
     ("0", 0.0), ("0%", 0.0), ("99.5%", 0.995)],
)  # fmt: skip
def test_fail_under(load: Any, value: str, share: float) -> None:
    """A gate is a share from 0 to 1 or a percentage."""
    assert load(f"fail_under: {value}\n").config.fail_under == share


@pytest.mark.parametrize(
    ("value", "rest"),
    [
        ("95", "95; did you mean 95%?"),
        ("'95'", "'95'; did you mean 95%?"),
        ("1.01", "1.01; did you mean 1.01%?"),
        ("-0.1", "-0.1"),
        ("101%", "'101%'"),
        ("950", "950"),
        (".nan", "nan"),
        ("nan", "'nan'"),
        ("nan%", "'nan%'"),
        (".inf", "inf"),
        ("true", "true"),
        ("x%", "'x%'"),
        ("[]", "a list"),
    ],
)
def test_fail_under_refuses(faults: Any, value: str, rest: str) -> None:
    """A gate that is no share is refused; 95 may be meant as 95%."""
    assert faults(f"fail_under: {value}\n") == [
        f"c.yaml:1:13: fail_under: expected a share such as 0.95 or 95%, got {rest}"
    ]


@pytest.mark.parametrize("name", ["a/b", "a\\\\b", "..", ".", " ", "a\\nb", "\\e", "../x", "/etc"])
def test_names_are_one_path_component(faults: Any, name: str) -> None:
    """A name with separators, `..` or control characters is refused."""
    (line,) = faults(f'name: "{name}"\n')
    assert line.startswith("c.yaml:1:7: name: expected one path component, without separators or control characters")


def test_long_names(faults: Any, load: Any) -> None:
    """A name fits a file name: 200 bytes are, 201 are not."""
    assert load(f"name: {'é' * 100}\n").config.name == "é" * 100
    assert faults(f"name: {'é' * 100}x\n") == ["c.yaml:1:7: name: expected at most 200 bytes, got 201"]


@pytest.mark.parametrize("name", ["ok", "with space", "v1.2", "..x", "naïve", "日本"])
def test_good_names(load: Any, name: str) -> None:
    """Anything else names an experiment."""
    assert load(f"name: {name!r}\n").config.name == name


EMPTY = "c.yaml:1:1: the file is empty; expected at least runner: with a target"
DEEP_ALIASES = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} {'[' * 150}*a{n - 1}{']' * 150}\n" for n in range(1, 6))
TABS = "YAML is indented with spaces, not tabs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", EMPTY),
        ("# only a comment\n", EMPTY),
        ("---\n", EMPTY),
        ("null\n", EMPTY),
        ("\ufeff", EMPTY),
        ("[]", "c.yaml:1:1: expected a mapping with runner:, got a list"),
        ("\n- a\n", "c.yaml:2:1: expected a mapping with runner:, got a list"),
        ("hello", "c.yaml:1:1: expected a mapping with runner:, got 'hello'"),
        ("name: a\nname: b\n", "c.yaml:2:1: name: the key stands here a second time"),
        ("runner:\n  args:\n    a: 1\n    a: 2\n", "c.yaml:4:5: runner.args.a: the key stands here a second time"),
        ("runner:\n  args: {[1, 2]: 3}\n", "c.yaml:2:10: runner.args: a key must be a text"),
        ("runner: *x\n", "c.yaml:1:9: not valid YAML: found undefined alias 'x'"),
        ("runner: &b\n  args: *b\n", "c.yaml:1:9: runner.args: an alias stands inside what it names"),
        ("runner:\n  args: &a {x: [*a]}\n", "c.yaml:2:9: runner.args.x.0: an alias stands inside what it names"),
        (
            "name: a\n---\nname: b\n",
            "c.yaml:2:1: not valid YAML: expected a single document in the stream, but found another document",
        ),
        (
            "name: !!python/object/apply:os.system [x]\n",
            "c.yaml:1:7: name: expected plain YAML, got the tag !!python/object/apply:os.system",
        ),
        (
            "name: !!python/name:os.system\n",
            "c.yaml:1:7: name: expected plain YAML, got '', which is no valid !!python/name:os.system; "
            "a text goes in quotes",
        ),
        ("runner: !mine {target: a}\n", "c.yaml:1:9: runner: expected plain YAML, got the tag !mine"),
        (
            "runner:\n  args: {day: 2024-13-45}\n",
            "c.yaml:2:15: runner.args.day: expected plain YAML, got '2024-13-45', which is no valid !!timestamp; "
            "a text goes in quotes",
        ),
        (
            "runner:\n  args: {n: !!int ''}\n",
            "c.yaml:2:13: runner.args.n: expected plain YAML, got '', which is no valid !!int; a text goes in quotes",
        ),
        (
            "runner:\n  args: {x: =}\n",
            "c.yaml:2:13: runner.args.x: expected plain YAML, got '=', which is no valid !!value; "
            "a text goes in quotes",
        ),
        ("runner:\n  <<: 3\n", "c.yaml:2:7: not valid YAML: expected a mapping or list of mappings for merging"),
        ("runner: {target: 'x:y'\n", "c.yaml:2:1: not valid YAML: expected ',' or '}'"),
        ("runner:\n  target: 'x:y\n", "c.yaml:3:1: not valid YAML: found unexpected end of stream"),
        ("runner:\n  target: a: b\n", "c.yaml:2:12: not valid YAML: mapping values are not allowed here"),
        (b"name: a\nrunner:\n  target: \xe9:y\n", "c.yaml:3: not UTF-8 text; save the file as UTF-8"),
        ("name: a\n".encode("utf-16"), "c.yaml:1: not UTF-8 text; save the file as UTF-8"),
        (b"name: a\nseed: \x00\n", r"c.yaml:2:7: the character U+0000 must be written as an escape"),
        (b"name: \x07\n", r"c.yaml:1:7: the character U+0007 must be written as an escape"),
        ("a: " + "[" * 1000, "c.yaml: nested too deeply"),
        (DEEP_ALIASES, "c.yaml: nested too deeply"),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_malformed_yaml(faults: Any, text: str | bytes, message: str) -> None:
    """What is no YAML, or no configuration, is told in one line with its place."""
    (line,) = faults(text)
    assert line.startswith(message)


@pytest.mark.parametrize("text", ["runner:\n\ttarget: x:y\n", "runner:\n  target: x:y\n\titerations: 3\n"])
def test_tabs(faults: Any, text: str) -> None:
    """A tab is told with what to write instead."""
    (line,) = faults(text)
    assert line.endswith(TABS)


def test_several_faults_of_the_yaml(faults: Any) -> None:
    """Doubled keys, tags and impossible dates are told together."""
    assert len(faults("name: a\nname: b\nrunner: !x {}\ntags: [2024-99-99]\n")) == 3


def test_byte_order_mark(load: Any) -> None:
    """A byte order mark at the start is passed over."""
    assert load("\ufeffname: x\n").config.name == "x"


def test_anchors_and_merge_keys(load: Any) -> None:
    """Anchors, aliases and merge keys mean what they mean in YAML."""
    config = load(
        "runner:\n  args: &a {model: x, n: 1}\noutput:\n  sinks:\n  - {sink: s, args: {<<: *a, n: 2}}\n"
    ).config
    assert config.runner.args == {"model": "x", "n": 1}
    assert config.output.sinks[0].args == {"model": "x", "n": 2}


def test_values_of_args_keep_their_types(load: Any) -> None:
    """Arguments are what YAML says: no type of the parser's own leaks out."""
    args = load(
        "runner:\n  args: {a: 1, b: '1', c: 1.5, d: true, e: null, f: [x, 0o17], g: {h: yes}}\n"
    ).config.runner.args
    assert args == {"a": 1, "b": "1", "c": 1.5, "d": True, "e": None, "f": ["x", 15], "g": {"h": "yes"}}
    assert [type(value) for value in args.values()] == [int, str, float, bool, type(None), list, dict]


def test_missing_file(tmp_path: Path) -> None:
    """A configuration that is not there is named, with what to do."""
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "no.yaml", environment={})
    assert str(caught.value) == (
        f"{tmp_path}/no.yaml: no such file; name another with --config, or make a project with fluxloop init;"
        " with --target and --inputs none is needed"
    )


def test_directory_for_a_file(tmp_path: Path) -> None:
    """A folder is no configuration."""
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, environment={})


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that cannot be read is told with the system's reason."""
    path = tmp_path / "c.yaml"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match="Input/output error"):
        load_config(path, environment={})


def test_nested_aliases_are_bounded(tmp_path: Path) -> None:
    """A few lines that mean millions of values are refused at once."""
    levels = "\n".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9))
    (tmp_path / "c.yaml").write_text(f"runner:\n args:\n  a0: &a0 [x]\n{levels}\n")
    with pytest.raises(ConfigError, match="more than 100000 values; aliases may multiply them"):
        load_config(tmp_path / "c.yaml", environment={})


def test_a_secret_on_the_command_line_is_not_repeated() -> None:
    """The message about a wrong key names it without its value."""
    with pytest.raises(ConfigError) as told:
        load_config(None, settings=["runner.arg.api_key=sk-live-123"], environment={})
    assert "sk-live-123" not in str(told.value)
    assert "--set runner.arg.api_key=…" in str(told.value)
