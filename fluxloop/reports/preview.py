"""What an experiment would do."""

from __future__ import annotations

from attrs import frozen

from fluxloop.progress import counted
from fluxloop.visible import visible_line


@frozen(kw_only=True)
class Preview:
    """What would be run, on what, and where the results would go."""

    inputs: int
    iterations: int
    runs: int
    target: str
    binding: str
    executor: str
    output: str
    shard: str | None = None
    """Which of the shards it is, and how many of all runs it has."""
    empty_rows: int = 0
    """Rows of a table that are no inputs, because all their cells are empty."""
    resumed: str | None = None
    """Of an experiment that is taken up, how many runs are done and left."""
    passed_over: tuple[str, ...] = ()
    """Unfinished experiments that cannot be taken up, each with why."""

    def __str__(self) -> str:
        rows = (
            f"inputs      {self.inputs}{rows_skipped(self.empty_rows)}",
            f"iterations  {self.iterations}",
            f"runs        {self.runs}",
            *([] if self.shard is None else [f"shard       {self.shard}"]),
            *([] if self.resumed is None else [f"resumes     {self.resumed}"]),
            f"target      {self.target}",
            f"binding     {self.binding}",
            f"executor    {self.executor}",
            f"output      {self.output}",
            *self.passed_over,
        )
        return "\n".join(map(visible_line, rows))


def rows_skipped(empty: int) -> str:
    """Return what is said behind the number of inputs of a table with empty rows."""
    return f" ({counted(empty, 'empty row')} skipped)" if empty else ""
