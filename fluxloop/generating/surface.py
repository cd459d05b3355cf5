"""How a text looks: its case, its punctuation, a greeting, a word of politeness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fluxloop.generating.material import pieces, protected
from fluxloop.generating.spaces import Space, choice

_ENDS = ".?!"
_INNER = str.maketrans("", "", ",;:'’")


def surfaces(text: str, greetings: Sequence[str], politeness: Sequence[str]) -> Space:
    """Return the variations of how a text looks; what `protected` names stays as it is."""
    before, after = ("", *greetings), ("", *politeness)
    counts = (len(_CASES), len(_PUNCTUATION), len(before), len(after))
    size = counts[0] * counts[1] * counts[2] * counts[3]
    return Space(size, partial(_surfaced, text, before, after, counts))


def _surfaced(text: str, before: Sequence[str], after: Sequence[str], counts: Sequence[int], index: int) -> str | None:
    case, punctuation, greeting, polite = choice(index, *counts)
    body = text.strip()
    if not body:
        return None
    body = _PUNCTUATION[punctuation](_CASES[case](body))
    lead, trail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return lead + " ".join(part for part in (before[greeting], body, after[polite]) if part) + trail


def _free(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "".join(change(piece) if free else piece for piece, free in pieces(text))


def _same(text: str) -> str:
    return text


def _small_start(text: str) -> str:
    """The first letter small, as in haste; not that of a word in capitals, as `I` or `API`."""
    word = text.split(maxsplit=1)[0]
    starts_free = not protected(text) or protected(text)[0][0] > 0
    return text[0].lower() + text[1:] if starts_free and not word.isupper() else text


def _with_end(change: Callable[[str], str]) -> Callable[[str], str]:
    """Change the marks a text ends with, unless they belong to what must stay."""

    def changed(text: str) -> str:
        spans = protected(text)
        if spans and spans[-1][1] == len(text):
            return text
        body = text.rstrip(_ENDS)
        return body + change(text[len(body) :]) if body else text

    return changed


_CASES = (_same, _free(str.lower), _free(str.upper), _small_start)
_PUNCTUATION = (
    _same,
    _with_end(lambda end: ""),
    _with_end(lambda end: (end or ".") * 2),
    _with_end(lambda end: end or "."),
    _with_end(lambda end: "..." + end.replace(".", "")),
    _free(lambda piece: piece.translate(_INNER)),
)
