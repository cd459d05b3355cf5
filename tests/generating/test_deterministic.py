"""Variations without a model."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluxloop.generating import generate
from fluxloop.generating.deterministic import variations
from fluxloop.generating.material import protected
from fluxloop.generating.settings import load_material
from fluxloop.generating.slips import NEIGHBOURS, slips

PERSONAS = [
    {"name": "novice", "description": "New to all this", "goals": ["find the guide", "avoid mistakes"]},
    {"name": "expert", "knowledge": ["every option"]},
]
EXACT = (
    'Run `x --Fast` on https://Example.org/A?b=c, order A-1001, "As Is" {Name} <Tag> snake_Case for me@Example.org ok?'
)
TEXTS = st.text(min_size=1, max_size=60) | st.sampled_from([EXACT, "How do I start?", "Wie geht's, Übung?", "как дела"])


def entries(
    base: Sequence[Any], *, seed: int = 0, strategies: Sequence[str] = (), personas: Sequence[Any] = PERSONAS
) -> Iterator[dict[str, Any]]:
    material = load_material(
        {"base_inputs": list(base), "personas": list(personas)},
        overrides={"strategies": list(strategies) or ["base", "error_prone", "surface", "persona"]},
    )
    return variations(material.sources, material.config.personas, material.config.input_generation, seed)


def texts(base: str, strategy: str, count: int = 10_000) -> list[str]:
    return [entry["input"] for entry in islice(entries([base], strategies=[strategy]), count)]


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4, unique=True), st.integers(0, 5))
@example(["hi", "hi!"], 0)  # a variation of the one is the other
def test_none_is_there_twice(base: list[str], seed: int) -> None:
    """No two inputs are of the same text and persona, no two have the same id, and none is empty that was not."""
    made = list(islice(entries(base, seed=seed), 300))
    assert len({(entry["input"], entry["persona"]) for entry in made}) == len(made)
    assert len({entry["id"] for entry in made}) == len(made)


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3, unique=True), st.integers())
def test_the_same_seed_gives_the_same(base: list[str], seed: int) -> None:
    """Entry by entry, and a shorter list is the beginning of a longer one."""
    assert list(islice(entries(base, seed=seed), 30)) == list(islice(entries(base, seed=seed), 100))[:30]


def test_another_seed_gives_others() -> None:
    """Of a text with room for many variations, two seeds take hardly any alike."""
    base = ["What are the advanced options of the command line, and where are they documented?"]
    first, second = (
        {entry["input"] for entry in islice(entries(base, seed=seed, strategies=["error_prone"]), 100)}
        for seed in (1, 2)
    )
    assert len(first & second) < 50


def test_another_base_input_changes_nothing_for_the_others() -> None:
    """What is made of an input follows from the seed and the input alone."""
    alone = [entry for entry in islice(entries(["How do I start?"]), 40) if entry["source_id"] == "input_001"]
    among = list(islice(entries(["How do I start?", "Stop it."]), 80))
    assert [entry for entry in among if entry["source_id"] == "input_001"] == alone


@settings(deadline=None)
@given(TEXTS)
@example(EXACT)
@example("Open https://example.org/a?")
def test_what_means_something_exact_stays(text: str) -> None:
    """Code, links, numbers, quotes and placeholders are in each variation as they were, in their order."""
    kept = [text[start:end] for start, end in protected(text)]
    for entry in islice(entries([text]), 200):
        place = 0
        for part in kept:
            place = entry["input"].index(part, place) + len(part)


def test_what_means_something_exact() -> None:
    """Is found by its signs."""
    kept = [EXACT[start:end] for start, end in protected(EXACT)]
    assert kept == [
        *("`x --Fast`", "https://Example.org/A?b=c,", "A-1001,", '"As Is"', "{Name}", "<Tag>", "snake_Case"),
        "me@Example.org",
    ]


@pytest.mark.parametrize("text", ["`" * 50_001, "{a" * 50_000, "<" * 100_000, '"' * 99_999, "a" * 1_000_000])
def test_reading_a_text_takes_time_in_its_length_only(text: str) -> None:
    """A text of a million characters that all but matches is varied like any other."""
    assert len(list(islice(entries([text], strategies=["surface"]), 3))) == 3


def test_a_slip_is_one_of_a_hand() -> None:
    """One slip loses a letter, doubles it, swaps two, or takes the key beside it."""
    base = "word"
    for text in texts(base, "error_prone"):
        if len(text) == 3:
            assert any(text == base[:i] + base[i + 1 :] for i in range(4))
        elif len(text) == 5:
            assert any(text == base[: i + 1] + base[i:] for i in range(4))
        else:
            changed = [(old, new) for old, new in zip(base, text, strict=True) if old != new]
            beside = len(changed) == 1 and changed[0][1] in NEIGHBOURS[changed[0][0]]
            assert beside or (len(changed) == 2 and changed[0] == changed[1][::-1])


def test_keys_have_the_neighbours_a_keyboard_has() -> None:
    """As on QWERTY, and each is its neighbours' neighbour."""
    assert set(NEIGHBOURS["g"]) == set("ftyhvb")
    assert set(NEIGHBOURS["q"]) == set("wa")
    assert all(one in NEIGHBOURS[other] for one, others in NEIGHBOURS.items() for other in others)


def test_a_capital_stays_where_it_was() -> None:
    """Shift is held by place: swapped letters leave the capital at the front."""
    assert "Hte" in texts("The", "error_prone")
    assert not [text for text in texts("The", "error_prone") if len(text) > 1 and text[1:] != text[1:].lower()]


def test_more_letters_have_more_slips() -> None:
    """A short text has one, so that it can be read; a long one up to three."""
    assert all(abs(len(text) - 5) <= 1 for text in texts("start", "error_prone"))
    long = "what are the advanced options"
    assert {abs(len(text) - len(long)) for text in texts(long, "error_prone", 2000)} == {0, 1, 2, 3}


def test_two_slips_are_two() -> None:
    """They never touch, where one could undo the other or land on what it left."""
    one, two = ({space.at(place) for place in range(space.size)} - {None} for space in slips("quick brown fox"))
    assert len(two) > 3000
    assert not two & {*one, "quick brown fox"}


def test_scripts_that_are_not_typed_by_letters_have_no_slips() -> None:
    """Chinese has none, Hebrew and Arabic have lost, doubled and swapped letters, and accents stay on theirs."""
    assert texts("如何开始", "error_prone") == []
    assert "םולש"[::-1] not in texts("םולש", "error_prone")
    assert len(texts("שלום", "error_prone")) > 5
    assert len(texts("مرحبا", "error_prone")) > 5
    assert not [text for text in texts("cafe\u0301s", "error_prone") if "e\u0301" not in text]


def test_a_surface_changes_how_a_text_looks() -> None:
    """Case, the marks at its end, a greeting and a word of politeness, and nothing else."""
    found = set(texts("How do I start?", "surface"))
    assert {"HOW DO I START?", "how do i start", "Hi! How do I start??", "How do I start? Thanks!"} <= found
    letters = {"".join(filter(str.isalpha, text)).lower() for text in found}
    assert {text for text in letters if "howdoistart" not in text} == set()


def test_words_of_greeting_are_the_configurations() -> None:
    """For users who write in another language."""
    settings = {"greetings": ["Hallo!"], "politeness": [], "strategies": ["surface"]}
    material = load_material({"base_inputs": ["Wie?"], "input_generation": settings}, overrides={})
    made = variations(material.sources, (), material.config.input_generation, 0)
    assert {entry["input"].split()[0].lower() for entry in made} == {
        "hallo!",
        "wie?",
        "wie??",
        "wie",
        "wie...?",
    }


def test_a_framing_says_what_the_persona_is_said_to_be() -> None:
    """Description, goals and knowledge in their own words; the input is that persona's."""
    made = list(entries(["How do I start?"], strategies=["persona"]))
    assert {entry["persona"] for entry in made} == {"novice", "expert"}
    found = {entry["input"] for entry in made}
    assert "About me: New to all this. My goal: find the guide. How do I start?" in found
    assert "How do I start? What I know: every option." in found
    assert "About me: expert. How do I start?" in found
    assert "How do I start?" not in {text.strip() for text in found}


def test_a_personas_input_stays_theirs() -> None:
    """An input that has a persona is framed for no other, and keeps it in every strategy."""
    made = list(islice(entries([{"input": "How do I start?", "persona": "expert"}]), 60))
    assert {entry["persona"] for entry in made} == {"expert"}
    assert {entry.get("strategy") for entry in made} == {None, "error_prone", "surface", "persona"}


def test_a_variation_says_where_it_comes_from() -> None:
    """Its source, how it was made, who asks and by which model; what is expected is still expected."""
    base = {"id": "a", "input": "How do I start?", "expected": "so", "intent": "help", "model": "mine"}
    first, *others = islice(entries([base]), 20)
    assert first == {
        "id": "a",
        "input": "How do I start?",
        "persona": None,
        "source_id": "a",
        "expected": "so",
        "metadata": {"intent": "help", "model": "mine"},
    }
    for entry in others:
        assert list(entry) == ["id", "input", "persona", "source_id", "strategy", "model", "expected", "metadata"]
        assert (entry["source_id"], entry["model"], entry["expected"]) == ("a", None, "so")
        assert entry["metadata"] == {"intent": "help"}
        assert entry["id"].startswith(f"a.{entry['strategy']}.")


def test_an_input_that_came_from_another_counts_as_that_one() -> None:
    """A base input's own source is the source of what is made of it."""
    made = list(islice(entries([{"input": "How do I start?", "source_id": "first"}]), 5))
    assert {entry["source_id"] for entry in made} == {"first"}


def test_an_id_a_base_input_has_is_not_given_again() -> None:
    """The next number is taken."""
    base = ["How do I start?", {"id": "input_001.error_prone.1", "input": "Stop it now."}]
    made = list(islice(entries(base), 40))
    assert len({entry["id"] for entry in made}) == 40


def test_the_text_in_a_mapping_is_varied_in_its_place() -> None:
    """Under the first key that names a text; an input without a text is only there as it is."""
    base = [{"input": {"lang": "en", "message": "How do I start?"}}, {"input": [1, 2]}, {"input": {"n": 1}}]
    made = list(islice(entries(base), 30))
    assert [entry["input"] for entry in made[:3]] == [one["input"] for one in base]
    assert all(entry["input"]["lang"] == "en" and set(entry["input"]) == {"lang", "message"} for entry in made[3:])
    assert {entry["source_id"] for entry in made[3:]} == {"input_001"}


def test_each_base_input_has_its_share() -> None:
    """Base inputs come in turn, and each takes its strategies in turn."""
    made = list(islice(entries(["How do I start?", "Where is it?", "What does it cost?"]), 3 + 90))
    counts = [sum(entry["source_id"] == f"input_00{n}" for entry in made[3:]) for n in (1, 2, 3)]
    assert counts == [30, 30, 30]
    assert [sum(entry.get("strategy") == name for entry in made) for name in ("error_prone", "surface")] == [30, 30]


def test_material_ends() -> None:
    """All there is of a small text is found, each once."""
    made = texts("ab", "error_prone")
    beside = [f"{other}b" for other in NEIGHBOURS["a"]] + [f"a{other}" for other in NEIGHBOURS["b"]]
    assert sorted(made) == sorted({"b", "a", "aab", "abb", "ba", *beside})


def test_many_inputs_cost_little_memory(tmp_path: Path) -> None:
    """Of what was written only a few bytes are remembered, to know it again."""
    text = "Where do my results go, and how can I compare them with those of another version? " * 12
    tracemalloc.start()
    try:
        made = generate({"base_inputs": [text]}, output=tmp_path / "a.jsonl", limit=10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.count == 10_000
    assert made.path.stat().st_size > 10e6
    assert peak < 4e6
