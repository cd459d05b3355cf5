"""Runs many at a time, in worker processes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxloop.executors.flight import at_least_one
from fluxloop.executors.remote.executor import WorkersExecutor, processors
from fluxloop.executors.remote.local import LocalWorkers
from fluxloop.executors.remote.process import Preparation
from fluxloop.executors.remote.sending import packed, script
from fluxloop.runner import Task


class ProcessesExecutor(WorkersExecutor):
    """Run up to `parallel` attempts at a time in worker processes, for agents that compute, crash or hang.

    Sync agents have a process each; async ones run many at a time in as many processes as there are
    processors. A worker imports the agent itself and keeps it for all its runs. When one dies, the
    attempt it had is recorded as `crashed`; a hung attempt is ended with its worker at its time's end.
    The agent and its inputs are pickled, so that no lambda, closure or function of a notebook can be
    sent; context variables stay behind; a script that starts it needs `if __name__ == "__main__":`.

    Args:
        parallel: attempts in flight at a time; by default as many as there are processors.
        workers: processes at most, for async agents.

    Example:
        >>> from fluxloop import Experiment, ProcessesExecutor
        >>> Experiment(target="my_agent:run", inputs=["hi"], executor=ProcessesExecutor(8))
        <Experiment my_agent of my_agent:run>
    """

    def __init__(self, parallel: int | None = None, *, workers: int | None = None) -> None:
        super().__init__(processors() if parallel is None else parallel)
        self.workers = processors() if workers is None else at_least_one(workers)

    def __str__(self) -> str:
        return f"processes, {self.parallel} at a time"

    @contextmanager
    def _workers(self, task: Task) -> Iterator[tuple[LocalWorkers, int]]:
        preparation = Preparation(
            script=script(), argv=sys.argv, import_path=sys.path, directory=Path.cwd(), task=packed(task)
        )
        yield LocalWorkers(preparation), self.workers
