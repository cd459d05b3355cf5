"""Decorated functions keep their types, as mypy sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In one go, since mypy takes seconds to read what they import.
CHECKED = ("tests/tracing/typed.py", "tests/recording/typed_record.py")


def test_decorated_functions_keep_their_types() -> None:
    """`mypy --strict` agrees with every `assert_type` of files that use all decorators, and `record`, in all forms."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *CHECKED]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
