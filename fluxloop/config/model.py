"""What a configuration holds. The README's reference is checked against these classes."""

from __future__ import annotations

from typing import Any, Literal, NewType

from attrs import Factory, frozen

# Types of their own for values with limits: the converter checks each, so that all faults of a
# file are told at once.
PositiveInt = NewType("PositiveInt", int)
Count = NewType("Count", int)
"""From 0."""
Share = NewType("Share", float)
Seconds = NewType("Seconds", float)
"""From 0."""
Cpus = NewType("Cpus", float)
"""From 0."""
Duration = NewType("Duration", float)
"""Seconds; may be written as `90s`, `30m` or `1h30m`."""
Rate = NewType("Rate", str)
"""As `60/min`."""
Failures = NewType("Failures", float)
"""An integer is a number of runs, any other number a share of all, as `10%`."""
ShardText = NewType("ShardText", str)
"""As `2/8`, from 1."""
Pattern = NewType("Pattern", str)
Mode = NewType("Mode", str)
"""A regular expression."""
Name = NewType("Name", str)
Choice = NewType("Choice", object)
"""`last`, `first`, `all`, or a mapping of `target` and `iteration`."""

Injectable = Literal["persona", "iteration", "metadata", "expected"]
InputField = Literal["input", "id", "persona", "expected", "source_id", "metadata"]


@frozen(kw_only=True)
class RayConfig:
    """The cluster, with `executor: ray`."""

    address: str | None = None
    """As `head:6379`, `auto` for this machine's, or `local` to start one; by default RAY_ADDRESS, else `local`."""
    num_cpus: Cpus = Cpus(1.0)
    """Processors that a worker takes up; less than 1 for agents that mostly wait."""
    env: tuple[str, ...] = ()
    """Names of environment variables that workers get."""


@frozen(kw_only=True)
class RunnerConfig:
    """How the agent is called."""

    target: str | None = None
    """`module:function`, `module:Class.method`, `module:object` or `module:factory()`."""
    iterations: PositiveInt = PositiveInt(1)
    """How many times each input is run."""
    args: dict[str, Any] = Factory(dict)
    """Constant arguments; `{run_id}` in them is fresh for each attempt."""
    inject: tuple[Injectable, ...] = ()
    """Passed to the agent beside the input: persona, iteration, metadata, expected."""
    input_template: Any | None = None
    """What is passed instead of the bare input; `{input}` in it is the input."""
    output_path: str | None = None
    """Where the answer is in what the agent returns, as `messages.-1.content`."""
    working_directory: str | None = None
    """The directory the agent runs in; importable too."""
    python_path: tuple[str, ...] = ()
    """Folders to import from, beside the project root."""
    parallel: PositiveInt = PositiveInt(1)
    """How many runs may be in flight at a time."""
    executor: Literal["auto", "inline", "asyncio", "threads", "processes", "ray"] = "auto"
    """Where runs happen: auto takes asyncio for async agents, else threads where they are of use."""
    timeout_seconds: Seconds | None = None
    """What an attempt may take; 0 for any time. By default 600 where the executor can keep it."""
    max_retries: Count = Count(0)
    """Further attempts after an error that may pass."""
    max_crash_retries: Count | None = None
    """Further attempts at a run whose worker process has died; by default none, and 1 with ray. Runs that pass only
    after a crash bias the pass rate upwards."""
    retry_on: tuple[str, ...] = ("transient",)
    """After which errors: names of exceptions, also of base classes; `transient` is every passing one of a service.
    Runs that pass only after an error of the agent's own, or a timeout, bias the pass rate upwards."""
    infrastructure: tuple[str, ...] = ()
    """Exceptions that are failures of infrastructure too: their names, also of base classes."""
    retry_delay_seconds: Seconds = Seconds(1.0)
    """Before the first retry; doubled for each further one, to a minute at most, and spread by chance."""
    start_rate: Rate | None = None
    """How many attempts may start, as `60/min`, `5/s` or `1000/h`; evenly spaced."""
    run_delay_seconds: Seconds = Seconds(0.0)
    """The least time between two starts."""
    max_failures: Failures | None = None
    """Stop after so many failed runs, or such a share of all, as `10%`."""
    stop_when_all_fail: Count = Count(0)
    """Stop when the first so many runs have all failed; 0 to go on."""
    max_time: Duration | None = None
    """Stop after this time, as `30m`."""
    grace_seconds: Seconds = Seconds(30.0)
    """What runs in flight may still take once nothing more starts."""
    stall_seconds: Seconds = Seconds(300.0)
    """When nothing has finished for so long, write down where everything hangs; 0 for never."""
    shard: ShardText | None = None
    """Run only this share of the runs, as `2/8`, the second of eight; the others are for other machines."""
    per_shard: bool = False
    """Rates are for each shard, not for all together."""
    ray: RayConfig = RayConfig()


@frozen(kw_only=True)
class InputsConfig:
    """What the agent is given."""

    file: str | None = "inputs/generated.yaml"
    """A YAML, JSONL or CSV file; null where the inputs were a script's own."""
    map: dict[InputField, str] = Factory(dict)
    """Which key or column to take for a field, as `{input: question}`."""
    personas: tuple[str, ...] = ()
    """Run only the inputs of these personas."""
    ids: tuple[str, ...] = ()
    """Run only these inputs."""
    limit: PositiveInt | None = None
    """Run only the first so many of them."""


@frozen(kw_only=True)
class ReplayConfig:
    """Calling the agent with recorded arguments, in which only the input is new."""

    enabled: bool = False
    """Whether recorded arguments are replayed."""
    recording_file: str | None = None
    """The recording, as `fluxloop.record` writes it."""
    override_param_path: str | None = None
    """Where the input goes in the recorded arguments, as `data.content` or `messages.0.content`."""
    select: Choice = Choice("last")
    """Which of the recorded calls: `last`, `first`, `all`, or the last with this `target` and `iteration`."""
    callable_providers: dict[str, str] = Factory(dict)
    """What stands in for a recorded callable: `builtin:collector` or `module:function`."""
    values: dict[str, Any] = Factory(dict)
    """Values by path, put over the recorded ones: for what was masked."""


@frozen(kw_only=True)
class SinkConfig:
    """One more place where traces go."""

    sink: str
    """`module:Class`."""
    args: dict[str, Any] = Factory(dict)
    """Arguments the class is made with."""


@frozen(kw_only=True)
class OutputConfig:
    """Where results go."""

    directory: str = "experiments"
    """The folder in which each experiment makes its own."""
    format: Literal["jsonl"] = "jsonl"
    """How results are written."""
    sinks: tuple[SinkConfig, ...] = ()
    """Where traces go beside the files: `module:Class`, or a mapping of `sink` and `args`."""
    redact: bool = True
    """Mask secrets in everything written, shown or sent to a sink."""
    redact_patterns: tuple[Pattern, ...] = ()
    """Regular expressions of what is masked beside them, as `sk-[a-z0-9]{20,}`."""
    mode: Mode = Mode("0600")
    """Who may read the results, in octal: `"0600"` their owner, `"0640"` the group too, `"0644"` everybody."""


@frozen(kw_only=True)
class ExperimentConfig:
    """A whole configuration.

    Example:
        >>> ExperimentConfig(runner=RunnerConfig(target="my_agent:run")).runner.iterations
        1
    """

    name: Name | None = None
    """The experiment's name; the target's module by default."""
    description: str | None = None
    """For readers."""
    tags: tuple[str, ...] = ()
    """For readers; kept in the summary."""
    seed: int | None = None
    """What the runs' seeds come from; drawn when absent, and saved."""
    fail_under: Share | None = None
    """The least pass rate for exit code 0, as `0.95` or `95%`."""
    runner: RunnerConfig = RunnerConfig()
    inputs: InputsConfig = InputsConfig()
    replay_args: ReplayConfig = ReplayConfig()
    output: OutputConfig = OutputConfig()
