"""`fluxloop config show`: what is in force, and where each value came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxloop import Experiment
from fluxloop.config.convert import unstructure
from fluxloop.config.document import parse_document
from fluxloop.config.load import load_config
from fluxloop.config.showing import show, source_of
from fluxloop.tracing.secret_names import is_secret_name
from fluxloop_cli.main import main

CONFIG = """\
name: shop
tags:
  - nightly
  - small
runner:
  target: "shop:answer"
  iterations: 10
  args:
    model: ${MODEL}
    api_key: sk-abcdefgh
    limits: {calls: 3, tools: [a, b]}
output:
  sinks: ["my_sinks:Slowest"]
"""


def shown(text: str) -> dict[str, tuple[str, str]]:
    """Each line's key, with its value and its comment."""
    found = re.findall(r"^ *(?:- )?(\w+): *(.*?)(?: +# (.*))?$", text, re.M)
    return {key: (value, source) for key, value, source in found}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL", "gpt-large")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/simulation.yaml").write_text(CONFIG)
    return tmp_path


def invoke(*options: str) -> str:
    result = CliRunner().invoke(main, ["config", "show", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_each_value_has_its_source(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default, line of the file, environment variable, option, and `--set`: whichever came last."""
    monkeypatch.setenv("FLUXLOOP_RUNNER__MAX_RETRIES", "3")
    monkeypatch.setenv("FLUXLOOP_RUNNER__PARALLEL", "4")
    told = shown(invoke("--iterations", "20", "--set", "runner.parallel=8", "--set", "runner.args.style=brief"))

    file = "configs/simulation.yaml"
    assert told["name"] == ("shop", f"{file}:1")
    assert told["target"] == ("shop:answer", f"{file}:6")
    assert told["iterations"] == ("20", "command line")
    assert told["parallel"] == ("8", "--set")
    assert told["max_retries"] == ("3", "environment variable FLUXLOOP_RUNNER__MAX_RETRIES")
    assert told["timeout_seconds"] == ("null", "default")
    assert told["style"] == ("brief", "--set")
    assert told["sink"] == ("my_sinks:Slowest", f"{file}:13")
    assert told["calls"] == ("3", f"{file}:11")


def test_lists_tell_theirs_by_item_or_as_a_whole(project: Path) -> None:
    """By line where the file has them, at their key where one word gave them all."""
    told = invoke("--set", "runner.retry_on=[transient, MyError]")
    assert re.search(
        r"^tags:\n  - nightly +# configs/simulation.yaml:3\n  - small +# configs/simulation.yaml:4$", told, re.M
    )
    assert re.search(r"^  retry_on: +# --set\n    - transient\n    - MyError\n", told, re.M)


def test_secrets_are_masked_and_references_stay(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a literal under a secret name, nor a value from the environment, is told."""
    monkeypatch.setenv("SHOP_TOKEN", "tok-12345678")
    told = invoke("--set", "runner.args.note=tok-12345678", "--set", "runner.args.password=hush")
    assert shown(told)["api_key"] == ("'***'", "configs/simulation.yaml:10")
    assert shown(told)["password"] == ("'***'", "--set")
    assert shown(told)["note"] == ("'***'", "--set")
    assert shown(told)["model"] == ("'${MODEL}'", "configs/simulation.yaml:9")
    assert not re.search("sk-abcdefgh|tok-12345678|hush|gpt-large", told)


def test_what_it_prints_is_the_configuration(project: Path) -> None:
    """Loaded again, it is the same."""
    Path("configs/simulation.yaml").write_text(CONFIG.replace("    api_key: sk-abcdefgh\n", ""))
    Path("configs/again.yaml").write_text(invoke("--set", "description=a # b"))
    again = Experiment("configs/again.yaml").config
    assert again.description == "a # b"
    first = Experiment("configs/simulation.yaml", settings=["description=a # b"], seed=again.seed).config
    assert unstructure(again) == unstructure(first)


_TEXT = st.text(max_size=12) | st.sampled_from(["yes", "1", "null", "# x", "a: b", "\x1b[31m", "\x85", "'", "- a", "~"])
_KEY = _TEXT.filter(lambda name: not is_secret_name(name))
_FREE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEY, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_KEY, _FREE, max_size=4), st.lists(_TEXT, max_size=3))
def test_any_values_come_back(args: dict[str, Any], tags: list[str]) -> None:
    """Whatever the values are, each stands in lines of its own, and is read back as it was; no comment becomes one."""
    loaded = load_config({"runner": {"args": args}, "tags": [tag.replace("\0", "") for tag in tags]}, environment={})
    text = show(loaded)
    assert all(line.isprintable() for line in text.split("\n"))
    again = load_config(parse_document(text, Path("c.yaml")).data, environment={})
    assert again.config.runner.args == loaded.config.runner.args
    assert again.config.tags == loaded.config.tags


@pytest.mark.parametrize(
    ("said", "sources"),
    [
        (["runner={parallel: 5}"], {"parallel": "--set", "iterations": "default"}),
        (["runner.args.b=2"], {"args.a": "environment variable FLUXLOOP_RUNNER__ARGS", "args.b": "--set"}),
        (["runner={iterations: 3}"], {"iterations": "--set", "parallel": "default", "target": "default"}),
        (["runner.args={a: 1}", "runner.args.b=2"], {"args.a": "--set", "args.b": "--set"}),
        (
            [],
            {
                "args.a": "environment variable FLUXLOOP_RUNNER__ARGS",
                "parallel": "environment variable FLUXLOOP_RUNNER__PARALLEL",
            },
        ),
    ],
)
def test_what_is_replaced_as_a_whole_leaves_nothing_behind(said: list[str], sources: Mapping[str, str]) -> None:
    """A section that is set anew hides what earlier sources said below it."""
    environment = {"FLUXLOOP_RUNNER__PARALLEL": "4", "FLUXLOOP_RUNNER__ARGS": "{a: 1}"}
    loaded = load_config({"runner": {"target": "a:b"}}, settings=said, environment=environment)
    for key, source in sources.items():
        assert source_of(loaded, ("runner", *key.split("."))) == source, key


def test_a_section_in_a_section_tells_each_of_its_keys(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own source, wherever the others come from."""
    Path("configs/simulation.yaml").write_text("runner:\n  target: a:b\n  ray:\n    address: head:6379\n")
    monkeypatch.setenv("FLUXLOOP_RUNNER__RAY__ENV", "[HF_HOME]")
    told = invoke()
    assert re.search(
        r"^  ray:\n"
        r"    address: head:6379 +# configs/simulation.yaml:4\n"
        r"    num_cpus: 1.0 +# default\n"
        r"    env: +# environment variable FLUXLOOP_RUNNER__RAY__ENV\n"
        r"      - HF_HOME\n",
        told,
        re.M,
    )
    whole = shown(invoke("--set", "runner.ray={num_cpus: 0.5}"))
    assert whole["num_cpus"] == ("0.5", "--set")
    assert whole["address"] == ("null", "default")
    assert whole["env"] == ("[]", "default")


def test_what_python_gave_is_told_too(project: Path) -> None:
    """From Python a mapping is `configuration`, and an argument the caller's."""
    told = shown(Experiment({"runner": {"target": "a:b"}}, iterations=3).show_config())
    assert told["target"] == ("a:b", "configuration")
    assert told["iterations"] == ("3", "caller")


def test_a_hostile_name_stays_in_its_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or a variable with a line end in its name adds no line."""
    folder = tmp_path / "a\nb: c\x1b[31m"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("c\n.yaml").write_text("name: x\n")
    text = show(load_config(Path("c\n.yaml"), environment={}))
    assert "\x1b" not in text
    assert "\nb: c" not in text
    assert re.search("^name: x +# c\N{REPLACEMENT CHARACTER}.yaml:1$", text, re.M)


def test_what_is_wrong_is_told_as_in_a_run(project: Path) -> None:
    """With exit code 2, on stderr, by its place."""
    result = CliRunner().invoke(main, ["config", "show", "--set", "runner.iterations=no", "-c", "configs/none.yaml"])
    assert result.exit_code == 2
    result = CliRunner().invoke(main, ["config", "show", "--set", "runner.iterations=no"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: --set runner.iterations=no: expected an integer >= 1, got 'no'\n"


def test_it_takes_the_options_of_run_that_configure() -> None:
    """All but those that say how to go about a run."""
    from fluxloop_cli.config import show as show_command
    from fluxloop_cli.run import experiment

    left_out = {option.name for option in experiment.params} - {option.name for option in show_command.params}
    assert left_out == {"resume", "retry_failed", "force", "capture_output", "dry_run", "quiet", "no_progress"}
