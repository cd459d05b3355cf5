"""Variations without a model: the same for the same seed, none twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any

import msgspec

from fluxloop.generating.framing import framings
from fluxloop.generating.material import Source, as_written, derived
from fluxloop.generating.settings import BASE, GenerationSettings, Persona
from fluxloop.generating.slips import slips
from fluxloop.generating.spaces import Space, drawn, in_turn
from fluxloop.generating.surface import surfaces

Found = tuple[str, str | None, str]
"""Strategy, persona and text of a variation."""


class Distinct:
    """Which inputs there are already, in a few bytes each."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._seen = {_key(source.input, source.persona) for source in sources}

    def add(self, input: Any, persona: str | None) -> bool:
        """Add an input; False when there is one like it."""
        before = len(self._seen)
        self._seen.add(_key(input, persona))
        return len(self._seen) > before


def _key(input: Any, persona: str | None) -> int:
    return int.from_bytes(blake2b(msgspec.json.encode((input, persona)), digest_size=8).digest())


def numbered(sources: Sequence[Source]) -> Callable[[Source, str], str]:
    """Return what gives each variation an id, `<source>.<strategy>.<n>`, that no base input has."""
    taken = {source.id for source in sources}
    numbers: dict[tuple[str, str], Iterator[int]] = {}

    def next_id(source: Source, strategy: str) -> str:
        for number in numbers.setdefault((source.id, strategy), count(1)):
            if (id := f"{source.id}.{strategy}.{number}") not in taken:
                return id
        raise AssertionError("numbers do not end")

    return next_id


def variations(
    sources: Sequence[Source], personas: Sequence[Persona], settings: GenerationSettings, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield entries: the base inputs, then variations of each in turn, until there are no more.

    Args:
        sources: the base inputs.
        personas: who may ask.
        settings: with the strategies to use.
        seed: what chance comes from.
    """
    if BASE in settings.strategies:
        yield from map(as_written, sources)
    distinct, next_id = Distinct(sources), numbered(sources)
    streams = [_of(source, _found(source, personas, settings, seed)) for source in sources if source.text is not None]
    for source, (strategy, persona, text) in in_turn(streams):
        if distinct.add(source.with_text(text), persona):
            id = next_id(source, strategy)
            yield derived(source, id=id, text=text, strategy=strategy, persona=persona, model=None)


def _of(source: Source, found: Iterator[Found]) -> Iterator[tuple[Source, Found]]:
    return ((source, one) for one in found)


def _found(source: Source, personas: Sequence[Persona], settings: GenerationSettings, seed: int) -> Iterator[Found]:
    text = source.text or ""

    def stream(strategy: str, persona: str | None, space: Space, level: int = 0) -> Iterator[Found]:
        return ((strategy, persona, text) for text in drawn(space, (seed, source.id, strategy, persona, level)))

    makers: dict[str, Callable[[], Iterator[Found]]] = {
        "error_prone": lambda: in_turn(
            stream("error_prone", source.persona, space, level) for level, space in enumerate(slips(text))
        ),
        "surface": lambda: stream("surface", source.persona, surfaces(text, settings.greetings, settings.politeness)),
        "persona": lambda: in_turn(
            stream("persona", persona.name, framings(text, persona))
            for persona in personas
            if source.persona in (None, persona.name)
        ),
    }
    return in_turn(makers[name]() for name in dict.fromkeys(settings.strategies) if name != BASE)
