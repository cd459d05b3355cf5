"""Where a configuration's values come from, and which goes before which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxloop.config import default_config, load_config
from fluxloop.exceptions import ConfigError


def test_defaults() -> None:
    """Without any source the defaults hold."""
    config = load_config(None, environment={}).config
    assert (config.runner.iterations, config.inputs.file, config.output.directory, config.output.format) == (
        1,
        "inputs/generated.yaml",
        "experiments",
        "jsonl",
    )


def test_precedence(load: Any) -> None:
    """Default < file < environment < --set < caller."""
    sources: dict[str, Any] = {}
    expected = [1, 2, 3, 4, 5]
    found = [load("name: a\n").config.runner.iterations]
    text = "runner:\n  iterations: 2\n"
    found.append(load(text).config.runner.iterations)
    sources["environment"] = {"FLUXLOOP_RUNNER__ITERATIONS": "3"}
    found.append(load(text, **sources).config.runner.iterations)
    sources["settings"] = ["runner.iterations=4"]
    found.append(load(text, **sources).config.runner.iterations)
    sources["overrides"] = {"runner.iterations": 5}
    found.append(load(text, **sources).config.runner.iterations)
    assert found == expected


def test_overridden_faults_do_not_count(load: Any) -> None:
    """A value that another goes before is not judged."""
    loaded = load("runner:\n  iterations: ten\n", settings=["runner.iterations=7"])
    assert loaded.config.runner.iterations == 7


def test_the_real_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process's own environment is read."""
    monkeypatch.setenv("FLUXLOOP_RUNNER__ITERATIONS", "3")
    assert load_config(None).config.runner.iterations == 3


def test_variables_of_a_section_of_two_words() -> None:
    """The two underscores that part section and key are the first that stand together."""
    environment = {"FLUXLOOP_REPLAY_ARGS__ENABLED": "true", "FLUXLOOP_REPLAY_ARGS__OVERRIDE_PARAM_PATH": "data.x"}
    config = load_config(None, environment=environment).config.replay_args
    assert (config.enabled, config.override_param_path) == (True, "data.x")


@pytest.mark.parametrize("key", ["runner.args", "replay_args.values"])
@pytest.mark.parametrize("value", ["0123", "1e3", "true", "null"])
def test_references_among_arguments_stay_texts(key: str, value: str) -> None:
    """A customer's number is no integer, whatever it looks like."""
    section, name = key.split(".")
    config = load_config({section: {name: {"id": "${ID}"}}}, environment={"ID": value}).config
    assert getattr(getattr(config, section), name) == {"id": value}


@pytest.mark.parametrize("name", ["FLUXLOOP_OTHER", "FLUXLOOP_RUNNER__", "FLUXLOOP__X", "fluxloop_runner__iterations"])
def test_other_variables_are_no_configuration(name: str) -> None:
    """Variables that merely start alike are left alone."""
    assert load_config(None, environment={name: "x"}).config == load_config(None, environment={}).config


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FLUXLOOP_RUNNER__ITERATIONS", "x", "runner.iterations: expected an integer >= 1, got 'x'"),
        ("FLUXLOOP_RUNNER__ITRATIONS", "3", "runner.itrations: unknown key; did you mean 'iterations'?"),
        ("FLUXLOOP_RUNER__TARGET", "3", "runer: unknown key; did you mean 'runner'?"),
        ("FLUXLOOP_NAME__X", "3", "name is not a mapping"),
        ("FLUXLOOP_OUTPUT__FORMAT", "csv", "output.format: expected 'jsonl', got 'csv'"),
    ],
)
def test_wrong_variables(faults: Any, name: str, value: str, message: str) -> None:
    """A wrong variable is named as the source."""
    assert faults("name: a\n", environment={name: value}) == [f"environment variable {name}: {message}"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("runner.iterations=abc", "--set runner.iterations=abc: expected an integer >= 1, got 'abc'"),
        ('runner.iterations="3"', '--set runner.iterations="3": expected an integer >= 1, got \'"3"\''),
        ("runner.iterations=", "--set runner.iterations=: expected an integer >= 1, got ''"),
        ("runner.itrations=3", "--set runner.itrations=3: unknown key; did you mean 'iterations'?"),
        ("inputs.map.inptu=q", "--set inputs.map.inptu=q: unknown key; did you mean 'input'?"),
        ("runner=5", "--set runner=5: expected a mapping, got '5'"),
        ("runner={iterations: 0}", "--set runner={iterations: 0}: runner.iterations: expected an integer >= 1, got 0"),
        ("tags=a", "--set tags=a: expected a list, got 'a'"),
        ("tags=[1]", "--set tags=[1]: tags.0: expected a text, got 1"),
        ("fail_under=95", "--set fail_under=95: expected a share such as 0.95 or 95%, got '95'; did you mean 95%?"),
        ("runner.args.a.b=3", "--set runner.args.a.b=3: runner.args.a is not a mapping"),
        ("x", "--set: expected key=value, got 'x'"),
        ("=3", "--set: expected key=value, got '=3'"),
    ],
)
def test_wrong_settings(faults: Any, setting: str, message: str) -> None:
    """A wrong --set is told in the user's own words."""
    assert faults("runner:\n  args: {a: 1}\n", settings=[setting]) == [message]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("runner.args.x=1", 1),
        ("runner.args.x=1.5", 1.5),
        ("runner.args.x=true", True),
        ("runner.args.x='1'", "1"),
        ("runner.args.x=", None),
        ("runner.args.x=a=b", "a=b"),
        ("runner.args.x=[1, a]", [1, "a"]),
        ("runner.args={x: {y: 2}}", {"y": 2}),
        ("runner.args.x.y=2", {"y": 2}),
        ("runner.args.x=[1,", "[1,"),
        ("runner.args.x=2024-99-99", "2024-99-99"),
        ("runner.args.x=" + "[" * 400, "[" * 400),
        (" runner.args.x =1", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_of_free_values(load: Any, setting: str, value: Any) -> None:
    """Where any value is taken, --set is read as YAML, or as text when it is none."""
    assert load("runner:\n  args:\n", settings=[setting]).config.runner.args["x"] == value


def test_settings_of_texts(load: Any) -> None:
    """Where a text is taken, --set is that text, whatever it looks like."""
    config = load("name: a\n", settings=["name=123", "runner.target=1.5", "description=", "seed=5"]).config
    assert (config.name, config.runner.target, config.description, config.seed) == ("123", "1.5", "", 5)


def test_wrong_overrides(faults: Any) -> None:
    """A wrong value of the caller's is told with its key; a long one is not repeated."""
    given = {"runner.iterations": "3", "fail_under": 95, "tags": "x" * 99}
    assert sorted(faults("name: a\n", overrides=given)) == [
        "fail_under=95: expected a share such as 0.95 or 95%, got 95; did you mean 95%?",
        "runner.iterations='3': expected an integer >= 1, got '3'",
        f"tags: expected a list, got '{'x' * 78}…",
    ]


def test_references(load: Any) -> None:
    """`${NAME}` is read from the environment, whole or within a longer text, and remembered as it was written."""
    text = "runner:\n  target: ${MODULE}:run\n  iterations: ${N}\n  args: {id: '${N}', url: 'http://${HOST}/${N}'}\n"
    loaded = load(text, environment={"MODULE": "m", "N": "3", "HOST": "h"})
    runner = loaded.config.runner
    assert (runner.target, runner.iterations, runner.args) == ("m:run", 3, {"id": "3", "url": "http://h/3"})
    assert loaded.references[("runner", "args", "url")] == "http://${HOST}/${N}"


def test_references_keep_the_type_their_key_takes(load: Any, faults: Any) -> None:
    """A reference is judged as its key judges text; nothing for a key that may be absent is absent."""
    environment = {"N": "x", "NOTHING": "", "LIST": "[a]", "S": "m:S", "SHARE": "95%"}
    config = load("seed: ${NOTHING}\nfail_under: ${SHARE}\noutput: {sinks: ['${S}']}\n", environment=environment).config
    assert (config.seed, config.fail_under, config.output.sinks[0].sink) == (None, 0.95, "m:S")
    assert faults("runner:\n  iterations: ${N}\ntags: ${LIST}\n", environment=environment) == [
        "c.yaml:2:15: runner.iterations: expected an integer >= 1, got 'x'",
        "c.yaml:3:7: tags: expected a list, got '[a]'",
    ]


def test_unset_references(faults: Any) -> None:
    """Each variable that is not set is told once, at its place, with what to do."""
    text = "runner:\n  iterations: ${UNSET}\n  args:\n    deep: [{x: '${A}-${B}-${A}'}]\n"
    rest = "is not set; set it, or write the value here"
    assert faults(text) == [
        f"c.yaml:2:15: runner.iterations: the environment variable UNSET {rest}",
        f"c.yaml:4:16: runner.args.deep.0.x: the environment variable A {rest}",
        f"c.yaml:4:16: runner.args.deep.0.x: the environment variable B {rest}",
    ]


def test_unset_references_beside_other_faults(faults: Any) -> None:
    """An unset variable hides no other fault."""
    assert len(faults("runner:\n  iterations: ${UNSET}\nseed: x\n")) == 2


def test_what_is_no_reference(load: Any) -> None:
    """Other dollars and braces stay as they are."""
    loaded = load("description: '$X ${1x} ${A'\n", environment={"A": "q"})
    assert loaded.config.description == "$X ${1x} ${A"
    assert loaded.references == {}


def test_a_setting_takes_a_reference_away(load: Any) -> None:
    """What goes before a reference, at its place or above it, is told in its stead."""
    text = "runner:\n  args: {a: '${A}', b: '${A}'}\n"
    assert load(text, environment={"A": "x"}, settings=["runner.args.a=y"]).references == {
        ("runner", "args", "b"): "${A}"
    }
    assert load(text, environment={"A": "x"}, settings=["runner.args={}"]).references == {}


def test_a_setting_below_an_empty_section(load: Any) -> None:
    """A section without keys takes one from --set."""
    assert load("runner:\n", settings=["runner.iterations=4"]).config.runner.iterations == 4


def test_project_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root is the folder that holds `configs/`, else the file's own, else the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    inside, beside = Path("configs/simulation.yaml"), Path("other.yaml")
    inside.write_text("name: a\n")
    beside.write_text("name: a\n")
    roots = [load_config(source, environment={}).root for source in (inside, beside, None, {"name": "a"})]
    assert roots == [tmp_path] * 4


def test_default_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`configs/simulation.yaml` is the configuration unless it is optional and not there."""
    monkeypatch.chdir(tmp_path)
    assert default_config(optional=True) is None
    assert default_config(optional=False) == Path("configs/simulation.yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/simulation.yaml").write_text("name: a\n")
    assert default_config(optional=True) == Path("configs/simulation.yaml")


def test_a_mapping_for_a_file() -> None:
    """Plain data serves as a configuration, tuples and all, and is not changed."""
    data = {"tags": ("a", "b"), "runner": {"args": {1: "${N}"}}}
    loaded = load_config(data, environment={"N": "x"}, settings=["runner.args.y=2"])
    assert (loaded.config.tags, loaded.config.runner.args) == (("a", "b"), {"1": "x", "y": 2})
    assert data == {"tags": ("a", "b"), "runner": {"args": {1: "${N}"}}}


def test_other_things_for_a_file() -> None:
    """A list is no configuration."""
    with pytest.raises(ConfigError, match="configuration: expected a file or a mapping, got a list"):
        load_config(["name"], environment={})  # type: ignore[arg-type]


def test_faults_of_a_mapping() -> None:
    """Faults without a file are those of the configuration."""
    with pytest.raises(ConfigError) as caught:
        load_config({"runner": {"args": {"a": "${UNSET}"}}}, environment={})
    assert str(caught.value).startswith("configuration: runner.args.a: the environment variable UNSET is not set")
