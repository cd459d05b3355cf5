"""Python's language reference, searchable: an ordinary search engine that knows nothing of fluxloop."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import NamedTuple

# Words that do not tell one question from another.
COMMON = """
a an and any are as at be between by can could difference do does for from get happen happens have how i if in into
is it its make may me my no not of on or out should so than that the their then there this to use used was what when
where which who why will with work works would you your
"""


class Passage(NamedTuple):
    """A few paragraphs of a topic."""

    topic: str
    text: str


def rank(query: str) -> list[tuple[Passage, float]]:
    """Return the passages that share a word with the query, best first, each with its score from 0 to 1."""
    return index().rank(query)


def quote(topic: str, question: str, sentences: int) -> str:
    """Return the sentences in a row that answer the question best, out of the topic's best passage."""
    ranked = [passage.text for passage, _ in rank(question) if passage.topic == topic]
    text = prose(ranked[0] if ranked else topics[topic])
    found = re.split(r"(?<=[.!?])(?<!\.[eg]\.) (?=[A-Z\"“(*])", text)  # at full stops, but not within "e.g."
    windows = [found[start : start + sentences] for start in range(len(found))]
    # Of two windows that say as much, take the one that comes to the point first.
    best = max(windows, key=lambda window: (shared(question, " ".join(window)), shared(question, window[0])))
    return " ".join(best)


def title(topic: str) -> str:
    """Return a topic's heading."""
    return topics[topic].partition("\n")[0].replace('"', "")


@functools.cache
def index() -> Index:
    """Return the index, built at the first use."""
    return Index()


class Index:
    """The passages of all topics, ranked by BM25 as a share of the best score the query could reach."""

    def __init__(self) -> None:
        # Short topics first: of two that hold the same passage, the more specific one wins.
        names = sorted(topics, key=lambda name: (len(topics[name]), name))
        self.passages = [Passage(name, text) for name in names for text in split(topics[name])]
        counts = [Counter(terms(text) + 2 * terms(f"{title(name)} {name}")) for name, text in self.passages]
        mean = sum(count.total() for count in counts) / len(counts)
        self.weights: dict[str, dict[int, float]] = defaultdict(dict)  # term -> passage number -> weight
        for number, count in enumerate(counts):
            damping = 1.2 * (0.25 + 0.75 * count.total() / mean)
            for term, times in count.items():
                self.weights[term][number] = times / (times + damping)

    def rank(self, query: str) -> list[tuple[Passage, float]]:
        """Return the passages that share a word with the query, best first, with their scores."""
        rarities = {term: self.rarity(term) for term in terms(query)}
        whole = sum(rarities.values())
        scores: dict[int, float] = defaultdict(float)
        for term, rarity in rarities.items():
            for number, weight in self.weights.get(term, {}).items():
                scores[number] += rarity * weight / whole
        return [(self.passages[n], scores[n]) for n in sorted(scores, key=lambda n: (-scores[n], n))]

    def rarity(self, term: str) -> float:
        """Return how much a word tells: most when the reference has never heard of it."""
        return math.log(1 + len(self.passages) / (0.5 + len(self.weights.get(term, ()))))


def shared(question: str, text: str) -> float:
    """Return how much of the question a text takes up, rare words counting most."""
    both = set(terms(question)).intersection(terms(text))
    return sum(index().rarity(term) for term in sorted(both))  # sorted: the order of a set is not fixed


def split(text: str, words: int = 40) -> Iterator[str]:
    """Split a topic between paragraphs, keeping lists and code with what introduces them."""
    text = re.sub(r"\n {3}\S+ +::=.*?\n(?=\n)", "", text, flags=re.DOTALL)  # grammar has all the words, no answers
    passage = ""
    for block in re.split(r"\n\s*\n(?![\s*\d])", text):
        passage += block + "\n\n"
        if len(passage.split()) >= words:
            yield passage
            passage = ""
    if passage:
        yield passage


def prose(passage: str) -> str:
    """Return a passage's sentences and list items as running text, without headings, code and markup."""
    paragraphs = [" ".join(part.split()) for part in re.sub(r"(?<=\w-)\n\s*", "", passage).split("\n\n")]
    kept = [part for part in paragraphs if re.search(r"^(\*|\d+\.) |\.\)?( |$)|:$", part)]
    return re.sub(r"\*{1,2}(\w[^*]*)\*{1,2}| \[\d+\]", r"\1", " ".join(kept or paragraphs))


def terms(text: str, common: frozenset[str] = frozenset(COMMON.split())) -> list[str]:
    """Return the words that matter, without endings; one in quotes, such as "is", always matters."""
    words = re.findall(r'"[^"\s]+"|\w+|[<>=+*/%@|&^~!-]+', text.lower().replace("`", '"'))
    return [re.sub(r"(?<=[a-z]{3})(ing|ed|es|s|e)$", "", word.strip('"')) for word in words if word not in common]
