"""Decorated functions keep their types, as mypy sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKED = Path(__file__).parent / "typed.py"


def test_decorated_functions_keep_their_types(tmp_path: Path) -> None:
    """`mypy --strict` agrees with every `assert_type` of a file that uses all decorators in all forms."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(CHECKED)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stdout + result.stderr
