"""What is recorded of a service's calls, and what that does to the service: nothing."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluxloop
from fluxloop.recording.markers import OLD_VERSION, VERSION, called, escaped, marker, unescaped
from fluxloop.testing import run_once

from .conftest import Lines


@fluxloop.record()
def handle(data: Any, *rest: Any, api_key: str | None = None, **more: Any) -> Any:
    """A handler of a service."""
    return data


class Untouchable:
    """Fails the test that looks at it."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"somebody asked for {name}")


def test_nothing_is_recorded_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a switch there is no file, and the arguments are not looked at."""
    monkeypatch.setenv("FLUXLOOP_RECORDING_FILE", str(tmp_path / "args.jsonl"))
    odd = Untouchable()
    assert handle(odd) is odd
    fluxloop.record_call_args(target="a:b", odd=odd)
    monkeypatch.setenv("FLUXLOOP_RECORD_ARGS", "false")
    assert handle(odd) is odd
    assert list(tmp_path.iterdir()) == []


def test_the_environment_turns_recording_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is set after the import, and relative to where the service was then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLUXLOOP_RECORD_ARGS", "true")
    monkeypatch.setenv("FLUXLOOP_RECORDING_FILE", "by/environment.jsonl")
    handle(1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    handle(2)
    assert len((tmp_path / "by/environment.jsonl").read_text().splitlines()) == 2


def test_a_switch_without_a_file_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the variable that is missing."""
    monkeypatch.setenv("FLUXLOOP_RECORD_ARGS", "true")
    handle(1)
    handle(2)
    (told,) = caplog.messages
    assert "FLUXLOOP_RECORDING_FILE names no file" in told
    assert fluxloop.recording_errors() == 2


def test_the_program_goes_before_the_environment(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is taken, and it can turn off what the environment turns on."""
    monkeypatch.setenv("FLUXLOOP_RECORD_ARGS", "true")
    monkeypatch.setenv("FLUXLOOP_RECORDING_FILE", str(tmp_path / "other.jsonl"))
    handle(1)
    fluxloop.disable_recording()
    handle(2)
    assert len(recording.read_text().splitlines()) == 1
    assert not (tmp_path / "other.jsonl").exists()


def test_a_line_tells_a_call(lines: Lines) -> None:
    """Its version, target, number, arguments as they were given, and time in UTC; in this order."""
    data = {"content": "grüß dich", "user": {"id": 1}}
    handle(data, 2, more=None)
    data["content"] = "changed later"
    fluxloop.record_call_args("app.server:handle", 7, data=[1.5, True])
    fluxloop.record_call_args(target="app.server:handle", x=1)

    first, second, third = lines()
    assert list(first) == ["_version", "target", "iteration", "args", "kwargs", "timestamp"]
    assert (first["_version"], first["target"]) == (VERSION, f"{__name__}:handle")
    assert (first["args"], first["kwargs"]) == ([{"content": "grüß dich", "user": {"id": 1}}, 2], {"more": None})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["timestamp"])
    assert (second["target"], second["args"], second["kwargs"]) == ("app.server:handle", [7], {"data": [1.5, True]})
    assert [line["iteration"] for line in (first, second, third)] == [0, 0, 1]


class Desk:
    """A class with handlers of every kind."""

    @fluxloop.record
    def method(self, text: str) -> str:
        return text

    @fluxloop.record
    @classmethod
    def of_class(cls, text: str) -> str:
        return text

    @fluxloop.record("named:here")
    @staticmethod
    def static(text: str) -> str:
        return text


@fluxloop.record
async def answer(text: str) -> str:
    return text


@fluxloop.record
def parts(text: str) -> Generator[str, str, str]:
    got = yield text
    return f"end of {got}"


@fluxloop.record
async def streamed(text: str) -> AsyncGenerator[str, str]:
    try:
        got = yield text
        yield f"got {got}"
    except KeyError:
        yield "caught"


async def all_of(steps: AsyncGenerator[str, str], *, raising: bool = False) -> list[str]:
    found = [await anext(steps)]
    found.append(await (steps.athrow(KeyError()) if raising else steps.asend("sent")))
    found += [item async for item in steps]
    return found


def ended(steps: Generator[str, str, str]) -> Any:
    assert next(steps) == "hi"
    with pytest.raises(StopIteration) as stop:
        steps.send("it")
    return stop.value.value


@pytest.mark.parametrize(
    ("call", "result", "target"),
    [
        (lambda: Desk().method("hi"), "hi", f"{__name__}:Desk.method"),
        (lambda: Desk.of_class("hi"), "hi", f"{__name__}:Desk.of_class"),
        (lambda: Desk().static("hi"), "hi", "named:here"),
        (lambda: asyncio.run(answer("hi")), "hi", f"{__name__}:answer"),
        (lambda: ended(parts("hi")), "end of it", f"{__name__}:parts"),
        (lambda: asyncio.run(all_of(streamed("hi"))), ["hi", "got sent"], f"{__name__}:streamed"),
        (lambda: asyncio.run(all_of(streamed("hi"), raising=True)), ["hi", "caught"], f"{__name__}:streamed"),
    ],
)
def test_functions_of_every_kind(call: Callable[[], Any], result: Any, target: str, lines: Lines) -> None:
    """Each call is one line without `self`, and gives what it gave."""
    assert call() == result
    (line,) = lines()
    assert (line["target"], line["args"], line["kwargs"]) == (target, ["hi"], {})


def test_decorated_functions_stay_what_they_are() -> None:
    """Frameworks that look at a handler see the same."""
    assert inspect.iscoroutinefunction(answer)
    assert inspect.isgeneratorfunction(parts)
    assert inspect.isasyncgenfunction(streamed)
    assert str(inspect.signature(handle)).startswith("(data: 'Any', *rest: 'Any', api_key")
    assert handle.__doc__ == "A handler of a service."
    with pytest.raises(TypeError, match="goes on a function or a method"):
        fluxloop.record(3)  # type: ignore[call-overload]


def test_what_a_handler_raises_passes(lines: Lines) -> None:
    """And its call is recorded all the same."""

    @fluxloop.record
    def failing(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError, match="hi"):
        failing("hi")
    assert lines()[0]["args"] == ["hi"]


def test_the_program_itself_is_called_by_its_file(tmp_path: Path) -> None:
    """As a replay must name it: no module is called `__main__` there."""
    script = "import fluxloop\n@fluxloop.record\ndef handle(x): pass\nfluxloop.enable_recording('a.jsonl')\nhandle(1)\n"
    (tmp_path / "service.py").write_text(script)
    for command in (["service.py"], ["-m", "service"]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True)
    found = [json.loads(line)["target"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert found == ["service:handle", "service:handle"]


def test_a_script_replays_what_it_has_recorded(tmp_path: Path) -> None:
    """Its own function is found by the name it was recorded under."""
    script = (
        "import fluxloop\n"
        "@fluxloop.record\n"
        "def handle(data): return data\n"
        "fluxloop.enable_recording('a.jsonl')\n"
        "handle({'content': 'hi', 'n': 1})\n"
        "replay = {'enabled': True, 'recording_file': 'a.jsonl', 'override_param_path': 'data.content'}\n"
        "result = fluxloop.Experiment({'replay_args': replay}, target=handle, inputs=['new']).run()\n"
        "assert [trace.output for trace in result] == [{'content': 'new', 'n': 1}]\n"
    )
    (tmp_path / "service.py").write_text(script)
    subprocess.run([sys.executable, "service.py"], cwd=tmp_path, check=True)


class Sender:
    """An object that is called."""

    def __call__(self, text: str) -> None: ...

    def send(self, text: str) -> None: ...


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (len, "builtins:len"),
        (Sender, f"{__name__}:Sender"),
        (Sender(), f"{__name__}:Sender"),
        (Sender().send, f"{__name__}:Sender.send"),
        (functools.partial(functools.partial(print, 1), 2), "builtins:print"),
        (lambda: None, f"{__name__}:<lambda>"),
    ],
)
def test_callables_are_markers(value: Any, name: str, lines: Lines) -> None:
    """At any depth, and by where they are defined."""
    handle([{"deep": value}], callback=value)
    (line,) = lines()
    assert line["kwargs"]["callback"] == {"$callable": name}
    assert line["args"] == [[{"deep": {"$callable": name}}]]
    assert called(line["kwargs"]["callback"], VERSION) == name


@pytest.mark.parametrize(
    "value",
    [
        {"$callable": "os:system"},
        OrderedDict({"$callable": "os:system"}),
        SimpleNamespace(**{"$callable": "os:system"}),
        {"$$callable": "os:system"},
    ],
)
def test_no_value_of_a_user_is_taken_for_a_callable(value: Any, lines: Lines) -> None:
    """A mapping that looks like a marker is recorded so that it is none, and read back as it was."""
    handle(value, inner=[value])
    (line,) = lines()
    for plain in (line["args"][0], line["kwargs"]["inner"][0]):
        assert called(plain, VERSION) is None
        assert unescaped(plain) == (dict(value) if isinstance(value, dict) else vars(value))


@given(st.dictionaries(st.text("$cal") | st.sampled_from(["$callable", "$$callable", "callable"]), st.text()))
def test_escaping_is_undone_exactly(plain: dict[str, str]) -> None:
    """And what was escaped is never a marker."""
    assert unescaped(escaped(plain)) == plain
    assert called(escaped(plain), VERSION) is None


def test_markers_of_the_earlier_fluxloop() -> None:
    """Its texts are callables in its own recordings only; other texts in angle brackets never are."""
    assert called("<builtin:collector.send>", OLD_VERSION) == "collector.send"
    assert called("<callable:foo>", OLD_VERSION) == "foo"
    for text in ("<b>html</b>", "see <callable:foo>", "<callable:a><b>", "<function f at 0x7f>"):
        assert called(text, OLD_VERSION) is None
    assert called("<callable:foo>", VERSION) is None
    assert called(marker("foo"), OLD_VERSION) is None


def test_secrets_are_masked(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of parameters and keys, by the environment, and wherever else they then appear."""
    monkeypatch.setenv("SHOP_TOKEN", "tok-very-secret")

    @fluxloop.record
    def login(name: str, password: str, note: str) -> None: ...

    login("ann", "correct horse", "my password is correct horse, the token tok-very-secret")
    handle({"auth": {"access_token": "abc"}}, api_key="sk-1")
    fluxloop.record_call_args(target="a:b", api_key=len)

    first, second, third = lines()
    assert first["args"] == ["ann", "***", "my password is ***, the token ***"]
    assert (second["args"], second["kwargs"]) == ([{"auth": {"access_token": "***"}}], {"api_key": "***"})
    assert third["kwargs"] == {"api_key": {"$callable": "***"}}


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("leave me alone")

    def __repr__(self) -> str:
        raise RuntimeError("leave me alone")


def test_hostile_values_harm_nothing(lines: Lines) -> None:
    """An object that raises, a cycle, half a character, a huge number: each call is a line."""
    cycle: list[Any] = []
    cycle.append(cycle)
    for value in (Hostile(), cycle, "\ud800", 10**5000, float("nan"), {Hostile: 1}, b"\xff\n", "\n\u2028"):
        assert handle(value) is value
        handle(data=value, more=value)
    assert len(lines()) == 16


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("where", ["/dev/full", "folder", "folder/pipe", "folder/file/below"])
def test_what_cannot_be_written_is_counted_and_told_once(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, a folder, a pipe that nobody reads: the service goes on, and its log has one line."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    os.mkfifo(tmp_path / "folder/pipe")
    fluxloop.enable_recording(tmp_path / where)
    assert [handle(n) for n in range(3)] == [0, 1, 2]
    assert fluxloop.recording_errors() == 3
    ((name, level, told),) = caplog.record_tuples
    assert (name, level) == ("fluxloop.recording", logging.WARNING)
    assert str(tmp_path / where) in told


def test_the_file_may_go_while_the_service_runs(recording: Path, lines: Lines) -> None:
    """It is made anew, be it deleted or moved."""
    handle(1)
    recording.rename(recording.with_name("old.jsonl"))
    handle(2)
    assert [line["args"] for line in lines()] == [[2]]


def test_a_replayed_call_is_not_recorded(recording: Path) -> None:
    """Or a replay would add to the recording it reads."""
    assert run_once(handle, "hi").output == "hi"
    assert not recording.exists()


WRITER = """
import sys, fluxloop
fluxloop.enable_recording(sys.argv[1])
for number in range(10_000):
    fluxloop.record_call_args(target="app:handle", writer=sys.argv[2], number=number, text="x" * (number % 300))
assert fluxloop.recording_errors() == 0
"""


def test_many_processes_write_whole_lines(recording: Path) -> None:
    """8 processes that record 10,000 calls each into one file give 80,000 whole lines, none of them twice."""
    command = [sys.executable, "-c", WRITER, str(recording)]
    writers = [subprocess.Popen([*command, str(number)]) for number in range(8)]
    assert [writer.wait() for writer in writers] == [0] * 8
    with recording.open(encoding="utf-8") as file:
        found = [json.loads(line)["kwargs"] for line in file]
    assert len(found) == 80_000
    assert {(one["writer"], one["number"]) for one in found} == {(str(w), n) for w in range(8) for n in range(10_000)}


def test_threads_and_forks_write_whole_lines(recording: Path, lines: Lines) -> None:
    """Each thread's and each forked process's calls are there, and the threads' are numbered without gaps."""

    def work(writer: str) -> None:
        for number in range(200):
            fluxloop.record_call_args(target="app:handle", writer=writer, number=number)

    threads = [threading.Thread(target=work, args=(f"thread {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["iteration"] for line in lines()) == list(range(1600))
    script = (
        "import os, fluxloop\n"
        f"fluxloop.enable_recording({str(recording)!r})\n"
        "child = os.fork()\n"
        "for number in range(200):\n"
        "    fluxloop.record_call_args(target='app:handle', writer=f'fork {child == 0}', number=number)\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    found = {(line["kwargs"]["writer"], line["kwargs"]["number"]) for line in lines()}
    assert len(found) == len(lines()) == 2000


def test_a_recording_is_for_its_owner(tmp_path: Path) -> None:
    """It holds what users said, so that no other account of the machine may read it."""
    path = tmp_path / "new" / "args.jsonl"
    fluxloop.enable_recording(path)
    handle({"content": "hi"})
    assert path.stat().st_mode & 0o777 == 0o600
