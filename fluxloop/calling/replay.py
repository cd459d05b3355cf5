"""Recorded arguments as the arguments of a run, in which only the input is new.

Everything that may have changed since the recording is checked before the first run: the
target's parameters, the place of the input, and what was masked.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

from fluxloop.calling import paths
from fluxloop.calling.binding import Arguments
from fluxloop.calling.collector import Collector
from fluxloop.calling.crossed import line_of
from fluxloop.calling.frameworks import Conventions
from fluxloop.calling.paths import NotThereError, Place, Steps
from fluxloop.calling.recordings import RecordedCall, Recordings
from fluxloop.calling.target import Target, find_object, reference_to
from fluxloop.calling.template import fill, mentions, shaped
from fluxloop.exceptions import TargetError
from fluxloop.recording.markers import OLD_VERSION, called, unescaped
from fluxloop.records import Case
from fluxloop.tracing.context import OpenRun
from fluxloop.tracing.copies import fresh_data
from fluxloop.tracing.redaction import MASK

MAX_TOLD = 10
"""Problems told of a recording."""
MAX_LISTED = 8
"""Paths a message lists."""

_COLLECTOR = re.compile(r"builtin:collector(\.\w+)?")  # with `.send` as the earlier fluxloop had it
_MASKED = re.compile(rf"(?<![\w*]){re.escape(MASK)}(?![\w*])")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@frozen(kw_only=True)
class Replay:
    """What is replayed, as a value that can be sent to a worker."""

    recordings: Recordings
    override_param_path: str
    callable_providers: dict[str, str]
    values: dict[str, Any]


@frozen(kw_only=True)
class PreparedCall:
    """A recorded call that fits the target."""

    line: int
    values: dict[str, Any] = field(repr=False)
    """Its arguments, as `args` and `kwargs`."""
    callables: tuple[tuple[Steps, _Stand], ...]
    """What stands for a callable, and where."""
    arguments: dict[str, Steps]
    """Where the constant and the injected arguments go."""
    place: Steps
    """Where the input goes."""


@frozen(kw_only=True)
class ReplayBinding:
    """How one case becomes the arguments of one replayed call."""

    calls: dict[int, PreparedCall]
    """By line."""
    only: PreparedCall | None
    """The one that every case is run with."""
    constants: dict[str, Any]
    inject: tuple[str, ...]
    input_template: Any
    summary: str
    """What is replayed, for people."""
    remarks: tuple[str, ...]
    """What a user should know of it before the first run."""

    def problem(self, case: Case) -> str | None:
        """Say why this case cannot be bound: every one can."""
        return None

    def arguments(self, case: Case, run: OpenRun) -> Arguments:
        """Return the positional and keyword arguments for a run of the case, all of them its own."""
        call = self.only or self.calls[line_of(case.id)]
        values = fresh_data(call.values)
        for steps, stand in call.callables:
            paths.put(values, steps, Collector(run, stand.name) if stand.provided is None else stand.provided)
        for name, value in fill(self.constants, {"run_id": run.face.run_id}).items() if self.constants else ():
            paths.put(values, call.arguments[name], value)
        for name in self.inject:
            paths.put(values, call.arguments[name], getattr(run.face, name))
        paths.put(values, call.place, shaped(self.input_template, case.input, run.face))
        return tuple(values["args"]), values["kwargs"]

    def told(self, case: Case) -> str:
        """Say which argument gets what, and what a user should know of it."""
        return "; ".join((self.summary, *self.remarks))


def bind_replay(
    replay: Replay,
    target: Target,
    *,
    args: Mapping[str, Any],
    inject: tuple[str, ...],
    input_template: Any,
    known: Conventions,
) -> ReplayBinding:
    """Fit the recorded calls to the target as it is now.

    Args:
        replay: the calls, and what is new in them.
        target: what is called.
        args: constant arguments, put over the recorded ones.
        inject: which of `persona, iteration, metadata, expected` are passed too.
        input_template: what the input is put into, or None.
        known: the conventions of the target's framework.

    Raises:
        TargetError: with everything that does not fit, and the nearest that would.
    """
    if input_template is not None and not mentions(input_template, "input"):
        raise TargetError("runner.input_template: {input} does not occur in it, so no input would reach the agent")
    constants = {**(known.args or {}), **args}
    if target.is_entered:
        fit = _Fit(replay, target, constants, inject)
        prepared = [fit.prepare(call) for call in replay.recordings.calls]
        if problems := fit.problems():
            raise TargetError("\n".join(problems))
        calls = {call.line: call for call in prepared if call is not None}
        summary, remarks = fit.summary(next(iter(calls.values()))), tuple(fit.remarks)
    else:  # its parameters show once it is entered, and then it is bound again
        calls, summary, remarks = {}, "input → the recorded arguments, checked once the target is entered", ()
    return ReplayBinding(
        calls=calls,
        only=None if replay.recordings.crosses else next(iter(calls.values()), None),
        constants=constants,
        inject=inject,
        input_template=input_template,
        summary=summary,
        remarks=remarks,
    )


class _Fit:
    """One check of recorded calls against a target."""

    def __init__(self, replay: Replay, target: Target, constants: Mapping[str, Any], inject: tuple[str, ...]) -> None:
        self._replay = replay
        self._target = target
        self._constants = constants
        self._origins = {
            **dict.fromkeys(constants, "runner.args"),
            **dict.fromkeys(inject, "runner.inject"),
        }
        self._parameters = _parameters(target)
        self._providers = {name: _provided(name, text) for name, text in replay.callable_providers.items()}
        self._filled: dict[str, None] = {}
        self._problems: dict[str, list[int]] = {}
        remark = replay.recordings.remark
        self.remarks: dict[str, None] = {} if remark is None else {remark: None}

    def problems(self) -> list[str]:
        """Return what is wrong, each with the first line it is wrong in."""
        told = []
        for problem, lines in list(self._problems.items())[:MAX_TOLD]:
            more = f" (and so in {len(lines) - 1} more of its calls)" if len(lines) > 1 else ""
            told.append(f"{self._replay.recordings.path}:{lines[0]}: {problem}{more}")
        return told

    def prepare(self, recorded: RecordedCall) -> PreparedCall | None:
        """Return the call as the target takes it, or None when it does not fit."""
        call = _Call(recorded, self._parameters)
        found: list[str] = []
        for path, value in _leaves(self._replay.values, call.view):
            self._put(call, path, value, "values", found)
            self._filled[path] = None
        for name, provider in self._providers.items():
            self._put(call, name, _Stand(name, provider), "callable_providers", found)
        arguments = {name: call.argument(name) for name in self._origins}
        for name, steps in arguments.items():  # the input may go into one of them
            paths.put(call.values, steps, fresh_data(self._constants.get(name)))
        place = self._put(call, self._replay.override_param_path, None, "override_param_path", found)
        callables, masked = call.stands_and_masks()
        if masked:
            some = ", ".join(masked[:MAX_LISTED]) + (", …" if len(masked) > MAX_LISTED else "")
            be = "is" if len(masked) == 1 else "are"
            found.append(
                f"{some} {be} masked in the recording; give what to use in replay_args.values, "
                f'as {{"{masked[0]}": "${{NAME}}"}} from the environment'
            )
        found += call.misfits(self._target.reference, self._origins)
        for problem in dict.fromkeys(found):
            self._problems.setdefault(problem, []).append(recorded.line)
        if found or place is None:
            return None
        return PreparedCall(
            line=recorded.line, values=call.values, callables=callables, arguments=arguments, place=place
        )

    def _put(self, call: _Call, path: str, value: Any, key: str, found: list[str]) -> Steps | None:
        try:
            place = call.find(path)
        except NotThereError as error:
            found.append(f"replay_args.{key}: {error}")
            return None
        if key == "override_param_path":
            if not place.is_new and isinstance(paths.at(call.values, place.steps), _Stand):
                found.append(f"replay_args.{key}: {path} is a callable, and no place for an input")
            elif place.is_new and not call.has_parameter(path):
                beside = f", beside {', '.join(place.beside[:MAX_LISTED])}" if place.beside else ""
                self.remarks[f"replay_args.{key}: {path} is new: the input is added there{beside}"] = None
        paths.put(call.values, place.steps, value)
        return place.steps

    def summary(self, call: PreparedCall) -> str:
        """Say which argument gets what."""
        recordings = self._replay.recordings
        where = f"{recordings.path}" if len(recordings.calls) > 1 else f"{recordings.path}:{call.line}"
        what = f"{recordings.choice} of {recordings.calls[0].target} ({where})"
        parts = [f"input → {self._replay.override_param_path} of {what}"]
        parts += [f"{stand.name} ← {stand.told}" for _, stand in call.callables]
        parts += [f"{path} ← replay_args.values" for path in self._filled]
        parts += [f"{name} ← {origin}" for name, origin in self._origins.items()]
        return ", ".join(parts)


@frozen
class _Stand:
    """What stands where a callable was."""

    name: str
    provided: Any
    """None for a collector."""
    recorded: str | None = None
    """What it was; where the user says nothing, a collector takes its place."""

    @property
    def told(self) -> str:
        if self.provided is not None:
            return reference_to(self.provided)
        return "builtin:collector" + ("" if self.recorded is None else f" (for {self.recorded})")


class _Call:
    """A recorded call while it is made to fit."""

    def __init__(self, recorded: RecordedCall, parameters: dict[str, inspect.Parameter] | None) -> None:
        args = [_plain(item, recorded.version) for item in recorded.args]
        kwargs = _plain_items(recorded.kwargs, recorded.version)
        self._parameters = parameters or {}
        self._is_known = parameters is not None
        by_position = [p.name for p in self._parameters.values() if p.kind in _POSITIONAL]
        self.values: dict[str, Any] = {"args": args, "kwargs": kwargs}
        if len(args) <= len(by_position):  # named, for that is how paths and constants name them
            only = [p.name for p in self._parameters.values() if p.kind is p.POSITIONAL_ONLY]
            for name, value in zip(by_position[len(only) :], args[len(only) :], strict=False):
                if name not in kwargs:
                    kwargs[name] = value
            del args[len(only) :]
            by_position = only
        self._positions = {name: index for index, name in enumerate(by_position[: len(args)])}

    @property
    def view(self) -> dict[str, Any]:
        """All arguments that have a name."""
        args = self.values["args"]
        return {**{name: args[index] for name, index in self._positions.items()}, **self.values["kwargs"]}

    def has_parameter(self, name: str) -> bool:
        """Tell whether the target declares a parameter that takes one argument of this name."""
        parameter = self._parameters.get(name)
        return parameter is not None and parameter.kind not in _COLLECTING

    def argument(self, name: str) -> Steps:
        """Where an argument is, or would be."""
        return ("args", self._positions[name]) if name in self._positions else ("kwargs", name)

    def find(self, path: str) -> Place:
        """Follow a path of the user's to where it leads in `values`.

        Raises:
            NotThereError: it leads nowhere.
        """
        view = self.view
        if path not in view and self.has_parameter(path):
            return Place(steps=self.argument(path), is_new=True)
        takes_any = not self._is_known or any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())
        place = paths.find(view, path, may_add=takes_any)
        first, *rest = place.steps
        return evolve(place, steps=(*self.argument(first), *rest))

    def stands_and_masks(self) -> tuple[tuple[tuple[Steps, _Stand], ...], list[str]]:
        """Return what stands for callables, in whose places is nothing then, and where something is masked."""
        stands, masks = [], []
        names = {index: name for name, index in self._positions.items()}
        for steps, value in list(paths.walk(self.values)):
            named = steps[1:]
            if steps[:1] == ("args",) and named:
                named = (names.get(named[0], named[0]), *named[1:])
            path = paths.told(named)
            if isinstance(value, _Stand):
                stands.append((steps, evolve(value, name=path)))
                paths.put(self.values, steps, None)
            elif isinstance(value, str) and _MASKED.search(value):
                masks.append(path)
        return tuple(stands), masks

    def misfits(self, target: str, origins: Mapping[str, str]) -> Iterator[str]:
        """Yield where the arguments are not what the target takes.

        Args:
            target: what messages call it.
            origins: where arguments come from that were not recorded.
        """
        if not self._is_known:
            return
        parameters = self._parameters.values()
        args, kwargs = self.values["args"], self.values["kwargs"]
        by_position = [p.name for p in parameters if p.kind in _POSITIONAL]
        if len(args) > len(by_position) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            yield f"{target} takes {len(by_position)} arguments by position, recorded are {len(args)}"
        by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            for name in kwargs:
                if name not in by_name:
                    close = difflib.get_close_matches(name, [one for one in by_name if one not in kwargs], 1)
                    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(by_name) or 'none'}"
                    origin = f"given by {origins[name]}" if name in origins else "recorded"
                    yield f"{name} is {origin}, but {target} has no such parameter; {hint}"
        given = {*by_position[: len(args)], *kwargs}
        for p in parameters:
            if p.kind not in _COLLECTING and p.default is p.empty and p.name not in given:
                told = f"{target} needs {p.name}, which is not recorded"
                yield f"{told}; give it in replay_args.values, replay_args.callable_providers or runner.args"


def _plain(value: Any, version: str) -> Any:
    """The value that was recorded, with stands where callables were."""
    if (name := called(value, version)) is not None:
        is_collector = version == OLD_VERSION and name.startswith("collector.")
        return _Stand(name, None, None if is_collector else name)
    if isinstance(value, dict):
        return _plain_items(value, version)
    return [_plain(item, version) for item in value] if isinstance(value, list) else value


def _plain_items(value: dict[str, Any], version: str) -> dict[str, Any]:
    known = value if version == OLD_VERSION else unescaped(value)
    return {key: _plain(item, version) for key, item in known.items()}


def _leaves(values: Mapping[str, Any], recorded: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its path; a mapping over a recorded mapping is put over it key by key."""
    for key, value in values.items():
        path, below = f"{above}{key}", recorded.get(key) if isinstance(recorded, dict) else None
        if isinstance(value, dict) and isinstance(below, dict):
            yield from _leaves(value, below, f"{path}.")
        else:
            yield path, value


def _provided(name: str, text: str) -> Any:
    """The object that a provider names; None for a collector."""
    key = f"replay_args.callable_providers.{name}"
    if _COLLECTOR.fullmatch(text):
        return None
    if text.startswith("builtin:"):
        raise TargetError(f"{key}: expected builtin:collector or module:function, got {text!r}")
    found = find_object(text, key=key)
    if not callable(found):
        raise TargetError(f"{key}: {text} is {type(found).__qualname__}, which cannot be called")
    return found


def _parameters(target: Target) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(target.function).parameters)
    except (TypeError, ValueError):  # a builtin that does not tell
        return None
