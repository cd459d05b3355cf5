"""The values that say how much, how long, how often and how many."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxloop.config import load_config
from fluxloop.config.model import Duration

SECONDS = (
    "timeout_seconds",
    "retry_delay_seconds",
    "run_delay_seconds",
    "grace_seconds",
    "stall_seconds",
)
A_TIME = "expected a time such as 90s, 30m or 1h30m"
A_RATE = "expected a rate such as 60/min, 5/s or 1000/h"
FAILURES = "expected a number of runs, as 10, or a share, as 10%"
A_SHARD = "expected a shard such as 2/8, the second of eight"
PROCESSORS = "expected processors, a number from 0 to 10000 such as 1 or 0.5"
AN_EXECUTOR = "expected one of auto, inline, asyncio, threads, processes, ray"


def value_of(load: Any, key: str, text: str) -> Any:
    """What the key of `runner` comes to."""
    return getattr(load(f"runner:\n  {key}: {text}\n").config.runner, key)


def told(faults: Any, key: str, text: str) -> str:
    """The one fault of the key of `runner`, without its place, which is that of the value."""
    (line,) = faults(f"runner:\n  {key}: {text}\n")
    place = f"c.yaml:2:{len(key) + 5}: runner.{key}: "
    assert line.startswith(place)
    return str(line).removeprefix(place)


def test_by_default_nothing_is_bounded() -> None:
    """One run at a time, no retries, no stops; each attempt has the time its executor can keep."""
    runner = load_config(None, environment={}).config.runner
    assert (runner.parallel, runner.executor, runner.timeout_seconds) == (1, "auto", None)
    assert (runner.max_retries, runner.retry_on, runner.retry_delay_seconds) == (0, ("transient",), 1.0)
    assert (runner.start_rate, runner.run_delay_seconds) == (None, 0.0)
    assert (runner.max_failures, runner.max_time) == (None, None)
    assert (runner.grace_seconds, runner.stall_seconds) == (30.0, 300.0)
    assert (runner.shard, runner.per_shard) == (None, False)


@pytest.mark.parametrize("key", SECONDS)
@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("90", 90.0), ("0.5", 0.5), ("1e3", 1000.0), ("1e9", 1e9)])
def test_seconds(load: Any, key: str, text: str, seconds: float) -> None:
    """Seconds are a number from 0, kept as a float."""
    found = value_of(load, key, text)
    assert (found, type(found)) == (seconds, float)


@pytest.mark.parametrize("key", SECONDS)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("-1", "-1"),
        ("-0.1", "-0.1"),
        ("soon", "'soon'"),
        ("'5'", "'5'"),
        ("5s", "'5s'"),
        ("true", "true"),
        (".inf", "inf"),
        (".nan", "nan"),
        ("1e10", "10000000000.0"),
        ("1" + "0" * 400, "1" + "0" * 78 + "…"),
        ("[5]", "a list"),
        ("{}", "a mapping"),
        ("''", "''"),
    ],
)
def test_seconds_refuse(faults: Any, key: str, text: str, found: str) -> None:
    """What is no number, is below 0, or is longer than any clock of Python's can wait, is told."""
    assert told(faults, key, text) == f"expected seconds, a number from 0 to 1e9, got {found}"


@pytest.mark.parametrize("key", SECONDS[1:])
def test_seconds_with_a_default_refuse_null(faults: Any, key: str) -> None:
    """Only a timeout may be absent; where 0 means never, 0 is to be written."""
    assert told(faults, key, "null") == "expected seconds, a number from 0 to 1e9, got nothing"


@pytest.mark.parametrize("key", ["timeout_seconds", "start_rate", "max_failures", "max_time", "shard"])
def test_what_is_absent_by_default_takes_null(load: Any, key: str) -> None:
    """A key that is commented out, or null, bounds nothing."""
    assert value_of(load, key, "null") is value_of(load, key, "") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("30m", 1800.0),
        ("2h", 7200.0),
        ("1h30m", 5400.0),
        ("1h30m15s", 5415.0),
        ("1h15s", 3615.0),
        ("1h 30m", 5400.0),
        ("1.5h", 5400.0),
        ("0.5s", 0.5),
        ("90", 90.0),
        ("1.5", 1.5),
        ("'90'", 90.0),
    ],
)
def test_times(load: Any, text: str, seconds: float) -> None:
    """`max_time` is hours, minutes and seconds in this order, or plain seconds."""
    found = value_of(load, "max_time", text)
    assert (found, type(found)) == (seconds, float)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("soon", "'soon'"),
        ("0", "0"),
        ("0s", "'0s'"),
        ("-1", "-1"),
        ("-30m", "'-30m'"),
        ("30m1h", "'30m1h'"),
        ("30min", "'30min'"),
        ("30M", "'30M'"),
        ("1d", "'1d'"),
        ("m", "'m'"),
        ("1:30", "'1:30'"),
        ("1e3s", "'1e3s'"),
        ("true", "true"),
        (".inf", "inf"),
        (".nan", "nan"),
        ("1" + "0" * 400, "1" + "0" * 78 + "…"),
        ("1" + "0" * 400 + "h", "'1" + "0" * 77 + "…"),
        ("300000h", "'300000h'"),
        ("[30m]", "a list"),
        ("''", "''"),
        ("' '", "' '"),
    ],
)
def test_times_refuse(faults: Any, text: str, found: str) -> None:
    """Other units, another order, nothing at all, and what is longer than any clock can wait, is told."""
    assert told(faults, "max_time", text) == f"{A_TIME}, got {found}"


@given(hours=st.integers(0, 99), minutes=st.integers(0, 99), seconds=st.integers(0, 99))
def test_times_add_up(hours: int, minutes: int, seconds: int) -> None:
    """Whatever parts of a time are written, they are added."""
    text = "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if number)
    if text:
        loaded = load_config({"runner": {"max_time": text}}, environment={})
        assert loaded.config.runner.max_time == Duration(hours * 3600 + minutes * 60 + seconds)


@pytest.mark.parametrize("text", ["60/min", "5/s", "1000/h", "0.5/s", "60 / minute", "1e3/hour"])
def test_rates(load: Any, text: str) -> None:
    """A rate is kept as it was written."""
    assert value_of(load, "start_rate", text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("60", "60"),
        ("0.5", "0.5"),
        ("60/", "'60/'"),
        ("/min", "'/min'"),
        ("0/s", "'0/s'"),
        ("-1/s", "'-1/s'"),
        ("nan/s", "'nan/s'"),
        ("inf/s", "'inf/s'"),
        ("ten/s", "'ten/s'"),
        ("60/day", "'60/day'"),
        ("60/min/s", "'60/min/s'"),
        ('"6/s\\0"', "'6/s\\x00'"),
        ("true", "true"),
        ("[60/min]", "a list"),
        ("''", "''"),
    ],
)
def test_rates_refuse(faults: Any, text: str, found: str) -> None:
    """A rate is a positive number a second, minute or hour, and nothing else."""
    assert told(faults, "start_rate", text) == f"{A_RATE}, got {found}"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("1", 1),
        ("10", 10),
        ("'1'", 1),
        ("'10'", 10),
        ("10%", 0.1),
        ("'10 %'", 0.1),
        ("0.1", 0.1),
        ("'0.1'", 0.1),
        ("100%", 1.0),
        ("1.0", 1.0),
        ("0.5%", 0.005),
    ],
)
def test_failures(load: Any, text: str, limit: float) -> None:
    """An integer is a number of runs, quoted or not; a percentage or another number is a share of all."""
    found = value_of(load, "max_failures", text)
    assert (found, type(found)) == (limit, type(limit))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", "0"),
        ("'0'", "'0'"),
        ("0.0", "0.0"),
        ("0%", "'0%'"),
        ("-1", "-1"),
        ("-10%", "'-10%'"),
        ("1.5", "1.5"),
        ("2.0", "2.0"),
        ("101%", "'101%'"),
        ("200%", "'200%'"),
        ("nan%", "'nan%'"),
        (".inf", "inf"),
        ("many", "'many'"),
        ("many%", "'many%'"),
        ("true", "true"),
        ("'true'", "'true'"),
        ("'[1]'", "'[1]'"),
        ("[1]", "a list"),
        ("''", "''"),
    ],
)
def test_failures_refuse(faults: Any, text: str, found: str) -> None:
    """No run, no share, more than all, or a part of a run is told."""
    assert told(faults, "max_failures", text) == f"{FAILURES}, got {found}"


@pytest.mark.parametrize(
    ("text", "shard"),
    [("2/8", "2/8"), ("'2/8'", "2/8"), ("1/1", "1/1"), ("2 / 8", "2/8"), ("02/08", "2/8"), ("500/1000", "500/1000")],
)
def test_shards(load: Any, text: str, shard: str) -> None:
    """A shard is kept in its one spelling, by which shards are told apart."""
    assert value_of(load, "shard", text) == shard


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/8", "expected a shard from 1/8 to 8/8, got '0/8': shards are counted from 1"),
        ("9/8", "expected a shard from 1/8 to 8/8, got '9/8'"),
        ("0/1", "expected a shard from 1/1 to 1/1, got '0/1': shards are counted from 1"),
        ("a/b", f"{A_SHARD}, got 'a/b'"),
        ("2", f"{A_SHARD}, got 2"),
        ("'2'", f"{A_SHARD}, got '2'"),
        ("0.25", f"{A_SHARD}, got 0.25"),
        ("1/0", f"{A_SHARD}, got '1/0'"),
        ("0/0", f"{A_SHARD}, got '0/0'"),
        ("-1/8", f"{A_SHARD}, got '-1/8'"),
        ("2/8/3", f"{A_SHARD}, got '2/8/3'"),
        ("2/", f"{A_SHARD}, got '2/'"),
        ("/8", f"{A_SHARD}, got '/8'"),
        ("1/1000000", f"{A_SHARD}, got '1/1000000'"),
        ("true", f"{A_SHARD}, got true"),
        ("[2, 8]", f"{A_SHARD}, got a list"),
        ("''", f"{A_SHARD}, got ''"),
    ],
)
def test_shards_refuse(faults: Any, text: str, message: str) -> None:
    """One that is not there is told with those that are, anything else with an example."""
    assert told(faults, "shard", text) == message


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_yes_or_no(load: Any, text: str, value: bool) -> None:
    """Rates of each shard are a matter of yes or no."""
    assert value_of(load, "per_shard", text) is value


@pytest.mark.parametrize(
    ("text", "found"), [("1", "1"), ("'true'", "'true'"), ("maybe", "'maybe'"), ("null", "nothing"), ("[]", "a list")]
)
def test_yes_or_no_refuses(faults: Any, text: str, found: str) -> None:
    """What merely counts as true in Python is told."""
    assert told(faults, "per_shard", text) == f"expected true or false, got {found}"


@pytest.mark.parametrize("text", ["0", "3", str(2**63 - 1)])
def test_counts(load: Any, text: str) -> None:
    """Retries are counted from 0."""
    assert value_of(load, "max_retries", text) == int(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("'3'", "'3'"),
        ("true", "true"),
        ("null", "nothing"),
        ("many", "'many'"),
        (str(2**63), str(2**63)),
        ("[3]", "a list"),
    ],
)
def test_counts_refuse(faults: Any, text: str, found: str) -> None:
    """A number of retries is an integer from 0 and nothing that merely could become one."""
    assert told(faults, "max_retries", text) == f"expected an integer >= 0, got {found}"


@pytest.mark.parametrize(("text", "found"), [("0", "0"), ("-1", "-1"), ("2.0", "2.0"), ("null", "nothing")])
def test_parallel_is_an_integer_from_1(load: Any, faults: Any, text: str, found: str) -> None:
    """At least one run is in flight."""
    assert value_of(load, "parallel", "100") == 100
    assert told(faults, "parallel", text) == f"expected an integer >= 1, got {found}"


@pytest.mark.parametrize("text", ["0", "0.25", "1", "64", "10000"])
def test_processors(load: Any, text: str) -> None:
    """A worker may take up a part of one, or none."""
    assert load(f"runner: {{ray: {{num_cpus: {text}}}}}\n").config.runner.ray.num_cpus == float(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [("-1", "-1"), ("10001", "10001"), (".nan", "nan"), ("'2'", "'2'"), ("true", "true"), ("null", "nothing")],
)
def test_processors_refuse(faults: Any, text: str, found: str) -> None:
    """What is no number of processors is told at its place below two sections."""
    assert faults(f"runner:\n  ray:\n    num_cpus: {text}\n") == [
        f"c.yaml:3:15: runner.ray.num_cpus: {PROCESSORS}, got {found}"
    ]


@pytest.mark.parametrize(("text", "found"), [("thread", "'thread'"), ("Threads", "'Threads'"), ("null", "nothing")])
def test_an_executor_is_one_of_a_list(load: Any, faults: Any, text: str, found: str) -> None:
    """A name that is none of them is told with all there are."""
    for name in ("auto", "inline", "asyncio", "threads", "processes", "ray"):
        assert value_of(load, "executor", name) == name
    assert told(faults, "executor", text) == f"{AN_EXECUTOR}, got {found}"


def test_errors_to_retry_on_are_names(load: Any, faults: Any) -> None:
    """A list of texts, which may be empty; an item that is no text is told at its own place."""
    assert value_of(load, "retry_on", "[transient, openai.RateLimitError]") == ("transient", "openai.RateLimitError")
    assert value_of(load, "retry_on", "[]") == ()
    assert told(faults, "retry_on", "transient") == "expected a list, got 'transient'"
    assert faults("runner:\n  retry_on: [transient, 3]\n") == [
        "c.yaml:2:25: runner.retry_on.1: expected a text, got 3",
    ]


def test_all_faults_of_a_runner_at_once(faults: Any) -> None:
    """Each wrong bound is told in the order of the file."""
    text = """\
runner:
  parallel: 0
  executor: dask
  timeout_seconds: soon
  max_retries: -1
  retry_on: all
  start_rate: 60
  max_failures: 200%
  max_time: 30
  paralel: 4
"""
    assert faults(text) == [
        "c.yaml:2:13: runner.parallel: expected an integer >= 1, got 0",
        f"c.yaml:3:13: runner.executor: {AN_EXECUTOR}, got 'dask'",
        "c.yaml:4:20: runner.timeout_seconds: expected seconds, a number from 0 to 1e9, got 'soon'",
        "c.yaml:5:16: runner.max_retries: expected an integer >= 0, got -1",
        "c.yaml:6:13: runner.retry_on: expected a list, got 'all'",
        f"c.yaml:7:15: runner.start_rate: {A_RATE}, got 60",
        f"c.yaml:8:17: runner.max_failures: {FAILURES}, got '200%'",
        "c.yaml:10:3: runner.paralel: unknown key; did you mean 'parallel'?",
    ]


GIVEN = [
    ("parallel", "4", 4),
    ("executor", "threads", "threads"),
    ("timeout_seconds", "60", 60.0),
    ("timeout_seconds", "0.5", 0.5),
    ("timeout_seconds", "", None),
    ("max_retries", "3", 3),
    ("max_crash_retries", "2", 2),
    ("max_crash_retries", "", None),
    ("retry_on", "[transient, MyError]", ("transient", "MyError")),
    ("infrastructure", "[ServiceDown, my_agent.Busy]", ("ServiceDown", "my_agent.Busy")),
    ("retry_delay_seconds", "0", 0.0),
    ("start_rate", "60/min", "60/min"),
    ("start_rate", "", None),
    ("run_delay_seconds", "1.5", 1.5),
    ("max_failures", "1", 1),
    ("max_failures", "10%", 0.1),
    ("max_failures", "1.0", 1.0),
    ("max_failures", "", None),
    ("stop_when_all_fail", "10", 10),
    ("max_time", "1h30m", 5400.0),
    ("max_time", "90", 90.0),
    ("max_time", "", None),
    ("grace_seconds", "5", 5.0),
    ("stall_seconds", "0", 0.0),
    ("shard", "2/8", "2/8"),
    ("shard", "", None),
    ("per_shard", "true", True),
    ("ray.address", "head:6379", "head:6379"),
    ("ray.address", "6379", "6379"),
    ("ray.num_cpus", "0.5", 0.5),
    ("ray.num_cpus", "2", 2.0),
    ("ray.env", "[OPENAI_API_KEY, HF_HOME]", ("OPENAI_API_KEY", "HF_HOME")),
]


def variable_of(key: str) -> str:
    """The variable of the environment that sets a key of `runner`."""
    return f"FLUXLOOP_RUNNER__{key.upper().replace('.', '__')}"


@pytest.mark.parametrize(("key", "text", "value"), GIVEN)
def test_texts_of_settings_and_variables(key: str, text: str, value: Any) -> None:
    """`--set`, a variable of the environment and a reference to one say the same as the file would."""
    setting = load_config(None, settings=[f"runner.{key}={text}"], environment={})
    variable = load_config(None, environment={variable_of(key): text})
    found = [attrgetter(key)(loaded.config.runner) for loaded in (setting, variable)]
    if not text.startswith("["):  # a reference is a text, never a list
        given: Any = "${HERE}"
        for part in reversed(key.split(".")):
            given = {part: given}
        reference = load_config({"runner": given}, environment={"HERE": text})
        found.append(attrgetter(key)(reference.config.runner))
    assert found == [value] * len(found)
    assert {type(one) for one in found} == {type(value)}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("parallel", "0", "expected an integer >= 1, got '0'"),
        ("executor", "thread", f"{AN_EXECUTOR}, got 'thread'"),
        ("timeout_seconds", "-1", "expected seconds, a number from 0 to 1e9, got '-1'"),
        ("timeout_seconds", "60s", "expected seconds, a number from 0 to 1e9, got '60s'"),
        ("grace_seconds", "", "expected seconds, a number from 0 to 1e9, got ''"),
        ("max_retries", "many", "expected an integer >= 0, got 'many'"),
        ("retry_on", "transient", "expected a list, got 'transient'"),
        ("infrastructure", "ServiceDown", "expected a list, got 'ServiceDown'"),
        ("stop_when_all_fail", "-1", "expected an integer >= 0, got '-1'"),
        ("stop_when_all_fail", "all", "expected an integer >= 0, got 'all'"),
        ("start_rate", "60", f"{A_RATE}, got '60'"),
        ("max_failures", "0", f"{FAILURES}, got '0'"),
        ("max_failures", "200%", f"{FAILURES}, got '200%'"),
        ("max_time", "soon", f"{A_TIME}, got 'soon'"),
        ("shard", "0/8", "expected a shard from 1/8 to 8/8, got '0/8': shards are counted from 1"),
        ("shard", "2", f"{A_SHARD}, got '2'"),
        ("per_shard", "2", "expected true or false, got '2'"),
        ("max_crash_retries", "-1", "expected an integer >= 0, got '-1'"),
        ("ray.num_cpus", "all", f"{PROCESSORS}, got 'all'"),
        ("ray.env", "HF_HOME", "expected a list, got 'HF_HOME'"),
        ("ray.adress", "head:6379", "unknown key; did you mean 'address'?"),
        ("ray", "auto", "expected a mapping, got 'auto'"),
    ],
)
def test_wrong_texts_of_settings_and_variables(faults: Any, key: str, text: str, message: str) -> None:
    """What is told names the setting or the variable, as for every key."""
    name = variable_of(key)
    assert faults("name: a\n", settings=[f"runner.{key}={text}"]) == [f"--set runner.{key}={text}: {message}"]
    assert faults("name: a\n", environment={name: text}) == [f"environment variable {name}: runner.{key}: {message}"]


def test_keys_of_the_runner_at_the_top(faults: Any) -> None:
    """A bound that stands at the top is told where it belongs."""
    assert faults("parallel: 4\n") == ["c.yaml:1:1: parallel: unknown key; it belongs below runner:"]


@pytest.mark.parametrize("key", ["iterations", "parallel"])
def test_what_is_counted_has_a_largest(key: str, faults: Any) -> None:
    """More runs than can be counted are refused where they are asked for."""
    assert told(faults, key, str(2**63)) == f"expected an integer <= 2147483647, got {2**63}"
