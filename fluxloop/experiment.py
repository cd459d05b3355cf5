"""An experiment, from configuration to results, read top to bottom."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from fluxloop.background import in_thread
from fluxloop.calling.binding import Binding
from fluxloop.calling.frameworks import conventions
from fluxloop.calling.surroundings import importable, working_directory
from fluxloop.calling.target import Target, reference_to
from fluxloop.clock import timestamp
from fluxloop.config import ExperimentConfig, load_config, snapshot
from fluxloop.config.model import Name
from fluxloop.config.snapshot import to_yaml
from fluxloop.exceptions import ConfigError, Problem
from fluxloop.execution import Execution
from fluxloop.executors.base import Executor
from fluxloop.executors.chosen import executor_for, limits_for, timeout_for
from fluxloop.executors.inline import InlineExecutor
from fluxloop.inputs.cases import Inputs, Selection, inputs_from
from fluxloop.interrupt import Interrupt
from fluxloop.plan import Cases, Plan
from fluxloop.progress import counted, progress_for
from fluxloop.provenance import ran_on
from fluxloop.reports.preview import Preview
from fluxloop.result import ExperimentResult
from fluxloop.runner import Task
from fluxloop.sinks.base import TraceSink
from fluxloop.sinks.configured import configured_sinks
from fluxloop.sinks.group import SinkGroup
from fluxloop.sinks.jsonl import JsonlSink
from fluxloop.store.layout import CONFIG, claim_directory, directory_name, name_problem
from fluxloop.summary import SummaryBuilder
from fluxloop.tracing.capture import capture


class Experiment:
    """Run an agent on every input, many times, and keep what happened.

    Args:
        config: a configuration file, its content as a mapping, or None for the defaults.
        target: what to call, as text or as a callable or agent object of this process.
        inputs: a file, or entries: texts, mappings with `input`, or `Case`s.
        iterations: how many times each input is run.
        name: the experiment's name.
        output_dir: the folder in which the experiment makes its own.
        seed: what the seeds of the runs come from.
        personas: run only the inputs of these personas.
        input_ids: run only these inputs.
        limit: run only the first so many inputs.
        input_map: which key of an entry to take for a field, as `{"input": "question"}`.
        fail_under: the least pass rate for exit code 0, as 0.95 or `"95%"`.
        parallel: how many runs may be in flight at a time.
        executor: `auto`, `inline`, `asyncio` or `threads`, or an executor of your own.
        timeout_seconds: what an attempt may take; 0 for any time.
        max_retries: further attempts after an error that may pass, as a service's overload.
        max_failures: stop after so many failed runs, as 10, or such a share of all, as `"10%"`.
        max_time: stop after so many seconds, or a time as `"30m"`.
        capture_output: keep what a run prints and logs with it, rather than on the screen.
        sinks: where traces go beside the files.
        settings: texts `key=value` for any key of the configuration.
        overrides: values by dotted key, as `{"runner.args": {"model": "small"}}`.
        progress: True shows progress, False none; by default there is a bar in a terminal or notebook.

    Raises:
        ConfigError: with every problem of the configuration.

    Example:
        >>> from fluxloop import Experiment
        >>> experiment = Experiment(target=str.upper, inputs=["hi", "bye"], iterations=5)
        >>> len(experiment.plan())
        10
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        *,
        target: Any = None,
        inputs: str | os.PathLike[str] | Iterable[Any] | None = None,
        iterations: int | None = None,
        name: str | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        personas: Sequence[str] = (),
        input_ids: Sequence[str] = (),
        limit: int | None = None,
        input_map: Mapping[str, str] | None = None,
        fail_under: float | str | None = None,
        parallel: int | None = None,
        executor: str | Executor | None = None,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        max_failures: float | str | None = None,
        max_time: float | str | None = None,
        capture_output: bool = False,
        sinks: Sequence[TraceSink] = (),
        settings: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
        progress: bool | None = None,
    ) -> None:
        self._entries = None if inputs is None or isinstance(inputs, str | os.PathLike) else inputs
        self._callable = None if target is None or isinstance(target, str) else target
        given = {
            "runner.target": target if self._callable is None else reference_to(target),
            "runner.iterations": iterations,
            "runner.parallel": parallel,
            "runner.executor": executor if isinstance(executor, str) else None,
            "runner.timeout_seconds": timeout_seconds,
            "runner.max_retries": max_retries,
            "runner.max_failures": max_failures,
            "runner.max_time": max_time,
            "name": name,
            "output.directory": _here(output_dir),
            "seed": seed,
            "inputs.file": _here(inputs) if isinstance(inputs, str | os.PathLike) else None,
            "inputs.personas": list(personas) or None,
            "inputs.ids": list(input_ids) or None,
            "inputs.limit": limit,
            "inputs.map": dict(input_map) if input_map else None,
            "fail_under": fail_under,
        }
        given = {**(overrides or {}), **{key: value for key, value in given.items() if value is not None}}
        source = Path(config) if isinstance(config, str | os.PathLike) else config
        self._loaded = load_config(source, settings=settings, overrides=given)
        self._root = self._loaded.root.absolute()
        self.config = self._completed(self._loaded.config)
        self._sinks = _checked_sinks(sinks)
        self._executor = None if executor is None or isinstance(executor, str) else _checked_executor(executor)
        self._capture_output = capture_output
        self._progress = progress

    def __repr__(self) -> str:
        return f"<Experiment {self.config.name} of {self.config.runner.target}>"

    def run(self) -> ExperimentResult:
        """Run the whole plan and return what it came to; Ctrl-C ends it early with what is done.

        Raises:
            UsageError: the configuration, the inputs or the target are wrong; nothing has run.
            SinkError: the results could not be written; what was written is safe.
        """
        return self._execute(Interrupt())

    async def run_async(self) -> ExperimentResult:
        """Run as `run` does, in a thread, so that the calling loop goes on.

        Cancelling lets the runs in flight finish, for their grace period, and keeps what is done.
        """
        interrupt = Interrupt()
        return await in_thread(
            lambda: self._execute(interrupt), name="fluxloop-experiment", on_cancel=interrupt.request
        )

    @property
    def cases(self) -> Cases:
        """The selected inputs, to count and to pass over."""
        return self._inputs.cases

    def plan(self) -> Plan:
        """Return every run in order, without running any."""
        assert self.config.seed is not None
        return Plan(cases=self.cases, iterations=self.config.runner.iterations, seed=self.config.seed)

    def preview(self) -> Preview:
        """Return what would be run, on what, and where the results would go; nothing is written."""
        plan = self.plan()
        task, _, binding = self._task
        target = self.config.runner.target or reference_to(task.target)
        place = self._output / directory_name(str(self.config.name), time.time())
        return Preview(
            inputs=len(plan.cases),
            iterations=plan.iterations,
            runs=len(plan),
            target=target,
            binding=binding.told(next(iter(plan.cases))),
            executor=str(self._chosen_executor()),
            output=str(place),
        )

    def _execute(self, interrupt: Interrupt) -> ExperimentResult:
        progress = progress_for(self._progress)
        progress.info("Starting experiment...")
        with self._surroundings():
            task, *_ = self._task
            executor = self._chosen_executor()
            plan = self.plan()
            progress.info(f"Loaded {counted(len(plan.cases), 'input')}")
            runs = counted(len(plan), "total run")
            progress.info(f"Running {counted(plan.iterations, 'iteration')} per input ({runs})")
            with importable(self._import_places):
                others = (*configured_sinks(self.config.output.sinks), *self._sinks)
            started = time.time_ns()
            builder = self._builder(plan, started)
            path = claim_directory(self._output, str(self.config.name), started / 1e9)
            execution = Execution(
                name=str(self.config.name),
                path=path,
                plan=plan,
                task=task,
                executor=executor,
                limits=limits_for(self.config.runner, len(plan)),
                stall_seconds=self.config.runner.stall_seconds,
                sinks=SinkGroup(JsonlSink(), others, progress.warn),
                summary=builder,
                progress=progress,
                interrupt=interrupt,
                may_suggest=self._executor is None and self._waits_for_the_agent,
            )
            told = self._told_config()
            summary = execution.run(told, to_yaml(told))
            again = path / CONFIG if self._entries is None and self._callable is None else None
            return ExperimentResult(path, summary, left_running=execution.left_running, again=again)

    @property
    def _waits_for_the_agent(self) -> bool:
        """Whether one run at a time, and nothing else, is what takes the time."""
        runner = self.config.runner
        return runner.parallel == 1 and not runner.start_rate and not runner.run_delay_seconds

    def _told_config(self) -> dict[str, Any]:
        told = snapshot(self._loaded, self.config)
        if self._entries is not None:
            told["inputs"]["file"] = None  # the inputs were Python's
        return told

    def _chosen_executor(self) -> Executor:
        runner = self.config.runner
        where = str(self._loaded.path or "configuration")
        if self._executor is None:
            return executor_for(runner, is_async=self._task[1].is_async, where=where)
        if runner.parallel > 1:
            told = f"the executor given decides how many run at a time, got {runner.parallel}"
            raise ConfigError([Problem(where, told, "runner.parallel")])
        if isinstance(self._executor, InlineExecutor):
            executor_for(attrs.evolve(runner, executor="inline"), is_async=self._task[1].is_async, where=where)
        return self._executor

    def _builder(self, plan: Plan, started: int) -> SummaryBuilder:
        environment = {
            **ran_on(self._root, self._output),
            "seed": self.config.seed,
            "tags": [capture(tag) for tag in self.config.tags],
            "inputs_digest": self._inputs.digest,
        }
        return SummaryBuilder(
            experiment_name=str(self.config.name),
            planned=len(plan),
            started_at=timestamp(started),
            ran_on=environment,
            fail_under=self.config.fail_under,
        )

    def _completed(self, config: ExperimentConfig) -> ExperimentConfig:
        """Return the configuration with name and seed filled in."""
        return attrs.evolve(
            config,
            name=config.name or Name(self._default_name(config.runner.target)),
            seed=secrets.randbits(32) if config.seed is None else config.seed,
        )

    def _default_name(self, target: str | None) -> str:
        """The last part of the target's module; a function of a script or notebook gives its own name."""
        if conventions(self._callable).framework:
            return "experiment"  # its module is the framework's
        module, _, path = (target or "").partition(":")
        name = path.removesuffix("()").rpartition(".")[2] if module == "__main__" else module.rpartition(".")[2]
        return name if name.isidentifier() and not name_problem(name) else "experiment"

    @property
    def _output(self) -> Path:
        return self._root / self.config.output.directory

    @cached_property
    def _task(self) -> tuple[Task, Target, Binding]:
        """What each run does, what it calls, and how arguments are bound; loading the target proves all."""
        runner = self.config.runner
        target = runner.target if self._callable is None else self._callable
        if target is None:
            raise self._missing("runner.target", "the agent to run, as module:function", "--target")
        task = Task(
            target=target,
            args=runner.args,
            inject=runner.inject,
            input_template=runner.input_template,
            output_path=runner.output_path,
            import_places=self._import_places,
            timeout_seconds=timeout_for(runner),
            retry_on=runner.retry_on,
            capture_output=self._capture_output,
        )
        with self._surroundings():
            loaded = task.load()
        task.prepared.append(loaded)
        return task, loaded[0], loaded[1]

    @cached_property
    def _inputs(self) -> Inputs:
        chosen = self.config.inputs
        if self._entries is None and chosen.file is None:
            raise self._missing("inputs.file", "a file of inputs, which this one's did not come from", "--inputs")
        *_, binding = self._task
        return inputs_from(
            self._root / str(chosen.file) if self._entries is None else self._entries,
            names=chosen.map,
            selection=Selection(personas=chosen.personas, ids=chosen.ids, limit=chosen.limit),
            check=binding.problem,
        )

    @property
    def _import_places(self) -> tuple[Path, ...]:
        runner = self.config.runner
        extra = [*runner.python_path, *([runner.working_directory] if runner.working_directory else [])]
        return (self._root, *(self._root / place for place in extra))

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        folder = self.config.runner.working_directory
        with ExitStack() as stack:
            try:
                stack.enter_context(working_directory(None if folder is None else self._root / folder))
            except OSError as error:
                where = str(self._loaded.path or "configuration")
                what = f"{self._root / str(folder)}: {error.strerror or error}"
                raise ConfigError([Problem(where, what, "runner.working_directory")]) from None
            yield

    def _missing(self, key: str, expected: str, option: str) -> ConfigError:
        where = str(self._loaded.path or "configuration")
        return ConfigError([Problem(where, f"expected {expected}, got nothing; or name it with {option}", key)])


def _checked_sinks(sinks: Sequence[TraceSink]) -> tuple[TraceSink, ...]:
    for sink in sinks:
        if not isinstance(sink, TraceSink):
            raise TypeError(f"sinks: expected objects of subclasses of fluxloop.TraceSink, got {sink!r}")
    return tuple(sinks)


def _checked_executor(executor: Executor) -> Executor:
    if isinstance(executor, type) or not callable(getattr(executor, "run", None)):
        raise TypeError(f"executor: expected a name, or an object with run(task, schedule), got {executor!r}")
    return executor


def _here(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else str(Path.cwd() / path)
