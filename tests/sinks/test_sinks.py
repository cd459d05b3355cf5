"""Where traces go: the three files, memory, and a user's own places."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult, JsonlSink, MemorySink, SinkError, TargetError, UsageError, load
from fluxloop.calling.surroundings import importable

PROJECT = Path(__file__).parent.parent / "projects" / "calling_sinks"

TRACE_SUMMARY_KEYS = (
    "trace_id input_id input_index iteration persona input output status passed error duration_ms start_time "
    "attempts seed observation_count usage"
)
TRACE_KEYS = TRACE_SUMMARY_KEYS + " end_time total_ms metadata expected errors stdout stderr observations"
OBSERVATION_KEYS = (
    "id trace_id parent_id attempt type name start_time end_time duration_ms input output error model usage metadata"
)


@pytest.fixture
def own() -> Iterator[Any]:
    with importable([PROJECT]):
        import callsinks
    callsinks.MADE.clear()
    yield callsinks
    callsinks.MADE.clear()


@fluxloop.tool()
def look(text: str) -> str:
    return text


def agent(text: str) -> str:
    print("looking")
    look(text)
    if text == "bad":
        raise ValueError(text)
    return text


def experiment(output: Path, **options: Any) -> Experiment:
    return Experiment(**{"target": agent, "inputs": ["a", "bad"], "iterations": 2, "output_dir": output, **options})


def lines(path: Path, name: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in (path / name).read_bytes().splitlines()]


def only_directory(output: Path) -> Path:
    (path,) = output.iterdir()
    return path


# The files


def test_the_files_hold_every_run_alike(tmp_path: Path) -> None:
    """Five files; the three line files list runs in one order, with all keys and times in UTC."""
    path = experiment(tmp_path, capture_output=True).run().path
    assert sorted(os.listdir(path)) == [
        "config.yaml",
        "observations.jsonl",
        "summary.json",
        "trace_summary.jsonl",
        "traces.jsonl",
    ]
    traces, short, seen = (lines(path, f"{n}.jsonl") for n in ("traces", "trace_summary", "observations"))
    assert [t["trace_id"] for t in traces] == [s["trace_id"] for s in short] == [o["trace_id"] for o in seen]
    assert {tuple(t) for t in traces} == {tuple(TRACE_KEYS.split())}
    assert {tuple(s) for s in short} == {tuple(TRACE_SUMMARY_KEYS.split())}
    assert {tuple(o) for o in seen} == {tuple(OBSERVATION_KEYS.split())}
    for record in (*traces, *seen):
        for key in ("start_time", "end_time"):
            assert record[key][-1] == "Z"
            assert len(record[key]) == len("2026-01-01T00:00:00.000000Z")
    assert [t["error"] and list(t["error"]) for t in traces[:2]] == [None, ["kind", "type", "message", "traceback"]]
    assert list(short[1]["error"]) == ["kind", "type", "message"]
    assert traces[0]["observations"] == seen[:1]
    assert [t["stdout"] for t in traces] == ["looking\n"] * 4
    assert traces[1]["persona"] is traces[1]["output"] is traces[1]["usage"] is None


def test_a_batch_is_one_write_of_whole_lines(tmp_path: Path) -> None:
    """Traces without observations leave that file empty; `write` takes one."""
    from fluxloop.testing import make_trace

    sink = JsonlSink()
    sink.open(fluxloop.SinkContext(name="demo", path=tmp_path, planned=3, config={}))
    sink.write_batch([make_trace(trace_id="a"), make_trace(trace_id="b")])
    sink.write(make_trace(trace_id="c"))
    assert [line["trace_id"] for line in lines(tmp_path, "traces.jsonl")] == ["a", "b", "c"]
    assert [line["trace_id"] for line in lines(tmp_path, "trace_summary.jsonl")] == ["a", "b", "c"]
    assert (tmp_path / "observations.jsonl").read_bytes() == b""
    sink.close(None)  # type: ignore[arg-type]


def test_files_that_cannot_be_opened_stop_the_experiment(tmp_path: Path) -> None:
    """What was opened before is closed again."""
    (tmp_path / "trace_summary.jsonl").mkdir()
    with pytest.raises(OSError, match="is a folder where a file belongs"):
        JsonlSink().open(fluxloop.SinkContext(name="demo", path=tmp_path, planned=1, config={}))


# Others beside them


def test_memory_keeps_the_same_traces(tmp_path: Path) -> None:
    """In the order of the files, and only of the last experiment."""
    sink = MemorySink()
    for _ in range(2):
        result = experiment(tmp_path, sinks=[sink]).run()
    assert sink.traces == list(result)


def test_any_number_of_sinks_from_python_and_the_configuration(tmp_path: Path, own: Any) -> None:
    """Each is opened, written to and closed once; those of the configuration get their arguments."""
    given = own.Recording("given")
    sinks = ["callsinks:Recording", {"sink": "callsinks:Recording", "args": {"label": "configured"}}]
    result = experiment(
        tmp_path, sinks=[given, MemorySink()], overrides={"output.sinks": sinks, "runner.python_path": [str(PROJECT)]}
    ).run()
    assert sorted(sink.label for sink in own.MADE) == ["configured", "given", "plain"]
    for sink in own.MADE:
        assert sink.calls == ["open", *["write"] * 4, "close"]
        assert (sink.context.path, sink.context.planned) == (result.path, 4)


@pytest.mark.parametrize(
    ("sink", "told"),
    [
        ("callsinks:Recordin", "output.sinks.0: .*did you mean 'Recording'"),
        ({"sink": "callsinks:Recording", "args": {"no": 1}}, "output.sinks.0: .*cannot be made: .*'no'"),
        ("callsinks:NoSink", "not a subclass of fluxloop.TraceSink"),
    ],
)
def test_a_wrong_sink_of_the_configuration_stops_before_any_run(tmp_path: Path, own: Any, sink: Any, told: str) -> None:
    """The message names the key."""
    with pytest.raises(TargetError, match=told):
        experiment(tmp_path, overrides={"output.sinks": [sink], "runner.python_path": [str(PROJECT)]}).run()


def test_a_sink_that_cannot_be_opened_leaves_nothing(tmp_path: Path, own: Any) -> None:
    """It is critical; the sinks opened before are closed, the later never opened."""
    first, failing, last = own.Recording(), own.Recording(fail_on="open"), own.Recording()
    with pytest.raises(UsageError, match=r"Recording cannot be opened: ConnectionError: open refused"):
        experiment(tmp_path, sinks=[first, failing, last]).run()
    assert list(tmp_path.iterdir()) == []
    assert (first.calls, failing.calls, last.calls) == (["open", "close"], ["open"], [])


@pytest.mark.parametrize("fail_on", ["write", "close"])
def test_a_failing_secondary_sink_costs_no_results(
    tmp_path: Path, own: Any, fail_on: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told when it first fails and counted at the end; it gets what follows, and others all of it."""
    failing, other = own.Recording(fail_on=fail_on), own.Recording()
    result = experiment(tmp_path, sinks=[failing, other], progress=True).run()
    assert failing.calls == other.calls == ["open", *["write"] * 4, "close"]
    assert len(list(result)) == result.summary.total_traces == 4
    told = capsys.readouterr().err
    if fail_on == "write":
        assert told.count("write refused") == 1
        assert "failed for 4 of 4 runs" in told
    else:
        assert told.count("could not be closed: ConnectionError: close refused") == 1


# The results cannot be written


class FullAfter(JsonlSink):
    """A disk that takes two runs."""

    def write_batch(self, traces: Any) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count > 2:
            raise OSError(28, "No space left on device")
        super().write_batch(traces)

    def close(self, summary: Any) -> None:
        super().close(summary)
        if self.count > 2:
            raise OSError(5, "Input/output error")


def test_results_that_cannot_be_written_stop_the_experiment(
    tmp_path: Path, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with everything so far readable, status failed, and the other sinks closed."""
    monkeypatch.setattr("fluxloop.experiment.JsonlSink", FullAfter)
    other = own.Recording()
    with pytest.raises(SinkError):
        experiment(tmp_path, sinks=[other]).run()
    result = load(only_directory(tmp_path))
    assert result.summary.status == "failed"
    assert "No space left" in str(result.summary.stop_reason)
    assert (len(list(result)), result.summary.total_traces, result.exit_code) == (2, 2, 1)
    assert other.calls == ["open", "write", "write", "close"]


FULL = """
import sys
from pathlib import Path
import fluxloop
from fluxloop import Experiment
try:
    Experiment(target=lambda text: text * 2000, inputs=["abcd"], iterations=400, output_dir=sys.argv[1]).run()
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting takes root on Linux")
def test_a_full_disk_keeps_everything_so_far(small_disk: Path) -> None:
    """It is told as such; the runs written before are read back, none of them torn."""
    done = subprocess.run([sys.executable, "-c", FULL, str(small_disk)], capture_output=True, text=True, check=True)
    assert done.stdout == "SinkError\n"
    result: ExperimentResult = load(only_directory(small_disk))
    traces = list(result)
    assert 0 < len(traces) < 400
    assert [trace.trace_id for trace in traces] == [f"trace_{n:03d}" for n in range(1, len(traces) + 1)]
    assert len(list(result.summaries())) == len(traces) == result.summary.total_traces
    for name in ("traces.jsonl", "trace_summary.jsonl"):
        content = (result.path / name).read_bytes()
        assert content.endswith(b"\n")
        assert content.count(b"\n") == len(traces)


class Quitting(fluxloop.TraceSink):
    """A sink that ends the process, if it is let."""

    def write(self, trace: fluxloop.Trace) -> None:
        trace.passed = False
        sys.exit(0)


def test_a_sink_that_exits_or_changes_records_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results are written and counted before another sink sees them, and its failure is told without progress."""
    result = Experiment(target=str.upper, inputs=["a", "b"], output_dir=tmp_path, sinks=[Quitting()]).run()

    assert (result.summary.status, result.summary.passed, len(list(result))) == ("completed", 2, 2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("[WARN] the sink ")
    assert "Quitting failed; the results are not affected: SystemExit" in told[0]
    assert told[1].endswith("Quitting failed for 2 of 2 runs")
