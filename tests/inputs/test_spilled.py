"""Cases that are kept in a file without a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxloop.exceptions import FluxloopError
from fluxloop.inputs.cases import inputs_from


def test_a_closed_file_of_inputs_is_told_in_a_sentence(tmp_path: Path) -> None:
    """An agent that closes all files of the process closes it too."""
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n')
    cases = inputs_from(tmp_path / "in.jsonl").cases
    number = cases._file.fileno()  # type: ignore[attr-defined]
    kept = os.dup(number)
    os.close(number)
    with pytest.raises(FluxloopError, match="the inputs cannot be read again: the agent has closed the files"):
        list(cases)
    os.dup2(kept, number)
    os.close(kept)
    assert [case.input for case in cases] == ["a", "b"]
