"""What cannot be a path is refused in a sentence, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxloop import Experiment, UsageError

PATHS = {"NUL": "a\0b", "too long": "x" * 300, "half a character": "\ud800x", "below a file": "file/below"}


@pytest.mark.parametrize("key", ["output_dir", "config", "inputs", "resume", "name"])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_what_cannot_be_a_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, path: str) -> None:
    """With exit code 2, as every mistake that a user can mend."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    calls = []
    given: dict[str, Any] = {"target": calls.append, "inputs": ["a"], "output_dir": "out", key: path}
    with pytest.raises(UsageError) as error:
        Experiment(**given).run()
    assert "\n" not in str(error.value)
    assert calls == []
    assert not (tmp_path / "out").exists()
