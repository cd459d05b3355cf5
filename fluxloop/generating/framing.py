"""A text with what its persona would say about themselves; their own words, so that nothing is made up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fluxloop.generating.settings import Persona
from fluxloop.generating.spaces import Space, choice


def framings(text: str, persona: Persona) -> Space:
    """Return the variations of a text in which the persona tells who they are, what they want and what they know."""
    about = ("", f"About me: {_sentence(persona.description or persona.name.replace('_', ' '))}")
    goals = ("", *(f"My goal: {_sentence(goal)}" for goal in persona.goals))
    knowledge = ("", *(f"What I know: {_sentence(known)}" for known in persona.knowledge))
    parts = (about, goals, knowledge)
    return Space(2 * len(about) * len(goals) * len(knowledge), partial(_framed, text, parts))


def _framed(text: str, parts: Sequence[Sequence[str]], index: int) -> str | None:
    after, *chosen = choice(index, 2, *map(len, parts))
    frame = " ".join(part[one] for part, one in zip(parts, chosen, strict=True) if one)
    if not frame or not text.strip():
        return None
    return f"{text} {frame}" if after else f"{frame} {text}"


def _sentence(text: str) -> str:
    words = text.strip()
    return words if words.endswith((".", "!", "?")) else words + "."
