"""An experiment, from configuration to results, read top to bottom."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from fluxloop.arguments import as_list, as_mapping
from fluxloop.background import in_thread
from fluxloop.calling.crossed import CrossedCases
from fluxloop.calling.frameworks import conventions
from fluxloop.calling.replay import ReplayBinding
from fluxloop.calling.surroundings import importable
from fluxloop.calling.target import reference_to
from fluxloop.clock import adjust, time_ns, timestamp
from fluxloop.config import ExperimentConfig, LoadedConfig, default_config, load_config, snapshot
from fluxloop.config.convert import given_text, lifts, unstructure
from fluxloop.config.model import Name, OutputConfig
from fluxloop.config.snapshot import redaction_for, to_yaml
from fluxloop.exceptions import ConfigError, OutputError, Problem
from fluxloop.execution import Execution
from fluxloop.executors.base import Executor
from fluxloop.executors.chosen import limits_for
from fluxloop.executors.remote.sending import refuse_in_worker
from fluxloop.interrupt import Interrupt
from fluxloop.plan import Cases, Plan, Shard, seed_of
from fluxloop.progress import Progress, counted, progress_for, shown_place
from fluxloop.provenance import ran_on
from fluxloop.reports.preview import Preview, rows_skipped
from fluxloop.result import ExperimentResult
from fluxloop.resuming.continuing import (
    Continuation,
    RetryFailed,
    accept,
    check_files,
    check_options,
    go_on,
    is_of_plan,
    preview_going_on,
)
from fluxloop.resuming.earlier import Earlier, begun_before, is_completed, moved, read_earlier
from fluxloop.resuming.keys import at
from fluxloop.resuming.limits import lift_limits
from fluxloop.resuming.masked import MASKED, masked_arguments
from fluxloop.resuming.sameness import Changes, arguments_digest, ask_for_objects, compare
from fluxloop.sinks.base import TraceSink
from fluxloop.sinks.configured import configured_sinks
from fluxloop.sinks.group import SinkGroup
from fluxloop.sinks.jsonl import JsonlSink
from fluxloop.store.documents import to_json
from fluxloop.store.layout import CONFIG, SUMMARY, directory_name, name_problem
from fluxloop.store.lock import DirectoryLock, LockedError, writer_of
from fluxloop.store.modes import change_mode, directory_mode
from fluxloop.store.new_directory import new_directory
from fluxloop.subject import Subject
from fluxloop.summary import SummaryBuilder
from fluxloop.tracing.capture import capture
from fluxloop.tracing.context import Late
from fluxloop.tracing.output import screen
from fluxloop.tracing.redaction import PATTERNS
from fluxloop.visible import one_line


class Experiment:
    """Run an agent on every input, many times, and keep what happened.

    None leaves a value to the configuration; the text `"none"` lifts the configuration's, as `max_time="none"`.

    Args:
        config: a configuration file, its content as a mapping, or None for the defaults.
        target: what to call, as text or as a callable or agent object of this process.
        inputs: a file, a data frame, or entries: texts, mappings with `input`, or `Case`s. An input may be any
            object that can be copied, for each attempt gets its own.
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
        executor: `auto`, `inline`, `asyncio`, `threads`, `processes` or `ray`, or an executor of your own.
        timeout_seconds: what an attempt may take; 0 for any time.
        max_retries: further attempts after an error that may pass, as a service's overload.
        max_failures: stop after so many failed runs, as 10, or such a share of all, as `"10%"`.
        max_time: stop after so many seconds, or a time as `"30m"`.
        shard: run only this share of the runs, as `"2/8"`; the others are for other machines.
        resume: go on with an experiment begun before: its directory; `last` for the newest of the name;
            `auto` for the newest of the same plan that is unfinished, if there is one. See `resume`.
        retry_failed: on resume, run again what infrastructure ended (`infrastructure`); that and timeouts
            and crashes (`failed`); or whatever failed (`all`). The last two bias the pass rate upwards.
        force: resume although the runs would not be alike.
        capture_output: keep what a run prints and logs with it; False leaves it on the screen.
        sinks: where traces go beside the files.
        settings: texts `key=value` for any key of the configuration.
        overrides: values by dotted key, as `{"runner.args": {"model": "small"}}`.
        progress: True shows progress, False none; by default there is a bar in a terminal or notebook.

    Raises:
        ConfigError: with every problem of the configuration, or where an argument is no list or mapping.

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
        seed: int | str | None = None,
        personas: Sequence[str] = (),
        input_ids: Sequence[str] = (),
        limit: int | str | None = None,
        input_map: Mapping[str, str] | None = None,
        fail_under: float | str | None = None,
        parallel: int | None = None,
        executor: str | Executor | None = None,
        timeout_seconds: float | str | None = None,
        max_retries: int | None = None,
        max_failures: float | str | None = None,
        max_time: float | str | None = None,
        shard: str | None = None,
        resume: str | os.PathLike[str] | None = None,
        retry_failed: RetryFailed | None = None,
        force: bool = False,
        capture_output: bool = True,
        sinks: Sequence[TraceSink] = (),
        settings: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
        progress: bool | None = None,
    ) -> None:
        personas = as_list("personas", personas, "['novice']")
        input_ids = as_list("input_ids", input_ids, "['input_001']")
        settings = as_list("settings", settings, "['runner.iterations=3']")
        input_map = None if input_map is None else as_mapping("input_map", input_map, '{"input": "question"}')
        overrides = None if overrides is None else as_mapping("overrides", overrides, '{"runner.iterations": 3}')
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
            "runner.shard": shard,
            "name": name,
            "output.directory": _here(output_dir),
            "seed": seed,
            "inputs.file": _here(inputs) if isinstance(inputs, str | os.PathLike) else None,
            "inputs.personas": personas or None,
            "inputs.ids": input_ids or None,
            "inputs.limit": limit,
            "inputs.map": input_map or None,
            "fail_under": fail_under,
        }
        given = {**(overrides or {}), **{key: given_text(one) for key, one in given.items() if one is not None}}
        source = Path(config) if isinstance(config, str | os.PathLike) else config
        check_options(resume, retry_failed, force)
        self._sinks = _checked_sinks(sinks)
        self._executor = None if executor is None or isinstance(executor, str) else _checked_executor(executor)
        self._capture_output = capture_output
        self._progress = progress
        self._is_automatic = resume == "auto"
        self._retry_failed = retry_failed
        self._force = force
        self._earlier: Earlier | None = None
        if resume is not None and resume not in ("auto", "last"):
            self._earlier = read_earlier(Path.cwd() / resume)  # the agent may have another working directory
        if resume == "last":
            named = default_config(optional=True) if source is None else source
            self._load(load_config(named, settings=settings, overrides=given))
            self._earlier = self._last()
        if self._earlier is None or source is not None:
            self._load(load_config(source, settings=settings, overrides=given))
        else:
            self._load(_as_begun(self._earlier, settings, given))

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        target: Any = None,
        inputs: str | os.PathLike[str] | Iterable[Any] | None = None,
        **changes: Any,
    ) -> Experiment:
        """Take up an experiment where it stopped: what is done stays, and `run` runs what is left.

        Args:
            path: its directory, also on another machine.
            target: the agent, where its configuration cannot name it: a function of a script or notebook.
            inputs: what it was given, where that was not a file.
            changes: any argument of `Experiment`: more iterations, another executor, limits and sinks.

        Raises:
            OutputError: it is no experiment directory.
            ConfigError: its configuration lacks something, as a secret that was masked.

        Example:
            >>> result = Experiment.resume("experiments/quickstart_20261123_120000").run()  # doctest: +SKIP
        """
        return cls(target=target, inputs=inputs, resume=path, **changes)

    def show_config(self, *, caller: str = "caller") -> str:
        """Return the configuration as YAML, each value with where it came from; see `fluxloop.config.showing`."""
        from fluxloop.config.showing import show

        return show(self._loaded, caller=caller)

    def __repr__(self) -> str:
        return f"<Experiment {self.config.name} of {self.config.runner.target}>"

    def run(self) -> ExperimentResult:
        """Run the plan, or what is left of it, and return what it came to; Ctrl-C ends it early with what is done.

        Raises:
            UsageError: the configuration, the inputs or the target are wrong; nothing has run.
            ResumeError: what is to go on would not be the same experiment.
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
        """The selected inputs, to count and to pass over; each with each recorded call where all are replayed."""
        cases = self._subject.inputs.cases
        replay = self._subject.task[0].replay
        if replay is None or not replay.recordings.crosses:
            return cases
        return CrossedCases(cases, [call.line for call in replay.recordings.calls])

    def plan(self) -> Plan:
        """Return every run in order, or those of the shard, without running any."""
        assert self.config.seed is not None
        return Plan(
            cases=self.cases, iterations=self.config.runner.iterations, seed=self.config.seed, shard=self._shard
        )

    def preview(self) -> Preview:
        """Return what would be run, on what, and where the results would go; nothing is written.

        Raises:
            UsageError: as `run` would.
        """
        plan = self.plan()
        task, _, binding = self._subject.task
        target = self.config.runner.target or reference_to(task.target)
        builder = self._builder(plan, time_ns())
        with self._subject.surroundings():
            passed_over: list[str] = []
            earlier = self._earlier
            if self._is_automatic:
                earlier = self._unfinished(plan, builder, ExitStack(), _free, passed_over.append)
            resumed = None
            if earlier is not None:
                changes = self._accepted(earlier, self.plan(), builder)
                resumed = preview_going_on(earlier, self.plan(), changes, builder, retry=self._retry_failed)
        place = self._output / directory_name(self._directory, time_ns() / 1e9) if earlier is None else earlier.path
        return Preview(
            inputs=len(plan.cases),
            empty_rows=self._subject.inputs.empty_rows,
            iterations=plan.iterations,
            runs=len(plan),
            shard=None if plan.shard is None else plan.shard.told(plan.total),
            target=target,
            binding=binding.told(next(iter(plan.cases))),
            executor=str(self._subject.executor()),
            output=str(place),
            resumed=resumed,
            passed_over=tuple(map(self._redaction.text, passed_over)),
        )

    def _loaded_inputs(self) -> str:
        inputs = self._subject.inputs
        return f"Loaded {counted(len(inputs.cases), 'input')}{rows_skipped(inputs.empty_rows)}"

    def _load(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self._root = loaded.root.absolute()
        self.config = self._completed(loaded.config)
        self._redaction = redaction_for(self.config)
        # Patterns are for what agents say, and may match any name.
        if held := [name for name in self._redaction.masks_in(str(self.config.name)) if name != PATTERNS]:
            told = f"holds a secret ({', '.join(held)}), and names are never masked; choose another with --name"
            raise ConfigError([Problem(str(loaded.path or "configuration"), told, "name")])
        self._subject = Subject(
            config=self.config,
            root=self._root,
            where=str(loaded.path or "configuration"),
            redaction=self._redaction,
            given_target=self._callable,
            given_inputs=self._entries,
            given_executor=self._executor,
            capture_output=self._capture_output,
            earlier=self._earlier,
        )

    def _last(self) -> Earlier:
        """The newest experiment of the name."""
        for path in begun_before(self._output, self._directory):
            return read_earlier(path)
        told = f"holds no experiment {self._directory} to resume; name its directory, or another name with --name"
        told += "" if self.config.runner.target else ", or its agent with --target"
        raise OutputError(self._output, told)

    def _unfinished(
        self,
        plan: Plan,
        builder: SummaryBuilder,
        held: ExitStack,
        hold: Callable[[Path], AbstractContextManager[object]],
        tell: Callable[[str], object],
    ) -> Earlier | None:
        """The newest unfinished experiment of the very plan, for `auto`.

        Args:
            plan: all its runs.
            builder: tells what it would run on.
            held: keeps hold of what is returned.
            hold: keeps other writers out of a directory, or raises OutputError.
            tell: is called with why one is passed over that may be what is looked for.
        """
        own = builder.ran_on[MASKED]
        for path in begun_before(self._output, self._directory):
            builder.ran_on[MASKED] = own
            if is_completed(path):
                continue  # whatever became of its lines since; reading them would cost more every night
            try:
                earlier = read_earlier(path)
                as_begun = self._completed(self._loaded.config, earlier)
                assert as_begun.seed is not None
                plan = attrs.evolve(plan, seed=as_begun.seed)
                self._compare_masked(builder, earlier)
                changes = compare(earlier, self._told_config(as_begun), builder.ran_on, plan, self._redaction)
                if not is_of_plan(earlier, changes, plan):
                    if earlier.summary is None:
                        tell(_passed_over(path, f"its {SUMMARY} cannot be read, so its inputs cannot be compared"))
                    continue
                with ExitStack() as holding:
                    holding.enter_context(hold(path))
                    if is_completed(path):
                        continue  # by another, meanwhile
                    check_files(earlier, plan)
                    held.push(holding.pop_all())
            except (OutputError, ConfigError) as error:
                tell(_passed_over(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path}{os.sep}")))
                continue
            self.config = as_begun
            return earlier
        builder.ran_on[MASKED] = own
        return None

    def _accepted(self, earlier: Earlier, plan: Plan, builder: SummaryBuilder) -> Changes:
        """What differs from the experiment that was begun, where it may, or is forced."""
        told = self._told_config(self.config)
        self._compare_masked(builder, earlier)
        return accept(earlier, plan, told, builder, self._redaction, force=self._force)

    def _go_on(self, earlier: Earlier, builder: SummaryBuilder, progress: Progress) -> Continuation:
        """Make the directory ready, and say what is done and what has changed."""
        changes = self._accepted(earlier, self.plan(), builder)
        going = go_on(earlier, self.plan(), changes, builder, retry=self._retry_failed)
        if (mode := self.config.output.mode) != (at(earlier.config, "output.mode") or OutputConfig().mode):
            change_mode(earlier.path, directory_mode(mode))
        for line in going.told:
            progress.info(line)
        for line in going.warned:
            progress.warn(line)
        return going

    def _execute(self, interrupt: Interrupt) -> ExperimentResult:
        refuse_in_worker()
        adjust()
        progress = progress_for(self._progress, screen(sys.stderr), redact=self._redaction.text)
        progress.info("Starting experiment...")
        with self._subject.surroundings(progress), ExitStack() as held:
            task, _, binding = self._subject.task
            task = attrs.evolve(task, late=Late())  # what still comes of an earlier `run` is not counted here
            executor = self._subject.executor()
            plan = self.plan()
            progress.info(self._loaded_inputs())
            if isinstance(binding, ReplayBinding):
                _tell_replay(binding, progress)
            runs = counted(plan.total, "total run")
            progress.info(f"Running {counted(plan.iterations, 'iteration')} per input ({runs})")
            if plan.shard is not None:
                progress.info(f"Shard {plan.shard.told(plan.total)}")
            with importable(self._subject.import_places):
                others = (*configured_sinks(self.config.output.sinks), *self._sinks)
            started = time_ns()
            builder = self._builder(plan, started)
            earlier = self._earlier
            if self._is_automatic:
                earlier = self._unfinished(
                    plan, builder, held, lambda path: _held(DirectoryLock(path), progress), progress.warn
                )
            elif earlier is not None:
                held.enter_context(_held(DirectoryLock(earlier.path), progress))
            if earlier is None:
                running = to_json(builder.build("running", completed_at=None))
                documents = {CONFIG: to_yaml(self._told_config(self.config)), SUMMARY: running}
                mode = directory_mode(self.config.output.mode)
                new = new_directory(self._output, self._directory, started / 1e9, documents, mode)
                path = held.enter_context(_held(new, progress)).path
            else:
                path = earlier.path
                earlier = read_earlier(path)  # another may have written to it since
                going = self._go_on(earlier, builder, progress)
                if going.final is not None:
                    progress.info("Nothing is left to run, and nothing was changed")
                    return ExperimentResult(path, going.final)
                plan = going.plan
            execution = Execution(
                name=str(self.config.name),
                path=path,
                plan=plan,
                task=task,
                executor=executor,
                limits=limits_for(self.config.runner, builder.planned, executor),
                stall_seconds=self.config.runner.stall_seconds,
                sinks=SinkGroup(JsonlSink(), others, progress.warn),
                summary=builder,
                progress=progress,
                interrupt=interrupt,
                may_suggest=self._executor is None and self._waits_for_the_agent,
                is_new=earlier is None,
            )
            told = self._told_config(self.config)
            summary = execution.run(told, to_yaml(told))
            return ExperimentResult(path, summary, left_running=execution.left_running)

    @property
    def _waits_for_the_agent(self) -> bool:
        """Whether one run at a time, and nothing else, is what takes the time."""
        runner = self.config.runner
        return runner.parallel == 1 and not runner.start_rate and not runner.run_delay_seconds

    def _told_config(self, config: ExperimentConfig) -> dict[str, Any]:
        told = snapshot(self._loaded, config, self._redaction)
        if self._entries is not None:
            told["inputs"]["file"] = None  # the inputs were Python's
        return told

    def _resolved(self) -> dict[str, Any]:
        """The configuration with what stands in the environment in its place."""
        return snapshot(attrs.evolve(self._loaded, references={}), self.config, self._redaction)

    def _compare_masked(self, builder: SummaryBuilder, earlier: Earlier) -> None:
        """Keep the digests of masked arguments with the salt of earlier ones, so that the two can be compared."""
        before = earlier.ran_on.get(MASKED)
        if before or earlier is self._earlier:
            builder.ran_on[MASKED] = masked_arguments(unstructure(self.config), self._resolved(), before)

    def _builder(self, plan: Plan, started: int) -> SummaryBuilder:
        resolved = self._resolved()
        replay = self._subject.task[0].replay
        recordings = None if replay is None else replay.recordings
        environment = {
            **ran_on(self._root, self._output),
            "seed": self.config.seed,
            "tags": [capture(tag, self._redaction) for tag in self.config.tags],
            "from_python": self._subject.from_python,
            "iterations": plan.iterations,
            "inputs": len(plan.cases),
            "inputs_digest": self._subject.inputs.digest,
            "arguments_digest": arguments_digest(resolved),
            # Of a resume they are made when it is known of what.
            MASKED: masked_arguments(unstructure(self.config), resolved) if self._earlier is None else {},
            "recordings_digest": None if recordings is None else recordings.digest,
            "recorded_lines": None if recordings is None else recordings.lines,
            "shard": self.config.runner.shard,
            "id_digits": plan.digits,
        }
        return SummaryBuilder(
            experiment_name=str(self.config.name),
            planned=len(plan),
            started_at=timestamp(started),
            ran_on=environment,
            fail_under=self.config.fail_under,
        )

    def _completed(self, config: ExperimentConfig, earlier: Earlier | None = None) -> ExperimentConfig:
        """Return the configuration with name and seed filled in, on resume by those that were."""
        begun = {} if (earlier := earlier or self._earlier) is None else earlier.config
        name = config.name or begun.get("name") or Name(self._default_name(config.runner.target))
        seed = config.seed
        if seed is None and earlier is not None:
            seed = earlier.seed
        if seed is None:
            seed = secrets.randbits(32) if config.runner.shard is None else seed_of(name)
        return attrs.evolve(config, name=name, seed=seed)

    @property
    def _shard(self) -> Shard | None:
        text = self.config.runner.shard
        return None if text is None else Shard.of(text)

    @property
    def _directory(self) -> str:
        """The name of the experiment's directory before its time: of each shard another."""
        shard = self._shard
        return str(self.config.name) if shard is None else f"{self.config.name}_{shard.index}of{shard.count}"

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


def _tell_replay(binding: ReplayBinding, progress: Progress) -> None:
    progress.info(f"Replaying recorded arguments: {binding.summary}")
    for remark in binding.remarks:
        progress.warn(remark)


def _checked_sinks(sinks: Sequence[TraceSink]) -> tuple[TraceSink, ...]:
    given = as_list("sinks", sinks, "[MemorySink()]")
    for sink in given:
        if not isinstance(sink, TraceSink):
            raise TypeError(f"sinks: expected objects of subclasses of fluxloop.TraceSink, got {sink!r}")
    return tuple(given)


def _checked_executor(executor: Executor) -> Executor:
    if isinstance(executor, type) or not callable(getattr(executor, "run", None)):
        raise TypeError(f"executor: expected a name, or an object with run(task, schedule), got {executor!r}")
    return executor


def _as_begun(earlier: Earlier, settings: Sequence[str], given: Mapping[str, Any]) -> LoadedConfig:
    """The configuration of an experiment begun before, its project wherever it is now."""
    root, paths = moved(earlier, Path.cwd())
    loaded = load_config(earlier.path / CONFIG, settings=settings, overrides={**paths, **given})
    ask_for_objects(earlier, loaded.config)
    return attrs.evolve(lift_limits(loaded), root=root)


def _passed_over(path: Path, why: str) -> str:
    return one_line(f"Passed over {shown_place(str(path))}, which may be unfinished: {why}", 400)


@contextmanager
def _free(path: Path) -> Iterator[None]:
    """Refuse a directory that somebody writes to, as `_held` does, and leave it as it is."""
    if (writer := writer_of(path)) is not None:
        raise LockedError(path, f"another process writes to it ({writer}); wait for its end, or stop it")
    yield


@contextmanager
def _held(lock: AbstractContextManager[DirectoryLock], progress: Progress) -> Iterator[DirectoryLock]:
    """Keep other writers out of the directory, or say that nothing can."""
    with lock as held:
        if not held.is_supported:
            progress.warn(f"{held.path}: this file system knows no locks; let nothing else write there")
        yield held


def _here(path: str | os.PathLike[str] | None) -> str | None:
    if path is None or (isinstance(path, str) and lifts(path)):
        return path
    return str(Path.cwd() / path)
