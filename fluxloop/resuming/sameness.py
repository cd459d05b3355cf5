"""Whether an experiment is to go on as it was begun: what decides its runs, and what only how they happen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from attrs import frozen

from fluxloop.config import ExperimentConfig
from fluxloop.config.convert import shown, unstructure
from fluxloop.config.document import parse_document
from fluxloop.config.snapshot import to_yaml
from fluxloop.exceptions import ConfigError, OutputError, Problem, ResumeError
from fluxloop.plan import Plan
from fluxloop.records import Case
from fluxloop.resuming.earlier import Earlier
from fluxloop.resuming.keys import at, flat
from fluxloop.resuming.limits import LIMITS
from fluxloop.resuming.masked import MASKED, changed
from fluxloop.store.layout import CONFIG, SUMMARY
from fluxloop.store.runs import StoredRuns, StoredTrace
from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import MASK, Redaction

MAX_COMPARED = 1_000
"""Inputs looked at for the first that differs."""

DECIDING = (
    *("name", "seed", "runner.target", "runner.iterations", "runner.args", "runner.inject"),
    *("runner.input_template", "runner.output_path", "replay_args.enabled", "replay_args.override_param_path"),
    *("replay_args.select", "replay_args.callable_providers", "replay_args.values"),
)
"""What decides a run: two runs of one experiment have it alike."""
_DECIDING = (*DECIDING, "runner.shard")
_UNSAID = ("inputs.", "replay_args.recording_file", "output.directory")
"""Judged by the digests of the inputs and the recorded calls, and given by the directory itself."""
_PLAIN = (str, int, float, bytes, date, type(None))
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def objects_in(value: Any, path: str) -> Iterator[str]:
    """Yield where in constant arguments an object is that only a program can make, as a client."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from objects_in(one, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        if any(True for one in value for _ in objects_in(one, path)):
            yield path
    elif not isinstance(value, _PLAIN):
        yield path


def ask_for_objects(earlier: Earlier, config: ExperimentConfig) -> None:
    """Refuse to call the agent with what a file tells of an object in the place of the object.

    Raises:
        ConfigError: with every such object that was not given again.
    """
    now = {"runner": {"args": config.runner.args}}
    told = "was an object of Python's, which no file holds; give it again, in overrides of Experiment.resume()"
    asked = [key for key in earlier.from_python if key.startswith("runner.args.")]
    missing = [key for key in asked if at(now, key) == at(earlier.config, key)]
    if missing:
        raise ConfigError([Problem(str(earlier.path / CONFIG), told, key) for key in missing])


def arguments_digest(resolved: Mapping[str, Any]) -> str:
    """Tell apart how the agent is called, also where the configuration only names a variable.

    Args:
        resolved: the snapshot, with what stands in the environment in its place.
    """
    runner, replay = resolved["runner"], resolved["replay_args"]
    deciding = {key: runner[key] for key in ("target", "args", "inject", "input_template", "output_path")}
    if replay["enabled"]:
        deciding["replay_args"] = {key: value for key, value in replay.items() if key != "recording_file"}
    told = to_yaml(deciding)
    return blake2b(_without_addresses(told.decode()).encode(), digest_size=16).hexdigest()


def _without_addresses(value: Any) -> Any:
    """Return plain data without the addresses of objects in texts, which tell nothing of an object."""
    if isinstance(value, list):
        return [_without_addresses(one) for one in value]
    return _ADDRESS.sub("", value) if isinstance(value, str) else value


@frozen(kw_only=True)
class Changes:
    """What differs between an experiment as it was begun and as it is to go on."""

    unsafe: tuple[Problem, ...]
    """What decides its runs."""
    safe: tuple[str, ...]
    """What only decides how they happen."""
    lifted: tuple[str, ...]
    """Limits of the session before, which this one does not have."""
    surroundings: tuple[str, ...]
    """What is not alike of where they happen."""
    remarks: tuple[str, ...]
    """What of that a reader of the results must know."""

    @property
    def has_same_inputs(self) -> bool:
        """Whether a trace id still tells which run it is."""
        return all(problem.key != "inputs" for problem in self.unsafe)


def compare(
    earlier: Earlier, config: Mapping[str, Any], ran_on: Mapping[str, Any], plan: Plan, redaction: Redaction
) -> Changes:
    """Compare an experiment with what it is to go on as.

    Args:
        earlier: what its directory tells.
        config: the snapshot of the configuration now.
        ran_on: what it would run on now.
        plan: what would be run now.
        redaction: what is masked in the inputs, which the files have masked already.
    """
    before, now = flat(earlier.config), flat(parse_document(to_yaml(dict(config)).decode(), Path(CONFIG)).data)
    unsafe: list[Problem] = []
    safe: list[str] = []
    lifted: list[str] = []
    defaults = flat(unstructure(ExperimentConfig()))
    chosen = _chosen(earlier, plan)
    for key in [*now, *(key for key in before if key not in now)]:
        was, is_ = before.get(key, defaults.get(key)), now.get(key, defaults.get(key))
        if key in chosen:
            was, is_ = chosen[key]
        if _without_addresses(was) == _without_addresses(is_) or key.startswith(_UNSAID):
            continue
        is_more = key == "runner.iterations" and earlier.iterations is not None and plan.iterations > earlier.iterations
        if key in LIMITS and is_ == defaults[key]:
            lifted.append(f"{key} {shown(was)}")
        elif key.startswith(_DECIDING) and not is_more:
            unsafe.append(Problem(str(earlier.path), f"was {shown(was)}, is {shown(is_)}", key))
        else:
            safe.append(f"{key} was {shown(was)}, is {shown(is_)}")
    unsafe += _inputs(earlier, ran_on, plan, redaction)
    if _differs(earlier.ran_on, ran_on, "recordings_digest"):
        was, is_ = earlier.ran_on["recordings_digest"], ran_on["recordings_digest"]
        told = f"the recorded calls were of digest {was}, are of digest {is_}"
        unsafe.append(Problem(str(earlier.path), told, "replay_args.recording_file"))
    if not unsafe and _differs(earlier.ran_on, ran_on, "arguments_digest"):
        told = "a value that stands in the environment is another than it was"
        named = [key for key, value in now.items() if key.startswith(_DECIDING) and "${" in str(value)]
        unsafe.append(Problem(str(earlier.path), told, ", ".join(named) or "runner.args"))
    for key in changed(earlier.ran_on.get(MASKED), ran_on.get(MASKED)):
        if MASK in str(at(config, key)):
            unsafe.append(Problem(str(earlier.path), "is masked, and is another than it was", key))
        else:  # a key in the environment is renewed, and the configuration says only where it is
            safe.append(f"{key} has another secret than it had")
    remarks = _other_code(earlier.ran_on, ran_on)
    machine = [
        f"{key} was {earlier.ran_on[key]}, is {ran_on[key]}"
        for key in ("python", "platform")
        if _differs(earlier.ran_on, ran_on, key)
    ]
    return Changes(
        unsafe=tuple(unsafe),
        safe=tuple(safe),
        lifted=tuple(lifted),
        surroundings=(*machine, *remarks),
        remarks=tuple(remarks),
    )


def _chosen(earlier: Earlier, plan: Plan) -> dict[str, tuple[Any, Any]]:
    """What the files may only name a variable for: as it was, and as it is."""
    shard = None if plan.shard is None else str(plan.shard)
    was_shard = shard if earlier.summary is None and "${" in str(earlier.shard) else earlier.shard
    pairs = {"seed": (earlier.seed, plan.seed), "runner.iterations": (earlier.iterations, plan.iterations)}
    # Without a summary they may be unknown, which is judged with the inputs.
    known = {key: (is_ if was is None else was, is_) for key, (was, is_) in pairs.items()}
    return {**known, "runner.shard": (was_shard, shard)}


def refuse(changes: Changes, path: Path) -> None:
    """Refuse to go on where the runs would not be alike.

    Raises:
        ResumeError: with what differs, field by field.
    """
    if changes.unsafe:
        what = "its runs would not be alike; start a new experiment, or accept this with --force"
        raise ResumeError([*changes.unsafe, Problem(str(path), what)])


def forced(changes: Changes) -> tuple[str, ...]:
    """Return the remark on what was accepted all the same."""
    if not changes.unsafe:
        return ()
    told = "; ".join(f"{problem.key}: {problem.message}" for problem in changes.unsafe)
    return (f"resumed by force although its runs are not alike: {told}",)


def _inputs(earlier: Earlier, ran_on: Mapping[str, Any], plan: Plan, redaction: Redaction) -> list[Problem]:
    was, is_ = earlier.ran_on.get("inputs_digest"), ran_on["inputs_digest"]
    if was == is_:
        return []
    where = str(earlier.path)
    if was is None:
        if not _has_runs(earlier.path):
            return []  # a crash came before the first summary, and there is nothing to be unlike
        told = f"cannot be compared, because {SUMMARY} cannot be read"
        return [Problem(where, told, "inputs")]
    count = earlier.ran_on.get("inputs", "some")
    told = f"were {count} of digest {was}, are {len(plan.cases)} of digest {is_}"
    first = _first_difference(earlier.path, plan, count, redaction)
    told = f"{told}; the first difference: {redaction.text(first)}" if first else told
    return [Problem(where, told, "inputs")]


def _has_runs(path: Path) -> bool:
    try:
        return any(True for _ in StoredRuns(path))
    except OutputError:  # told in full when they are counted
        return True


def _first_difference(path: Path, plan: Plan, count: object, redaction: Redaction) -> str | None:
    """What of the inputs of the first runs is not as it was, if they tell.

    Args:
        path: the directory with the runs.
        plan: what would be run now.
        count: how many inputs there were.
        redaction: what is masked in those of now.
    """
    now = {case.id: case for case in islice(plan.cases, MAX_COMPARED)}
    seen = set()
    try:
        for run in islice(StoredRuns(path), MAX_COMPARED):
            trace = run.trace
            seen.add(trace.input_id)
            case = now.get(trace.input_id)
            if case is None:
                if len(now) < MAX_COMPARED:
                    return f"{trace.input_id} is not there"
                continue
            if case.index != trace.input_index:
                return f"{case.id} was number {trace.input_index + 1}, is number {case.index + 1}"
            if told := _difference(trace, case, redaction):
                return f"{case.id} {told}"
    except OutputError:
        return None
    added = [id for id in now if id not in seen]
    return f"{added[0]} is new" if added and len(seen) == count else None


def _difference(trace: StoredTrace, case: Case, redaction: Redaction) -> str | None:
    """How an input is not as it was when its run happened; what is masked in the file cannot tell."""
    pairs = (
        ("", msgspec.json.decode(trace.raw_input), case.input),
        ("persona ", trace.persona, case.persona),
        ("expected ", msgspec.json.decode(trace.expected), case.expected),
        ("metadata ", trace.metadata, case.metadata),
    )
    for name, was, value in pairs:
        is_ = capture(value, redaction)
        if was != is_ and MASK not in str(was):
            told = shown(was), shown(is_)
            return f"{name}was {told[0]}, is {told[1]}" if told[0] != told[1] else f"{name}is another {told[0][2:]}"
    return None


def _other_code(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the code is another than that of earlier runs, as far as git tells."""
    told = []
    if _differs(before, now, "fluxloop"):
        told.append(f"fluxloop was {before['fluxloop']}, is {now['fluxloop']}")
    was, is_ = before.get("git"), now.get("git")
    if was and is_ and was != is_:
        told.append(f"the code was at git {_commit(was)}, is at {_commit(is_)}")
    return [f"earlier runs are of other code: {one}" for one in told]


def _commit(git: Mapping[str, Any]) -> str:
    changed = "" if git.get("clean") else f" with changes {str(git.get('diff_digest'))[:8]}"
    return f"{str(git.get('commit'))[:12]}{changed}"


def _differs(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    return key in before and key in now and before[key] != now[key]
