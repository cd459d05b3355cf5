"""An agent that answers questions about Python by reading Python's own language reference.

The reference ships with every Python, so the example needs no model, no key and no network.
It is instrumented like any other agent: `@fluxloop.agent()` on the way in, `@fluxloop.tool()` on
what it uses. Outside an experiment all of it is plain functions: `python agent.py "What is a lambda?"`
"""

from __future__ import annotations

import random
import sys

import reference

import fluxloop

ENOUGH = 0.33  # a best match that scores lower does not answer the question


class NotInReferenceError(LookupError):
    """The language reference has no answer."""


@fluxloop.agent()
def run(input_text: str) -> str:
    """Answer a question about Python, in the tone that suits who asks."""
    run = fluxloop.current_run()  # None outside an experiment
    rng = random.Random(run.seed if run else None)  # the same run, done again, gives the same answer
    hits = search(rephrase(input_text, rng))
    if max(hits.values(), default=0.0) < ENOUGH:
        raise NotInReferenceError(f"nothing in the language reference answers {input_text!r}")
    topic = choose(list(hits), rng)
    return compose(topic, read(topic, input_text), run.persona if run else None, rng)


@fluxloop.tool()
def search(query: str, limit: int = 3) -> dict[str, float]:
    """Return the topics that match the query, best first, each with its score from 0 to 1."""
    scores: dict[str, float] = {}
    for passage, score in reference.rank(query):
        scores.setdefault(passage.topic, round(score, 3))  # a topic is as good as its best passage
    return dict(list(scores.items())[:limit])


@fluxloop.tool()
def read(topic: str, question: str, sentences: int = 3) -> str:
    """Return the few sentences of a topic that answer the question best."""
    return reference.quote(topic, question, sentences)


def rephrase(question: str, rng: random.Random) -> str:
    """Now and then lose a word, as a model may when it writes its own search query."""
    words = question.split()
    if len(words) > 1 and rng.random() < 0.25:
        words.pop(rng.randrange(len(words)))
    return " ".join(words)


def choose(topics: list[str], rng: random.Random) -> str:
    """Take the best topic, but one time in ten the second: agents do not always follow the top hit."""
    return topics[1] if len(topics) > 1 and rng.random() < 0.1 else topics[0]


def compose(topic: str, passage: str, persona: str | None, rng: random.Random) -> str:
    """Word the answer: warm for a novice, terse for an expert."""
    if persona == "expert_user":
        return f"[{topic}] {passage}"
    source = rng.choice(["The reference says under", "This is explained under", "See"])
    answer = f"{source} “{reference.title(topic)}” ({topic}): {passage}"
    if persona == "novice_user":
        return f"{rng.choice(['Good question!', 'Glad you asked.', 'You are on the right track.'])} {answer}"
    return answer


if __name__ == "__main__":
    print(run(" ".join(sys.argv[1:])))
