"""Exception groups are described by their leaves: in records, in the summary, on the screen and in reports."""

from __future__ import annotations

import asyncio
import bdb
import subprocess
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fluxloop
from fluxloop import Experiment, TargetError
from fluxloop.attempt import MAX_SHOWN
from fluxloop.records import RunError
from fluxloop.summary import SummaryBuilder
from fluxloop.testing import make_trace, run_once
from fluxloop.tracebacks import frames_of, place
from fluxloop.tracing.groups import MAX_UNFOLDED, _folded, printable

QUOTED = 'worker died:\n  File "/other/process.py", line 3, in work\nValueError: no\n    +-----------------'
MESSAGES = [
    "",
    "no",
    "two\nlines",
    "blank\n\nline\r\nand\x85more",
    "  + Exception Group",
    "it ends (and 2 more)",
    QUOTED,
]


class OddError(Exception):
    """One of the user's own."""


def no_order(error: BaseException) -> None:
    raise error


def no_price(error: BaseException) -> None:
    raise error


def from_another(error: BaseException) -> None:
    try:
        no_order(KeyError("where it comes from"))
    except KeyError as cause:
        error.add_note('  File "/in/a/note.py", line 1, in note')
        raise error from cause


def from_a_group(error: BaseException) -> None:
    try:
        no_order(ExceptionGroup("several", [KeyError("one"), raised(no_price, OddError("two"))]))
    except ExceptionGroup as cause:
        raise error from cause


def raised(function: Callable[[BaseException], None], error: BaseException) -> BaseException:
    """The error as it is once the function has raised it."""
    try:
        function(error)
    except BaseException as caught:
        return caught
    raise AssertionError


def failed_with(make: Callable[[], BaseException]) -> RunError:
    def agent(text: str) -> None:
        raise make()

    found = run_once(agent, "hi").error
    assert found is not None
    return found


Leaf = tuple[Callable[[BaseException], None], type[Exception], str]


def made(leaf: Leaf) -> BaseException:
    function, kind, message = leaf
    return raised(function, kind(message))


FAILURES: st.SearchStrategy[Leaf] = st.tuples(
    st.sampled_from([no_order, no_price, from_another, from_a_group]),
    st.sampled_from([ValueError, LookupError, OddError]),
    st.sampled_from(MESSAGES),
)
Tree = Any
"""A leaf, None for a task that was cancelled, or a list of trees: a group."""
INSIDE = st.recursive(FAILURES | st.none(), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=8)
TREES = st.lists(INSIDE, min_size=1, max_size=3)


def error_of(tree: Tree, *, is_raised: bool = True) -> BaseException:
    if tree is None:
        return raised(no_price, asyncio.CancelledError("a sibling failed"))
    if isinstance(tree, list):
        group = BaseExceptionGroup("unhandled errors", [error_of(one) for one in tree])
        return raised(no_order, group) if is_raised else group
    return made(tree)


def leaves_of(tree: Tree) -> list[Leaf | None]:
    return [leaf for one in tree for leaf in leaves_of(one)] if isinstance(tree, list) else [tree]


@example(tree=[None], other=[(from_another, ValueError, "it ends (and 2 more)")])
@given(tree=TREES, other=TREES)
def test_a_group_is_described_by_its_first_leaf(tree: Tree, other: Tree) -> None:
    """Type, message and place are those of the leaf raised alone; runs are one group if their leaves are alike."""
    builder = SummaryBuilder(experiment_name="", planned=2, started_at="", ran_on={})
    alike = set()
    for one in (tree, other):
        leaves = leaves_of(one)
        failures = [leaf for leaf in leaves if leaf is not None]
        first = failures[0] if failures else None
        alone = failed_with(lambda first=first: error_of(first))  # type: ignore[misc]
        error = failed_with(lambda one=one: error_of(one))  # type: ignore[misc]
        more = f"(and {len(leaves) - 1} more)" if len(leaves) > 1 else ""
        assert error.type == alone.type
        assert error.message == " ".join(part for part in (alone.message, more) if part)
        assert place(error) == place(alone)
        assert (place(error) or "").startswith(f"{__file__}:")
        assert "Exception Group Traceback" in str(error.traceback)
        alike.add((alone.type, place(alone)))
        builder.add(make_trace(status="error", passed=False, error=error))
    assert {(group.type, group.place) for group in builder.errors.values()} == alike


def line_of(function: Callable[..., Any]) -> str:
    return f"{__file__}:{function.__code__.co_firstlineno + 1}"


def nested(error: BaseException, depth: int) -> BaseException:
    for _ in range(depth):
        error = BaseExceptionGroup("one", [error])
    return error


BIG = [asyncio.CancelledError() for _ in range(40)]
CASES: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "deeper than Python shows": (lambda: nested(raised(no_price, OddError("deep")), 60), "OddError", "deep"),
    "behind more than Python shows": (
        lambda: BaseExceptionGroup("wide", [*BIG, raised(no_price, OddError("late"))]),
        "OddError",
        "late (and 40 more)",
    ),
    "a thousand leaves": (
        lambda: ExceptionGroup("many", [raised(no_price, OddError(str(number))) for number in range(1000)]),
        "OddError",
        "0 (and 999 more)",
    ),
    "one leaf in several places": (
        lambda: (lambda one: ExceptionGroup("same", [one, ExceptionGroup("again", [one, one])]))(
            raised(no_price, OddError("once"))  # type: ignore[arg-type]
        ),
        "OddError",
        "once",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_leaf_is_found_however_large_the_group(case: str) -> None:
    """Its place stands in the traceback also where Python by itself leaves it out."""
    make, name, message = CASES[case]
    error = failed_with(make)
    assert (error.type.rpartition(".")[2], error.message) == (name, message)
    assert place(error) == line_of(no_price)
    assert len(str(error.traceback)) < 1000 * MAX_SHOWN


def test_a_group_deeper_than_the_stack_is_described() -> None:
    """Where no traceback can be made, type and message still are the leaf's."""
    error = failed_with(lambda: nested(OddError("very deep"), 3000))
    assert (error.type.rpartition(".")[2], error.message) == ("OddError", "very deep")


class HostileGroup(ExceptionGroup[Exception]):
    """A group that hides what it holds."""

    @property
    def exceptions(self) -> Any:
        raise RuntimeError("not for you")

    def __str__(self) -> str:
        raise RuntimeError("nor this")


def test_a_hostile_group_is_described_by_what_it_holds() -> None:
    """What a subclass makes of `exceptions` decides nothing; a leaf that cannot speak is told as anywhere."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert failed_with(lambda: HostileGroup("closed", [ValueError("a")])).message == "a"
    error = failed_with(lambda: HostileGroup("closed", [MuteError(), ValueError("a")]))
    assert error.message == f"<{error.type} without a readable message> (and 1 more)"
    mute, heard = raised(no_price, MuteError()), raised(no_order, ValueError("a"))
    assert place(failed_with(lambda: BaseExceptionGroup("open", [mute, heard]))) == line_of(no_price)


def test_a_leaf_without_frames_of_the_user_happened_where_its_group_was_raised() -> None:
    """As a plain error of a library happened where the user called it."""
    import json

    def loads(error: BaseException) -> None:
        json.loads("no json")

    def agent(text: str) -> None:
        raise ExceptionGroup("one", [parsed])

    try:
        json.loads("no json")
    except ValueError as error:
        parsed = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    for leaf in (parsed, OddError("never raised")):
        parsed = leaf  # type: ignore[assignment]
        error = run_once(agent, "hi").error
        assert error is not None
        assert place(error) == line_of(agent)


def test_an_error_that_quotes_a_group_is_none() -> None:
    """Frames in the message of a plain error, however they are boxed, are not where it happened."""
    text = failed_with(lambda: ExceptionGroup("g", [raised(no_price, ValueError("no"))])).traceback  # type: ignore[list-item]
    error = failed_with(lambda: raised(no_order, ValueError(f"remote: {text}")))
    assert place(error) == line_of(no_order)
    assert failed_with(lambda: raised(no_order, OddError(QUOTED))).message == QUOTED


def test_an_error_from_a_group_is_the_error() -> None:
    """A cause that is a group changes neither type nor place."""
    error = failed_with(lambda: raised(from_a_group, OddError("own")))
    assert error.message == "own"
    assert place(error) == f"{__file__}:{from_a_group.__code__.co_firstlineno + 4}"


def test_reports_show_the_calls_to_the_leaf() -> None:
    """The user's own frames, from the group's to the leaf's, without those of its siblings."""
    error = failed_with(
        lambda: raised(
            no_order,
            ExceptionGroup("g", [raised(no_price, ValueError("a")), raised(from_another, ValueError("b"))]),  # type: ignore[list-item]
        )
    )
    frames = [line.rpartition(" in ")[2] for line in frames_of(error).own.split("\n") if "  File" in line]
    assert frames == ["agent", "raised", "no_order", "raised", "no_price"]


def test_observations_and_outputs_describe_groups_alike() -> None:
    """A group that a traced call raises, or that stands in an output, is that of its leaf."""

    @fluxloop.tool()
    def look_up() -> None:
        raise ExceptionGroup("g", [ExceptionGroup("h", [OddError("no"), KeyError("k")])])

    def agent(text: str) -> Any:
        try:
            with fluxloop.span("step"):
                look_up()
        except ExceptionGroup as error:
            return error

    trace = run_once(agent, "hi")
    errors = [one.error for one in trace.observations if one.error is not None]
    described = [trace.output, *({"type": error.type, "message": error.message} for error in errors)]
    assert described == [{"type": described[0]["type"], "message": "no (and 1 more)"}] * 3
    assert described[0]["type"].endswith("OddError")


AGENT = """
    import asyncio, sys

    async def no_order(): raise ValueError("the order number is missing")
    async def no_price(): raise KeyError("price")

    async def run(question):
        async with asyncio.TaskGroup() as group:
            group.create_task(no_order() if question == "a" else no_price())
            if question == "c":
                group.create_task(asyncio.sleep(3600))

    def sync(question):
        return asyncio.run(run(question))
"""


@pytest.mark.parametrize(
    ("target", "executor"), [("run", "asyncio"), ("sync", "inline"), ("sync", "threads"), ("run", "processes")]
)
def test_causes_in_task_groups_are_told_apart(tmp_path: Path, target: str, executor: str) -> None:
    """On the screen and in the summary, under every executor: by the place where each was raised."""
    (tmp_path / "grouped.py").write_text(textwrap.dedent(AGENT))
    (tmp_path / "in.yaml").write_text("[a, b, c]")
    options = ["--timeout", "0"] if executor == "inline" else []
    command = ["run", "experiment", "--target", f"grouped:{target}", "--inputs", "in.yaml", "--executor", executor]
    done = subprocess.run(
        [sys.executable, "-m", "fluxloop_cli", *command, *options], cwd=tmp_path, capture_output=True, text=True
    )
    (path,) = (tmp_path / "experiments").iterdir()
    errors = fluxloop.load(path).summary.errors
    file = tmp_path / "grouped.py"
    assert Counter({(group.type, group.message, group.place): group.count for group in errors}) == {
        ("KeyError", "'price'", f"{file}:5"): 2,
        ("ValueError", "the order number is missing", f"{file}:4"): 1,
    }
    assert "failed: grouped.py:4: ValueError: the order number is missing" in done.stderr
    assert "2 × grouped.py:5: KeyError: 'price'" in done.stdout
    assert fluxloop.load(path).verify().is_sound


def test_who_quits_the_debugger_within_a_group_has_seen_enough(tmp_path: Path) -> None:
    """The experiment ends, as it does where the debugger is quit outside of any group."""

    def agent(text: str) -> None:
        raise ExceptionGroup("unhandled errors", [bdb.BdbQuit()])

    summary = Experiment(target=agent, inputs=["a", "b"], output_dir=tmp_path).run().summary
    assert (summary.status, summary.total_traces) == ("interrupted", 1)


def test_a_failure_before_the_first_run_names_the_leaf(tmp_path: Path) -> None:
    """A module whose import ends in a group is told by the line that failed."""
    (tmp_path / "grouped_import.py").write_text(textwrap.dedent(AGENT) + "\nasyncio.run(run('a'))\n")
    settings = {"runner.python_path": [str(tmp_path)]}
    with pytest.raises(TargetError, match=r"grouped_import\.py:4: ValueError: the order number is missing"):
        Experiment(target="grouped_import:run", inputs=["a"], overrides=settings, output_dir=tmp_path).plan()


def doubled(levels: int) -> BaseException:
    """Groups of twice the group below: two to the power of the levels places for one exception."""
    error: BaseException = ValueError("deep")
    for level in range(levels):
        error = ExceptionGroup(f"level {level}", [error, error])
    return error


def caused(levels: int) -> BaseException:
    """The same through causes."""
    error: BaseException = ValueError("deep")
    for level in range(levels):
        cause, error = ExceptionGroup(f"level {level}", [error, error]), RuntimeError(level)
        error.__cause__ = cause
    return error


class AgainError(ExceptionGroup[Exception]):
    """A group that makes what is in it when asked."""

    @property
    def exceptions(self) -> Any:
        return (AgainError("again", [ValueError("deep")]),)


class BecauseError(Exception):
    """An error that makes its cause when asked."""

    @property
    def __cause__(self) -> Any:
        return BecauseError("because")


ENDLESS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "groups of one group": (lambda: doubled(64), "ValueError: deep"),
    "causes": (lambda: caused(64), "RuntimeError: 63"),
    "members that are made": (lambda: AgainError("first", [ValueError("deep")]), "ValueError: deep"),
    "causes that are made": (lambda: BecauseError("first"), "BecauseError: first"),
    "many": (lambda: ExceptionGroup("many", [ValueError(n) for n in range(MAX_UNFOLDED)]), "1 of the exceptions in it"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_traceback_ends_however_its_exceptions_hang_together(kind: str) -> None:
    """Each exception is written once, in its place, where Python would write on for ever."""
    make, expected = ENDLESS[kind]

    def agent(text: str) -> None:
        raise make()

    error = run_once(agent, "hi").error
    assert error is not None
    assert error.traceback is not None
    assert expected in error.traceback
    assert "in agent" in error.traceback
    assert error.traceback.count("ValueError: deep") <= 1
    assert len(error.traceback) < 100_000


def test_what_prints_in_the_place_of_an_exception_prints_as_it() -> None:
    """With type, message, notes, cause and frames."""
    try:
        try:
            raise OddError("inner")
        except OddError as inner:
            raise ExceptionGroup("outer", [KeyError("a"), ExceptionGroup("sub", [ValueError("b")])]) from inner
    except ExceptionGroup as caught:
        caught.add_note("noted")
        error = caught
    folded = _folded(error, set(), 0)
    assert folded is not error
    assert traceback.format_exception(folded) == traceback.format_exception(error)
    assert printable(error) is error
