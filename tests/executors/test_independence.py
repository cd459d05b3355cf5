"""Runs are independent: what an agent does to its input, no other run and no record sees."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fluxloop
from fluxloop import Experiment
from fluxloop.exceptions import InputError
from fluxloop.tracing.capture import capture
from tests.executors import changing_agents as agents
from tests.executors.changing_agents import Basket, Chat, Notes, Order

HERE = str(Path(__file__).parents[2])
EXECUTORS = ("inline", "threads", "asyncio", "processes")


def run(folder: Path, executor: str, inputs: list[Any], **options: Any) -> list[fluxloop.Trace]:
    """Run the agent that changes everything, and return its traces in the order of the plan."""
    result = Experiment(
        target=agents.change_async if executor == "asyncio" else agents.change,
        inputs=inputs,
        executor=executor,
        parallel=1 if executor == "inline" else 3,
        output_dir=folder,
        progress=False,
        **options,
    ).run()
    return sorted(result, key=lambda trace: trace.trace_id)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_run_gets_its_input_as_it_was(tmp_path: Path, executor: str) -> None:
    """Whatever kind of object an input is, each of its runs gets it and records it as it was given."""
    inputs = [{"id": name, "input": value} for name, value in agents.OBJECTS.items()]
    before = {name: agents.given(value) for name, value in agents.OBJECTS.items()}
    recorded = {name: capture(value) for name, value in agents.OBJECTS.items()}
    traces = run(tmp_path, executor, inputs, iterations=3)
    assert {trace.status for trace in traces} == {"ok"}
    assert [(t.input_id, t.output) for t in traces] == [*before.items()] * 3
    assert [(t.input_id, t.input) for t in traces] == [*recorded.items()] * 3
    assert {name: agents.given(value) for name, value in agents.OBJECTS.items()} == before


LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.builds(bytearray, st.binary(max_size=2))
LEAVES |= st.sets(st.integers(), max_size=2)
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
        | st.builds(Chat, st.lists(inner, max_size=2))
        | st.builds(Basket, inner)
        | st.builds(lambda lines: Order(lines=lines), st.lists(inner, max_size=2))
        | st.builds(Notes, inner)
        | st.builds(lambda one: [one, one], inner)
    ),
    max_leaves=8,
)


@settings(max_examples=25)
@given(value=NESTED, executor=st.sampled_from(["inline", "threads", "asyncio"]))
def test_no_run_sees_what_another_did(tmp_path_factory: pytest.TempPathFactory, value: Any, executor: str) -> None:
    """Of any data with objects in it, an agent that changes all it can reach leaves later runs and records alone."""
    before = capture(value)
    traces = run(tmp_path_factory.mktemp("runs"), executor, [{"input": value, "expected": value}], iterations=3)
    assert [trace.output for trace in traces] == [before] * 3
    assert [trace.input for trace in traces] == [before] * 3
    assert [trace.expected for trace in traces] == [before] * 3
    assert capture(value) == before


def test_a_retry_gets_its_input_as_it_was(tmp_path: Path) -> None:
    """A further attempt does not see what the one before did to the input."""
    seen = []

    def agent(chat: Chat) -> None:
        seen.append(copy.deepcopy(chat))
        agents.ruin(chat)
        raise ConnectionResetError("the service hung up")

    options = {"max_retries": 2, "overrides": {"runner.retry_delay_seconds": 0}}
    Experiment(target=agent, inputs=[{"input": Chat(["hi"])}], output_dir=tmp_path, progress=False, **options).run()
    assert seen == [Chat(["hi"])] * 3


@pytest.mark.parametrize("template", [None, {"state": "{input}"}, {"one": "{input}", "two": ["{input}"]}])
def test_what_a_template_is_filled_with_is_a_copy(tmp_path: Path, template: Any) -> None:
    """`runner.input_template` gives each place and each run a copy of its own."""
    seen: list[Any] = []

    def agent(value: Any) -> None:
        seen.append(capture(value))
        if template and "two" in template:
            agents.ruin(value["two"])
            assert value["one"] == Chat(["hi"])
        agents.ruin(value)

    given = {"overrides": {"runner.input_template": template}} if template else {}
    options = {"inputs": [{"input": Chat(["hi"])}], "iterations": 2, "output_dir": tmp_path, "progress": False}
    result = Experiment(target=agent, **options, **given).run()
    assert result.failures == []
    assert seen[0] == seen[1]


def test_constants_are_copied_when_they_are_data(tmp_path: Path) -> None:
    """Each run has its own copy of the data in `runner.args`; what is more than data, such as a client, is shared."""

    class Client:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.calls: list[str] = []

    client, deps = Client(), Basket(None)
    deps.items = client
    constants = {"client": client, "deps": deps, "chat": Chat(["hi"]), "data": {"list": [1], "set": {1}}}
    seen: list[Any] = []

    def agent(text: str, client: Any, deps: Any, chat: Any, data: Any) -> None:
        assert deps.items is client
        seen.append((id(client), id(deps), copy.deepcopy(chat), copy.deepcopy(data)))
        agents.ruin([chat, data])
        client.calls.append(text)

    options = {"inputs": ["a", "b"], "output_dir": tmp_path, "progress": False}
    result = Experiment(target=agent, overrides={"runner.args": constants}, **options).run()
    assert result.failures == []
    assert seen == [(id(client), id(deps), Chat(["hi"]), {"list": [1], "set": {1}})] * 2
    assert client.calls == ["a", "b"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_input_that_cannot_be_copied_is_told_before_the_first_run(tmp_path: Path, executor: str) -> None:
    """The message names the input's id, what it is and what to do; nothing has run, and nothing is written."""
    entries = ["fine", {"id": "mine", "input": {"a": [Basket(threading.Lock())]}}]
    with pytest.raises(InputError) as caught:
        run(tmp_path, executor, entries)
    (problem,) = caught.value.problems
    assert str(problem) == (
        "inputs:2: mine: input['a'][0].items is an object of class _thread.lock, which cannot be copied for each run "
        "(TypeError: cannot pickle '_thread.lock' object); give data and make the object in the agent, "
        "or put it into runner.args, which all runs share"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_cannot_be_sent_is_told_before_the_first_run(tmp_path: Path) -> None:
    """An input that worker processes cannot get is no failure of the agent."""

    class Local:
        pass

    with pytest.raises(InputError, match=r"inputs:1: input: .*Local cannot be sent to another process: it is defined"):
        run(tmp_path, "processes", [{"input": Local()}])
    assert run(tmp_path, "threads", [{"input": Local()}])[0].status == "ok"
