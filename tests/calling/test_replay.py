"""Recorded arguments, replayed with new inputs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fluxloop
from fluxloop import Experiment, ExperimentResult, ResumeError, TargetError, UsageError
from fluxloop.calling import paths
from fluxloop.calling.paths import NotThereError
from fluxloop.recording import calls, file

PROJECT = Path(__file__).parent.parent / "projects" / "replaying"


def line(target: str, kwargs: dict[str, Any], *args: Any, version: str = "2", **more: Any) -> str:
    """A line of a recording."""
    head = {"_version": version, "target": f"replayed:{target}", "iteration": 0, "args": list(args), "kwargs": kwargs}
    return json.dumps({**head, "timestamp": "2026-11-23T00:00:00.000000Z", **more})


HI = {"data": {"content": "hi", "user": {"name": "Ann"}}}
SEND = {"$callable": "app:send"}


class Desk:
    """A folder with a recording, and experiments on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recording = folder / "recordings" / "args.jsonl"

    def record(self, *lines: str) -> None:
        """Write a recording of these lines."""
        self.recording.parent.mkdir(exist_ok=True)
        self.recording.write_text("".join(f"{one}\n" for one in lines))

    def experiment(
        self, target: str, *, runner: dict[str, Any] | None = None, inputs: Any = ("new",), **replay: Any
    ) -> Experiment:
        """An experiment whose input goes to `data.content`, unless `replay` says otherwise."""
        chosen = {"enabled": True, "recording_file": str(self.recording), "override_param_path": "data.content"}
        config = {
            "name": "replay",
            "runner": {"target": f"replayed:{target}", "python_path": [str(PROJECT)], **(runner or {})},
            "replay_args": {**chosen, **replay},
        }
        return Experiment(config, inputs=list(inputs), output_dir=self.folder / "experiments", progress=False)

    def run(self, target: str, **options: Any) -> ExperimentResult:
        """Run it; every run must succeed."""
        result = self.experiment(target, **options).run()
        assert [trace.error for trace in result] == [None] * len(result)
        return result

    def output(self, target: str, **options: Any) -> Any:
        """What the one run of it gave."""
        (trace,) = self.run(target, **options)
        return trace.output

    def refused(self, target: str, **options: Any) -> str:
        """Why it stops before its first run."""
        with pytest.raises(UsageError) as caught:
            self.experiment(target, **options).run()
        assert not (self.folder / "experiments").exists()
        return str(caught.value).replace(str(self.recording), "args.jsonl")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_input_takes_its_place_in_the_recorded_arguments(desk: Desk) -> None:
    """All else is as it was recorded."""
    desk.record(line("handle", HI))
    assert desk.output("handle") == {"content": "new", "user": {"name": "Ann"}}


def test_what_a_service_records_is_replayed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """`record` and `replay_args` agree on the file, whatever the values are."""
    monkeypatch.syspath_prepend(str(PROJECT))
    monkeypatch.setattr(file, "_chosen", None)
    monkeypatch.setattr(calls, "_counts", {})
    import replayed  # type: ignore[import-not-found]

    fluxloop.enable_recording(desk.recording)
    odd = {"content": "hi", "$callable": "os:system", "list": [1, None, {"$$callable": 1.5}], "text": "<callable:x>"}
    fluxloop.record(replayed.handle)({**odd}, send=print)
    assert desk.output("handle") == {**odd, "content": "new"}


@pytest.mark.parametrize("executor", ["inline", "threads", "asyncio", "processes"])
def test_every_run_has_arguments_of_its_own(executor: str, desk: Desk) -> None:
    """An agent that spoils what it was given spoils it for no other run, under no executor."""
    desk.record(line("handle", HI))
    parallel = 1 if executor == "inline" else 3
    target = "handle_later" if executor == "asyncio" else "handle"
    runner = {"iterations": 5, "executor": executor, "parallel": parallel}
    result = desk.run(target, inputs=["a", "b"], runner=runner, select={"target": "replayed:handle"})
    assert sorted(trace.output["content"] for trace in result) == ["a"] * 5 + ["b"] * 5
    assert {trace.output["user"]["name"] for trace in result} == {"Ann"}


MESSAGES = {"messages": [{"content": "one"}, {"content": "two"}]}


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("messages.0.content", ["new", "two", "en"]),
        ("messages.-1.content", ["one", "new", "en"]),
        ("locale", ["one", "two", "new"]),
    ],
)
def test_paths_go_through_lists_and_to_parameters(path: str, output: Any, desk: Desk) -> None:
    """By position from either end; a parameter that was not recorded is one of the target's all the same."""
    desk.record(line("chat", MESSAGES))
    assert desk.output("chat", override_param_path=path) == output


def test_a_whole_parameter_is_the_input(desk: Desk) -> None:
    """Of any type."""
    desk.record(line("handle", HI))
    assert desk.output("handle", override_param_path="data", inputs=[{"input": {"a": 1}}]) == {"a": 1}


def test_a_new_final_key_is_added_and_told(desk: Desk) -> None:
    """It is beside what is there, and no silent matter."""
    desk.record(line("handle", HI))
    assert desk.output("handle", override_param_path="data.locale")["locale"] == "new"
    told = desk.experiment("handle", override_param_path="data.locale").preview().binding
    assert "data.locale is new: the input is added there, beside data.content, data.user" in told


@pytest.mark.parametrize("path", ["locale", "more"])
def test_a_new_argument_that_no_parameter_names_is_told(path: str, desk: Desk) -> None:
    """A target that takes any name would hide a slip; `**more` itself is no parameter to name."""
    desk.record(line("ask", {"a": 1}, "q", "s"))
    told = desk.experiment("ask", override_param_path=path).preview().binding
    assert f"{path} is new: the input is added there, beside question, a, style" in told


@pytest.mark.parametrize("path", ["question", "style"])
def test_arguments_by_position_are_found_by_name(path: str, desk: Desk) -> None:
    """Positional-only ones too; further ones stay where they are."""
    desk.record(line("ask", {"a": 1}, "q", "s"), line("ask", {}, "q", "s", "more", "and more"))
    first = desk.output("ask", override_param_path=path, select="first")
    assert first == (["new", "s", {"a": 1}] if path == "question" else ["q", "new", {"a": 1}])
    last = desk.output("ask", override_param_path=path, runner={"args": {"flag": True}})
    assert last[2:] == ["more", "and more", {"flag": True}]
    assert "new" in last


def test_constant_and_injected_arguments_and_templates_work_as_always(desk: Desk) -> None:
    """They go over what was recorded, and the template shapes what goes into its place."""
    desk.record(line("ask", {"style": "s", "run": "old"}, "q"))
    runner = {"args": {"run": "{run_id}"}, "inject": ["iteration"], "input_template": {"text": "{input}"}}
    question, style, more = desk.output("ask", override_param_path="question", runner=runner)
    assert (question, style, more["iteration"]) == ({"text": "new"}, "s", 0)
    assert more["run"] not in ("old", "{run_id}")


def test_the_input_may_go_into_a_constant_argument(desk: Desk) -> None:
    """Which is put over the recorded one first, and is no other run's."""
    desk.record(line("handle", {"data": "something else"}))
    result = desk.run("handle", inputs=["a", "b"], runner={"args": {"data": {"content": "old", "id": "{run_id}"}}})
    assert [trace.output["content"] for trace in result] == ["a", "b"]
    assert len({trace.output["id"] for trace in result}) == 2


def sent(trace: Any) -> list[tuple[str, Any]]:
    return [(one.name, one.input) for one in trace.observations if one.type == "event"]


def test_a_collector_keeps_what_is_sent(desk: Desk) -> None:
    """Each is an event of the run, below what it was sent in, and together they are the output."""
    desk.record(line("sends", {**HI, "send": SEND}))
    (trace,) = desk.run("sends")
    again = {"args": ["again"], "to": {"name": "Ann"}}
    assert sent(trace) == [("send", "new"), ("send", again)]
    assert trace.output == ["new", again]
    span = next(one for one in trace.observations if one.type == "span")
    assert trace.observations[-1].parent_id == span.id


def test_a_collector_takes_any_arguments(desk: Desk) -> None:
    """None, several, or by name."""
    desk.record(line("sends_oddly", {**HI, "send": SEND}))
    assert desk.output("sends_oddly") == [None, [1, "new"], {"text": "by name"}]


def test_a_collector_is_awaited_as_the_agent_likes(desk: Desk) -> None:
    """Directly, gathered, as a task, or after asking what came back."""
    desk.record(line("awaits", {**HI, "send": SEND}))
    assert desk.output("awaits") == ["new", "gathered", "a task", "asked"]


def test_a_collector_is_called_from_any_thread(desk: Desk) -> None:
    """One thing alone is the output itself."""
    desk.record(line("from_a_thread", {**HI, "send": SEND}))
    assert desk.output("from_a_thread", runner={"parallel": 2}) == "new"


def test_what_the_agent_returns_is_the_output(desk: Desk) -> None:
    """What it sends is then only seen."""
    desk.record(line("returns", {**HI, "send": SEND}))
    (trace,) = desk.run("returns")
    assert (trace.output, sent(trace)) == ("returned", [("send", "sent")])


def test_a_function_of_the_project_stands_in(desk: Desk) -> None:
    """At any depth; and what the user names is what is called."""
    desk.record(line("notified", {**HI, "tools": {"notify": SEND}}))
    providers = {"tools.notify": "replayed:fake_notify"}
    assert desk.output("notified", callable_providers=providers) == "noted new"
    told = desk.experiment("notified", callable_providers=providers).preview().binding
    assert "tools.notify ← replayed:fake_notify" in told


def test_recordings_of_the_earlier_fluxloop(desk: Desk) -> None:
    """Its markers are callables, other texts in angle brackets are text, and what it left out is not missed."""
    desk.recording.parent.mkdir()
    desk.recording.write_text(
        '{"_version":"1","target":"replayed:both","kwargs":{"data":{"content":"hi","html":"<b>html</b>"},'
        '"send_message_callback":"<builtin:collector.send>","cb":"<callable:foo>"},"timestamp":1730471422.5}\n'
    )
    (trace,) = desk.run("both")
    assert sent(trace) == [("send_message_callback", "new <b>html</b>"), ("cb", "done")]
    told = desk.experiment("both").preview().binding
    assert told.endswith("send_message_callback ← builtin:collector, cb ← builtin:collector (for foo)")
    older = {"send_message_callback": "builtin:collector.send", "cb": "builtin:collector"}
    assert desk.output("both", callable_providers=older) == ["new <b>html</b>", "done"]


@pytest.mark.parametrize(
    ("select", "name"),
    [
        ("last", "d"),
        ("first", "a"),
        ({"iteration": 0}, "c"),
        ({"iteration": 1}, "d"),
        ({"target": "replayed:Service.handle"}, "b"),
        ({"target": "replayed:handle", "iteration": 0}, "c"),
    ],
)
def test_which_call_is_replayed(select: Any, name: str, desk: Desk) -> None:
    """Of the target's own unless another is named; of several that fit the last."""
    desk.record(
        line("handle", {"data": {"content": "a"}}),
        line("Service.handle", {"data": {"content": "b"}}),
        line("handle", {"data": {"content": "c"}}),
        line("handle", {"data": {"content": "d"}}, iteration=1),
    )
    assert desk.output("handle", select=select, override_param_path="data.new")["content"] == name


def test_methods_are_found_by_their_class(desk: Desk) -> None:
    """As `record` calls them."""
    desk.record(line("Service.handle", HI))
    assert desk.output("Service.handle") == "new"


def test_all_calls_are_crossed_with_all_inputs(desk: Desk) -> None:
    """Each pair is a case of its own, with an id that tells both, and counts as one input with its like."""
    desk.record(
        line("handle", {"data": {"content": "x", "n": 1}}),
        line("sends", HI),
        line("handle", {"data": {"content": "x", "n": 2}}),
    )
    result = desk.run("handle", inputs=["a", "b"], select="all", runner={"iterations": 2})
    found = [(trace.trace_id, trace.input_id, trace.output["content"], trace.output["n"]) for trace in result][:5]
    assert found == [
        ("trace_001", "input_001@1", "a", 1),
        ("trace_002", "input_002@1", "b", 1),
        ("trace_003", "input_001@3", "a", 2),
        ("trace_004", "input_002@3", "b", 2),
        ("trace_005", "input_001@1", "a", 1),
    ]
    assert len(result) == 8
    assert len({trace.seed for trace in result}) == 8
    assert [trace.input_index for trace in result] == [0, 1, 2, 3] * 2
    assert result.summary.pass_rate is not None
    assert result.summary.pass_rate.clusters == 2
    assert result.verify().findings == ()


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        (
            "handle",
            {"override_param_path": "data.contents"},
            "args.jsonl:1: replay_args.override_param_path: data.contents is not in the recording; it has data.content",
        ),
        (
            "handle",
            {"override_param_path": "dta.content"},
            "args.jsonl:1: replay_args.override_param_path: dta.content is not in the recording; it has data.content",
        ),
        (
            "handle",
            {"override_param_path": "data.users.name"},
            "args.jsonl:1: replay_args.override_param_path: data.users.name is not in the recording; "
            "it has data.user.name",
        ),
        (
            "handle",
            {"override_param_path": "data.content.x"},
            "args.jsonl:1: replay_args.override_param_path: data.content.x is not in the recording; "
            "data.content is a text",
        ),
        (
            "handle",
            {"override_param_path": "question"},
            "args.jsonl:1: replay_args.override_param_path: question is not in the recording; it has data",
        ),
        (
            "handle",
            {"callable_providers": {"sendd": "builtin:collector"}},
            "args.jsonl:1: replay_args.callable_providers: sendd is not in the recording; it has data",
        ),
        (
            "handle",
            {"callable_providers": {"send": "builtin:sink"}},
            "replay_args.callable_providers.send: expected builtin:collector or module:function, got 'builtin:sink'",
        ),
        (
            "handle",
            {"callable_providers": {"send": "replayed:fake_notfy"}},
            "replay_args.callable_providers.send: replayed:fake_notfy: replayed has no 'fake_notfy'; "
            "did you mean 'fake_notify'?",
        ),
        (
            "handle",
            {"callable_providers": {"send": "replayed:not_callable"}},
            "replay_args.callable_providers.send: replayed:not_callable is int, which cannot be called",
        ),
        (
            "handle",
            {"values": {"data.x.y": 1}},
            "args.jsonl:1: replay_args.values: data.x.y is not in the recording; it has data.content, data.user",
        ),
        (
            "handle",
            {"select": {"iteration": 4}},
            "args.jsonl: replay_args.select: no call of replayed:handle with iteration 4 is recorded in it; it has 0",
        ),
        (
            "chat",
            {},
            "args.jsonl: replay_args.select: no call of replayed:chat is recorded in it; it has replayed:handle (1); "
            "what was recorded under another name is replayed with select: {target: …}",
        ),
        (
            "notified",
            {"select": {"target": "replayed:handle"}},
            "args.jsonl:1: replayed:notified needs tools, which is not recorded; give it in replay_args.values, "
            "replay_args.callable_providers or runner.args",
        ),
        (
            "chat",
            {"select": {"target": "replayed:handle"}},
            "args.jsonl:1: data is recorded, but replayed:chat has no such parameter; it has messages, locale\n"
            "args.jsonl:1: replayed:chat needs messages, which is not recorded; give it in replay_args.values, "
            "replay_args.callable_providers or runner.args",
        ),
        (
            "handle",
            {"runner": {"args": {"sent": 1}}},
            "args.jsonl:1: sent is given by runner.args, but replayed:handle has no such parameter; did you mean send?",
        ),
        (
            "handle",
            {"runner": {"inject": ["persona"]}},
            "args.jsonl:1: persona is given by runner.inject, but replayed:handle has no such parameter; "
            "it has data, send",
        ),
        ("handle", {"override_param_path": None}, "replay_args.override_param_path: expected where the input goes"),
        ("handle", {"recording_file": None}, "replay_args.recording_file: expected a file of recorded calls, got"),
        ("handle", {"recording_file": "no.jsonl"}, "replay_args.recording_file: no such file; "),
    ],
)
def test_what_has_drifted_stops_it(target: str, options: dict[str, Any], told: str, desk: Desk) -> None:
    """Before the first run, with the nearest that would do; nothing is written."""
    desk.record(line("handle", HI))
    assert told in desk.refused(target, **options)


def test_a_callable_is_no_place_for_an_input(desk: Desk) -> None:
    """Every run would fail when it calls the text."""
    desk.record(line("sends", {**HI, "send": SEND}))
    told = desk.refused("sends", override_param_path="send")
    assert told == "args.jsonl:1: replay_args.override_param_path: send is a callable, and no place for an input"


def test_calls_without_an_iteration_are_said_to_have_none(desk: Desk) -> None:
    """The earlier fluxloop did not number them."""
    desk.record(line("handle", HI, version="1", iteration=None))
    assert desk.refused("handle", select={"iteration": 0}).endswith("is recorded in it; its calls have none")


def test_arguments_that_a_target_no_longer_takes(desk: Desk) -> None:
    """A parameter that was renamed is told by its new name, and too many by position by their number."""
    desk.record(line("handle", {**HI, "sendd": 1}), line("handle", {}, {"content": "a"}, 2, 3))
    told = desk.refused("handle", select="first")
    assert told == ("args.jsonl:1: sendd is recorded, but replayed:handle has no such parameter; did you mean send?")
    assert "replayed:handle takes 2 arguments by position, recorded are 3" in desk.refused("handle")


def test_one_fault_of_many_calls_is_told_once(desk: Desk) -> None:
    """With the first line that has it."""
    desk.record(*[line("handle", HI)] * 3)
    told = desk.refused("handle", select="all", override_param_path="data.contents")
    assert told.count("\n") == 0
    assert told.startswith("args.jsonl:1: ")
    assert told.endswith("it has data.content (and so in 2 more of its calls)")


SECRET = {"data": {"content": "f*** this", "key": "***", "user": {"header": "Bearer ***"}}}


def test_masked_values_are_asked_for(desk: Desk) -> None:
    """By name, wherever they are; asterisks that are somebody's own are none."""
    desk.record(line("handle", SECRET))
    told = desk.refused("handle", override_param_path="data.new")
    assert told == (
        "args.jsonl:1: data.key, data.user.header are masked in the recording; give what to use in "
        'replay_args.values, as {"data.key": "${NAME}"} from the environment'
    )


def test_masked_values_are_filled_in(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path or nested; the run gets them, and its record does not."""
    monkeypatch.setenv("SHOP_KEY", "a-long-secret-key")
    desk.record(line("handle", SECRET))
    result = desk.run("handle", values={"data.key": "${SHOP_KEY}", "data": {"user": {"header": "none"}}})
    (trace,) = result
    told = desk.experiment("handle", values={"data": {"key": 1, "user": {"header": "none"}}}).preview().binding
    assert told.endswith("data.key ← replay_args.values, data.user.header ← replay_args.values")
    assert trace.output == {"content": "new", "key": "***", "user": {"header": "none"}}
    assert "data.key: ${SHOP_KEY}" in (result.path / "config.yaml").read_text()
    assert "a-long-secret-key" not in "".join(path.read_text() for path in result.path.glob("*.*"))


def test_a_masked_input_is_no_loss(desk: Desk) -> None:
    """For another takes its place."""
    desk.record(line("handle", {"data": {"content": "***"}}))
    assert desk.output("handle") == {"content": "new"}


def test_the_target_of_a_context_manager_is_checked_once_entered(desk: Desk) -> None:
    """Its parameters show only then; what does not fit is no run's fault even so."""
    desk.record(line("handle", {}, HI["data"]))
    assert desk.output("opened()", select={"target": "replayed:handle"})["content"] == "new"
    wrong = desk.experiment("opened()", select={"target": "replayed:handle"}, override_param_path="data.contents")
    with pytest.raises(TargetError, match=r"data\.contents is not in the recording; it has data\.content"):
        wrong.run()


def test_lines_that_are_no_calls_are_left_out(desk: Desk) -> None:
    """And told; a call in the same line as the torn one before it is found even so."""
    whole = line("handle", HI)
    desk.record('{"_version":"2","target":"replayed:ha', '{"other": 1}', whole[:40] + whole, "", "\0\0\0")
    (call,) = desk.experiment("handle").plan().cases
    told = desk.experiment("handle").preview().binding
    assert f"the only call of replayed:handle ({desk.recording}:3)" in told
    assert "3 lines are, the first of them line 1, no recorded call and left out" in told
    assert call.input == "new"


def test_a_recording_of_a_newer_fluxloop_is_refused(desk: Desk) -> None:
    """What it means is not known here."""
    desk.record(line("handle", HI, version="3"))
    assert desk.refused("handle") == (
        "args.jsonl:1: replay_args.recording_file: recorded by a newer fluxloop, in version 3 of the format; "
        "this one reads up to 2"
    )


def test_disabled_it_is_not_looked_at(desk: Desk) -> None:
    """Neither the file nor the path needs to be there."""
    desk.record()
    assert desk.output("fake_notify", enabled=False, recording_file="nowhere", override_param_path="x.y") == "noted new"


def resumed(result: ExperimentResult, **changes: Any) -> ExperimentResult:
    return Experiment.resume(result.path, inputs=["a", "b"], progress=False, **changes).run()


def test_resume_goes_on_with_the_same_calls(desk: Desk) -> None:
    """Calls that were added do no harm where they are not selected, and more iterations only append."""
    desk.record(line("handle", {"data": {"content": "x", "n": 1}}), line("handle", {"data": {"content": "x", "n": 2}}))
    result = desk.run("handle", inputs=["a", "b"], select={"iteration": 0})
    with desk.recording.open("a") as file:
        file.write(line("handle", HI, iteration=1) + "\n")
    again = resumed(result, iterations=2)
    assert [(trace.input_id, trace.output["n"]) for trace in again] == [("input_001", 2), ("input_002", 2)] * 2


@pytest.mark.parametrize("select", ["last", "all"])
def test_resume_notices_other_calls(select: str, desk: Desk) -> None:
    """A file with other calls than were replayed gives runs that are not alike."""
    desk.record(line("handle", HI))
    result = desk.run("handle", inputs=["a", "b"], select=select)
    desk.record(line("handle", {"data": {"content": "other"}}))
    with pytest.raises(ResumeError, match=r"replay_args\.recording_file: the recorded calls were of digest"):
        resumed(result, iterations=2)


@pytest.mark.parametrize("select", ["last", "all"])
def test_resume_goes_on_while_the_service_records(select: str, desk: Desk) -> None:
    """Calls added since are none of the experiment's."""
    desk.record(line("handle", HI))
    result = desk.run("handle", inputs=["a", "b"], select=select)
    desk.record(line("handle", HI), line("handle", {"data": {"content": "other"}}))
    again = resumed(result, iterations=2)
    assert (len(again), again.summary.planned, again.summary.remarks) == (4, 4, ())


def test_resume_refuses_another_replay(desk: Desk) -> None:
    """Field by field, as all that decides a run."""
    desk.record(line("handle", HI))
    result = desk.run("handle", inputs=["a", "b"])
    with pytest.raises(ResumeError, match=r"replay_args\.override_param_path: was 'data\.content', is 'data\.user'"):
        resumed(result, settings=["replay_args.override_param_path=data.user"])


def test_resume_finds_a_recording_that_was_moved(desk: Desk, tmp_path: Path) -> None:
    """It is the calls that count, not where their file is."""
    desk.record(line("handle", HI))
    result = desk.run("handle", inputs=["a", "b"])
    moved = tmp_path / "moved.jsonl"
    desk.recording.rename(moved)
    again = resumed(result, iterations=2, settings=[f"replay_args.recording_file={moved}"])
    assert len(again) == 4


def test_shards_share_the_pairs(desk: Desk) -> None:
    """Together they are the runs of one experiment, and merge to it."""
    desk.record(line("handle", HI), line("handle", HI), line("handle", HI))
    whole = desk.run("handle", inputs=["a", "b"], select="all")
    shards = [desk.run("handle", inputs=["a", "b"], select="all", runner={"shard": f"{k}/2"}) for k in (1, 2)]
    merged = fluxloop.merge([shard.path for shard in shards], desk.folder / "merged")
    assert sorted((t.trace_id, t.input_id) for t in merged) == sorted((t.trace_id, t.input_id) for t in whole)
    desk.record(line("handle", HI), line("handle", HI), line("handle", {"data": {"content": "other"}}))
    other = desk.run("handle", inputs=["a", "b"], select="all", runner={"shard": "2/2"})
    with pytest.raises(fluxloop.MergeError, match="the digest of the recorded calls"):
        fluxloop.merge([shards[0].path, other.path], desk.folder / "wrong")


def test_the_block_of_the_documentation(tmp_path: Path) -> None:
    """The three keys are enough, also for a handler with a callback; the file is found from the project's root."""
    (tmp_path / "server.py").write_text("async def handle(data, send):\n    await send(data['content'].upper())\n")
    (tmp_path / "recordings").mkdir()
    call = {"target": "server:handle", "kwargs": {"data": {"content": "hi"}, "send": SEND}, "_version": "2"}
    (tmp_path / "recordings/args.jsonl").write_text(json.dumps(call))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/simulation.yaml").write_text(
        "runner:\n"
        '  target: "server:handle"\n'
        "replay_args:\n"
        "  enabled: true\n"
        '  recording_file: "recordings/args.jsonl"\n'
        '  override_param_path: "data.content"\n'
    )
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/generated.yaml").write_text("generated_inputs:\n  - input: new\n")
    command = [sys.executable, "-m", "fluxloop_cli", "run", "experiment"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "send ← builtin:collector (for app:send)" in done.stderr
    (folder,) = (tmp_path / "experiments").iterdir()
    assert [trace.output for trace in fluxloop.load(folder)] == ["NEW"]


def test_a_task_with_a_replay_can_be_sent(desk: Desk) -> None:
    """Another process replays the same calls, from no file."""
    desk.record(line("handle", {**HI, "send": SEND}))
    task = desk.experiment("handle")._subject.task[0]
    (planned,) = desk.experiment("handle").plan()
    desk.recording.unlink()
    with pickle.loads(pickle.dumps(task)).open() as runner:
        assert runner.run(planned).output["content"] == "new"


@pytest.mark.parametrize(
    ("path", "steps"),
    [("a.b", ("a.b",)), ("a.b.c", ("a.b", "c")), ("x.a.b", ("x", "a.b")), ("x.list.1", ("x", "list", 1))],
)
def test_keys_may_hold_dots(path: str, steps: Any) -> None:
    """The path is followed as far as there is anything."""
    assert paths.find({"a.b": {"c": 1}, "x": {"a.b": 2, "list": [1, 2]}}, path).steps == steps


@pytest.mark.parametrize("path", ["list.2", "list.-3", "list.x", "list.1.5", "none.x", "", "."])
def test_paths_that_lead_nowhere(path: str) -> None:
    """Are refused, each with what there is."""
    with pytest.raises(NotThereError, match="is not in the recording; "):
        paths.find({"list": [1, 2], "none": None}, path)
