"""Secrets: in no file, on no screen and in no sink, and always real for the agent."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import threading
from base64 import b64decode
from collections import deque
from contextlib import suppress
from dataclasses import make_dataclass
from pathlib import Path
from subprocess import run
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import fluxloop
from fluxloop import Experiment, MemorySink
from fluxloop.exceptions import ConfigError, InputError, TargetError, UsageError
from fluxloop.progress import LogProgress
from fluxloop.testing import run_once
from fluxloop.tracing.capture import capture
from fluxloop.tracing.output import captured_output
from fluxloop.tracing.redaction import MASK, MAX_KNOWN, Redaction

PROJECT = Path(__file__).parent / "projects" / "secrets"

ENVIRONMENT = "sk-live/environmént 'one' \"two\""
ARGUMENT = "argument-p4ssw0rd"
NUMBER = "4815162342"
OVERRIDE = "override-t0ken-value"
SINK = "sink-t0ken-value"
INPUT = "input-api-key-value"
METADATA = "metadata-client-secret"
PATTERN = "pat-20261123"
FIELD, DECORATOR = "only-in-a-field", "of-the-decorator"
ALL = (ENVIRONMENT, ARGUMENT, NUMBER, OVERRIDE, SINK, INPUT, METADATA, PATTERN)
FORMS = {
    form.encode()
    for secret in (*ALL, FIELD, DECORATOR)
    for text in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""), quote(secret))
    for form in (text, json.dumps(text, ensure_ascii=False)[1:-1])  # as it is, and as a file has it
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a secret in every place."""
    config: dict[str, Any] = {
        "description": f"about {ENVIRONMENT}",
        "tags": ["plain", f"tag {PATTERN}"],
        "runner": {
            "args": {"connection": {"password": ARGUMENT}, "secret_number": int(NUMBER)},
            "inject": ["metadata"],
            "iterations": 2,
            "python_path": [str(PROJECT)],
        },
        "inputs": {"file": "in.jsonl"},
        "output": {
            "redact_patterns": ["pat-[0-9]+"],
            "sinks": [{"sink": "secret_agents:Sink", "args": {"token": SINK, "place": "sink.txt"}}],
        },
    }
    (tmp_path / "configs").mkdir()
    with (tmp_path / "configs" / "simulation.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(config, file)
    entries = [
        {
            "input": {"text": text, "api_key": INPUT},
            "id": f"{text} of mine",
            "persona": f"owner of {METADATA}",
            "expected": [PATTERN, {"password": "tiny"}],
            "metadata": {"client_secret": METADATA, "monkey": "stays", "max_tokens": 17},
        }
        for text in ("answer", "fail")
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return tmp_path


MASKING = (
    "SERVICE_API_KEY",
    "inputs",
    "output.redact_patterns",
    "runner.args.connection.password",
    "runner.args.runs_token",
    "runner.args.secret_number",
    "secret names",
)
"""What masks something in each run of the project."""


def environment(project: Path, **more: str) -> dict[str, str]:
    """A clean environment with a secret."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(project),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "SERVICE_API_KEY": ENVIRONMENT,
        "GOT_FILE": str(project / "got.txt"),
        **more,
    }


def command(target: str, *options: str) -> list[str]:
    override = f"runner.args.runs_token={OVERRIDE}"
    return ["-m", "fluxloop_cli", "run", "experiment", "--target", target, "--set", override, *options]


def in_shell(project: Path, *options: str, target: str = "secret_agents:run", **more: str) -> tuple[int, bytes]:
    """Run the command; return its exit code and all it writes."""
    done = run(
        [sys.executable, *command(target, *options)],
        cwd=project,
        env=environment(project, **more),
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def written(project: Path) -> dict[str, bytes]:
    """Everything the experiment wrote, by file."""
    files = {path.name: path.read_bytes() for path in sorted(project.rglob("experiments/*/*")) if path.is_file()}
    return {**files, "sink.txt": (project / "sink.txt").read_bytes()}


def leaks(data: bytes) -> list[bytes]:
    return sorted(form for form in FORMS if form in data)


WAYS = {
    "inline": ("secret_agents:run", "--executor", "inline", "--timeout", "0"),
    "threads": ("secret_agents:run", "--parallel", "3"),
    "asyncio": ("secret_agents:run_async", "--parallel", "3"),
    "processes": ("secret_agents:run", "--executor", "processes", "--parallel", "2"),
    "processes, async": ("secret_agents:run_async", "--executor", "processes", "--parallel", "3"),
    "processes, uncaptured": ("secret_agents:run", "--executor", "processes", "--no-capture-output"),
    "uncaptured": ("secret_agents:run", "--no-capture-output"),
}


@pytest.mark.parametrize("way", WAYS)
def test_secrets_are_in_no_file_and_on_no_screen(project: Path, way: str) -> None:
    """Planted in every place, no secret is in what is written, shown or sent to a sink; the agent got them all."""
    target, *options = WAYS[way]
    code, screen = in_shell(project, *options, target=target)
    files = written(project)

    assert code == 0, screen.decode()
    assert {"traces.jsonl", "observations.jsonl", "trace_summary.jsonl", "summary.json", "config.yaml"} <= set(files)
    assert {name: found for name, data in files.items() if (found := leaks(data))} == {}
    assert leaks(screen) == []
    assert b"failed; the results are not affected: OSError: cannot reach https://me:***@host, ***" in screen
    assert json.loads(files["summary.json"])["masked"] == dict.fromkeys(MASKING, 4)
    assert b"masked    SERVICE_API_KEY in 4 runs, " in screen
    got = [json.loads(line) for line in (project / "got.txt").read_text().splitlines()]
    assert got == [[[ENVIRONMENT, ARGUMENT, NUMBER, OVERRIDE, INPUT, METADATA], [PATTERN, {"password": "tiny"}]]] * 4
    traces = [json.loads(line) for line in files["traces.jsonl"].splitlines()]
    assert {trace["status"] for trace in traces} == {"ok", "error"}
    for trace in traces:
        assert trace["input"]["api_key"] == MASK
        assert trace["metadata"] == {"client_secret": MASK, "monkey": "stays", "max_tokens": 17}
        assert trace["expected"] == [MASK, {"password": MASK}]
        assert (trace["persona"], trace["input_id"].split()[1:]) == ("owner of ***", ["of", "mine"])
        assert {one["name"] for one in trace["observations"]} >= {"log_in", "stream"}


def test_secrets_are_not_in_a_terminal(project: Path) -> None:
    """Neither bar nor lines nor the table show one."""
    process = pexpect.spawn(
        sys.executable,
        command("secret_agents:run"),
        cwd=str(project),
        timeout=60,
        env=environment(project),
        dimensions=(40, 200),
    )  # type: ignore[arg-type]
    process.expect(pexpect.EOF)
    screen = process.before
    process.close()

    assert process.exitstatus == 0
    assert "▓".encode() in screen
    assert b"failed" in screen
    assert b"masked    SERVICE_API_KEY in 4 runs, inputs in 4 runs" in screen
    assert leaks(screen) == []


def test_without_redaction_they_are_there(project: Path) -> None:
    """`output.redact: false` leaves everything, but for the literals of `config.yaml`."""
    code, screen = in_shell(project, "--set", "output.redact=false")
    files = written(project)
    records = json.loads(files["traces.jsonl"].splitlines()[0])

    assert code == 0, screen.decode()
    assert records["input"] == {"text": "answer", "api_key": INPUT}
    assert records["stdout"].startswith(" ".join([ENVIRONMENT, ARGUMENT]))
    assert records["expected"] == [PATTERN, {"password": "tiny"}]
    kept = YAML(typ="safe").load(files["config.yaml"])
    assert kept["runner"]["args"] == {"connection": {"password": MASK}, "secret_number": MASK, "runs_token": MASK}
    assert kept["description"] == f"about {ENVIRONMENT}"


def test_config_yaml_asks_again(project: Path) -> None:
    """What was masked in `config.yaml` is asked for by key when it is run again; references stay."""
    code, screen = in_shell(project, "--set", "inputs.limit=1")
    assert code == 0, screen.decode()
    (kept,) = project.glob("experiments/*/config.yaml")
    again = run(
        [sys.executable, "-m", "fluxloop_cli", "run", "experiment", "--config", str(kept), "--dry-run"],
        cwd=project,
        env=environment(project),
        capture_output=True,
        timeout=60,
    )

    assert again.returncode == 2
    for key in (
        "description",
        "tags.1",
        "runner.args.connection.password",
        "runner.args.secret_number",
        "runner.args.runs_token",
        "output.sinks.0.args.token",
    ):
        assert f"{key}: masked when this file was written".encode() in again.stderr


URLS = {
    "short": "postgres://u:p@db.local/app",
    "long": "postgres://reader:url-p4ssw0rd@db.local/app",
    "odbc": "Server=db.local;Password=odbc-p4ssw0rd;",
}
SHOWN = {
    "development": "postgres://postgres:postgres@localhost/app",
    "without": "https://db.local/a?page=2&max_tokens=512345678",
    "reference": "postgres://reader:${DB_WORD}@db.local/app",
}


@pytest.mark.parametrize("redact", [True, False])
def test_passwords_in_urls_of_the_configuration_are_masked(
    tmp_path: Path, redact: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In `config.yaml`, in what `config show` prints and on the screen; what holds none stays as it is."""
    monkeypatch.setenv("DB_WORD", "w0rd-of-the-environment")
    config = {
        "runner": {"args": {**URLS, **SHOWN}},
        "output": {"directory": str(tmp_path), "redact": redact},
    }
    with (tmp_path / "c.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(config, file)

    def agent(text: str, **args: str) -> str:
        assert args["short"] == URLS["short"]
        return text

    overrides = {"runner.args.more": URLS["short"]}
    experiment = Experiment(tmp_path / "c.yaml", target=agent, inputs=["a"], overrides=overrides, progress=True)
    result = experiment.run()

    assert result.summary.passed == 1
    kept = (result.path / "config.yaml").read_text()
    assert YAML(typ="safe", pure=True).load(kept)["runner"]["args"] == {
        **dict.fromkeys((*URLS, "more"), MASK),
        **SHOWN,
    }
    for text in (kept, experiment.show_config(), capsys.readouterr().err):
        assert not any(secret in text for secret in ("u:p@", "url-p4ssw0rd", "odbc-p4ssw0rd"))


FAULTS = {
    "a value": (["--set", f"runner.parallel={ENVIRONMENT}"], {}),
    "an option": (["--iterations", ENVIRONMENT], {}),
    "a pair": (["--map", ENVIRONMENT], {}),
    "a setting": (["--set", ENVIRONMENT], {}),
    "a reference": (["--set", "runner.parallel=1", "--config", "bad.yaml"], {}),
    "a secret key": (["--set", "runner.args.token=1", "--set", f"runner.args.token.x.y={OVERRIDE}"], {}),
    "a target": ([], {"target": "secret_module:run"}),
    "a sink": (["--set", 'output.sinks=["secret_agents:RefusingSink"]'], {}),
    "inputs": (["--inputs", "bad.jsonl"], {}),
    "a long text": (["--inputs", "long.jsonl"], {"LONG_TOKEN": "long" * 40}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_error_message_quotes_a_secret(project: Path, fault: str) -> None:
    """What is wrong before the first run is told without the secret it is about."""
    (project / "bad.yaml").write_text('runner: {iterations: "${SERVICE_API_KEY}"}\n')
    (project / "bad.jsonl").write_text(
        json.dumps({"input": 1, "persona": [ENVIRONMENT], "id": ENVIRONMENT})
        + "\n"
        + json.dumps({"input": 1, "id": ENVIRONMENT})
        + "\n"
        + json.dumps(7)
    )
    (project / "long.jsonl").write_text(
        json.dumps({"input": 1, "id": 1.5, "persona": None})
        + "\n"
        + json.dumps(["x", "long" * 40])
        + "\n"
        + json.dumps({"input": 1, "source_id": ["long" * 40]})
        + "\n"
    )
    options, more = FAULTS[fault]
    code, screen = in_shell(project, *options, **more)

    assert code == 2, screen.decode()
    assert leaks(screen) == []
    assert b"longlong" not in screen


# In this process


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret in the environment."""
    monkeypatch.setenv("SERVICE_API_KEY", "sk-0123456789")
    return "sk-0123456789"


def test_sinks_get_masked_records(tmp_path: Path, key: str) -> None:
    """A sink from Python sees what the files hold."""
    sink = MemorySink()
    Experiment(target=lambda text: f"{text} {key}", inputs=["hi"], output_dir=tmp_path, sinks=[sink]).run()
    assert [trace.output for trace in sink.traces] == ["hi ***"]


def test_one_run_in_a_test_is_masked(key: str) -> None:
    """`run_once` masks as an experiment does, its arguments' secrets too."""
    trace = run_once(lambda text, api_key: [key, api_key, text], "hi", args={"api_key": "of-the-arguments"})
    assert trace.output == [MASK, MASK, "hi"]


def test_passwords_in_urls_of_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the variable is called; user, host and path stay."""
    monkeypatch.setenv("DATABASE_URL", "postgres://reader:correct%20horse@db.local:5432/app")
    trace = run_once(lambda text: f"{os.environ['DATABASE_URL']} with correct horse", "hi")
    assert trace.output == "postgres://reader:***@db.local:5432/app with ***"


def test_an_environment_loaded_by_the_agent_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that comes to the environment during a run is masked in it, also in what was seen before."""
    secret = "loaded-by-the-agent"

    @fluxloop.agent()
    def agent(text: str) -> str:
        fluxloop.event("before", read=secret)
        print(secret)
        monkeypatch.setenv("LATE_TOKEN", secret)
        fluxloop.event("after", read=secret)
        return secret

    trace = run_once(agent, f"hi {secret}", expected=secret)
    assert (trace.input, trace.output, trace.expected) == ("hi ***", MASK, MASK)
    assert [one.metadata for one in trace.observations[1:]] == [{"read": MASK}, {"read": MASK}]
    assert secret not in repr(trace.__dict__)
    assert run_once(str.upper, secret).input == MASK


def test_a_secret_that_takes_the_place_of_another_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an agent's own `.env` does with what stood under the name; what stood there stays known."""
    monkeypatch.setenv("SOME_API_KEY", "placeholder-key")

    def agent(text: str) -> str:
        monkeypatch.setenv("SOME_API_KEY", "another-key")
        return "placeholder-key, then another-key"

    assert run_once(agent, "hi").output == "***, then ***"


def test_secrets_that_come_and_go_push_out_none_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many values a variable has had, all that stand in the environment now are masked."""
    monkeypatch.setenv("STAYING_TOKEN", "the-one-that-stays")
    redaction = Redaction()
    for number in range(2 * MAX_KNOWN):
        monkeypatch.setenv("CHANGING_TOKEN", f"passing-by-{number}")
        redaction.refresh()
    assert redaction.text(f"the-one-that-stays passing-by-{number}") == "*** ***"
    assert len(redaction.needles) < 2 * MAX_KNOWN


def test_what_differs_on_resume_is_masked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The input that is not as it was is told, and kept in the summary when it is forced, without its secrets."""
    overrides = {"runner.args": {"api_key": "of-the-arguments"}, "output.redact_patterns": ["sk-[0-9]+"]}

    def agent(text: str, api_key: str) -> str:
        return text

    begun = Experiment(target=agent, inputs=["hello"], overrides=overrides, output_dir=tmp_path).run()
    again = {"target": agent, "inputs": ["use sk-4711 or of-the-arguments"], "overrides": overrides, "progress": True}
    with pytest.raises(UsageError, match=r"is 'use \*\*\* or \*\*\*'"):
        Experiment.resume(begun.path, **again).run()
    (remark,) = Experiment.resume(begun.path, force=True, **again).run().summary.remarks
    assert "is 'use *** or ***'" in remark
    screen = capsys.readouterr()
    shown = screen.out + screen.err + "".join(path.read_text() for path in begun.path.iterdir())
    assert "4711" not in shown
    assert "of-the-arguments" not in shown


def test_a_secret_of_one_run_is_its_own() -> None:
    """What stands under a secret name in a run's input is masked in that run's texts and in no other's."""

    def agent(message: Any) -> str:
        return "given correct-horse"

    assert run_once(agent, {"password": "correct-horse"}).output == "given ***"
    assert run_once(agent, {"other": "correct-horse"}).output == "given correct-horse"
    assert run_once(agent, "hi", metadata={"api_key": "correct-horse"}).output == "given ***"
    assert run_once(agent, {"password": "correct"}).output == "given correct-horse"


def test_arguments_are_judged_by_their_names() -> None:
    """Positional, keyword, default and further arguments under secret names are masked whole, others stay."""

    @fluxloop.tool()
    def tool(self_service: str, token: Any, *rest: str, pin_password: int = 7, monkey: str = "m", **more: Any) -> None:
        pass

    def agent(text: str) -> None:
        tool("a", {"deep": ["b", 3, None, True, ""]}, "c", author="d", api_key="e")

    (seen,) = run_once(agent, "hi").observations
    assert seen.input == {
        "self_service": "a",
        "token": {"deep": [MASK, MASK, None, True, ""]},
        "rest": ["c"],
        "author": "d",
        "api_key": MASK,
        "pin_password": MASK,
        "monkey": "m",
    }


def test_what_goes_past_a_run_to_the_screen_is_masked(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Threads outside any run print through the stand-in streams, which mask."""
    with captured_output(redaction=Redaction()):
        thread = threading.Thread(target=lambda: print(f"the key is {key}"))
        thread.start()
        thread.join()
    assert capsys.readouterr().out == "the key is ***\n"


def test_a_text_is_masked_before_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret longer than what a message quotes leaves no part of it there."""
    monkeypatch.setenv("LONG_TOKEN", "long" * 40)

    with pytest.raises(ConfigError) as config:
        Experiment({"runner": {"parallel": "long" * 40}}, target=str.upper, inputs=["a"])
    with pytest.raises(InputError) as inputs:
        Experiment(target=str.upper, inputs=[{"input": 1, "id": ("long" * 40,)}]).plan()
    trace = run_once(lambda text: type("Odd", (), {"__repr__": lambda self: "x" * 9_950 + "long" * 40})(), "hi")

    assert "longlong" not in str(config.value) + str(inputs.value) + trace.output


def test_every_line_of_the_progress_is_masked(key: str) -> None:
    """Whatever is shown passes one place that masks it."""
    stream = io.StringIO()
    progress = LogProgress(stream, redact=Redaction().text)
    progress.info(f"the key is {key}")
    progress.warn("x" * 995 + key)
    assert key[:5] not in stream.getvalue()
    assert "[INFO] the key is ***" in stream.getvalue()


def test_errors_mask_what_they_say(key: str) -> None:
    """Whatever raises one of fluxloop's errors, its message and problems hold no secret of the environment."""

    def agent(text: str) -> str:
        return text

    with pytest.raises(ConfigError) as config:
        Experiment({"runner": {"parallel": key}}, target=agent, inputs=["a"])
    with pytest.raises(InputError) as inputs:
        Experiment(target=agent, inputs=[{"input": 1, "id": [key]}, {"input": 1, "persona": 3.5}]).plan()
    for error in (config.value, inputs.value, UsageError(f"no {key}"), TargetError(f"no {key}")):
        assert key not in str(error) + repr(error)
    assert key not in repr(config.value.problems)


def test_a_bad_pattern_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    """A regular expression that is none is told at its place."""
    path = tmp_path / "c.yaml"
    path.write_text("output:\n  redact_patterns:\n    - fine\n    - 'bro(ken'\n")
    with pytest.raises(ConfigError) as error:
        Experiment(path, target=str.upper, inputs=["a"])
    expected = "c.yaml:4:7: output.redact_patterns.1: expected a regular expression, got 'bro(ken': missing )"
    assert expected in str(error.value)


def test_a_redaction_is_sent_without_what_a_process_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled, it holds the configuration's secrets, and reads the environment where it arrives."""
    monkeypatch.setenv("HERE_TOKEN", "of-this-process")
    redaction = Redaction(patterns=["x+"], secrets=["of-the-config"])
    sent = pickle.dumps(redaction)
    monkeypatch.delenv("HERE_TOKEN")
    arrived = pickle.loads(sent)

    assert redaction.text("of-this-process of-the-config xx") == "*** *** ***"
    assert arrived.text("of-this-process of-the-config xx") == "of-this-process *** ***"
    assert b"of-this-process" not in sent
    assert "of-the-config" not in repr(redaction)


@pytest.mark.parametrize(
    "variables",
    [
        {"PWD": "/home/somebody", "OLDPWD": "/home/somebody"},
        {"AUTHOR": "/home/somebody"},
        {"API_KEY": "/home/s"},
        {"PASSWORD": "********"},
    ],
)
def test_what_is_no_secret_stays(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of a shell, short values and other names are left in texts."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_once(lambda text: text, "/home/somebody ********").output == "/home/somebody ********"


def test_a_key_of_many_lines_is_masked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private key stays masked where its lines are indented or joined, and within a service's key file."""
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n9w0BAQEFAASCBKcwggSj\n-----END PRIVATE KEY-----"
    monkeypatch.setenv("GOOGLE_CREDENTIALS", json.dumps({"type": "service_account", "private_key": key}))

    def agent(text: str) -> str:
        raise ExceptionGroup("all", [ValueError(key), ValueError(key.replace("\n", " "))])

    error = run_once(agent, "hi").error
    assert error is not None
    assert "MIIE" not in str(error.traceback)
    assert "9w0B" not in str(error.traceback)


NEEDLE = "n33dle-in-a-haystack"
texts = st.text(max_size=5) | st.sampled_from([NEEDLE, f"x{NEEDLE}y{NEEDLE}", NEEDLE[:-1], "api_key", "a"])
leaves = (
    texts
    | st.none()
    | st.integers()
    | texts.map(str.encode)
    | texts.map(lambda text: b"\xff" + text.encode())
    | texts.map(ValueError)
    | texts.map(Path)
    | texts.map(lambda text: SimpleNamespace(token=text, note=text))
    | texts.map(lambda text: make_dataclass("D", ["api_key", "note"])(text, text))
    | texts.map(lambda text: type("Odd", (), {"__repr__": lambda self: text * 2000})())
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(deque)
        | st.sets(texts, max_size=4)
        | st.dictionaries(texts | texts.map(str.encode) | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


def every_text(plain: Any) -> list[str]:
    if isinstance(plain, dict):
        return [text for key, item in plain.items() for text in (key, *every_text(item))]
    if isinstance(plain, list):
        return [text for item in plain for text in every_text(item)]
    return [plain] if isinstance(plain, str) else []


@given(value=values)
def test_no_text_holds_a_needle(value: Any) -> None:
    """Whatever a secret stood in, no text of the captured value holds it, nor bytes that a text encodes."""
    plain = capture(value, Redaction(secrets=[NEEDLE]))
    for text in every_text(plain):
        assert NEEDLE not in text
        with suppress(ValueError):
            assert NEEDLE.encode() not in b64decode(text, validate=True)


@given(value=values)
def test_masking_hides_nothing_else(value: Any) -> None:
    """Where nothing is secret, the captured value is the same."""
    assert capture(value, Redaction(secrets=["absent-from-all"], enabled=False)) == capture(value)


# What took the streams when the agent was imported

LOGGED = {"stderr": ("loguru", "rich", "structlog", "basic"), "stdout": ("handled", "stdout")}
TOOK = {
    "inline": ("run", "--executor", "inline", "--timeout", "0"),
    "threads": ("run", "--executor", "threads"),
    "asyncio": ("run_async", "--executor", "asyncio"),
    "processes": ("run", "--executor", "processes"),
}
TWICE = """
import logging_agents  # long before the experiment
from fluxloop import Experiment

for _ in range(2):
    result = Experiment(target=logging_agents.run, inputs=["a", "b"], executor="threads", parallel=1).run()
    print(result.path)
"""


def keyed(project: Path, *arguments: str, printed_before: str = "") -> str:
    """Run Python with a key in its environment; return what stands on the screen, where the key must not be."""
    variables = {**environment(project), "SHOP_API_KEY": "supersecret-12345", "PYTHONPATH": str(PROJECT)}
    done = run([sys.executable, *arguments], cwd=project, env=variables, capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    screen = done.stdout.removeprefix(printed_before) + done.stderr
    assert "supersecret" not in screen
    return screen


def assert_kept(path: Path) -> None:
    """Every line that a run logged is in its record, masked, and in no other."""
    data = (path / "traces.jsonl").read_text()
    assert "supersecret" not in data
    traces = [json.loads(line) for line in data.splitlines()]
    assert {trace["input"] for trace in traces} == {"a", "b"}
    for trace in traces:
        for stream, names in LOGGED.items():
            lines = trace[stream].splitlines()
            assert len(lines) == len(names), lines
            for name, line in zip(names, lines, strict=True):
                assert name in line
                assert f"{trace['input']} ***" in line


@pytest.mark.parametrize("way", TOOK)
def test_what_took_the_streams_at_import_is_kept_and_masked(tmp_path: Path, way: str) -> None:
    """Loggers and consoles made at the agent's import write to the run; a listener's thread, masked, to the screen."""
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n')
    name, *options = TOOK[way]
    started = ["-m", "fluxloop_cli", "run", "experiment", "--target", f"logging_agents:{name}"]
    screen = keyed(tmp_path, *started, "--inputs", "in.jsonl", *options)

    (path,) = (tmp_path / "experiments").iterdir()
    assert_kept(path)
    assert "imported with ***" in screen
    assert {line for line in screen.splitlines() if line.startswith("queued")} == {"queued a ***", "queued b ***"}
    assert "loguru" not in screen


def test_a_dry_run_shows_no_secret_of_the_import(tmp_path: Path) -> None:
    """What a target prints as it is imported to be checked is masked, too."""
    (tmp_path / "in.jsonl").write_text('"a"\n')
    started = ["-m", "fluxloop_cli", "run", "experiment", "--target", "logging_agents:run"]
    screen = keyed(tmp_path, *started, "--inputs", "in.jsonl", "--dry-run")
    assert "imported with ***" in screen


def test_what_took_the_streams_long_before_is_kept_and_masked(tmp_path: Path) -> None:
    """A script's module took the streams before there was an experiment; the second experiment is as the first."""
    screen = keyed(tmp_path, "-c", TWICE, printed_before="imported with supersecret-12345\n")
    paths = [tmp_path / line for line in screen.splitlines() if line.startswith(str(tmp_path))]
    assert len(paths) == 2
    for path in paths:
        assert_kept(path)
    assert "loguru" not in screen
