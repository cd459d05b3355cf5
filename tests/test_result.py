"""An experiment directory, read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import msgspec
import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult, OutputError, load


def agent(text: str) -> str:
    if "bad" in text:
        raise ValueError(text)
    return text


@pytest.fixture
def result(tmp_path: Path) -> ExperimentResult:
    inputs = ["good", {"input": "bad <b>", "persona": "p"}]
    return Experiment(target=agent, inputs=inputs, iterations=3, output_dir=tmp_path, name="demo").run()


def kill(result: ExperimentResult) -> Path:
    """Leave the directory as a killed experiment does: running, the last line torn."""
    path = result.path / "summary.json"
    told = msgspec.json.decode(path.read_bytes())
    told.update(status="running", total_traces=0, completed_at=None, pass_rate=None, passed=0, not_run=6)
    path.write_bytes(msgspec.json.encode(told))
    for name, cut in (("traces.jsonl", 0), ("trace_summary.jsonl", 7)):
        content = (result.path / name).read_bytes()
        (result.path / name).write_bytes(content[: len(content) - cut])
    return result.path


def test_a_directory_is_read_back_as_it_was(result: ExperimentResult) -> None:
    """Summary, traces, short forms and failures."""
    again = load(str(result.path))
    assert again.summary == result.summary
    assert list(again) == list(result)
    assert [s.trace_id for s in again.summaries()] == [t.trace_id for t in again]
    assert [t.input for t in again.failures] == ["bad <b>"] * 3
    assert len(again) == 6
    assert again
    assert again.exit_code == 0


def test_a_killed_experiment_is_counted_from_its_files(result: ExperimentResult) -> None:
    """A run counts when it is whole in all three files."""
    again = load(kill(result))
    assert again.summary.status == "running"
    assert (again.summary.total_traces, again.summary.not_run, again.summary.passed) == (5, 1, 3)
    assert len(list(again)) == len(list(again.summaries())) == len(again) == 5
    assert again.exit_code == 1
    assert "(running)" in repr(again)


def test_a_damaged_line_is_told_with_its_place(result: ExperimentResult) -> None:
    """A whole line that is no record is no torn tail."""
    path = result.path / "traces.jsonl"
    found = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(found[0] + b"\x00\xff{\n" + b"".join(found[2:]))
    with pytest.raises(OutputError, match=r"traces\.jsonl: line 2 is damaged"):
        list(load(result.path))


def test_what_is_no_experiment_is_refused(tmp_path: Path, result: ExperimentResult) -> None:
    """No directory, one without summary, a summary of something else, traces that are gone."""
    with pytest.raises(OutputError, match=r"not an experiment directory: summary\.json: No such file"):
        load(tmp_path)
    for content in (b"", b"{}", b"[1]", b"\xff"):
        (result.path / "other").mkdir(exist_ok=True)
        (result.path / "other" / "summary.json").write_bytes(content)
        with pytest.raises(OutputError, match="not a summary of an experiment"):
            load(result.path / "other")
    (result.path / "traces.jsonl").unlink()
    with pytest.raises(OutputError, match="No such file"):
        list(result)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"status": "interrupted", "stop_reason": "SIGINT"}, 130),
        ({"status": "interrupted", "stop_reason": "SIGTERM"}, 143),
        ({"status": "failed"}, 1),
        ({"status": "stopped"}, 1),
        ({"successful": 0}, 1),
        ({"fail_under": 0.5}, 0),
        ({"fail_under": 0.51}, 1),
        ({"fail_under": 0.5, "pass_rate": None}, 1),
    ],
)
def test_exit_codes(result: ExperimentResult, changes: dict[str, object], code: int) -> None:
    """0 completed and no gate missed, 1 failed, 130 and 143 the signals."""
    assert ExperimentResult(result.path, attrs.evolve(result.summary, **changes)).exit_code == code  # type: ignore[arg-type]


def test_pandas_gets_a_row_a_run(result: ExperimentResult) -> None:
    """With the columns of `trace_summary.jsonl`."""
    frame = result.to_pandas()
    assert list(frame["output"].dropna()) == ["good"] * 3
    assert len(frame) == 6
    first = msgspec.json.decode((result.path / "trace_summary.jsonl").read_bytes().splitlines()[0])
    assert list(frame.columns) == list(first)


def test_without_pandas_the_message_says_what_to_do(result: ExperimentResult) -> None:
    """In an environment where it is not installed."""
    script = (
        "import sys; sys.modules['pandas'] = None\nimport fluxloop\n"
        "try: fluxloop.load(sys.argv[1]).to_pandas()\nexcept fluxloop.MissingPackageError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(result.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "to_pandas() needs pandas, which is not installed: pip install pandas\n"


def test_a_result_can_be_looked_at(result: ExperimentResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, rate with its interval, and the path from here."""
    monkeypatch.chdir(result.path.parent)
    assert repr(result).startswith("<ExperimentResult demo: 3 of 6 runs passed (50.0%, 95% interval ")
    assert repr(result).endswith(f"%), {result.path.name}>")
    assert dict(result.table())["results"] == result.path.name
    monkeypatch.chdir("/")


def test_what_infrastructure_failed_stands_apart(tmp_path: Path) -> None:
    """In the headline as in the summary, also of an experiment that was killed; without it there is no word of it."""

    def down(text: str) -> str:
        if text == "bad":
            raise ConnectionError("refused")
        return text

    result = Experiment(target=down, inputs=["good", "bad"], iterations=3, output_dir=tmp_path, name="demo").run()
    assert result.headline().startswith("demo: 3 of 6 runs passed, 3 failed by infrastructure (100.0%, 95% interval ")
    assert [trace.error.kind for trace in result.failures if trace.error] == ["infrastructure"] * 3

    again = load(kill(result)).summary
    assert (again.total_traces, again.passed, again.infrastructure) == (5, 3, 2)
    assert again.pass_rate is not None
    assert again.pass_rate.value == 1.0
    assert "infrastructure" not in ExperimentResult(result.path, attrs.evolve(again, infrastructure=0)).headline()


def test_retries_are_counted_from_the_files(tmp_path: Path) -> None:
    """The summary of a killed experiment has the attempts of its traces."""
    asked: set[str] = set()

    def overloaded(text: str) -> str:
        if text not in asked:
            asked.add(text)
            raise TimeoutError(text)
        return text

    settings = ["runner.retry_delay_seconds=0"]
    result = Experiment(
        target=overloaded, inputs=["a", "b"], iterations=3, max_retries=1, output_dir=tmp_path, settings=settings
    ).run()
    assert (result.summary.retries, result.summary.passed) == (2, 6)
    assert {(trace.attempts, len(trace.errors)) for trace in result} == {(1, 0), (2, 1)}
    again = load(kill(result))
    assert again.summary.retries == sum(trace.attempts - 1 for trace in again)


def test_what_remains_is_told_with_how_to_go_on(
    tmp_path: Path, result: ExperimentResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target and inputs that have names are run by a command; a whole experiment has nothing remaining."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result_agents.py").write_text("def run(text):\n    raise ValueError\n")
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n')
    named = Experiment(
        target="result_agents:run", inputs="in.jsonl", iterations=2, max_failures=1, name="with space"
    ).run()
    told = "3 of 4 runs were not run; to go on: fluxloop run experiment --resume"
    assert named.remaining() == f"{told} 'experiments/{named.path.name}'"
    assert dict(named.table())["remaining"] == named.remaining()

    mine = Experiment(target=agent, inputs=["bad"], iterations=3, max_failures=1).run()
    called = f"Experiment.resume('experiments/{mine.path.name}', target=…, inputs=…).run()"
    for one in (mine, load(mine.path)):
        assert one.remaining() == f"2 of 3 runs were not run; to go on: {called}"
    assert "remaining" not in dict(result.table())


def test_nothing_is_left_running_by_agents_that_end(result: ExperimentResult) -> None:
    """Nor by what was read from a directory."""
    assert result.left_running == load(result.path).left_running == 0


def test_html_shows_hostile_text_as_text(tmp_path: Path) -> None:
    """Names and messages are escaped."""

    def hostile(text: str) -> None:
        raise ValueError("<script>alert(1)</script>")

    result = Experiment(target=hostile, inputs=["x"], output_dir=tmp_path, name="<img src=x onerror=alert(1)>").run()
    shown = result._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown


def test_a_result_without_runs_has_no_rate(result: ExperimentResult) -> None:
    """The headline says how many."""
    empty = attrs.evolve(result.summary, pass_rate=None, total_traces=0, passed=0)
    assert ExperimentResult(result.path, empty).headline() == "demo: 0 of 0 runs passed"
    assert fluxloop.load is load
