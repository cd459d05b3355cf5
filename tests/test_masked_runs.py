"""Masking speaks: in how many runs each secret was masked, and which ids hold one, for ids are never masked."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fluxloop
from fluxloop import Experiment, InputError, UsageError, load, merge
from fluxloop.exceptions import ConfigError
from fluxloop.reports.rows import summary_rows
from fluxloop.testing import run_once
from fluxloop.tracing.redaction import MASK

FIRST, SECOND = "sk-first-0123456789", "tok-second-987654"
KEYS = {"FIRST_API_KEY": FIRST, "SECOND_TOKEN": SECOND, "TWIN_API_KEY": FIRST}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two secrets in the environment, one of them in two variables."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


def masked_in(agent: Any, inputs: list[Any], place: Path, **options: Any) -> dict[str, int]:
    return Experiment(target=agent, inputs=inputs, output_dir=place, **options).run().summary.masked


TEXTS = st.lists(st.sampled_from([*KEYS.values(), "nothing", "pat-1234"]), max_size=3).map(" and ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(runs=st.lists(TEXTS, min_size=1, max_size=5), executor=st.sampled_from(["inline", "threads", "asyncio"]))
def test_the_figure_is_the_number_of_runs_that_held_the_secret(
    runs: list[str], executor: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However often it was masked in one of them; a secret of two variables counts for both."""

    def agent(text: str) -> list[str]:
        print(text)
        return [text, text]

    async def agent_among_others(text: str) -> list[str]:
        fluxloop.event("before", text=text)
        await asyncio.sleep(0)
        return agent(text)

    place = tmp_path_factory.mktemp("experiment")
    overrides = {
        "runner.executor": executor,
        "runner.parallel": 1 if executor == "inline" else 3,
        "runner.timeout_seconds": 0,
        "output.redact_patterns": ["pat-[0-9]+"],
    }
    target = agent_among_others if executor == "asyncio" else agent
    found = masked_in(target, runs, place, overrides=overrides, capture_output=True)
    expected = Counter(name for text in runs for name, key in KEYS.items() if key in text)
    expected["output.redact_patterns"] = sum("pat-1234" in text for text in runs)
    assert found == {name: count for name, count in expected.items() if count}


PLACES: dict[str, Any] = {
    "an output": lambda text: SECOND,
    "bytes": lambda text: b"\xff" + SECOND.encode(),
    "a key of a mapping": lambda text: {SECOND: 1},
    "what is printed": lambda text: print(SECOND),
    "an observation": lambda text: fluxloop.event("seen", what=SECOND),
    "an error": lambda text: {}[SECOND],
    "a stream": lambda text: iter([SECOND]),
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_run_shows_a_secret_it_is_counted(place: str, tmp_path: Path) -> None:
    """In the output, in what is printed, in observations and in errors."""
    agent = PLACES[place]
    assert masked_in(agent, ["hi"], tmp_path, capture_output=True) == {"SECOND_TOKEN": 1}


def test_what_masks_beside_variables_has_a_name_too(tmp_path: Path) -> None:
    """Keys of the configuration by their path; inputs, and values under secret names, by these words."""
    overrides = {"runner.args": {"client": {"password": "of-the-arguments"}}}

    def agent(message: Any, client: Any) -> Any:
        return {"said": "of-the-arguments of-the-input", "token": "short"}

    found = masked_in(agent, [{"input": {"text": "hi", "api_key": "of-the-input"}}], tmp_path, overrides=overrides)
    assert found == {"runner.args.client.password": 1, "inputs": 1, "secret names": 1}


def test_a_number_that_is_a_secret_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the text it is in the environment."""
    monkeypatch.setenv("ACCOUNT_SECRET", "4815162342")
    assert masked_in(lambda text: {"account": 4815162342}, ["hi"], tmp_path) == {"ACCOUNT_SECRET": 1}


def test_a_run_counts_once_for_all_its_attempts(tmp_path: Path) -> None:
    """Also for what only an attempt before the last has shown."""
    attempts = Counter[str]()

    def agent(text: str) -> str:
        attempts[text] += 1
        if attempts[text] == 1:
            raise ConnectionError(SECOND)
        return FIRST

    overrides = {"runner.max_retries": 1, "runner.retry_delay_seconds": 0}
    found = masked_in(agent, ["a", "b"], tmp_path, overrides=overrides)
    assert found == {"FIRST_API_KEY": 2, "SECOND_TOKEN": 2, "TWIN_API_KEY": 2}


def test_a_run_that_is_given_up_counts(tmp_path: Path) -> None:
    """Though its record is made by another thread."""
    over = threading.Event()

    def agent(text: str) -> None:
        print(SECOND)
        over.wait()

    overrides = {"runner.executor": "threads", "runner.timeout_seconds": 0.2}
    try:
        assert masked_in(agent, ["hi"], tmp_path, overrides=overrides, capture_output=True) == {"SECOND_TOKEN": 1}
    finally:
        over.set()


AGENT = """
import os, time

def run(text):
    print(os.environ["SECOND_TOKEN"])
    if text.startswith("die"):
        os._exit(3)
    if text.startswith("hang"):
        time.sleep(3600)
    return os.environ["SECOND_TOKEN"]

def load(text):
    os.environ["LATE_PASSWORD"] = "loaded-by-the-agent"
    return "done"
"""


def command(place: Path, target: str, inputs: list[Any], *options: str) -> tuple[str, Any]:
    """Run the command; return what it shows, and its summary."""
    (place / "masked_agent.py").write_text(AGENT)
    (place / "in.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in inputs))
    line = ["run", "experiment", "--target", f"masked_agent:{target}", "--inputs", "in.jsonl", *options]
    done = run([sys.executable, "-m", "fluxloop_cli", *line], cwd=place, capture_output=True, text=True, timeout=60)
    found = sorted(place.glob("experiments/*"))
    return done.stdout + done.stderr, load(found[-1]) if found else None


def test_the_end_says_what_was_masked_in_worker_processes(tmp_path: Path) -> None:
    """Of runs that answer, hang or take their worker with them; the last has shown nothing but its input."""
    inputs = ["a", "hang", f"die {FIRST}"]
    screen, result = command(tmp_path, "run", inputs, "--executor", "processes", "--timeout", "1")
    assert result.summary.masked == {"FIRST_API_KEY": 1, "SECOND_TOKEN": 2, "TWIN_API_KEY": 1}
    assert "  masked    SECOND_TOKEN in 2 runs, FIRST_API_KEY in 1 run, TWIN_API_KEY in 1 run\n" in screen
    assert "| Masked | SECOND" in result.to_markdown(tmp_path / "report").read_text().replace("\\", "")


def test_nothing_masked_is_nothing_said(tmp_path: Path) -> None:
    """An experiment without secrets in it has no line about them."""
    result = Experiment(target=str.upper, inputs=["hi"], output_dir=tmp_path).run()
    assert result.summary.masked == {}
    assert not [row for row in summary_rows(result.summary) if row[0] == "masked"]


def test_the_figures_go_on_with_the_experiment(tmp_path: Path) -> None:
    """A resume adds to them, reading them back keeps them, and merging adds those of the shards up."""

    def agent(text: str) -> str:
        return SECOND if text != "c" else "nothing"

    given: dict[str, Any] = {"target": agent, "inputs": ["a", "b", "c"]}
    first = Experiment(**given, output_dir=tmp_path).run()
    assert first.summary.masked == {"SECOND_TOKEN": 2}
    again = Experiment.resume(first.path, **given, overrides={"runner.iterations": 3}).run()
    assert again.summary.masked == {"SECOND_TOKEN": 6}
    assert load(again.path).summary.masked == {"SECOND_TOKEN": 6}
    assert again.verify().is_sound
    shards = []
    for number in (1, 2):
        overrides = {"runner.shard": f"{number}/2"}
        shards.append(Experiment(**given, name="shards", overrides=overrides, output_dir=tmp_path).run())
    assert merge([shard.path for shard in shards], tmp_path / "merged").summary.masked == {"SECOND_TOKEN": 2}


def test_many_names_are_listed_in_bounds() -> None:
    """The most frequent first; all of them are in the summary."""
    from fluxloop.summary import SummaryBuilder

    masked = {f"KEY_{number}": number for number in range(1, 20)}
    summary = SummaryBuilder(experiment_name="", planned=0, started_at="", ran_on={}, masked=masked).build(
        "completed", completed_at=""
    )
    (text,) = [text for label, text in summary_rows(summary) if label == "masked"]
    assert text.startswith("KEY_19 in 19 runs, KEY_18 in 18 runs, ")
    assert text.endswith(" and 11 more")


# Ids


@pytest.mark.parametrize("field", ["id", "source_id"])
def test_an_id_that_holds_a_secret_is_refused(field: str, tmp_path: Path) -> None:
    """Before the first run, by line and by the variable, without the secret or the id."""
    key = SECOND
    inputs = [{"input": "a", "id": "fine"}, {"input": "b", field: f"about {key}"}, {"input": "c", field: f"of {key}"}]
    screen, result = command(tmp_path, "run", inputs)
    assert result is None
    assert f"in.jsonl:2: the {field} holds a secret (SECOND_TOKEN), and ids are never masked; " in screen
    assert f"give the input another {field} (and so for 1 more entry)" in screen
    assert key not in screen
    assert "about" not in screen
    with pytest.raises(InputError, match=r"inputs:1: the id holds a secret \(output.redact_patterns\)"):
        Experiment(
            target=str.upper, inputs=[{"input": "a", "id": "me@home"}], overrides={"output.redact_patterns": [".@."]}
        ).plan()


def test_without_redaction_any_id_goes(tmp_path: Path) -> None:
    """What is masked nowhere is refused nowhere."""
    inputs = [{"input": "a", "id": SECOND}]
    overrides = {"output.redact": False}
    result = Experiment(target=str.upper, inputs=inputs, overrides=overrides, output_dir=tmp_path).run()
    assert [trace.input_id for trace in result] == [SECOND]


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_secret_that_is_known_too_late_leaves_the_id_and_is_said_once(executor: str, tmp_path: Path) -> None:
    """Resume, seeds and statistics go by ids: they stay, all else is masked, and a warning names the variable."""
    late = "loaded-by-the-agent"
    inputs = [
        {
            "input": f"use {late}",
            "id": f"{number} of {late}",
            "source_id": f"source {late}",
            "persona": f"owner of {late}",
        }
        for number in range(3)
    ]
    screen, result = command(tmp_path, "load", inputs, "--executor", executor, "--timeout", "0")
    for number, trace in enumerate(sorted(result, key=lambda trace: trace.trace_id)):
        assert (trace.input_id, trace.metadata) == (f"{number} of {late}", {"source_id": f"source {late}"})
        assert (trace.input, trace.persona) == ("use ***", "owner of ***")
    assert result.summary.pass_rate.clusters == 1
    assert result.verify().is_sound
    assert screen.count("holds a secret (LATE_PASSWORD), and ids are never masked") == 1
    assert result.summary.masked == {"LATE_PASSWORD": 3}
    resumed = run(
        [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--resume", str(result.path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Nothing is left to run" in resumed.stdout + resumed.stderr


def test_a_secret_of_the_input_itself_in_its_id_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Known when its run begins: told then."""
    inputs = [{"input": {"text": "hi", "api_key": "of-this-input"}, "id": "of-this-input"}]
    result = Experiment(target=lambda text, api_key: api_key, inputs=inputs, output_dir=tmp_path).run()
    assert [(trace.input_id, trace.output) for trace in result] == [("of-this-input", MASK)]
    assert "an id of its input holds a secret (inputs), and ids are never masked" in capfd.readouterr().err


def test_a_name_that_holds_a_secret_is_refused(tmp_path: Path) -> None:
    """It would stand in the name of the directory."""
    with pytest.raises(ConfigError, match=r"name: holds a secret \(SECOND_TOKEN\), and names are never masked"):
        Experiment(target=str.upper, inputs=["a"], name=f"with {SECOND}", output_dir=tmp_path)
    with pytest.raises(UsageError, match="another with --name"):
        Experiment(target=str.upper, inputs=["a"], name=SECOND, output_dir=tmp_path)
    Experiment(target=str.upper, inputs=["a"], name="matched", overrides={"output.redact_patterns": ["match.*"]})


def test_a_development_password_masks_no_ordinary_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word stays, in texts and in ids; the value under a secret name is masked all the same."""
    monkeypatch.setenv("POSTGRES_PASSWORD", "postgres")
    monkeypatch.setenv("DATABASE_URL", "postgresql://postgres:postgres@localhost/postgres")
    monkeypatch.setenv("SHOPDATA_PASSWORD", "shopdata")

    def agent(text: str) -> Any:
        return {"said": f"{text}, shopdata", "password": "postgres"}

    inputs = [{"input": "how do I start postgres?", "id": "postgres", "persona": "postgres admin"}]
    result = Experiment(target=agent, inputs=inputs, output_dir=tmp_path).run()
    (trace,) = result
    assert (trace.input_id, trace.input, trace.persona) == ("postgres", "how do I start postgres?", "postgres admin")
    assert trace.output == {"said": "how do I start postgres?, shopdata", "password": MASK}
    assert result.summary.masked == {"secret names": 1}
    assert run_once(lambda text, password: text, "postgres", args={"password": "postgres"}).output == "postgres"
