"""Failures of the agent that later results replace: run again on resume, or retried. All are counted and shown."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fluxloop
from fluxloop import Experiment, ExperimentResult
from fluxloop.listing import list_experiments
from fluxloop.resuming.continuing import RetryFailed
from fluxloop.summary import Summary
from fluxloop_cli.main import main

INPUTS = ["good", "wrong", "down", "slow", "crash"]
REROLLED = "failures of the agent were run again on resume (superseded.jsonl): re-rolled, so the pass rate is biased"


class WrongAnswerError(Exception):
    """What an agent of one's own raises."""


def mends(text: str, folder: str) -> str:
    """Fail by the input's name until the folder holds a file `well`."""
    if not Path(folder, "well").exists():
        if text == "wrong":
            raise WrongAnswerError
        if text == "down":
            raise ConnectionError("refused")
        if text == "slow":
            threading.Event().wait()
        if text == "crash":
            os._exit(3)
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment in which every kind of failure has happened once; from now on nothing fails."""
    folder = tmp_path_factory.mktemp("made")
    options = {"executor": "processes", "parallel": 2, "timeout_seconds": 1, "name": "demo"}
    config = {"runner": {"args": {"folder": str(folder)}}}
    Experiment(config, target=mends, inputs=INPUTS, output_dir=folder, **options).run().path.rename(folder / "demo")
    (folder / "well").touch()
    return folder


@pytest.fixture
def failed(made: Path, tmp_path: Path) -> ExperimentResult:
    """That experiment, in a folder of the test's own."""
    return fluxloop.load(shutil.copytree(made / "demo", tmp_path / "demo"))


def again(result: ExperimentResult, retry: RetryFailed, **options: Any) -> ExperimentResult:
    options = {"executor": "inline", "parallel": 1, "timeout_seconds": 0, **options}
    return Experiment.resume(result.path, mends, INPUTS, retry_failed=retry, **options).run()


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Let a summary be another."""
    told = json.loads((path / "summary.json").read_text())
    edit(told)
    (path / "summary.json").write_text(json.dumps(told))


def shown(result: ExperimentResult) -> str:
    """All that a reader of figures may look at."""
    rows = "\n".join(text for _, text in result.table())
    return "\n".join([result.headline(), rows, result.to_markdown(overwrite=True).read_text()])


@pytest.mark.parametrize(
    ("retry", "superseded", "rerolled"), [("infrastructure", 1, 0), ("failed", 3, 2), ("all", 4, 3)]
)
def test_what_counted_and_was_run_again_is_rerolled(
    failed: ExperimentResult,
    retry: RetryFailed,
    superseded: int,
    rerolled: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Timeouts and crashes as well as errors; what infrastructure ended is not. Each place with a rate says so."""
    assert failed.summary.by_status == {"ok": 1, "error": 2, "timeout": 1, "crashed": 1}
    assert (failed.summary.judged, failed.summary.bias) == (4, "")
    result = again(failed, retry)
    summary = result.summary
    assert (summary.superseded, summary.rerolled) == (superseded, rerolled)
    assert (summary.passed, summary.judged) == (1 + superseded, 5)
    assert fluxloop.load(result.path).summary == summary
    assert result.verify().is_sound, str(result.verify())
    (one,) = list_experiments(tmp_path)
    table = CliRunner().invoke(main, ["list", "--output-dir", str(tmp_path)]).output
    warned = f"{rerolled} of the runs that are run again failed by the agent" in capsys.readouterr().err
    if not rerolled:
        assert (summary.remarks, one.is_biased, warned) == ((), False, False)
        assert "biased" not in shown(result) + table
        assert "*" not in table
        return
    assert (one.is_biased, warned) == (True, True)
    assert summary.remarks == (f"{rerolled} {REROLLED} upwards",)
    assert summary.bias == f"biased upwards by {rerolled} re-rolled failures of the agent"
    assert shown(result).count(summary.bias) == 2
    assert shown(result).count(summary.remarks[0]) == 2
    assert f"*{summary.passed / 5:.1%}" in table
    assert "biased upwards" in table


def test_the_hint_on_infrastructure_runs_nothing_else_again(failed: ExperimentResult) -> None:
    """What it says to do costs no honesty, though there are timeouts and crashes."""
    (hint,) = (text for _, text in failed.table() if "to run them again" in text)
    assert "retry_failed='infrastructure'" in hint


@pytest.mark.parametrize(
    ("names", "inputs", "after_failure"),
    [
        (["transient"], ["good", "down"], 0),
        (["WrongAnswerError"], ["good", "wrong", "down"], 1),
        (["transient", "Exception"], ["good", "wrong", "down"], 1),
        (["TimeoutError"], ["slow"], 1),
    ],
)
def test_what_passed_only_after_a_failure_of_the_agent_is_counted(
    names: list[str], inputs: list[str], after_failure: int, tmp_path: Path
) -> None:
    """By `retry_on` with the agent's own errors, or for what was too slow; after an outage it is not."""
    config = {"runner": {"retry_on": names, "max_retries": 3, "retry_delay_seconds": 0.0}}
    limit = 0.2 if "slow" in inputs else 0
    options = {"executor": "threads", "timeout_seconds": limit, "output_dir": tmp_path}
    result = Experiment(config, target=fails_first, inputs=inputs, **options).run()
    summary = result.summary
    assert summary.passed_after_failure == after_failure
    assert summary.bias == ("biased upwards by 1 retried failure of the agent" if after_failure else "")
    assert summary.bias in result.headline()
    assert len(summary.remarks) == after_failure
    assert all(f"1 of {summary.passed} passed runs passed only after" in remark for remark in summary.remarks)
    assert [one.is_biased for one in list_experiments(tmp_path)] == [bool(after_failure)]
    assert result.verify().is_sound


def fails_first(text: str) -> str:
    """Fail by the input's name in the first attempt."""
    run = fluxloop.current_run()
    assert run is not None
    if run.attempt == 1:
        if text == "wrong":
            raise WrongAnswerError
        if text == "down":
            raise ConnectionError("refused")
        if text == "slow":
            threading.Event().wait(30)
        if text == "crash":
            os._exit(3)
    if text == "crash, then down":
        if run.attempt == 1:
            os._exit(3)
        raise ConnectionError("refused")
    return text


def test_a_crash_that_was_retried_is_a_failure_of_the_agent(tmp_path: Path) -> None:
    """Whether the run passed then, or an outage left it without a verdict."""
    result = Experiment(
        {"runner": {"max_crash_retries": 1, "retry_delay_seconds": 0.0}},
        target=fails_first,
        inputs=["good", "crash", "crash, then down"],
        executor="processes",
        output_dir=tmp_path,
    ).run()
    summary = result.summary
    assert (summary.passed, summary.judged, summary.infrastructure) == (2, 2, 1)
    assert (summary.passed_after_failure, summary.left_out_after_failure) == (1, 1)
    assert summary.bias == "biased upwards by 2 retried failures of the agent"
    passed, left_out = summary.remarks
    assert passed.startswith("1 of 2 passed runs passed only after a failure of the agent that was retried")
    assert left_out.startswith("1 of 1 runs that infrastructure ended are left out after a failure of the agent")
    # The outage is run again; that the agent had crashed there is not lost with it.
    more = Experiment.resume(result.path, inputs=["good", "crash", "crash, then down"], retry_failed="infrastructure")
    assert more.run().summary.rerolled == 1


def test_shards_are_merged_with_what_was_replaced_in_each(tmp_path: Path) -> None:
    """The counts of the whole are the sums, and its remarks say so once."""
    found: list[Summary] = []
    paths = []
    for shard in ("1/2", "2/2"):
        folder = tmp_path / shard[0]
        folder.mkdir()
        options = {"shard": shard, "seed": 1, "iterations": 2, "executor": "threads", "timeout_seconds": 60}
        inputs = ["good", "wrong", "down"]
        config = {"runner": {"retry_on": ["WrongAnswerError"], "max_retries": 1, "retry_delay_seconds": 0.0}}
        result = Experiment(config, target=stays_wrong, inputs=inputs, name="n", output_dir=folder, **options).run()
        result = Experiment.resume(result.path, stays_wrong, inputs, retry_failed="all").run()
        found.append(result.summary)
        paths.append(result.path)
    whole = fluxloop.merge(paths, tmp_path / "merged")
    for name in ("rerolled", "passed_after_failure", "left_out_after_failure", "superseded"):
        assert getattr(whole.summary, name) == sum(getattr(one, name) for one in found), name
    assert whole.summary.rerolled > 0
    assert whole.summary.passed_after_failure > 0
    assert Counter("biased" in remark for remark in whole.summary.remarks)[True] == 2
    assert whole.verify().is_sound


def stays_wrong(text: str) -> str:
    """Be wrong in the first attempt, and on every second iteration for good."""
    run = fluxloop.current_run()
    assert run is not None
    if text == "wrong" and (run.attempt == 1 or run.iteration):
        raise WrongAnswerError
    if text == "down":
        raise ConnectionError("refused")
    return text


def test_results_of_an_earlier_version_are_counted_anew(tmp_path: Path) -> None:
    """When they are read, and for good when they are resumed; only errors were re-rolls there, retries nothing."""
    config = {"runner": {"retry_on": ["WrongAnswerError"], "max_retries": 1, "retry_delay_seconds": 0.0}}
    options = {"inputs": ["good", "wrong", "slow"], "executor": "threads"}
    first = Experiment(
        config, target=fails_first, output_dir=tmp_path, timeout_seconds=0.3, parallel=3, **options
    ).run()
    result = Experiment.resume(first.path, slow_no_more, options["inputs"], retry_failed="failed", force=True).run()
    assert (result.summary.rerolled, result.summary.passed_after_failure) == (1, 1)

    def as_earlier(told: dict[str, Any]) -> None:
        del told["passed_after_failure"], told["left_out_after_failure"]
        told.update(rerolled=0, remarks=[remark for remark in told["remarks"] if "biased" not in remark])

    change(result.path, as_earlier)
    loaded = fluxloop.load(result.path)
    assert loaded.summary == result.summary
    assert loaded.exit_code == 0
    assert not loaded.verify().is_sound
    resumed = Experiment.resume(result.path, slow_no_more, options["inputs"]).run()
    assert resumed.summary.remarks == result.summary.remarks
    assert resumed.verify().is_sound

    change(result.path, as_earlier)
    (result.path / "superseded.jsonl").write_bytes(b"\0\n")
    assert fluxloop.load(result.path).summary.rerolled == 0


def slow_no_more(text: str) -> str:
    return text


def test_a_summary_that_a_crash_left_behind_counts_rerolls_from_the_files(
    failed: ExperimentResult, tmp_path: Path
) -> None:
    """Also what was replaced after it was written; the list marks its rate."""
    result = again(failed, "failed")
    change(result.path, lambda told: told.update(status="running", rerolled=0, superseded=0, remarks=["kept"]))
    loaded = fluxloop.load(result.path).summary
    assert (loaded.superseded, loaded.rerolled) == (3, 2)
    assert loaded.remarks == ("kept", f"2 {REROLLED} upwards")
    assert [(one.status, one.is_biased) for one in list_experiments(tmp_path)] == [("killed", True)]
    (result.path / "superseded.jsonl").write_bytes(b"\0\n")
    assert [one.is_biased for one in list_experiments(tmp_path)] == [False]


def test_a_failure_that_waits_for_its_retry_when_the_experiment_ends_is_told(tmp_path: Path) -> None:
    """Its run counts as not run, and what the agent did there is not lost without a word, also after a resume."""
    config = {"runner": {"retry_on": ["WrongAnswerError"], "max_retries": 3, "retry_delay_seconds": 3600.0}}
    inputs = ["wrong", "broken", "good"]

    def agent(text: str) -> str:
        if text == "broken":
            raise KeyError(text)
        return fails_first(text)

    result = Experiment(config, target=agent, inputs=inputs, output_dir=tmp_path, max_failures=1).run()
    assert (result.summary.status, result.summary.by_status["error"], result.summary.not_run) == ("stopped", 1, 2)
    (remark,) = result.summary.remarks
    assert remark.startswith("1 run did not count: the agent had failed, another attempt was due (runner.retry_on)")
    assert result.verify().is_sound
    resumed = Experiment.resume(result.path, slow_no_more, inputs, force=True, max_failures=100).run()
    assert resumed.summary.status == "completed"
    assert remark in resumed.summary.remarks
