"""Shards put together: the same as one run, or a plain refusal."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

import fluxloop
from fluxloop import Experiment, ExperimentResult, MergeError, OutputError
from fluxloop.store.lock import DirectoryLock
from fluxloop_cli.main import main
from tests.waiting import wait_until

AGENT = """\
import fluxloop

@fluxloop.tool
def look_up(topic: str) -> str:
    return topic.upper()

@fluxloop.generation(model="small")
def ask(text):
    return {"content": text, "usage": {"prompt_tokens": len(text), "completion_tokens": 1}}

@fluxloop.agent
def run(text: str, style: str = "plain") -> str:
    print("looking", text)
    if text == "fail" or (text == "sometimes" and fluxloop.current_run().iteration % 2):
        raise ValueError("cannot")
    if text == "down":
        raise ConnectionError("no server")
    return ask(style + look_up(text))["content"]
"""
CONFIG = """\
name: demo
seed: 42
tags: [nightly]
runner:
  target: merged_agent:run
  iterations: 5
  args: {style: "é "}
"""
INPUTS = """\
- {input: hello, persona: novice, source_id: one}
- {input: sometimes, persona: novice, source_id: one}
- {input: fail, persona: expert}
- {input: down}
- {input: "naïve \\u2028", metadata: {note: 7}}
- {input: "0"}
- {input: "last", id: odd id}
"""
COUNT = 3
TOTAL = 35
LINES = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
TIMES = {"start_time", "end_time", "duration_ms", "total_ms"}

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose experiment was run in three shards and as a whole, each by a process of its own."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "merged_agent.py").write_text(AGENT)
    (folder / "demo.yaml").write_text(CONFIG)
    (folder / "inputs.yaml").write_text(INPUTS)
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "-c", "demo.yaml", "--inputs", "inputs.yaml"]
    shards = [["--shard", f"{index}/{COUNT}", "--parallel", str(index)] for index in range(1, COUNT + 1)]
    processes = [
        subprocess.Popen([*command, *options, "--quiet"], cwd=folder, stdout=subprocess.PIPE, text=True)
        for options in ([], *shards)
    ]
    for name, process in zip(("whole", "a", "b", "c"), processes, strict=True):
        Path(process.communicate()[0].strip()).rename(folder / name)
    assert [process.returncode for process in processes] == [0] * 4
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the shards in `a`, `b` and `c`, and the whole experiment in `whole`."""
    for name in ("a", "b", "c", "whole"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """Call `fluxloop merge`; what it does not catch fails the test."""
    return lambda *arguments: CliRunner().invoke(main, ["merge", *map(str, arguments)], catch_exceptions=False)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def lasting(value: Any) -> Any:
    """What is the same whenever a run happens: without times and the ids of observations."""
    if isinstance(value, list):
        return [lasting(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: lasting(item) for key, item in value.items() if key not in TIMES}
    if "parent_id" in kept:
        kept |= {"id": "", "parent_id": kept["parent_id"] is not None}
    return kept


def contents(path: Path) -> dict[str, list[Any]]:
    """The lasting part of every line, in the order of the plan."""
    return {name: sorted(map(lasting, records(path / name)), key=lambda line: line["trace_id"]) for name in LINES}


def counts(path: Path) -> dict[str, Any]:
    """What `summary.json` counts, in whichever order the runs ended."""
    told = json.loads((path / "summary.json").read_text())
    for key in ("started_at", "completed_at", "avg_duration_ms", "duration_ms"):
        assert told.pop(key)
    for group in told["errors"]:
        del group["trace_id"], group["input_id"]
    return {key: sorted(item, key=str) if isinstance(item, list) else item for key, item in told.items()}


def files(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def replace_in(file: Path, old: str, new: str) -> None:
    """Change a text that is in the file."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def cut(directory: Path, runs: int) -> None:
    """Take the last runs out of a directory, as if it had been killed before them."""
    lines = {name: (directory / name).read_bytes().splitlines(keepends=True) for name in LINES}
    gone = {json.loads(line)["trace_id"] for line in lines["trace_summary.jsonl"][-runs:]}
    for name in LINES:
        (directory / name).write_bytes(
            b"".join(line for line in lines[name] if json.loads(line)["trace_id"] not in gone)
        )


def test_merged_shards_are_one_run(folder: Path) -> None:
    """All five files are those of one run, up to times, ids of observations and order."""
    result = fluxloop.merge(["c", "a", "b"], "merged")
    merged = folder / "merged"
    assert result.path == merged
    assert sorted(path.name for path in merged.iterdir()) == sorted([*LINES, "config.yaml", "summary.json"])
    assert contents(merged) == contents(folder / "whole")
    assert counts(merged) == counts(folder / "whole")
    assert (merged / "config.yaml").read_bytes() == (folder / "whole" / "config.yaml").read_bytes()
    assert CliRunner().invoke(main, ["verify", "merged"]).exit_code == 0
    assert result.summary == fluxloop.load(merged).summary
    assert (result.exit_code, len(list(result))) == (0, TOTAL)


def test_lines_are_copied_whole_in_the_order_in_which_runs_ended(folder: Path) -> None:
    """Byte for byte those of the shards; the three files list runs in the same order."""
    fluxloop.merge(["a", "b", "c"], "merged")
    for name in LINES:
        copied = (folder / "merged" / name).read_bytes().splitlines(keepends=True)
        assert sorted(copied) == sorted(
            line for shard in "abc" for line in (folder / shard / name).read_bytes().splitlines(keepends=True)
        )
    observations, traces, summaries = (records(folder / "merged" / name) for name in LINES)
    assert [trace["trace_id"] for trace in traces] == [summary["trace_id"] for summary in summaries]
    assert observations == [one for trace in traces for one in trace["observations"]]
    for shard in "abc":  # as each shard has them
        own = [trace["trace_id"] for trace in records(folder / shard / "traces.jsonl")]
        assert [trace["trace_id"] for trace in traces if trace["trace_id"] in own] == own
    shards = [records(folder / shard / "traces.jsonl") for shard in "abc"]
    if all(ends == sorted(ends) for shard in shards for ends in [[trace["end_time"] for trace in shard]]):
        assert [trace["end_time"] for trace in traces] == sorted(trace["end_time"] for trace in traces)


def test_a_merged_experiment_begins_with_its_first_shard_and_ends_with_its_last(folder: Path) -> None:
    """However far apart they were run."""
    summaries = [fluxloop.load(shard).summary for shard in "abc"]
    merged = fluxloop.merge(["a", "b", "c"], "merged").summary
    assert merged.started_at == min(one.started_at for one in summaries)
    assert merged.completed_at == max(str(one.completed_at) for one in summaries)
    for shard in "abc":  # as if all had been killed after their last run
        replace_in(folder / shard / "summary.json", f'"{fluxloop.load(shard).summary.completed_at}"', "null")
    last = max(trace["end_time"] for shard in "abc" for trace in records(folder / shard / "traces.jsonl"))
    assert fluxloop.merge(["a", "b", "c"], "again").summary.completed_at == last


def test_the_command(folder: Path, invoke: Invoke) -> None:
    """It prints the table a run prints, and leaves the shards as they are."""
    before = {shard: files(folder / shard) for shard in "abc"}
    result = invoke("a", "b", "c", "--output", "merged")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  runs      35 of 35: 23 passed, 12 failed (5 by infrastructure)\n" in result.stdout
    assert "\n  results   merged\n" in result.stdout
    assert {shard: files(folder / shard) for shard in "abc"} == before


def test_the_exit_code_is_that_of_the_result(folder: Path, invoke: Invoke) -> None:
    """A gate that the whole misses is missed."""
    for shard in "abc":
        replace_in(folder / shard / "summary.json", '"fail_under": null', '"fail_under": 0.9')
    result = invoke("a", "b", "c", "--output", "merged")
    assert result.exit_code == 1
    assert "missed: at least 90.0% must pass" in result.stdout


@pytest.mark.parametrize("place", ["merged", "new/folder/merged", "empty"])
def test_the_output_is_the_directory_itself(folder: Path, place: str) -> None:
    """A new one, with the folders it needs, or an empty one."""
    (folder / "empty").mkdir()
    assert fluxloop.merge(["a", "b", "c"], place).path == folder / place
    assert sorted(path.name for path in (folder / place).iterdir()) == sorted([*LINES, "config.yaml", "summary.json"])
    assert not [path for path in (folder / place).parent.iterdir() if path.name.startswith(".")]


def config(old: str, new: str) -> Callable[[Path], None]:
    """Another configuration in `b`."""
    return lambda folder: replace_in(folder / "b" / "config.yaml", old, new)


def told(old: str, new: str) -> Callable[[Path], None]:
    """Another summary in `b`."""
    return lambda folder: replace_in(folder / "b" / "summary.json", old, new)


def append(name: str, text: bytes) -> Callable[[Path], None]:
    """More in a file of `b`."""

    def change(folder: Path) -> None:
        with (folder / "b" / name).open("ab") as file:
            file.write(text)

    return change


def garble(name: str) -> Callable[[Path], None]:
    """Something else in the third line of a file of `b`."""

    def change(folder: Path) -> None:
        lines = (folder / "b" / name).read_bytes().splitlines(keepends=True)
        (folder / "b" / name).write_bytes(b"".join([*lines[:2], b"?" + lines[2][1:], *lines[3:]]))

    return change


def remove(name: str) -> Callable[[Path], None]:
    """One file of `b` less."""
    return lambda folder: (folder / "b" / name).unlink()


def copy(folder: Path) -> None:
    """`a` under another name too."""
    shutil.copytree(folder / "a", folder / "x")


def swap_lines(folder: Path) -> None:
    """The runs of `a` in `b`, as a careless copy leaves them."""
    for name in LINES:
        shutil.copy(folder / "a" / name, folder / "b" / name)


def add_lines(folder: Path) -> None:
    """The runs of `a` in `b` too."""
    for name in LINES:
        append(name, (folder / "a" / name).read_bytes())(folder)


def fewer_iterations(folder: Path) -> None:
    """A plan that does not hold all the runs that are there."""
    for shard in "abc":
        replace_in(folder / shard / "config.yaml", "iterations: 5", "iterations: 4")


def another_iteration(folder: Path) -> None:
    """A run of `b` that says it is of another iteration than its place in the plan."""
    for name in ("traces.jsonl", "trace_summary.jsonl"):
        first = (folder / "b" / name).read_text(encoding="utf-8").partition("\n")[0]
        replace_in(folder / "b" / name, first, first.replace('"iteration":0', '"iteration":4'))


def nothing(folder: Path) -> None:
    """All is well."""


HINT = "or accept the gap with --allow-partial"
OTHER = "b: not of the experiment of a: "
REFUSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no directory": (nothing, ["a", "b", "nowhere"], "nowhere: not an experiment directory: there is no"),
    "no experiment": (lambda folder: (folder / "x").mkdir(), ["a", "x"], "x: not an experiment directory: there is no"),
    "a file": (nothing, ["a", "a/traces.jsonl"], "a/traces.jsonl: not an experiment directory"),
    "no shard": (nothing, ["a", "whole"], "whole: is a whole experiment, not a shard of one: runner.shard"),
    "the same twice": (nothing, ["a", "b", "a/../a", "c"], "a: is shard 1/3, as a is; name one of them"),
    "a copy": (copy, ["a", "x"], "x: is shard 1/3, as a is; name one of them"),
    "one missing": (nothing, ["a", "c"], f"shard 2/3 is missing, with 12 of 35 runs; name its directory too, {HINT}"),
    "two missing": (nothing, ["c"], f"shards 1/3, 2/3 are missing, with 23 of 35 runs; name its directory too, {HINT}"),
    "one unfinished": (
        lambda folder: cut(folder / "b", 2),
        ["a", "b", "c"],
        f"b: shard 2/3 lacks 2 of its 12 runs; finish it with: fluxloop run experiment --resume b, {HINT}",
    ),
    "nothing done": (
        lambda folder: cut(folder / "b", 12),
        ["a", "b", "c"],
        "b: shard 2/3 lacks 12 of its 12 runs; finish it with: fluxloop run experiment --resume b,",
    ),
    "torn": (
        lambda folder: os.truncate(folder / "b" / "traces.jsonl", (folder / "b" / "traces.jsonl").stat().st_size - 9),
        ["a", "b", "c"],
        "b: shard 2/3 lacks 1 of its 12 runs; finish it with: fluxloop run experiment --resume b,",
    ),
    **{f"damage in {name}": (garble(name), ["a", "b", "c"], f"b: {name}:3: not a record") for name in LINES},
    "summary missing": (remove("summary.json"), ["a", "b", "c"], "b: summary.json is missing, or not a summary of"),
    "summary torn": (append("summary.json", b"{"), ["a", "b", "c"], "b: summary.json is missing, or not a summary of"),
    "config missing": (remove("config.yaml"), ["a", "b", "c"], "b: not an experiment directory: there is no config"),
    "config torn": (append("config.yaml", b"}"), ["a", "b", "c"], "b: config.yaml:"),
    "config of nothing": (
        lambda folder: (folder / "b" / "config.yaml").write_text("name: demo\n"),
        ["a", "b", "c"],
        "b: config.yaml: not the configuration of an experiment",
    ),
    "no such shard": (config("shard: 2/3", "shard: 4/3"), ["a", "b"], "b: config.yaml: runner.shard: expected a sha"),
    "of an earlier version": (told('"inputs": 7', '"inputs_": 7'), ["a", "b"], "b: summary.json does not say how many"),
    "lines missing": (remove("traces.jsonl"), ["a", "b", "c"], "b: traces.jsonl: No such file or directory"),
    "name": (config("name: demo", "name: other"), ["a", "b", "c"], f'{OTHER}name is "other", there "demo"'),
    "seed": (config("seed: 42", "seed: 43"), ["a", "b", "c"], f"{OTHER}seed is 43, there 42"),
    "target": (
        config("merged_agent:run", "merged_agent:ask"),
        ["a", "b", "c"],
        f'{OTHER}runner.target is "merged_agent:ask", there "merged_agent:run"',
    ),
    "iterations": (config("iterations: 5", "iterations: 6"), ["a", "b"], f"{OTHER}runner.iterations is 6, there 5"),
    "args": (config("style: 'é '", "style: e"), ["a", "b"], f'{OTHER}runner.args.style is "e", there "é "'),
    "more args": (
        config("    style: ", "    more: {b: 1}\n    style: "),
        ["a", "b"],
        f"{OTHER}runner.args.more.b is 1, there absent",
    ),
    "inject": (config("inject: []", "inject: [persona]"), ["a", "b"], f'{OTHER}runner.inject is ["persona"], there []'),
    "template": (
        config("input_template: null", "input_template: {q: '{input}'}"),
        ["a", "b"],
        f'{OTHER}runner.input_template is absent, there null; runner.input_template.q is "{{input}}", there absent',
    ),
    "path": (
        config("output_path: null", "output_path: x"),
        ["a", "b"],
        f'{OTHER}runner.output_path is "x", there null',
    ),
    "inputs": (told('"inputs": 7', '"inputs": 8'), ["a", "b"], f"{OTHER}the number of inputs is 8, there 7"),
    "inputs digest": (
        told('"inputs_digest": "', '"inputs_digest": "0'),
        ["a", "b"],
        f"{OTHER}the digest of the inputs is 0",
    ),
    "environment": (
        told('"arguments_digest": "', '"arguments_digest": "0'),
        ["a", "b"],
        f"{OTHER}a value of runner.args or runner.input_template that stands in the environment is another",
    ),
    "renumbered": (
        told('"id_digits"', '"renumbered": true, "id_digits"'),
        ["a", "b"],
        "b: was resumed by force with other inputs, so that its runs are none of one plan",
    ),
    "other count": (config("shard: 2/3", "shard: 2/4"), ["a", "b"], f"{OTHER}runner.shard is 2/4, there 1/3"),
    "other runs": (swap_lines, ["a", "b", "c"], "b: trace_001 is a run of shard 1/3, not of 2/3"),
    "runs of both": (add_lines, ["a", "b", "c"], "b: trace_001 is a run of shard 1/3, not of 2/3"),
    "more runs": (
        fewer_iterations,
        ["a", "b", "c"],
        "is none of the 28 runs of the experiment",
    ),
    "another iteration": (another_iteration, ["a", "b", "c"], "is of iteration 4, expected 0"),
    "output not empty": (nothing, ["a", "b", "c", "--output", "whole"], "whole: is not empty; name another with -"),
    "output a shard": (nothing, ["a", "b", "c", "--output", "a"], "a: is not empty; name another with --output"),
    "output a file": (
        nothing,
        ["a", "b", "c", "--output", "a/traces.jsonl"],
        "a/traces.jsonl: is not a directory; name another with --output",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(folder: Path, invoke: Invoke, case: str) -> None:
    """What is no whole experiment is refused, with the directory and the reason, and nothing is written."""
    change, arguments, message = REFUSED[case]
    change(folder)
    before = files(folder)
    result = invoke(*arguments, *([] if "--output" in arguments else ["--output", "merged"]))
    assert message in result.stderr.replace(f"{folder}/", "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert files(folder) == before


def test_a_shard_that_is_still_written_is_refused(folder: Path, invoke: Invoke) -> None:
    """It is not known what it will be; not even with gaps accepted."""
    with DirectoryLock(folder / "b"):
        result = invoke("a", "b", "c", "--output", "merged", "--allow-partial")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: b: is being written, by pid ")
    assert result.stderr.endswith("; wait for its end\n")
    assert not (folder / "merged").exists()
    assert invoke("a", "b", "c", "--output", "merged").exit_code == 0


def test_all_problems_at_once(folder: Path) -> None:
    """Every directory is looked at before the refusal."""
    replace_in(folder / "b" / "config.yaml", "seed: 42", "seed: 43")
    with pytest.raises(MergeError) as refused:
        fluxloop.merge(["a", "b", "nowhere", "whole", folder / "a"], "merged")
    assert [problem.where for problem in refused.value.problems] == ["nowhere", "whole", "b", str(folder / "a")]
    cut(folder / "a", 1)
    cut(folder / "c", 1)
    with pytest.raises(MergeError) as refused:
        fluxloop.merge(["a", "c"], "merged")
    assert [str(problem).partition(";")[0] for problem in refused.value.problems] == [
        "shard 2/3 is missing, with 12 of 35 runs",
        "a: shard 1/3 lacks 1 of its 11 runs",
        "c: shard 3/3 lacks 1 of its 12 runs",
    ]


def test_nothing_to_merge(folder: Path, invoke: Invoke) -> None:
    """Without a directory there is nothing to do."""
    with pytest.raises(MergeError, match="shards: expected the directories of an experiment's shards, got none"):
        fluxloop.merge([], "merged")
    with pytest.raises(TypeError, match="directories: expected several, as a list, got 'a'"):
        fluxloop.merge("a", "merged")
    assert "Missing argument 'DIR...'" in invoke("--output", "merged").stderr
    assert "Missing option '--output'" in invoke("a").stderr


def test_gaps_that_are_accepted(folder: Path, invoke: Invoke) -> None:
    """What is there is merged, and the summary says what is not; the exit code is that of one that stopped."""
    cut(folder / "a", 2)
    result = invoke("a", "c", "--output", "merged", "--allow-partial")
    assert result.exit_code == 1
    merged = fluxloop.load(folder / "merged")
    summary = merged.summary
    assert (summary.status, summary.planned, summary.total_traces, summary.not_run) == ("stopped", 35, 21, 14)
    assert summary.stop_reason == "shard 2/3 is missing, with 12 of 35 runs; shard 1/3 lacks 2 of its 11 runs"
    assert len(list(merged)) == len(list(merged.summaries())) == 21
    assert "14 not run (stopped: shard 2/3 is missing" in result.stdout
    assert written(folder / "merged")["runner"]["shard"] is None


def test_what_a_shard_left_torn_is_not_taken_over(folder: Path) -> None:
    """Only whole runs are copied."""
    with (folder / "b" / "traces.jsonl").open("ab") as file:
        file.write(b'{"trace_id":"trace_0')
    fluxloop.merge(["a", "b", "c"], "merged")
    assert contents(folder / "merged") == contents(folder / "whole")


def written(path: Path) -> dict[str, Any]:
    """What `config.yaml` holds."""
    return YAML(typ="safe").load(path / "config.yaml")  # type: ignore[no-any-return]


def test_other_code_is_told(folder: Path, invoke: Invoke) -> None:
    """Shards of another commit, version or retry limit are merged, with a warning that the summary keeps."""
    for shard, commit in zip("abc", ("1a", "1a", "2b"), strict=True):
        told = json.loads((folder / shard / "summary.json").read_text())
        told["ran_on"]["git"] = {"commit": commit, "clean": True, "diff_digest": None}
        (folder / shard / "summary.json").write_text(json.dumps(told))
    replace_in(folder / "b" / "config.yaml", "max_retries: 0", "max_retries: 3")
    result = invoke("a", "b", "c", "--output", "merged")
    assert result.exit_code == 0
    remarks = [
        'the shards differ in git commit: "1a" in 1/3, 2/3; "2b" in 3/3',
        "the shards differ in runner.max_retries: 0 in 1/3, 3/3; 3 in 2/3",
    ]
    assert list(fluxloop.load("merged").summary.remarks) == remarks
    assert all(f"{remark}" in result.output for remark in remarks)


def test_remarks_and_superseded_runs_of_shards_are_kept(folder: Path) -> None:
    """What a reader of a shard must know, a reader of the whole must know too."""
    for shard in "ab":
        replace_in(folder / shard / "summary.json", '"remarks": []', '"remarks": ["resumed by force"]')
        Experiment.resume(folder / shard, retry_failed="all").run()
    superseded = [(folder / shard / "superseded.jsonl").read_bytes() for shard in "ab"]
    summary = fluxloop.merge(["a", "b", "c"], "merged").summary
    counted = [fluxloop.load(shard).summary for shard in "ab"]
    assert summary.superseded == sum(one.superseded for one in counted) > summary.rerolled
    assert summary.rerolled == sum(one.rerolled for one in counted) > 0
    assert summary.remarks[:2] == ("shard 1/3: resumed by force", "shard 2/3: resumed by force")
    assert [f"{summary.rerolled} failures of the agent" in remark for remark in summary.remarks[2:]] == [True]
    assert (folder / "merged" / "superseded.jsonl").read_bytes() == b"".join(superseded)


def shards(count: int, inputs: list[str], iterations: int = 1) -> list[ExperimentResult]:
    """An experiment in this process, in so many shards."""
    return [
        Experiment(
            target=str.upper, inputs=inputs, iterations=iterations, name="small", shard=f"{index}/{count}", seed=1
        ).run()
        for index in range(1, count + 1)
    ]


def test_what_was_forced_in_any_shard_is_kept(folder: Path) -> None:
    """The merged experiment is checked as leniently as its shards were."""
    replace_in(folder / "b" / "summary.json", '"seed": 42', '"seed": 42, "forced": ["seed"]')
    assert fluxloop.merge(["a", "b", "c"], "merged").summary.ran_on["forced"] == ["seed"]


def test_variables_may_name_shard_seed_and_iterations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are compared by what the variables held, as far as `config.yaml` only names these."""
    (folder / "merged_agent.py").write_text(AGENT)
    runner = {"target": "merged_agent:run", "iterations": "${TIMES}", "shard": "${SHARD}"}
    text = json.dumps({"name": "demo", "seed": "${SEED}", "runner": runner, "inputs": {"file": "inputs.jsonl"}})
    (folder / "demo.yaml").write_text(text)
    (folder / "inputs.jsonl").write_text('"a"\n"b"\n')
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "-c", "demo.yaml", "--quiet"]

    def run(shard: str, times: str, seed: str) -> str:
        env = {**os.environ, "SHARD": shard, "TIMES": times, "SEED": seed}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    first = run("1/2", "3", "7")
    with pytest.raises(MergeError, match="seed is 8, there 7"):
        fluxloop.merge([first, run("2/2", "3", "8")], "merged")
    with pytest.raises(MergeError, match=r"runner\.iterations is 4, there 3"):
        fluxloop.merge([first, run("2/2", "4", "7")], "merged")
    result = fluxloop.merge([first, run("2/2", "3", "7")], "merged")
    assert (result.summary.status, len(result)) == ("completed", 6)
    assert result.verify().is_sound, str(result.verify())


def test_shards_without_runs(folder: Path) -> None:
    """They are merged as any other, and one that is missing is no gap."""
    results = shards(4, ["a", "b"])
    with_runs = [result for result in results if len(result)]
    for number, some in enumerate((results, with_runs)):
        merged = fluxloop.merge([result.path for result in some], f"merged{number}")
        assert (merged.exit_code, len(merged), merged.summary.planned) == (0, 2, 2)
        assert sorted(trace.output for trace in merged) == ["A", "B"]


def test_one_shard_of_one(folder: Path) -> None:
    """Is a whole experiment."""
    (only,) = shards(1, ["a", "b"])
    merged = fluxloop.merge([only.path], "merged")
    assert contents(merged.path) == contents(only.path)


def test_more_shards_than_files_may_be_open(folder: Path) -> None:
    """Many shards are merged in groups, which leave nothing behind."""
    results = shards(34, ["a", "b", "c"], 20)
    code = (
        "import resource, sys, fluxloop\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))\n"
        "fluxloop.merge(sys.argv[1:], 'merged')"
    )
    subprocess.run([sys.executable, "-c", code, *(str(result.path) for result in results)], check=True)
    merged = fluxloop.load("merged")
    assert (merged.summary.status, len(merged)) == ("completed", 60)
    ends = [trace.end_time for trace in merged]
    assert ends == sorted(ends)
    assert sorted(path.name for path in merged.path.iterdir()) == sorted([*LINES, "config.yaml", "summary.json"])


HELD = """
import threading, fluxloop, fluxloop.merging
fluxloop.merging._write_superseded = lambda *_: threading.Event().wait()
"""
"""Code after which a merge stops on its way, until a signal comes."""


def test_a_crash_leaves_no_half_result(folder: Path) -> None:
    """Killed while it writes, the output is not there; the next time it is made, whole."""
    code = "fluxloop.merge(['a', 'b', 'c'], 'out/merged')"
    process = subprocess.Popen([sys.executable, "-c", HELD + code])
    wait_until(lambda: len(list((folder / "out").rglob("*.jsonl"))) == 3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "out" / "merged").exists()
    fluxloop.merge(["a", "b", "c"], "out/merged")
    assert contents(folder / "out" / "merged") == contents(folder / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_a_full_disk_leaves_nothing(folder: Path) -> None:
    """It ends with exit code 1 and says what could not be written; the folder is as it was."""
    before = files(folder)
    code = (
        "import resource; from fluxloop_cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "main(['merge', 'a', 'b', 'c', '--output', 'merged'])"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"Error: {folder}/merged cannot be written: File too large; nothing is left of it\n"
    assert files(folder) == before


def test_an_output_that_cannot_be_made(folder: Path, invoke: Invoke) -> None:
    """Is told with its reason."""
    (folder / "file").write_text("")
    result = invoke("a", "b", "c", "--output", "file/below")
    assert result.exit_code == 2
    assert result.stderr == f"Error: {folder}/file/below: cannot be made: File exists; name another with --output\n"


def test_an_output_is_not_followed(folder: Path) -> None:
    """A link is no new directory."""
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="link: is not a directory"):
        fluxloop.merge(["a", "b", "c"], "link")


def test_any_input_can_be_merged(folder: Path) -> None:
    """Line separators of Unicode, and what else JSON takes, stay inside their lines."""
    result = Experiment(target=lambda text: text, inputs=["\u2028\x85\r", "\\n", "é"], shard="1/1").run()
    merged = fluxloop.merge([result.path], "merged")
    assert sorted(str(trace.output) for trace in merged) == sorted(["\u2028\x85\r", "\\n", "é"])
    assert msgspec.to_builtins(list(merged)) == msgspec.to_builtins(list(result))


def test_the_command_that_is_told_finishes_a_shard(folder: Path, invoke: Invoke) -> None:
    """As it stands, after which the shards are the whole experiment."""
    (folder / "b").rename(folder / "the second")
    cut(folder / "the second", 5)
    refused = invoke("a", "the second", "c", "--output", "merged")
    command = refused.stderr.partition("finish it with: ")[2].partition(", or accept")[0]
    assert command.startswith("fluxloop run experiment --resume ")
    arguments = [sys.executable, "-m", "fluxloop_cli", *shlex.split(command)[1:]]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert invoke("a", "the second", "c", "--output", "merged").exit_code == 0
    assert contents(folder / "merged") == contents(folder / "whole")
    assert counts(folder / "merged") == counts(folder / "whole")


def test_a_gap_can_be_closed_on_one_machine(folder: Path, invoke: Invoke) -> None:
    """A partial merge is an experiment that stopped: resuming it runs what no shard has run."""
    cut(folder / "a", 3)
    assert invoke("a", "c", "--output", "merged", "--allow-partial").exit_code == 1
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--resume", "merged"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(folder / "merged") == contents(folder / "whole")
    assert counts(folder / "merged") == counts(folder / "whole")


def test_ctrl_c_leaves_nothing(folder: Path) -> None:
    """It ends at once, with the code of an interrupt, and the folder is as it was."""
    before = sorted(folder.rglob("*"))
    code = "from fluxloop_cli.main import main; main(['merge', 'a', 'b', 'c', '--output', 'merged'])"
    process = subprocess.Popen([sys.executable, "-c", HELD + code], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(folder.glob(".merged.*/*"))) == 3)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "Interrupted; nothing was written.\n"
    assert process.returncode == 130
    assert sorted(folder.rglob("*")) == before


def test_help_of_merge() -> None:
    """It says what is made of what, with an example, and stands in the list of commands."""
    help = CliRunner().invoke(main, ["merge", "-h"]).output
    assert "Usage: main merge [OPTIONS] DIR..." in help
    assert "fluxloop merge experiments/my_agent_*of8_* --output experiments/my_agent" in help
    assert "Make one experiment of its shards." in CliRunner().invoke(main, ["--help"]).output
