"""The configuration as an experiment writes it, enough to run again."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fluxloop import ConfigError, Experiment
from fluxloop.config import (
    ExperimentConfig,
    InputsConfig,
    OutputConfig,
    RunnerConfig,
    SinkConfig,
    load_config,
    snapshot,
)
from fluxloop.config.convert import structure, unstructure
from fluxloop.config.model import (
    Choice,
    Count,
    Cpus,
    Duration,
    Failures,
    Name,
    PositiveInt,
    Rate,
    RayConfig,
    ReplayConfig,
    Seconds,
    ShardText,
    Share,
)
from fluxloop.config.snapshot import to_yaml
from fluxloop.tracing.redaction import MASK

PROJECT = Path(__file__).parent.parent / "projects" / "rerun"


def told(text: str, folder: Path, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What is written of a configuration of this text."""
    path = folder / "c.yaml"
    path.write_text(text)
    loaded = load_config(path, environment=environment or {})
    return snapshot(loaded, loaded.config)


def test_references_stay_references(tmp_path: Path) -> None:
    """What came from the environment is written as the reference, at any depth, and not as its value."""
    text = "runner:\n  target: '${M}:run'\n  args: {api_key: '${KEY}', deep: [{x: 'a-${KEY}'}]}\n  iterations: ${N}\n"
    runner = told(text, tmp_path, {"M": "m", "KEY": "sk-1", "N": "3"})["runner"]
    assert runner["target"] == "${M}:run"
    assert runner["args"] == {"api_key": "${KEY}", "deep": [{"x": "a-${KEY}"}]}
    assert runner["iterations"] == "${N}"


def test_secrets_are_masked(tmp_path: Path) -> None:
    """A literal under a key that sounds secret is masked, and so is all below such a key; other keys stay."""
    text = """\
runner:
  args:
    openai_api_key: sk-1
    dbPassword: p
    access_token: t
    CLIENT_SECRET: {id: 1, list: [a, null, '']}
    monkey: m
    author: a
    max_tokens: 5
    turkey: x
output:
  sinks:
  - sink: m:S
    args: {token: t, level: 1}
"""
    data = told(text, tmp_path)
    assert data["runner"]["args"] == {
        "openai_api_key": MASK,
        "dbPassword": MASK,
        "access_token": MASK,
        "CLIENT_SECRET": {"id": MASK, "list": [MASK, None, ""]},
        "monkey": "m",
        "author": "a",
        "max_tokens": 5,
        "turkey": "x",
    }
    assert data["output"]["sinks"][0]["args"] == {"token": MASK, "level": 1}


def test_paths_are_absolute(tmp_path: Path) -> None:
    """Paths are told from the project root, which becomes importable too, so that they hold anywhere."""
    text = """\
runner: {working_directory: work, python_path: [lib, /opt/lib]}
inputs: {file: q.csv}
output: {directory: out}
"""
    data = told(text, tmp_path)
    assert data["runner"]["working_directory"] == str(tmp_path / "work")
    assert data["runner"]["python_path"] == [str(tmp_path), str(tmp_path / "lib"), "/opt/lib"]
    assert data["inputs"]["file"] == str(tmp_path / "q.csv")
    assert data["output"]["directory"] == str(tmp_path / "out")


def test_references_in_paths(tmp_path: Path) -> None:
    """A reference in a path stays one, below the project root where what it says is relative."""
    text = """\
runner: {python_path: ['${LIB}', '${ROOT}/lib'], working_directory: '${LIB}'}
inputs: {file: '${ROOT}/q.csv'}
output: {directory: '${LIB}'}
"""
    data = told(text, tmp_path, {"LIB": "lib", "ROOT": "/opt"})
    assert data["runner"]["python_path"] == [str(tmp_path), f"{tmp_path}/${{LIB}}", "${ROOT}/lib"]
    assert data["runner"]["working_directory"] == f"{tmp_path}/${{LIB}}"
    assert data["inputs"]["file"] == "${ROOT}/q.csv"
    assert data["output"]["directory"] == f"{tmp_path}/${{LIB}}"


def test_arguments_of_any_kind_are_told() -> None:
    """Arguments from Python that YAML cannot tell become plain data; dates, bytes and numbers stay."""
    args = {"object": object(), "set": {1}, "lone": "\ud800", "path": Path("x"), "tuple": (1,), "bytes": b"x"}
    args |= {"day": datetime.date(2024, 1, 2), "inf": float("inf"), "none": None}
    loaded = load_config(None, overrides={"runner.args": args}, environment={})
    text = to_yaml(snapshot(loaded, loaded.config)).decode()
    back = YAML(typ="safe").load(text)["runner"]["args"]
    assert back.pop("object").startswith("<object object")
    assert back.pop("lone").isascii()
    assert back == {
        "set": [1],
        "path": "x",
        "tuple": [1],
        "bytes": b"x",
        "day": datetime.date(2024, 1, 2),
        "inf": float("inf"),
        "none": None,
    }


def test_keys_keep_their_order() -> None:
    """The written file has the keys in the order of the classes."""
    loaded = load_config(None, environment={})
    assert list(YAML(typ="safe").load(to_yaml(snapshot(loaded, loaded.config)))) == [
        field.name for field in attrs.fields(ExperimentConfig)
    ]


def test_sections_for_the_short_form_of_sinks() -> None:
    """`module:Class` is told in the long form, which reads back the same."""
    loaded = load_config({"output": {"sinks": ["m:S"]}}, environment={})
    data = snapshot(loaded, loaded.config)
    assert data["output"]["sinks"] == [{"sink": "m:S", "args": {}}]
    assert load_config(data, environment={}).config.output.sinks == loaded.config.output.sinks


lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | lines,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(lines, inner, max_size=3),
    max_leaves=8,
)
names = st.text("abc-_. 0é", min_size=1, max_size=10).filter(lambda name: name.strip() and name not in (".", ".."))
positive = st.integers(1, 10**9).map(PositiveInt)
seconds = st.floats(0, 1e9).map(Seconds)
rates = st.builds(
    "{}{}{}".format, st.integers(1, 10**6), st.sampled_from(["/", " / "]), st.sampled_from(["s", "min", "h"])
)
shards = st.integers(1, 999_999).flatmap(lambda count: st.integers(1, count).map(lambda index: f"{index}/{count}"))
limits = st.integers(1, 2**63).map(Failures) | st.floats(0, 1, exclude_min=True).map(Failures)
sinks = st.builds(SinkConfig, sink=lines, args=st.dictionaries(lines, plain, max_size=2))
choices = st.sampled_from(["last", "first", "all"]) | st.fixed_dictionaries(
    {"target": lines}, optional={"iteration": st.integers(0, 10**9)}
)
configs = st.builds(
    ExperimentConfig,
    name=st.none() | names.map(Name),
    description=st.none() | lines,
    tags=st.lists(lines, max_size=3).map(tuple),
    seed=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    fail_under=st.none() | st.floats(0, 1).map(Share),
    runner=st.builds(
        RunnerConfig,
        target=st.none() | lines,
        iterations=positive,
        args=st.dictionaries(lines, plain, max_size=3),
        inject=st.lists(st.sampled_from(["persona", "iteration", "metadata", "expected"]), max_size=2).map(tuple),
        input_template=plain,
        output_path=st.none() | lines,
        working_directory=st.none() | lines,
        python_path=st.lists(lines, max_size=2).map(tuple),
        parallel=positive,
        executor=st.sampled_from(["auto", "inline", "asyncio", "threads", "processes", "ray"]),
        timeout_seconds=st.none() | seconds,
        max_retries=st.integers(0, 10**9).map(Count),
        max_crash_retries=st.none() | st.integers(0, 10**9).map(Count),
        retry_on=st.lists(lines, max_size=2).map(tuple),
        infrastructure=st.lists(lines, max_size=2).map(tuple),
        retry_delay_seconds=seconds,
        start_rate=st.none() | rates.map(Rate),
        run_delay_seconds=seconds,
        max_failures=st.none() | limits,
        stop_when_all_fail=st.integers(0, 10**9).map(Count),
        max_time=st.none() | st.floats(0, 1e9, exclude_min=True).map(Duration),
        grace_seconds=seconds,
        stall_seconds=seconds,
        shard=st.none() | shards.map(ShardText),
        per_shard=st.booleans(),
        ray=st.builds(
            RayConfig,
            address=st.none() | lines,
            num_cpus=st.floats(0, 10_000).map(Cpus),
            env=st.lists(lines, max_size=2).map(tuple),
        ),
    ),
    inputs=st.builds(
        InputsConfig,
        file=st.none() | lines,
        map=st.dictionaries(st.sampled_from(["input", "id", "persona"]), lines, max_size=2),
        personas=st.lists(lines, max_size=2).map(tuple),
        ids=st.lists(lines, max_size=2).map(tuple),
        limit=st.none() | positive,
    ),
    replay_args=st.builds(
        ReplayConfig,
        enabled=st.booleans(),
        recording_file=st.none() | lines,
        override_param_path=st.none() | lines,
        select=choices.map(Choice),
        callable_providers=st.dictionaries(lines, lines, max_size=2),
        values=st.dictionaries(lines, plain, max_size=2),
    ),
    output=st.builds(
        OutputConfig,
        directory=lines,
        sinks=st.lists(sinks, max_size=2).map(tuple),
    ),
)  # fmt: skip


@given(config=configs)
def test_round_trip_as_data(config: ExperimentConfig) -> None:
    """Whatever a configuration holds, telling it as plain data and reading that gives it back."""
    assert structure(unstructure(config)) == (config, [])


@given(config=configs)
def test_round_trip_as_yaml(config: ExperimentConfig) -> None:
    """Whatever a configuration holds, writing it as YAML and reading that gives it back."""
    data = YAML(typ="safe", pure=True).load(to_yaml(unstructure(config)))
    assert structure(data) == (config, [])


@given(limit=limits)
def test_one_failure_and_all_failures_are_told_apart(limit: Failures) -> None:
    """A number of runs comes back as an integer and a share as none: 1 is one run, 1.0 is all of them."""
    config = ExperimentConfig(runner=RunnerConfig(max_failures=limit))
    again, _ = structure(YAML(typ="safe", pure=True).load(to_yaml(unstructure(config))))
    assert again is not None
    assert type(again.runner.max_failures) is type(limit)


def test_running_again_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Any) -> None:
    """The written config.yaml runs the same experiment from another working directory."""
    root = project(PROJECT)
    monkeypatch.setenv("RERUN_STYLE", "loud")
    monkeypatch.chdir(root)
    first = Experiment("configs/simulation.yaml", progress=False, settings=["runner.iterations=2"]).run()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    again = Experiment(first.path / "config.yaml", progress=False).run()
    assert again.path.parent == first.path.parent == root / "results"
    assert list(elsewhere.iterdir()) == []
    told = [
        [(t.trace_id, t.input_id, t.seed, t.output, t.metadata) for t in sorted(result, key=lambda t: t.trace_id)]
        for result in (first, again)
    ]
    assert told[0] == told[1]
    assert [output for _, _, _, output, _ in told[0]] == ["HI!", "BYE!", "HI!", "BYE!"]
    config = [(result.path / "config.yaml").read_text() for result in (first, again)]
    assert "${RERUN_STYLE}" in config[0]
    assert "loud" not in config[0]
    assert structure(YAML(typ="safe").load(config[0]))[0] is not None


def test_a_masked_value_is_asked_for_again(tmp_path: Path) -> None:
    """Running a written configuration with a masked secret says which key to give, and takes it."""
    (tmp_path / "config.yaml").write_text("runner: {target: 'm:f', args: {api_key: '***'}}\n")

    with pytest.raises(ConfigError, match=r"config\.yaml:1:41: runner\.args\.api_key: masked .*--set"):
        load_config(tmp_path / "config.yaml", environment={})
    loaded = load_config(tmp_path / "config.yaml", settings=["runner.args.api_key=sk-1"], environment={})
    assert loaded.config.runner.args == {"api_key": "sk-1"}


@given(text=st.text(alphabet="$ab{}A", max_size=12))
def test_texts_that_look_like_references_are_told_as_they_are(text: str) -> None:
    """A text from the command line that holds `${NAME}` comes back from the snapshot the same."""
    loaded = load_config({"runner": {"target": "m:f"}}, overrides={"runner.args.x": text}, environment={})
    again = load_config(snapshot(loaded, loaded.config), environment={})
    assert again.config.runner.args == {"x": text}


def test_an_override_stands_before_a_reference_that_is_not_set() -> None:
    """A value that is given needs no variable."""
    loaded = load_config({"runner": {"target": "${NOT_SET}"}}, settings=["runner.target=m:f"], environment={})
    assert loaded.config.runner.target == "m:f"
