"""An experiment, from configuration to results, read top to bottom."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from fluxloop.background import in_thread
from fluxloop.calling.binding import Binding
from fluxloop.calling.frameworks import conventions
from fluxloop.calling.surroundings import importable, working_directory
from fluxloop.calling.target import reference_to
from fluxloop.clock import timestamp
from fluxloop.config import ExperimentConfig, load_config, snapshot
from fluxloop.config.model import Name
from fluxloop.config.snapshot import to_yaml
from fluxloop.exceptions import ConfigError, Problem, SinkError, UsageError
from fluxloop.executors.base import Executor
from fluxloop.executors.inline import InlineExecutor
from fluxloop.inputs.cases import Inputs, Selection, inputs_from
from fluxloop.interrupt import Abandoned, Interrupt
from fluxloop.plan import Cases, Plan
from fluxloop.progress import Progress, progress_for
from fluxloop.provenance import ran_on
from fluxloop.records import Attempt, RunError
from fluxloop.reports.preview import Preview
from fluxloop.result import ExperimentResult
from fluxloop.runner import Task
from fluxloop.schedule import Schedule
from fluxloop.sinks.base import SinkContext, TraceSink
from fluxloop.sinks.configured import configured_sinks
from fluxloop.sinks.group import SinkGroup
from fluxloop.sinks.jsonl import JsonlSink
from fluxloop.store.documents import to_json, write_document
from fluxloop.store.layout import CONFIG, SUMMARY, claim_directory, directory_name, name_problem
from fluxloop.summary import ExperimentStatus, Summary, SummaryBuilder
from fluxloop.tracing.capture import capture, message, type_name
from fluxloop.tracing.output import captured_output


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
        sinks: where traces go beside the files.
        executor: where attempts run; inline by default.
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
        sinks: Sequence[TraceSink] = (),
        executor: Executor | None = None,
        settings: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
        progress: bool | None = None,
    ) -> None:
        self._entries = None if inputs is None or isinstance(inputs, str | os.PathLike) else inputs
        self._callable = None if target is None or isinstance(target, str) else target
        given = {
            "runner.target": target if self._callable is None else reference_to(target),
            "runner.iterations": iterations,
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
        self._executor = _checked_executor(executor)
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

        Cancelling lets the run in flight finish and keeps what is done.
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
        task, binding = self._task
        target = self.config.runner.target or reference_to(task.target)
        place = self._output / directory_name(str(self.config.name), time.time())
        return Preview(
            inputs=len(plan.cases),
            iterations=plan.iterations,
            runs=len(plan),
            target=target,
            binding=binding.told(next(iter(plan.cases))),
            output=str(place),
        )

    def _execute(self, interrupt: Interrupt) -> ExperimentResult:
        progress = progress_for(self._progress)
        progress.info("Starting experiment...")
        with self._surroundings():
            plan = self.plan()
            progress.info(f"Loaded {_count(len(plan.cases), 'input')}")
            runs = _count(len(plan), "total run")
            progress.info(f"Running {_count(plan.iterations, 'iteration')} per input ({runs})")
            task, _ = self._task
            with importable(self._import_places):
                others = (*configured_sinks(self.config.output.sinks), *self._sinks)
            started = time.time_ns()
            summary = self._builder(plan, started)
            path = claim_directory(self._output, str(self.config.name), started / 1e9)
            sinks = SinkGroup(JsonlSink(), others, progress.warn)
            interrupt.announce = progress.signal
            try:
                with interrupt.listening():
                    self._begin(path, plan, sinks, summary)
                    status, reason = self._run_all(task, plan, sinks, summary, progress, interrupt)
                    return ExperimentResult(path, self._finish(path, sinks, summary, status, reason))
            except BaseException as error:
                self._give_up(path, sinks, summary, error)
                if isinstance(error, SinkError) and summary.total:
                    raise SinkError(f"{error}; the {summary.total} runs finished before are safe in {path}") from error
                raise

    def _run_all(
        self,
        task: Task,
        plan: Plan,
        sinks: SinkGroup,
        summary: SummaryBuilder,
        progress: Progress,
        interrupt: Interrupt,
    ) -> tuple[ExperimentStatus, str | None]:
        """Start, settle and write every run; the only place that writes results."""
        schedule = Schedule(plan, lambda: interrupt.requested)
        progress.start(len(plan))
        try:
            with (
                captured_output(progress.aside, progress.stand_aside),
                closing(_closable(self._executor.run(task, schedule))) as batches,
            ):
                interrupt.release()
                for attempts in batches:
                    interrupt.hold()
                    traces = [trace for attempt in attempts if (trace := schedule.settle(attempt))]
                    sinks.write(traces)
                    for trace in traces:
                        progress.update(trace, summary.add(trace))
                        if trace.error is not None:
                            _heed(trace.error, interrupt)
                    sinks.share(traces)
                    interrupt.release()
        except Abandoned:
            pass  # the second Ctrl-C; what is done is written
        finally:
            interrupt.hold()
            progress.stop()
        left = len(plan) - summary.total
        if left and interrupt.requested:
            if interrupt.signal is None:
                progress.warn(f"Cancelled; {_count(left, 'run')} of {len(plan)} not run.")
                return "interrupted", "cancelled"
            return "interrupted", signal.Signals(interrupt.signal).name
        if left:
            return "stopped", f"the executor {type_name(self._executor)} gave back {summary.total} of {len(plan)} runs"
        return "completed", None

    def _begin(self, path: Path, plan: Plan, sinks: SinkGroup, summary: SummaryBuilder) -> None:
        told = snapshot(self._loaded, self.config)
        if self._entries is not None:
            told["inputs"]["file"] = None  # the inputs were Python's
        write_document(path / CONFIG, to_yaml(told))
        write_document(path / SUMMARY, to_json(summary.build("running", completed_at=None)))
        sinks.open(SinkContext(name=str(self.config.name), path=path, planned=len(plan), config=told))

    def _finish(
        self, path: Path, sinks: SinkGroup, summary: SummaryBuilder, status: ExperimentStatus, reason: str | None
    ) -> Summary:
        final = summary.build(status, completed_at=timestamp(time.time_ns()), stop_reason=reason)
        try:
            write_document(path / SUMMARY, to_json(final))
        finally:
            sinks.close(final)
        return final

    def _give_up(self, path: Path, sinks: SinkGroup, summary: SummaryBuilder, error: BaseException) -> None:
        """Leave nothing behind when nothing has run and the user can mend it, else all that is done."""
        if isinstance(error, UsageError | SinkError | KeyboardInterrupt) and not summary.total:
            with suppress(SinkError):
                sinks.close(summary.build("failed", completed_at=None))
            shutil.rmtree(path, ignore_errors=True)
            return
        reason = str(error) if isinstance(error, SinkError) else f"{type_name(error)}: {message(error)}"
        with suppress(SinkError):  # what went wrong first is what is raised
            self._finish(path, sinks, summary, "failed", reason)

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
    def _task(self) -> tuple[Task, Binding]:
        """What each run does, and how its arguments are bound; loading the target proves both."""
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
        )
        with self._surroundings():
            loaded = task.load()
        task.prepared.append(loaded)
        return task, loaded[1]

    @cached_property
    def _inputs(self) -> Inputs:
        chosen = self.config.inputs
        if self._entries is None and chosen.file is None:
            raise self._missing("inputs.file", "a file of inputs, which this one's did not come from", "--inputs")
        _, binding = self._task
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


def _heed(error: RunError, interrupt: Interrupt) -> None:
    """Take from a run's error what it says about the experiment."""
    if error.type == "bdb.BdbQuit":  # who quits the debugger has seen enough
        interrupt.request()
    elif error.type == "KeyboardInterrupt":  # it may have been Ctrl-C, come to a handler of the agent's
        interrupt.retake()


def _checked_sinks(sinks: Sequence[TraceSink]) -> tuple[TraceSink, ...]:
    for sink in sinks:
        if not isinstance(sink, TraceSink):
            raise TypeError(f"sinks: expected objects of subclasses of fluxloop.TraceSink, got {sink!r}")
    return tuple(sinks)


def _checked_executor(executor: Executor | None) -> Executor:
    if executor is None:
        return InlineExecutor()
    if isinstance(executor, type) or not callable(getattr(executor, "run", None)):
        raise TypeError(f"executor: expected an object with run(task, schedule), got {executor!r}")
    return executor


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _here(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else str(Path.cwd() / path)


def _closable(batches: Iterable[Sequence[Attempt]]) -> Generator[Sequence[Attempt], None, None]:
    """The executor's batches as a generator, whose `close` reaches the executor's own."""
    yield from batches
