"""A helper outside the project root."""

from __future__ import annotations


def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper() + "!"
