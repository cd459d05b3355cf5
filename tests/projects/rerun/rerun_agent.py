"""An agent that needs a module from a folder of `runner.python_path`."""

from __future__ import annotations

from rerun_voice import shout


def answer(question: str, style: str) -> str:
    """Answer in the style given."""
    return shout(question) if style == "loud" else question
