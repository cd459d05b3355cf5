"""A kit for tests: of agents, of sinks, and of fluxloop itself.

from fluxloop.testing import run_once

def test_the_agent_searches_before_it_answers():
    trace = run_once(my_agent, "What is a lambda?")
    assert [o.name for o in trace.observations] == ["my_agent", "search"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fluxloop.arguments import as_list, as_mapping
from fluxloop.exceptions import InputError, Problem
from fluxloop.inputs.copyable import copy_problem
from fluxloop.records import Case, PlannedRun, Trace
from fluxloop.runner import Task
from fluxloop.schedule import Schedule
from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import Redaction, secret_texts


def run_once(
    target: Any,
    input: Any,
    *,
    persona: str | None = None,
    expected: Any = None,
    metadata: Mapping[str, Any] | None = None,
    iteration: int = 0,
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    inject: Sequence[str] = (),
    input_template: Any = None,
    output_path: str | None = None,
    import_places: Sequence[Path] = (),
) -> Trace:
    """Run an agent once as an experiment would, and return the trace; no file is written.

    Args:
        target: a callable, an agent object, or `module:function`.
        input: what the agent is given.
        persona: as an input of an experiment may have it; `expected` and `metadata` likewise.
        iteration: which run of the input it is, from 0.
        seed: what `current_run().seed` gives.
        args: as `runner.args`; `inject`, `input_template` and `output_path` likewise.
        import_places: folders to import a target named by text from.

    Raises:
        TargetError: the target cannot be loaded or bound.
        InputError: the input cannot be copied for the run.
        ConfigError: a list or a mapping is none.
    """
    if (problem := copy_problem(input)) is not None:
        raise InputError([Problem("run_once", problem)])
    args = as_mapping("args", args or {}, '{"model": "small"}')
    metadata = as_mapping("metadata", metadata or {}, '{"level": 2}')
    task = Task(
        target=target,
        args=args,
        inject=tuple(as_list("inject", inject, "['persona']")),
        input_template=input_template,
        output_path=output_path,
        import_places=tuple(as_list("import_places", import_places, "[Path('src')]")),
        redaction=Redaction(secrets=secret_texts(capture(args))),
    )
    case = Case(0, "input_001", input, persona, capture(expected), capture(metadata) or None)
    planned = PlannedRun("trace_001", case, iteration, seed)
    schedule = Schedule([planned])
    schedule.take()
    with task.open() as runner:
        trace = schedule.settle(runner.run(planned))
    assert trace is not None
    return trace


def make_trace(**changes: Any) -> Trace:
    """Return a plain trace of a successful run, with some fields changed.

    Example:
        >>> make_trace(persona="novice").persona
        'novice'
    """
    trace = run_once(lambda text: f"echo: {text}", "hi")
    return attrs.evolve(trace, **changes)
