"""An agent to start from: it answers questions from a small guide, offline and without a key.

Put your own in its place: keep `@fluxloop.agent()` on the function that answers, and
`@fluxloop.tool()` on what it calls, so that experiments show what happened inside.
"""

from __future__ import annotations

import random
import re

import fluxloop

GUIDE = {
    "start begin": "Name your agent in configs/simulation.yaml, then: fluxloop run experiment",
    "options settings": "Each key is explained in configs/simulation.yaml; --help lists the options.",
    "results folders": "Each experiment makes its own folder below experiments/.",
    "resume interrupted": "fluxloop run experiment --resume last runs what is left.",
    "fail failed": "fluxloop parse experiment DIR --only failed shows each failure from inside.",
    "compare differ": "Run both on the same inputs with --name, and compare their intervals.",
}


@fluxloop.agent()
def run(input_text: str) -> str:
    """Answer a question."""
    current = fluxloop.current_run()  # None outside an experiment
    chance = random.Random(current.seed if current else 0)  # the same run, done again, goes the same way
    passages = search(keywords(input_text, chance))
    if not passages:
        raise LookupError(f"nothing in the guide answers {input_text!r}")
    if current and current.persona == "expert_user":
        return passages[0]
    return f"{chance.choice(['Good question!', 'Glad you asked.'])} {passages[0]}"


@fluxloop.tool()
def search(words: list[str]) -> list[str]:
    """Return the passages of the guide that have one of the words, the best first."""
    hits = {passage: len(set(topic.split()) & set(words)) for topic, passage in GUIDE.items()}
    return sorted((passage for passage in hits if hits[passage]), key=lambda passage: -hits[passage])


def keywords(question: str, chance: random.Random) -> list[str]:
    """Return the question's words; now and then one is lost, as a model may lose it."""
    words = re.findall(r"\w+", question.lower())
    if words and chance.random() < 0.25:
        words.pop(chance.randrange(len(words)))
    return words


if __name__ == "__main__":
    print(run("How do I start?"))
