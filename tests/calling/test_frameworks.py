"""Real agents of other frameworks, as their users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxloop import Experiment, ExperimentResult, InputError, TargetError
from fluxloop.calling.frameworks import Conventions, conventions
from fluxloop.calling.surroundings import importable
from fluxloop.testing import run_once

# What they warn of at import is theirs.
pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:::lang(chain_core|graph|smith)"),
    pytest.mark.filterwarnings("ignore:::pydantic(_ai|_graph)?"),
]

PROJECT = Path(__file__).parent.parent / "projects" / "calling_frameworks"


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's directory is where they start from; results go elsewhere."""
    monkeypatch.chdir(PROJECT)
    return tmp_path


def run(target: Any, output: Path, **options: Any) -> ExperimentResult:
    options = {"inputs": "questions.csv", "iterations": 3, **options}
    result = Experiment(target=target, output_dir=output, **options).run()
    assert [trace.error for trace in result.failures] == []
    return result


def imported(name: str) -> Any:
    with importable([PROJECT]):
        return __import__(name)


@pytest.mark.parametrize("as_object", [False, True])
def test_a_langgraph_graph_needs_no_configuration(project: Path, as_object: bool) -> None:
    """Text goes in as a message and the last message's text comes out."""
    target = imported("fwgraphs").graph if as_object else "fwgraphs:graph"
    result = run(target, project)
    assert [(trace.persona, trace.output) for trace in result] == [
        ("novice", "1: Where is my parcel?"),
        ("expert", "1: How do I return it?"),
    ] * 3
    assert [[o.name for o in trace.observations] for trace in result] == [["count"]] * 6


@pytest.mark.parametrize("target", ["fwgraphs:graph", "fwgraphs:managed()"])
def test_no_message_crosses_runs(project: Path, target: str) -> None:
    """With a checkpointer each run has a thread of its own: its message list holds its own two messages."""
    result = run(target, project, overrides={"runner.output_path": "messages"})
    for trace in result:
        assert [message["type"] for message in trace.output] == ["human", "ai"]
        assert [message["content"] for message in trace.output] == [trace.input, f"1: {trace.input}"]
    threads = [o.input for trace in result for o in trace.observations]
    assert all(len(given["messages"]) == 1 for given in threads)


def test_a_thread_the_user_gives_is_kept(project: Path) -> None:
    """The user's own args go before the conventions: one thread for all runs remembers them all."""
    config = {"configurable": {"thread_id": "one"}}
    graph = imported("fwgraphs")._chat()
    from langgraph.checkpoint.memory import InMemorySaver

    result = run(graph.compile(checkpointer=InMemorySaver()), project, overrides={"runner.args": {"config": config}})
    assert [trace.output.partition(":")[0] for trace in result] == ["1", "3", "5", "7", "9", "11"]


def test_a_graph_without_checkpointer_gets_no_thread(project: Path) -> None:
    """Each run starts from nothing anyway."""
    result = run("fwgraphs:forgetful", project)
    assert {trace.output.partition(":")[0] for trace in result} == {"1"}
    assert conventions(imported("fwgraphs").forgetful).args is None


def test_a_mapping_is_a_graphs_state(project: Path) -> None:
    """An input that is a mapping is passed as it is, and the answer is found as before."""
    messages = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    result = run("fwgraphs:graph", project, inputs=[{"input": {"messages": messages}}])
    assert [trace.output for trace in result] == ["2: two"] * 3


def test_a_graph_of_another_state_is_configured(project: Path) -> None:
    """A template makes the state, also one with a key `input`, and a path finds the answer."""
    result = run(
        "fwgraphs:custom",
        project,
        overrides={
            "runner.input_template": {"input": "{input}", "style": "curt"},
            "runner.output_path": "answer.text",
        },
    )
    assert [trace.output for trace in result][:2] == ["curt Where is my parcel?", "curt How do I return it?"]
    given = run("fwgraphs:custom", project, inputs=[{"input": {"input": "q", "style": "s"}}])
    assert [trace.output["answer"] for trace in given] == [{"text": "s q"}] * 3


def test_a_graph_of_another_state_given_text_is_told_before_the_first_run(project: Path) -> None:
    """The message names the state's keys and the setting that fills them."""
    with pytest.raises(InputError, match=r"takes its state, a mapping of input, style.*runner\.input_template"):
        run("fwgraphs:custom", project)
    assert list(project.iterdir()) == []


def test_a_graph_that_is_not_compiled_is_told(project: Path) -> None:
    """The hint is what to do, and not a list of its methods."""
    with pytest.raises(TargetError, match="which is not compiled"):
        run(imported("fwgraphs")._chat(), project)


def test_the_preview_says_what_a_framework_brings(project: Path) -> None:
    """Nothing is told as the user's that the user did not give."""
    told = Experiment(target="fwgraphs:graph", inputs="questions.csv").preview().binding
    assert told == "input → input (shaped by LangGraph's messages), config ← LangGraph's own"


def test_a_langchain_runnable_is_invoked(project: Path) -> None:
    """Its input is one argument, also a mapping with the name of its parameter."""
    result = run("fwgraphs:runnable", project)
    assert [trace.output for trace in result][:1] == ["WHERE IS MY PARCEL?"]
    assert run_once(imported("fwgraphs").runnable, {"input": "hi"}).output == "HI"


@pytest.mark.parametrize("as_object", [False, True])
def test_a_pydantic_ai_agent_needs_no_configuration(project: Path, as_object: bool) -> None:
    """The answer's text is the output."""
    result = run(imported("fwagents").agent if as_object else "fwagents:agent", project)
    assert [trace.output for trace in result] == ["It is on its way."] * 6


def test_a_pydantic_ai_agents_tools_are_seen(project: Path) -> None:
    """A traced tool of the agent is an observation of its run, and no message crosses runs."""
    result = run("fwagents:tooled", project)
    for trace in result:
        assert trace.output == "After 3 messages: done"
        assert [(o.type, o.name, o.input, o.output) for o in trace.observations] == [
            ("tool", "look_up", {"order": "7"}, "order 7 is on its way")
        ]


def test_usage_of_a_pydantic_ai_agent_is_counted(project: Path) -> None:
    """A traced call that returns what pydantic-ai says of its usage gives the run its tokens."""
    result = run("fwagents:traced", project)
    for trace in result:
        assert trace.output == "It is on its way."
        assert trace.usage is not None
        assert (trace.usage.input_tokens or 0) > 0
        assert (trace.usage.output_tokens or 0) > 0
    assert result.summary.usage is not None
    assert result.summary.usage.input_tokens == sum(t.usage.input_tokens or 0 for t in result if t.usage)


def test_results_of_frameworks_are_plain_data(project: Path) -> None:
    """Whole states full of message objects are read back from the files as they were written."""
    result = run("fwgraphs:graph", project, overrides={"runner.output_path": "messages"})
    lines = (result.path / "traces.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["output"][1]["content"] for line in lines] == [
        trace.output[1]["content"] for trace in result
    ]


def test_other_objects_have_no_conventions() -> None:
    """Functions and the user's own classes are called as they are."""

    class Own:
        channels = None

    assert conventions(len) == conventions(Own()) == Conventions()


def test_a_graph_from_python_does_not_lend_its_frameworks_name(project: Path) -> None:
    """An object whose module is a framework's gives no name to the experiment."""
    assert Experiment(target=imported("fwgraphs").graph).config.name == "experiment"


def test_an_empty_output_path_is_the_whole_answer(project: Path) -> None:
    """`output_path: ""` turns a framework's convention off."""
    result = run("fwgraphs:graph", project, overrides={"runner.output_path": ""})
    assert {tuple(trace.output) for trace in result} == {("messages",)}
