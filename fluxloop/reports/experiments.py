"""Experiments as lines of a table."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs

from fluxloop.listing import ListedExperiment
from fluxloop.progress import shown_place
from fluxloop.visible import one_line

_UNITS = ("B", "kB", "MB", "GB", "TB")
_HEADINGS = ("started (UTC)", "status", "runs", "pass rate", "size", "experiment")
_TO_THE_RIGHT = (2, 3, 4)
_BIASED = "* biased upwards: failures of the agent were replaced by later results; summary.json counts them"


def experiments_table(experiments: Sequence[ListedExperiment]) -> str:
    """Return a line for each experiment, in columns below their headings."""
    rows = [_HEADINGS, *map(_row, experiments)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if place in _TO_THE_RIGHT else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, _BIASED] if any(one.is_biased for one in experiments) else lines)


def experiments_json(experiments: Sequence[ListedExperiment]) -> str:
    """Return the same as a JSON array."""
    rows = [attrs.asdict(one) | {"path": shown_place(str(one.path))} for one in experiments]
    # In ASCII, which every screen and pipe can take as it is, also of names that are not UTF-8.
    return json.dumps(rows, indent=2)


def _row(one: ListedExperiment) -> tuple[str, ...]:
    runs = "-" if one.runs is None else str(one.runs) if one.runs == one.planned else f"{one.runs} of {one.planned}"
    mark = "*" if one.is_biased else ""
    rate = "-" if one.pass_rate is None else f"{mark}{one.pass_rate:.1%}"
    started = one_line(one.started_at[:19].replace("T", " "), 19)
    return started, one.status, runs, rate, _size(one.size_bytes), one_line(shown_place(str(one.path)), 200)


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
