"""The three line files of an experiment directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

from fluxloop.records import Trace
from fluxloop.sinks.base import SinkContext, TraceSink
from fluxloop.store.codec import encode_run
from fluxloop.store.layout import CONFIG, LINE_FILES, LOCK, SUMMARY, SUPERSEDED
from fluxloop.store.lines import LineFile, sync_directory
from fluxloop.store.modes import result_file
from fluxloop.store.presence import Kept
from fluxloop.store.syncing import GroupSync

if TYPE_CHECKING:
    from fluxloop.summary import Summary


class JsonlSink(TraceSink):
    """Write `observations.jsonl`, `traces.jsonl` and `trace_summary.jsonl`.

    A batch is committed in this order, whole lines at a time: a run is done when it is whole in
    all three files. They follow to the disk within a second.

    Example:
        >>> from fluxloop import Experiment, JsonlSink
        >>> Experiment(target=str.upper, inputs=["hi"], sinks=[JsonlSink()])  # doctest: +SKIP
    """

    def open(self, context: SinkContext) -> None:
        """Open the files in the experiment directory."""
        with ExitStack() as opened:
            self._lines = [
                opened.enter_context(closing(LineFile(context.path / name, result_file))) for name in LINE_FILES
            ]
            sync_directory(context.path)
            self._files = opened.pop_all()
        self._kept: list[Kept] = []
        for name in (LOCK, CONFIG, SUMMARY, SUPERSEDED):
            with suppress(FileNotFoundError):
                self._kept.append(Kept(context.path / name))
        self._sync = GroupSync(self._lines, self._kept)

    def write(self, trace: Trace) -> None:
        """Commit one run."""
        self.write_batch((trace,))

    def write_batch(self, traces: Sequence[Trace]) -> None:
        """Commit several runs with one write for each file.

        Raises:
            OSError: nothing of them is written.
            SyncError: the disk did not take what was written before.
            TakenAwayError: somebody else has changed what was written before.
        """
        self._sync.check()
        lines: Iterable[bytes]
        if len(traces) == 1:
            lines = encode_run(traces[0])
        else:
            lines = [b"".join(parts) for parts in zip(*map(encode_run, traces), strict=True)]
        before = [file.size for file in self._lines]
        try:
            for file, content in zip(self._lines, lines, strict=False):
                if content:
                    file.append(content)
        except BaseException:
            # What is there stays readable: whole lines, of runs that are whole in all three files.
            for file, size in zip(self._lines, before, strict=True):
                file.cut(size)
            raise
        self._sync.written(len(traces))

    def check(self) -> None:
        """Do nothing while what was written is on the disk, or on its way there.

        Raises:
            SyncError: the disk did not take it.
            TakenAwayError: somebody else has changed it.
        """
        self._sync.check()

    def look(self) -> None:
        """Check as `check` does, by looking now; also when all is closed."""
        self._sync.look()

    def close(self, summary: Summary) -> None:
        """Put the rest on the disk and close the files.

        Raises:
            SyncError: the disk did not take it.
            TakenAwayError: somebody else has changed what was written.
        """
        with self._files:
            self._sync.close()
        self._kept[:] = [one for one in self._kept if one.path.name != SUMMARY]  # it is written anew
