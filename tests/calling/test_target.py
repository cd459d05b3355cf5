"""From the text of a target to something that can be called, entered and left."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, TargetError
from fluxloop.calling.surroundings import importable
from fluxloop.calling.target import Target, find_object, reference_to
from fluxloop.runner import Task
from fluxloop.testing import run_once
from tests.noticing import noticed

PROJECT = Path(__file__).parent.parent / "projects" / "calling_targets"


@pytest.fixture
def events() -> Iterator[list[str]]:
    with importable([PROJECT]):
        import calltargets
    calltargets.EVENTS.clear()
    yield calltargets.EVENTS
    calltargets.EVENTS.clear()


def output_of(name: str, input: Any = "hi", **options: Any) -> Any:
    trace = run_once(f"calltargets:{name}", input, import_places=[PROJECT], **options)
    assert trace.error is None, trace.error
    return trace.output


def message_of(reference: str) -> str:
    with pytest.raises(TargetError) as raised:
        run_once(reference, "hi", import_places=[PROJECT])
    return str(raised.value)


# What can be named


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("function", "function hi"),
        ("coroutine", "coroutine hi"),
        ("generator", "generator hi"),
        ("async_generator", "async generator hi"),
        ("returns_coroutine", "coroutine hi"),
        ("returns_generator", "generator hi"),
        ("returns_async_generator", "async generator hi"),
        ("coroutine_of_generator", "generator hi"),
        ("coroutine_of_async_generator", "async generator hi"),
        ("Agent.answer", "answer 1 hi"),
        ("Agent.answer_async", "async hi"),
        ("Agent.static", "static hi"),
        ("Agent.of_class", "Agent hi"),
        ("Agent.Inner.answer", "inner hi"),
        ("agent.answer_async", "async hi"),
        ("namespace.agent.static", "static hi"),
        ("namespace.kind.answer", "answer 1 hi"),
        ("Callable_", "called hi"),
        ("callable_instance", "called hi"),
        ("async_callable_instance", "awaited hi"),
        ("Runs", "ran hi"),
        ("runs", "ran hi"),
        ("runs_async", "ran async hi"),
        ("invokes", "invoked hi"),
        ("invokes_async", "ainvoked hi"),
        ("factory()", "made hi"),
        ("factory_of_agent()", "ran hi"),
        ("Runs()", "ran hi"),
        ("Client.answer", "client hi"),
        ("Nothing.answer", "client hi"),
        ("Factory", "ran hi"),
        ("Pool", "ran hi"),
        ("AsyncClient.answer", "coroutine hi"),
        ("AsyncClient.answer_sync", "sync hi"),
        ("AnyioClient.answer", "anyio hi"),
        ("managed_async()", "managed hi"),
    ],
)
def test_text_names_every_kind_of_agent(events: list[str], name: str, expected: str) -> None:
    """Functions, methods, instances, factories and context managers are called by their text."""
    assert output_of(name) == expected


def test_builtins_are_called(events: list[str]) -> None:
    """A builtin, also one that tells no signature, gets the input."""
    assert run_once("operator:neg", 2).output == -2
    assert run_once("builtins:print", "hi").output is None
    assert run_once("builtins:max", [1, 3, 2]).output == 3
    assert run_once(str.upper, "hi").output == "HI"


def test_a_target_tells_whether_it_is_async(events: list[str]) -> None:
    """Async functions, async generators and objects with an async call are async; the rest is not."""

    def is_async(name: str) -> bool:
        return Target.load(f"calltargets:{name}").is_async

    asynchronous = ("coroutine", "async_generator", "async_callable_instance", "invokes_async", "AsyncClient.answer")
    assert all(is_async(name) for name in asynchronous)
    assert not any(is_async(name) for name in ("function", "generator", "returns_coroutine", "invokes", "runs"))


def test_a_class_is_built_once_for_all_runs(events: list[str], tmp_path: Path) -> None:
    """What a class holds lives as long as its worker."""
    with importable([PROJECT]):
        import calltargets
    result = Experiment(target=calltargets.Agent, inputs=["hi"], output_dir=tmp_path, progress=False)
    with pytest.raises(TargetError, match="answer, answer_async, of_class, static"):
        result.run()
    counted = Experiment(
        target="calltargets:Agent.answer",
        inputs=["hi"],
        iterations=3,
        output_dir=tmp_path,
        overrides={"runner.python_path": [str(PROJECT)]},
    ).run()
    assert [trace.output for trace in counted] == ["answer 1 hi", "answer 2 hi", "answer 3 hi"]


def test_a_factory_is_called_once(events: list[str], tmp_path: Path) -> None:
    """However many runs there are, the factory has built once."""
    Experiment(
        target="calltargets:factory()",
        inputs=["hi", "bye"],
        iterations=2,
        output_dir=tmp_path,
        overrides={"runner.python_path": [str(PROJECT)]},
    ).run()
    assert events == ["built"]


def test_python_objects_are_targets_too(events: list[str]) -> None:
    """A callable, a partial, a bound method, a class or an agent object of this process is called."""
    with importable([PROJECT]):
        import calltargets as c
    assert run_once(c.function, "hi").output == "function hi"
    assert run_once(functools.partial(c.function), "hi").output == "function hi"
    assert run_once(c.agent.answer_async, "hi").output == "async hi"
    assert run_once(c.Runs, "hi").output == "ran hi"
    assert run_once(c.invokes_async, "hi").output == "ainvoked hi"
    assert run_once(c.Agent.static, "hi").output == "static hi"


def test_what_a_partial_builds_is_a_target(events: list[str]) -> None:
    """A partial of a class is a factory, as the message says; one of a builtin class gives answers."""
    assert run_once("calltargets:partial_that_runs()", "hi", import_places=[PROJECT]).output == "key hi"
    assert run_once(functools.partial(int, base=2), "101").output == 5


class Needing:
    def __init__(self, key: str, *, url: str) -> None:
        self.key = key

    def answer(self, text: str) -> str:
        return text

    def act(self) -> None: ...

    @fluxloop.agent
    def traced(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (
            functools.partial(Needing, "x"),
            "functools:partial is a partial of the class Needing, so each run would",
        ),
        (functools.partial(Needing, "x"), "; give what it builds, or a method of that"),
        (Needing, ":Needing: Needing needs key, url; write a factory"),
        (Needing, "; or give Needing(key=…, url=…) from Python"),
        (
            Needing.answer,
            "Needing.answer is a method without its instance; give one of an instance, as Needing(…)",
        ),
        (Needing.act, "Needing.act is a method without its instance"),
        (Needing.traced, "give one of an instance, as Needing(…).traced"),
    ],
)
def test_a_python_object_that_is_yet_to_be_built(target: Any, told: str) -> None:
    """What would only build an agent, or lacks it, is refused with what to give in its place."""
    with pytest.raises(TargetError) as caught:
        run_once(target, "hi")
    assert told in str(caught.value)


# Entered and left


@pytest.mark.parametrize("name", ["Client.answer", "AsyncClient.answer", "AnyioClient.answer", "managed_async()"])
def test_a_context_manager_is_entered_and_left_once(events: list[str], tmp_path: Path, name: str) -> None:
    """All runs happen between one entering and one leaving, in one task when they are async."""
    result = Experiment(
        target=f"calltargets:{name}",
        inputs=["hi", "bye"],
        iterations=3,
        output_dir=tmp_path,
        overrides={"runner.python_path": [str(PROJECT)]},
    ).run()
    assert result.summary.successful == 6
    assert events == ["enter", "leave"]


@pytest.mark.parametrize("name", ["Client.fail", "AsyncClient.fail"])
def test_a_context_manager_is_left_when_the_agent_fails(events: list[str], tmp_path: Path, name: str) -> None:
    """Failing runs do not keep what was opened open."""
    result = Experiment(
        target=f"calltargets:{name}",
        inputs=["hi", "bye"],
        output_dir=tmp_path,
        overrides={"runner.python_path": [str(PROJECT)]},
    ).run()
    assert [trace.error.message for trace in result.failures if trace.error] == ["hi", "bye"]
    assert events == ["enter", "leave"]


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_context_manager_is_left_when_the_experiment_is_interrupted(
    events: list[str], tmp_path: Path, signals: int, asynchronous: bool
) -> None:
    """One signal lets the run finish, a second leaves it at once; the target is left after both."""

    class Interrupted:
        def __enter__(self) -> Interrupted:
            events.append("enter")
            return self

        def __exit__(self, *error: object) -> None:
            events.append("leave")

        def run(self, text: str) -> str:
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)
            if signals == 2:
                threading.Event().wait()
            return text

    class InterruptedAsync:
        async def __aenter__(self) -> InterruptedAsync:
            events.append("enter")
            return self

        async def __aexit__(self, *error: object) -> None:
            events.append("leave")

        async def run(self, text: str) -> str:
            import asyncio

            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.05)  # two signals at once reach a process as one
            if signals == 2:
                await asyncio.Event().wait()
            return text

    result = Experiment(
        target=InterruptedAsync if asynchronous else Interrupted, inputs=["hi", "bye"], output_dir=tmp_path
    ).run()
    assert (result.summary.status, result.summary.stop_reason) == ("interrupted", "SIGINT")
    assert len(list(result)) == (1 if signals == 1 else 0)
    assert events == ["enter", "leave"]


def test_what_a_context_manager_gives_is_bound(events: list[str]) -> None:
    """The agent a `@contextmanager` factory yields is bound by its own signature."""
    output = output_of("managed()", args={"persona": "novice"})
    assert output == "novice: hi"
    assert events == ["enter", "leave"]


def test_a_context_manager_that_gives_nothing_callable_is_refused(events: list[str]) -> None:
    """A `@contextmanager` factory that yields nothing is no agent, before any run."""
    assert "cannot be called" in message_of("calltargets:managed_nothing()")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("FailsOnEnter", "OSError: no socket"),
        ("ExitsOnEnter", "SystemExit: 3"),
        ("FailsOnAsyncEnter", "OSError: no socket"),
    ],
)
def test_a_target_that_cannot_be_entered_stops_before_the_first_run(
    events: list[str], tmp_path: Path, name: str, told: str
) -> None:
    """The message has the user's file and line, and no directory is left behind."""
    experiment = Experiment(
        target=f"calltargets:{name}",
        inputs=["hi"],
        output_dir=tmp_path,
        overrides={"runner.python_path": [str(PROJECT)]},
    )
    with pytest.raises(TargetError, match=rf"entering it failed: .*calltargets\.py:\d+: {told}"):
        experiment.run()
    assert list(tmp_path.iterdir()) == []
    assert events == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("FailsOnLeave.answer", "the socket is gone"),
        ("ExitsOnLeave.answer", "SystemExit: 3"),
        ("DiesMeanwhile.answer", r"calltargets\.py:\d+: ConnectionError: the line is down"),
    ],
)
def test_a_target_that_cannot_be_left_costs_no_results(events: list[str], tmp_path: Path, name: str, told: str) -> None:
    """Leaving is told as a warning; the runs are recorded and the experiment completed."""
    experiment = Experiment(
        target=f"calltargets:{name}",
        inputs=["hi"],
        output_dir=tmp_path,
        overrides={"runner.python_path": [str(PROJECT)]},
    )
    with noticed(rf"leaving the target failed: .*{told}"):
        result = experiment.run()
    assert result.summary.status == "completed"
    assert result.summary.total_traces == 1


# What is refused, and how


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("calltargets", "runner.target: expected module:function, as my_agent:run, got 'calltargets'"),
        (":function", "runner.target: expected module:function, as my_agent:run, got ':function'"),
        ("calltargets:", "runner.target: expected module:function, as my_agent:run, got 'calltargets:'"),
        ("calltargets.run", "got 'calltargets.run'; did you mean calltargets:run?"),
        ("./calltargets.py:run", "(write a module, not a path: calltargets:run)"),
        ("calltargets:functoin", "calltargets has no 'functoin'; did you mean 'function'?"),
        ("calltargets:Agent.anwser", "Agent has no 'anwser'; did you mean 'answer'?"),
        ("calltargets:Agent.Inner.anwser", "Inner has no 'anwser'; did you mean 'answer'?"),
        ("calltargets:agent.anwser", "Agent has no 'anwser'; did you mean 'answer'?"),
        ("calltargets:zzzz", "calltargets has no 'zzzz'"),
        ("calltargets:factroy()", "calltargets has no 'factroy'; did you mean 'factory'?"),
        ("calltargets:nothing", "calltargets:nothing is None, which cannot be called and has no ainvoke, invoke or"),
        ("calltargets:mute", "an object of class Mute, which cannot be called"),
        ("calltargets:mute", "name one of its methods: speak"),
        ("calltargets:number()", "an object of class int is not a factory"),
        ("calltargets:factory_that_fails()", "building it failed: "),
        ("calltargets:factory_that_fails()", "RuntimeError: no database"),
        ("calltargets:factory_that_exits()", "SystemExit: no key"),
        ("calltargets:async_factory()", "a factory cannot be async; use a class with __aenter__"),
        (
            "calltargets:NeedsArguments.answer",
            "NeedsArguments needs key; write a factory without arguments, `def make(): return "
            "NeedsArguments(key=…).answer`, and name it calltargets:make(); or give NeedsArguments(key=…).answer",
        ),
        ("calltargets:NeedsArguments", "`def make(): return NeedsArguments(key=…)`, and name it calltargets:make()"),
        ("calltargets:namespace.needing.answer", "`def make(): return NeedsArguments(key=…).answer`"),
        ("calltargets:factory_with_arguments()", "`def make(): return factory_with_arguments(key=…, url=…)`, and name"),
        (
            "calltargets:partial_of_a_class",
            "is a partial of the class NeedsArguments, so each run would only ",
        ),
        ("calltargets:partial_of_a_class", "; name what it builds: calltargets:partial_of_a_class()"),
        ("calltargets:partial_of_a_partial", "is a partial of the class NeedsArguments"),
        ("calltargets:namespace.partial", "name what it builds: calltargets:namespace.partial()"),
        (
            "calltargets:partial_that_needs_more()",
            "NeedsTwo needs url; write a factory without arguments, `def make(): return NeedsTwo(…, url=…)`",
        ),
        ("calltargetz:function", "cannot import 'calltargetz': no module named 'calltargetz'; looked in"),
        ("calltargetz:function", "runner.python_path adds folders"),
        ("calltargets.py:function", "(write a module, not a path: calltargets:function)"),
        ("agents/my_agent.py:run", "(write a module, not a path: agents.my_agent:run)"),
        ("calltargets_raises:run", "importing 'calltargets_raises' failed: "),
        ("calltargets_raises:run", "calltargets_raises.py:3: ZeroDivisionError: division by zero"),
        ("calltargets_exits:run", "calltargets_exits.py:3: SystemExit: no licence"),
        ("calltargets_needs:run", "calltargets_needs.py:3: ModuleNotFoundError: No module named"),
    ],
)
def test_a_wrong_target_is_told_with_what_to_do(events: list[str], reference: str, told: str) -> None:
    """The message names the part that is wrong, the user's own line, and what comes near."""
    assert told in message_of(reference)


def test_the_folders_looked_in_are_the_users(events: list[str]) -> None:
    """The message about a missing module lists the project's folders and none of the library's."""
    told = message_of("calltargetz:function")
    assert str(PROJECT) in told
    assert "site-packages" not in told


def test_a_syntax_error_is_told_with_its_own_line(tmp_path: Path) -> None:
    """A module that cannot be parsed has no frame; its file and line come from the error."""
    (tmp_path / "calltargets_broken.py").write_text("x = 1\ndef broken(:\n")
    with pytest.raises(TargetError, match=r"calltargets_broken\.py:2: SyntaxError: "):
        run_once("calltargets_broken:run", "hi", import_places=[tmp_path])


def test_an_interrupt_while_importing_is_the_users(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a slow import stops; it is no fault of the target."""
    (tmp_path / "calltargets_slow.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "calltargets_slowly.py").write_text("def make():\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        run_once("calltargets_slow:run", "hi", import_places=[tmp_path])
    with pytest.raises(KeyboardInterrupt):
        run_once("calltargets_slowly:make()", "hi", import_places=[tmp_path])


def test_an_object_that_is_no_agent_is_refused() -> None:
    """A value of Python without any call is named by its class."""
    with pytest.raises(TargetError, match="builtins:int is an object of class int, which cannot be called"):
        Target.of(7)
    with pytest.raises(TargetError, match=r"an object of class object, which cannot be called and has no [^;]*$"):
        Target.of(object())


def test_find_object_names_the_key_it_comes_from() -> None:
    """Other places than the target use the same texts, under their own name."""
    assert find_object("os.path:sep", key="output.sinks.0") == os.sep
    with pytest.raises(TargetError, match=r"^output\.sinks\.0: os\.path:seb: \w+ has no 'seb'; did you mean 'sep'"):
        find_object("os.path:seb", key="output.sinks.0")


def test_a_reference_is_what_the_configuration_would_say(events: list[str]) -> None:
    """Functions, wrapped functions, methods and instances have `module:qualname`."""

    @functools.wraps(find_object)
    def wrapped() -> None: ...

    with importable([PROJECT]):
        import calltargets as c
    assert reference_to(c.function) == "calltargets:function"
    assert reference_to(c.agent.answer) == "calltargets:Agent.answer"
    assert reference_to(c.agent) == "calltargets:Agent"
    assert reference_to(wrapped) == "fluxloop.calling.target:find_object"


def test_import_places_go_first_and_away_again(tmp_path: Path) -> None:
    """Folders are importable inside only, in their order, and those there already stay."""
    before = list(sys.path)
    second = tmp_path / "second"
    with importable([tmp_path, second]):
        assert sys.path[:2] == [str(tmp_path), str(second)]
        with importable([second]):
            assert sys.path.count(str(second)) == 1
        assert sys.path[:2] == [str(tmp_path), str(second)]
        sys.path.remove(str(second))
    assert sys.path == before


def test_a_target_not_yet_entered_cannot_be_called(events: list[str]) -> None:
    """What a `@contextmanager` factory yields exists only inside a runner."""
    with importable([PROJECT]):
        target = Target.load("calltargets:managed()")
    with pytest.raises(RuntimeError, match="has not been entered"):
        target.function("hi")


def test_the_first_runner_takes_what_was_loaded(events: list[str]) -> None:
    """A target loaded to check it is not built a second time for the first runner."""
    task = Task(
        target="calltargets:factory()",
        args={},
        inject=(),
        input_template=None,
        output_path=None,
        import_places=(PROJECT,),
    )
    task.prepared.append(task.load())
    task.open()
    assert events == ["built"]
    task.open()
    assert events == ["built", "built"]


def test_a_module_of_another_project_is_not_run_in_the_place_of_this_ones(tmp_path: Path) -> None:
    """A module imported earlier from another folder is refused, with both files named."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent_of_two_projects.py").write_text(f"def run(text):\n    return {name!r}\n")
    with importable([tmp_path / "one"]):
        assert Target.load("agent_of_two_projects:run").function("x") == "one"
    with importable([tmp_path / "two"]), pytest.raises(TargetError) as told:
        Target.load("agent_of_two_projects:run")

    assert str(tmp_path / "one" / "agent_of_two_projects.py") in str(told.value)
    assert str(tmp_path / "two" / "agent_of_two_projects.py") in str(told.value)
