"""The agent, its inputs and where its runs happen, as a configuration or a program names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from attrs import define

from fluxloop.calling.binding import Binding
from fluxloop.calling.recordings import read_recordings
from fluxloop.calling.replay import Replay, ReplayBinding
from fluxloop.calling.surroundings import working_directory
from fluxloop.calling.target import Target, reference_to
from fluxloop.config import ExperimentConfig
from fluxloop.exceptions import ConfigError, Problem, TargetError, redacted
from fluxloop.executors.base import Elsewhere, Executor
from fluxloop.executors.chosen import executor_for, rate_shares, timeout_for
from fluxloop.executors.inline import InlineExecutor
from fluxloop.executors.remote.sending import input_problem
from fluxloop.failures import Outages, own_package
from fluxloop.inputs.cases import Inputs, Selection, inputs_from
from fluxloop.progress import Progress, shown_place
from fluxloop.recording.calls import recorded_name
from fluxloop.records import Case
from fluxloop.resuming.earlier import Earlier
from fluxloop.resuming.sameness import objects_in
from fluxloop.runner import Task
from fluxloop.tracing.output import captured_output
from fluxloop.tracing.redaction import Redaction


@define(kw_only=True, slots=False)
class Subject:
    """What an experiment is made on; loaded when it is asked for, and once."""

    config: ExperimentConfig
    root: Path
    """The project root."""
    where: str
    """What messages call the configuration."""
    redaction: Redaction
    given_target: Any
    """The agent, where a program gave it."""
    given_inputs: Iterable[Any] | None
    """The inputs, where a program gave them."""
    given_executor: Executor | None
    capture_output: bool
    earlier: Earlier | None
    """The experiment that goes on, if one does."""

    @cached_property
    def task(self) -> tuple[Task, Target, Binding | ReplayBinding]:
        """What each run does, what it calls, and how arguments are bound; loading the target proves all."""
        runner = self.config.runner
        target = runner.target if self.given_target is None else self.given_target
        if target is None:
            raise self._missing("runner.target", "the agent to run, as module:function", "--target")
        task = Task(
            target=target,
            args=runner.args,
            inject=runner.inject,
            input_template=runner.input_template,
            output_path=runner.output_path,
            import_places=self.import_places,
            timeout_seconds=timeout_for(runner),
            retry_on=runner.retry_on,
            outages=Outages(runner.infrastructure, own_package(target)),
            capture_output=self.capture_output,
            redaction=self.redaction,
            rate_shares=rate_shares(runner),
        )
        with self.surroundings():
            try:
                found = task.load_target()
            except TargetError as error:
                earlier = self.earlier
                if self.given_target is not None or earlier is None or "target" not in earlier.from_python:
                    raise
                again = (
                    f"a program gave it; give it again: Experiment.resume({shown_place(str(earlier.path))!r}, target=…)"
                )
                raise TargetError(f"{error}; {again}") from error
            if self.config.replay_args.enabled:
                task = attrs.evolve(task, replay=self._replay(found))
            loaded = task.bound(found)
        task.prepared.append(loaded)
        return task, loaded[0], loaded[1]

    def _replay(self, target: Target) -> Replay:
        """Read the recorded calls that are replayed."""
        chosen = self.config.replay_args
        place, expected = self.root / str(chosen.recording_file), "where the input goes, as data.content"
        if chosen.recording_file is None:
            raise self._missing("replay_args.recording_file", "a file of recorded calls")
        if chosen.override_param_path is None:
            raise self._missing("replay_args.override_param_path", expected)
        function = target.function
        names = dict.fromkeys((target.reference, reference_to(function), recorded_name(function)))
        return Replay(
            recordings=read_recordings(place, chosen.select, tuple(names), self._recorded_lines),
            override_param_path=chosen.override_param_path,
            callable_providers=chosen.callable_providers,
            values=chosen.values,
        )

    @property
    def _recorded_lines(self) -> int | None:
        """How many lines of the recording the experiment began with, on resume."""
        lines = None if self.earlier is None else self.earlier.ran_on.get("recorded_lines")
        return lines if isinstance(lines, int) else None

    @cached_property
    def inputs(self) -> Inputs:
        """What the agent is given, checked whole."""
        chosen = self.config.inputs
        if self.given_inputs is None and chosen.file is None:
            raise self._missing("inputs.file", "a file of inputs, which this one's did not come from", "--inputs")
        *_, binding = self.task
        return inputs_from(
            self.root / str(chosen.file) if self.given_inputs is None else self.given_inputs,
            names=chosen.map,
            selection=Selection(personas=chosen.personas, ids=chosen.ids, limit=chosen.limit),
            check=lambda case: self._problem(case, binding),
        )

    def _exposed(self, case: Case) -> str | None:
        """Say which id of an input holds a secret, or None."""
        for what, id in (("id", case.id), ("source_id", case.source_id)):
            if id is not None and (names := self.redaction.masks_in(id)):
                told = f"the {what} holds a secret ({', '.join(names)}), and ids are never masked"
                return f"{told}; give the input another {what}"
        return None

    def _problem(self, case: Case, binding: Binding | ReplayBinding) -> str | None:
        """Say why a case cannot be run, or None."""
        problem = self._exposed(case) or binding.problem(case)
        return input_problem(case) if problem is None and self._sends_objects else problem

    @cached_property
    def _sends_objects(self) -> bool:
        """Whether inputs may be more than plain data, and go to other processes."""
        return self.given_inputs is not None and isinstance(self._executor(), Elsewhere)

    def executor(self) -> Executor:
        """Return where its runs happen.

        Raises:
            ConfigError: they cannot happen there.
            TargetError: the agent cannot be sent there.
        """
        executor = self._executor()
        if isinstance(executor, Elsewhere):
            executor.check(self.task[0])
        return executor

    def _executor(self) -> Executor:
        runner = self.config.runner
        if self.given_executor is None:
            return executor_for(runner, is_async=self.task[1].is_async, where=self.where)
        if runner.parallel > 1:
            told = f"the executor given decides how many run at a time, got {runner.parallel}"
            raise ConfigError([Problem(self.where, told, "runner.parallel")])
        if isinstance(self.given_executor, InlineExecutor):
            executor_for(attrs.evolve(runner, executor="inline"), is_async=self.task[1].is_async, where=self.where)
        return self.given_executor

    @property
    def from_python(self) -> list[str]:
        """What no configuration names, so that only a program can give it again."""
        given = {"target": self.given_target, "inputs": self.given_inputs}
        names = [name for name, one in given.items() if one is not None]
        return [*names, *objects_in(self.config.runner.args, "runner.args")]

    @property
    def import_places(self) -> tuple[Path, ...]:
        """Folders put first on the import path."""
        runner = self.config.runner
        extra = [*runner.python_path, *([runner.working_directory] if runner.working_directory else [])]
        return (self.root, *(self.root / place for place in extra))

    @contextmanager
    def surroundings(self, progress: Progress | None = None) -> Iterator[None]:
        """Be where the agent runs, for as long as the context lasts; what is raised or printed shows no secret."""
        folder = self.config.runner.working_directory
        with ExitStack() as stack:
            # Before the agent is imported: its loggers take the streams that they find then.
            stack.enter_context(self._output(progress))
            stack.enter_context(redacted(self.redaction.text))
            try:
                stack.enter_context(working_directory(None if folder is None else self.root / folder))
            except OSError as error:
                what = f"{self.root / str(folder)}: {error.strerror or error}"
                raise ConfigError([Problem(self.where, what, "runner.working_directory")]) from None
            yield

    def _output(self, progress: Progress | None) -> AbstractContextManager[None]:
        has_bar = progress is not None and progress.has_bar
        if not (self.capture_output or has_bar or self.redaction.is_needed):
            return nullcontext()
        if progress is None:
            return captured_output(redaction=self.redaction, keeps=self.capture_output)
        return captured_output(progress.aside, progress.stand_aside, self.redaction, keeps=self.capture_output)

    def _missing(self, key: str, expected: str, option: str | None = None) -> ConfigError:
        hint = f"; or name it with {option}" if option else ""
        return ConfigError([Problem(self.where, f"expected {expected}, got nothing{hint}", key)])
