"""Experiments as Markdown, judged by what a CommonMark parser makes of them."""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

import fluxloop
from fluxloop import Experiment, ExperimentResult, OutputError, UsageError
from fluxloop.records import Observation, ObservedError, RunError, Trace, Usage
from fluxloop.reports.escaping import block, cell, code, fenced, line
from fluxloop.reports.folder import MARK
from fluxloop.reports.page import MAX_OBSERVATIONS, MAX_TEXT, trace_page
from fluxloop.store.codec import encode
from fluxloop.store.documents import to_json
from fluxloop.store.lock import DirectoryLock
from fluxloop.summary import SummaryBuilder
from fluxloop.testing import make_trace
from fluxloop.tracebacks import frames_of
from fluxloop.visible import visible

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
FRAMES = """Traceback (most recent call last):
  File "/app/agent.py", line 3, in run
    client.send()
  File "/venv/lib/python3.12/site-packages/httpx/_client.py", line 9, in send
    raise error
"""


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def skeleton(text: str) -> list[tuple[str, ...]]:
    """All that a page is but what stands in code: blocks, headings, links, emphasis, and our own words."""
    return [
        (
            token.type,
            token.tag,
            str(token.attrs),
            "" if token.type in ("fence", "code_inline", "inline") else token.content,
        )
        for token in tokens(text)
    ]


def codes(text: str) -> list[str]:
    return [token.content for token in tokens(text) if token.type == "code_inline"]


def fences(text: str) -> list[str]:
    return [token.content.removesuffix("\n") for token in tokens(text) if token.type == "fence"]


def links(path: Path) -> list[Path]:
    """Where the links of a file lead."""
    found = [
        str(token.attrs["href"]) for token in tokens(path.read_text(encoding="utf-8")) if token.type == "link_open"
    ]
    return [path.parent / unquote(target.partition("#")[0]) for target in found]


def write(path: Path, traces: Iterable[Trace], **told: Any) -> ExperimentResult:
    """An experiment directory of these runs."""
    path.mkdir(parents=True, exist_ok=True)
    builder = SummaryBuilder(experiment_name="demo", planned=0, started_at="2026", ran_on={}, **told)
    names = ("observations.jsonl", "traces.jsonl", "trace_summary.jsonl")
    observations, whole, short = files = [(path / name).open("wb") for name in names]
    for trace in traces:
        builder.add(trace)
        for one in trace.observations:
            observations.write(encode(one) + b"\n")
        whole.write(encode(trace) + b"\n")
        short.write(encode(trace.summary()) + b"\n")
    for file in files:
        file.close()
    builder.planned = builder.total
    (path / "summary.json").write_bytes(to_json(builder.build("completed", completed_at="2026")))
    (path / "config.yaml").write_text("name: demo\n")
    return fluxloop.load(path)


def everywhere(text: str, number: int = 1, *, failed: bool = True) -> Trace:
    """A run with a text in every field that an agent, or who writes its inputs, has a hand in."""
    trace_id = f"trace_{number:03d}"
    root = Observation(trace_id=trace_id, id="1", parent_id=None, attempt=1, type="agent", name=text, start_time=text)
    inner = attrs.evolve(
        root,
        id="2",
        parent_id="1",
        type="generation",
        duration_ms=1.0,
        input={text: [text, 1]},
        output=text,
        error=ObservedError(text, text),
        model=text,
        usage=Usage(1, 2),
        metadata={"kept": text},
    )
    error = RunError("agent", text, text, f"{FRAMES}{text}: {text}\n")
    return make_trace(
        trace_id=trace_id,
        input_id=text,
        persona=text,
        input=text if failed else [text],
        output=text,
        status="error" if failed else "ok",
        passed=not failed,
        error=error if failed else None,
        attempts=2,
        expected=text,
        errors=(error,),
        metadata={text: text},
        stdout=text,
        stderr=text,
        observation_count=2,
        observations=(root, inner),
        duration_ms=float(number),
        total_ms=9.0,
    )


PIECES = (
    *(
        "`",
        "```",
        "````",
        "~~~",
        "|",
        "\\",
        "\n",
        "\r",
        "\n\n",
        "    ",
        "\t",
        "# ",
        "## x",
        "- ",
        "1. ",
        "> ",
        "***",
        "_",
    ),
    *("[a](http://b.c)", "![i](j)", "<b>", "</td>", "<!--", "-->", "<script>", "]]>", "&amp;", "&#124;", "http://x.yz"),
    *(
        "a@b.co",
        "www.x.yz",
        "$$",
        "~~s~~",
        "---",
        "===",
        "\x1b[31m",
        "\x00",
        "\x07",
        "\x7f",
        "\x9b",
        "\u2028",
        "\u202e",
    ),
    *("\u200b", "\ufeff", "[^1]", "[x]: y", ":-:", "word", " ", "é", "漢", "\U0001f600", '  File "x.py", line 1', "…"),
)
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join), st.text(min_size=1)).filter(
    lambda text: bool(line(text, 60)) and bool(text.removesuffix("\n"))
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=TEXTS)
def test_no_text_changes_what_a_report_is(text: str) -> None:
    """Whatever stands in every field: the same headings, tables, links and emphasis as with a plain word."""
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for name, told in (("plain", "word"), ("hostile", text)):
            traces = [everywhere(told), everywhere(told, 2, failed=False)]
            result = write(Path(folder) / name, traces)
            index = result.to_markdown()
            pages = sorted((index.parent / "per_trace_analysis").iterdir())
            assert len(pages) == 2
            made.append([skeleton(path.read_bytes().decode()) for path in (index, *pages)])
    assert made[0] == made[1]


@settings(deadline=None)
@given(text=TEXTS)
def test_a_text_is_in_a_block_to_the_last_character(text: str) -> None:
    """A parser gives back just what was put in, but for signs in the place of what one cannot see."""
    (block_,) = list(tokens(fenced(text)))
    assert block_.type == "fence"
    assert block_.content == visible(text) + "\n"


@settings(deadline=None)
@given(text=TEXTS)
def test_a_text_is_one_span_in_a_line_and_in_a_table(text: str) -> None:
    """Outside tables as it is; inside, a bar behind a backslash stands a space away."""
    shown = line(text, 60)
    assert codes(f"See {code(text)}.") == [shown]
    row = f"| a | b |\n|---|---|\n| {cell(text)} | after |\n"
    assert codes(row) == [shown.replace("\\|", "\\ |")]
    assert [token.content for token in tokens(row) if token.type == "inline"][-1] == "after"


@settings(deadline=None)
@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """No escape sequence reaches a terminal, no mark turns the direction of writing."""
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    if text.isprintable():
        assert shown == text


def test_control_characters_are_shown() -> None:
    """By their pictures where there are some, else by their numbers; the line end of Windows is a line end."""
    assert visible("a\x1b[31m\r\nb\rc\x7f\u202e\x9b") == "a␛[31m\nb␍c␡⟨U+202E⟩⟨U+009B⟩"


@pytest.mark.parametrize("text", ["x" * 1_000_000, "`" * 1_000_000, "\x1b" * 1_000_000, "|\n" * 500_000])
def test_a_long_text_is_cut_and_says_so(tmp_path: Path, text: str) -> None:
    """A megabyte in every field: a page of some kilobytes, which names the size and the line of traces.jsonl."""
    index = write(tmp_path, [everywhere("short"), everywhere(text, 2)]).to_markdown()
    page = index.parent / "per_trace_analysis/trace_002.md"

    assert page.stat().st_size < 1_000_000
    assert index.stat().st_size < 100_000
    assert visible(text[:MAX_TEXT]) in fences(page.read_text())
    told = f"*The first {MAX_TEXT:,} of {len(text):,} characters; all of it is in [`traces.jsonl`, line 2]"
    assert told + "(../traces.jsonl#L2).*" in page.read_text()


def test_a_value_that_is_no_text_is_shown_as_json() -> None:
    """Also what looks alike as text; nothing and the empty text are told apart."""
    assert block({"a": [1, None]}, 100, "") == '```json\n{\n  "a": [\n    1,\n    null\n  ]\n}\n```\n'
    assert [block(value, 100, "") for value in (5, "5", None, "")] == [
        "```json\n5\n```\n",
        "```text\n5\n```\n",
        "*null*\n",
        "*empty*\n",
    ]


def test_a_page_tells_all_of_a_run() -> None:
    """Facts, error, input, expectation, output, what happened, earlier errors, what was printed, metadata."""
    trace = attrs.evolve(everywhere("word"), stdout="out", stderr="err", metadata={"key": 1}, expected="that")
    page = "".join(trace_page(trace, "somewhere"))
    titles = [one.content for before, one in itertools.pairwise(PARSER.parse(page)) if before.type == "heading_open"]
    assert [title for title in titles if "." not in title and "`" not in title and "Attempt" not in title] == [
        *("Error", "Input", "Expected", "Output", "What happened", "Errors of earlier attempts"),
        *("Printed", "Printed to stderr", "Metadata"),
    ]
    assert {"out", "err", '{\n  "key": 1\n}', "that"} <= set(fences(page))
    assert "| Status | **error** |" in page
    assert "1.0 ms in the last of 2 attempts" in page


def test_the_users_own_frames_come_first() -> None:
    """Before the whole traceback, on the page and with the example in the index."""
    trace = everywhere("word")
    assert trace.error is not None
    own = '  File "/app/agent.py", line 3, in run\n    client.send()'
    page = fences("".join(trace_page(trace, "")))
    assert page.index(own) < page.index(f"{FRAMES}word: word")


def test_frames_of_this_machines_packages_are_not_the_users() -> None:
    """Nor are those of another machine's, nor what a message quotes; a frame in an exception group counts."""
    here = f'  File "{os.__file__}", line 1, in x\n    y\n'
    group = '  |   File "/app/b.py", line 2, in y\n  |     z()\n  | ValueError: no\n'
    found = frames_of(RunError("agent", "ValueError", "", f"{FRAMES}{here}{group}"))
    assert found.own == (
        '  File "/app/agent.py", line 3, in run\n    client.send()\n  |   File "/app/b.py", line 2, in y\n  |     z()'
    )
    assert found.others == 2
    said = '\n  File "/app/c.py", line 1'
    assert frames_of(RunError("agent", "ValueError", said, f"ValueError: {said}\n")).own == ""


def observed(id: str, parent: str | None, **changes: Any) -> Observation:
    one = Observation(id, "trace_001", parent, 1, "tool", id, "", duration_ms=5.0)
    return attrs.evolve(one, **changes)


def tree(*observations: Observation) -> list[str]:
    trace = make_trace(observations=observations, observation_count=len(observations))
    page = "".join(trace_page(trace, "there")).split("## What happened\n\n", 1)[1]
    return fences(page)[0].split("\n")


def test_observations_are_a_tree_with_durations() -> None:
    """Each below its parent, with model, tokens and error; an event has no duration, a call may not have ended."""
    assert tree(
        observed("run", None, type="agent", duration_ms=12_000.0),
        observed("ask", "run", type="generation", model="m-1", usage=Usage(3, 4)),
        observed("look", "ask", duration_ms=None),
        observed("note", "run", type="event", duration_ms=0.0),
        observed("book", "run", error=ObservedError("ValueError", "no\nseat")),
    ) == [
        "1  agent run             12.0 s",
        "2  ├─ generation ask     5.0 ms  m-1, 3 in, 4 out",
        "3  │  └─ tool look    not ended",
        "4  ├─ event note",
        "5  └─ tool book          5.0 ms  ValueError: no seat",
    ]


def test_attempts_are_told_apart() -> None:
    """Where there were several."""
    told = tree(observed("one", None), observed("two", None, attempt=2))
    assert told == ["attempt 1", "1  tool one     5.0 ms", "attempt 2", "2  tool two     5.0 ms"]


@pytest.mark.parametrize(
    "observations",
    [
        [observed("a", "b"), observed("b", "a"), observed("c", "c")],
        [observed("a", "gone"), observed("a", "a")],
        [observed(str(number), str(number - 1)) for number in range(1, 190)],
    ],
    ids=["circles", "strangers", "deep"],
)
def test_every_observation_is_shown_once(observations: list[Observation]) -> None:
    """Also of parents that are not there, in circles, and deeper than one can indent."""
    told = tree(*observations)
    assert len(told) == len(observations)
    assert sorted(text.split()[0] for text in told) == sorted(str(n) for n in range(1, len(observations) + 1))
    assert max(map(len, told)) < 150


def test_many_observations_are_cut_and_say_so() -> None:
    """The first so many are shown, with the number of all."""
    many = tuple(observed(str(number), None) for number in range(MAX_OBSERVATIONS + 5))
    page = "".join(trace_page(make_trace(observations=many, observation_count=len(many)), "there"))
    assert f"*The first {MAX_OBSERVATIONS} of {len(many)} observations; all of them are in there.*" in page
    assert f"### {MAX_OBSERVATIONS}. " in page
    assert f"### {MAX_OBSERVATIONS + 1}. " not in page


def agent(text: str) -> str:
    if text == "bad":
        raise ValueError("cannot")
    if text == "down":
        raise ConnectionError("no server")
    return text


def run(folder: Path, inputs: Any = ("good", "bad", "down"), **options: Any) -> ExperimentResult:
    return Experiment(target=agent, inputs=list(inputs), output_dir=folder, name="ex (1) #2", **options).run()


def test_an_index_has_summary_failures_and_every_run(tmp_path: Path) -> None:
    """The rate in words, each kind of failure with one example, the slowest, the personas, and a row a run."""
    inputs = [{"input": text, "persona": text.title()} for text in ("good", "bad", "down")]
    text = run(tmp_path, inputs, iterations=2).to_markdown().read_text()

    assert text.startswith(f"{MARK}\n# `ex (1) #2`\n\n**2 of 4 runs passed: 50.0%.** 2 runs that infrastructure ended")
    assert "As far as 2 inputs can tell, the agent's true pass rate is between " in text
    for title in (
        "### 2 × `ValueError`\n",
        "### 2 × `ConnectionError` (infrastructure)\n",
        "## Slowest",
        "## Personas",
    ):
        assert title in text
    assert "First in [trace_002](per_trace_analysis/trace_002.md), input `input_002`, which asked:" in text
    assert text.count("\n| [trace_00") == 12  # the slowest, and all
    assert "| `Good` | 2 | 2 | 100.0% |" in text
    assert "| [trace_002](per_trace_analysis/trace_002.md) | `input_002` | `bad` | `Bad` | 1 | **error** |" in text


@pytest.mark.parametrize("place", [None, "elsewhere/re port%20(x)"])
def test_every_link_leads_to_a_file(tmp_path: Path, place: str | None) -> None:
    """From the index to its pages and the files, and back, whatever the folders are called."""
    result = run(tmp_path)
    index = result.to_markdown(None if place is None else tmp_path / place)
    assert index.parent == (result.path if place is None else tmp_path / place)
    pages = list((index.parent / "per_trace_analysis").iterdir())
    assert len(pages) == 3
    for file in (index, *pages):
        assert links(file)
        assert all(target.is_file() for target in links(file)), file
        assert (result.path / "traces.jsonl").resolve() in [target.resolve() for target in links(file)]


def test_only_the_failed_have_pages_when_asked(tmp_path: Path) -> None:
    """And rows in the table; the summary is of all."""
    result = run(tmp_path)
    index = result.to_markdown(tmp_path / "report", only="failed")
    assert sorted(path.name for path in (tmp_path / "report/per_trace_analysis").iterdir()) == [
        "trace_002.md",
        "trace_003.md",
    ]
    assert "## Runs that did not pass (2)" in index.read_text()
    assert "**1 of 2 runs passed" in index.read_text()
    assert all(target.is_file() for target in links(index))
    with pytest.raises(UsageError, match="expected 'failed'"):
        result.to_markdown(tmp_path / "other", only="bad")  # type: ignore[arg-type]


def test_what_did_not_pass_without_an_error_is_a_group(tmp_path: Path) -> None:
    """With its first run."""
    text = write(tmp_path, [make_trace(passed=False)]).to_markdown().read_text()
    assert "### 1 × no error, but not passed\n\nFirst in [trace_001](per_trace_analysis/trace_001.md)" in text
    assert "**not passed**" in text


def test_no_runs_are_a_report_too(tmp_path: Path) -> None:
    """As of an experiment that was killed at once, or whose every run an outage ended."""
    assert "**No run has finished.**" in write(tmp_path / "none", []).to_markdown().read_text()
    outage = make_trace(status="error", passed=False, error=RunError("infrastructure", "E", "m"))
    assert "**Infrastructure ended every run (1).**" in write(tmp_path / "out", [outage]).to_markdown().read_text()


def test_a_report_is_not_overwritten_unasked(tmp_path: Path) -> None:
    """Asked, it is replaced: pages of runs it no longer has go, and no byte of another's file changes."""
    result = run(tmp_path)
    index = result.to_markdown()
    with pytest.raises(OutputError, match="is there already; --overwrite"):
        result.to_markdown()

    pages = index.parent / "per_trace_analysis"
    (pages / "notes.md").write_text("mine")
    (pages / "trace.png").write_text("mine")
    (index.parent / "report.txt").write_text("mine")
    result.to_markdown(only="failed", overwrite=True)
    assert {path.name for path in pages.iterdir()} == {"trace_002.md", "trace_003.md", "notes.md", "trace.png"}
    assert (pages / "notes.md").read_text() == (index.parent / "report.txt").read_text() == "mine"
    assert not list(index.parent.glob(".report*"))


@pytest.mark.parametrize("name", ["index.md", "per_trace_analysis/trace_002.md", "per_trace_analysis", "."])
def test_what_is_not_ours_is_never_replaced(tmp_path: Path, name: str) -> None:
    """Not even with overwrite: the file in the way is named, and nothing is written."""
    result = run(tmp_path / "experiments")
    output = tmp_path / "report"
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text("mine")
    with pytest.raises(OutputError) as caught:
        result.to_markdown(output, overwrite=True)
    assert caught.value.path == output / name
    assert [path for path in tmp_path.joinpath("report").rglob("*") if path.is_file()] in ([output / name], [])
    assert (output / name).read_text() == "mine"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A page that was made a link to another file is not ours any more."""
    result = run(tmp_path)
    index = result.to_markdown()
    other = tmp_path / "other.md"
    other.write_text(MARK)
    page = index.parent / "per_trace_analysis/trace_001.md"
    page.unlink()
    page.symlink_to(other)
    with pytest.raises(OutputError, match="not written by fluxloop"):
        result.to_markdown(overwrite=True)
    assert other.read_text() == MARK


def test_damage_is_told_by_file_and_line_and_the_old_report_stays(tmp_path: Path) -> None:
    """Nothing is written from files that do not agree."""
    result = run(tmp_path)
    index = result.to_markdown()
    before = index.read_bytes()
    traces = result.path / "traces.jsonl"
    lines = traces.read_bytes().splitlines(keepends=True)
    traces.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(OutputError, match=r"traces\.jsonl:2: not a record"):
        result.to_markdown(overwrite=True)
    traces.write_bytes(lines[0])
    with pytest.raises(OutputError, match="1 of the 3 runs"):
        result.to_markdown(overwrite=True)
    first = json.loads(lines[0]) | {"stdout": 5}
    traces.write_bytes(
        json.dumps(first, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" + lines[1] + lines[2]
    )
    with pytest.raises(OutputError, match=r"traces\.jsonl:1: not a trace"):
        result.to_markdown(overwrite=True)
    assert index.read_bytes() == before
    assert {path.name for path in result.path.iterdir() if path.name.startswith(".")} == set()


def test_a_report_has_the_runs_its_summary_counts(tmp_path: Path) -> None:
    """Those that were added meanwhile are of the next report."""
    earlier = write(tmp_path, [make_trace()]).summary
    write(tmp_path, [make_trace(), make_trace(trace_id="trace_002")])
    index = ExperimentResult(tmp_path, earlier).to_markdown()
    assert [path.name for path in (index.parent / "per_trace_analysis").iterdir()] == ["trace_001.md"]
    assert "## Runs (1)" in index.read_text()


def test_experiments_that_were_cut_short_are_told_as_that(tmp_path: Path) -> None:
    """Stopped, killed with a torn end, still running, taken up again with failures run anew, and merged."""
    stopped = run(tmp_path, ["good", "bad", "good", "good"], max_failures=1)
    assert "| Status | stopped: `" in stopped.to_markdown(tmp_path / "1").read_text()

    told = json.loads((stopped.path / "summary.json").read_text()) | {"status": "running"}
    (stopped.path / "summary.json").write_text(json.dumps(told))
    with (stopped.path / "traces.jsonl").open("ab") as file:
        file.write(b'{"trace_id":"trace_')
    killed = fluxloop.load(stopped.path).to_markdown(tmp_path / "2").read_text()
    assert "| Status | killed before its end |" in killed
    assert "## Runs (2)" in killed
    with DirectoryLock(stopped.path):
        text = fluxloop.load(stopped.path).to_markdown(tmp_path / "3").read_text()
    assert f"| Status | still running, by `pid {os.getpid()} on " in text

    again = Experiment.resume(stopped.path, agent, ["good", "bad", "good", "good"], retry_failed="all").run()
    text = again.to_markdown(tmp_path / "4").read_text()
    assert "> Note: 1 failure of the agent was run again on resume" in text
    assert "superseded.jsonl" in text

    shards = [run(tmp_path / f"s{k}", shard=f"{k}/2", seed=1).path for k in (1, 2)]
    merged = fluxloop.merge(shards, tmp_path / "merged").to_markdown().read_text()
    assert "## Runs (3)" in merged


def test_memory_does_not_grow_with_the_runs(tmp_path: Path) -> None:
    """Five times the runs, of some kilobytes each, need no more of it."""
    peaks = []
    for count in (200, 1000):
        traces = (
            make_trace(trace_id=f"trace_{number:04d}", input="x" * 3000, input_id=str(number), stdout="y" * 3000)
            for number in range(1, count + 1)
        )
        result = write(tmp_path / str(count), traces)
        tracemalloc.start()
        result.to_markdown()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2
