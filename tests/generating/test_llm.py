"""Variations a model writes, by a service on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fluxloop.exceptions import ConfigError, GenerationError, OutputError, UsageError
from fluxloop.generating import generate
from fluxloop.generating.partial import partial_path
from tests.model_service import Chat, model_service, overloaded
from tests.serving import Answer, closed_port

KEY = "sk-of-nobody-at-all"
BASE = [
    "How do I start?",
    {"id": "mine", "input": "Where is it?", "persona": "expert", "expected": "there", "metadata": {"intent": "find"}},
]
PERSONAS = [{"name": "novice", "description": "New to all this"}, {"name": "expert", "knowledge": "all of it"}]
LLM_STRATEGIES = {"rephrase", "verbose", "concise", "error_prone", "adversarial"}

Reply = Callable[[Chat], Answer | str]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def words(chat: Chat, numbers: Any = count(1)) -> str:  # noqa: B008  (one count for all is meant)
    return f"words {next(numbers)}"


def made(path: Path, reply: Reply = words, *, base: Any = BASE, **options: Any) -> Any:
    """What `generate` returns, of a service that replies as told, and what was asked of it."""
    settings = {"mode": "llm", "retry_delay_seconds": 0, "parallel": 4, **options.pop("settings", {})}
    with model_service(reply) as service:
        config = {
            "personas": PERSONAS,
            "base_inputs": base,
            "input_generation": {"base_url": f"{service.url}/v1", **settings},
        }
        generated = generate(config, output=path, **options)
        return generated, [json.loads(asked.body) for asked in service.asked]


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def prompt(chat: Chat) -> str:
    text: str = chat["messages"][-1]["content"]
    return text


def test_every_strategy_and_persona_is_asked_for(tmp_path: Path) -> None:
    """Each once before any twice; an input that has a persona is nobody else's."""
    generated, chats = made(tmp_path / "a.jsonl", limit=2 + 10 + 5)
    base, written = entries(generated.path)[:2], entries(generated.path)[2:]
    assert generated.remark is None
    assert len(chats) == 15
    assert [entry["id"] for entry in base] == ["input_001", "mine"]
    assert Counter((entry["source_id"], entry["persona"], entry["strategy"]) for entry in written) == {
        (source, persona, strategy): 1
        for source, persona in (("input_001", "novice"), ("input_001", "expert"), ("mine", "expert"))
        for strategy in LLM_STRATEGIES
    }
    assert generated.by_strategy == {"base": 2, **dict.fromkeys(LLM_STRATEGIES, 3)}


def test_entries_say_where_they_come_from(tmp_path: Path) -> None:
    """Source, strategy, persona and model; what is expected of the source, unless the question is another."""
    generated, _ = made(tmp_path / "a.jsonl", limit=17, settings={"model": "mine-7b"})
    for entry in entries(generated.path)[2:]:
        assert entry["model"] == "mine-7b"
        assert ("expected" in entry) == (entry["source_id"] == "mine" and entry["strategy"] != "adversarial")


def test_the_model_is_told_what_to_do(tmp_path: Path) -> None:
    """The message, the task and the persona, and never to follow what the message says."""
    _, chats = made(tmp_path / "a.jsonl", limit=17, settings={"args": {"temperature": 1.2}})
    assert all("never an instruction" in chat["messages"][0]["content"] for chat in chats)
    assert sum('"knowledge":["all of it"]' in prompt(chat) for chat in chats) == 10
    assert sum('"description":"New to all this"' in prompt(chat) for chat in chats) == 5
    assert sum('"Where is it?"' in prompt(chat) for chat in chats) == 5
    assert {(chat["model"], chat["temperature"]) for chat in chats} == {("gpt-4o-mini", 1.2)}


def test_the_order_of_answers_changes_nothing(tmp_path: Path) -> None:
    """One call at a time, or many that overtake one another: the same inputs in the same order."""
    gate = threading.Barrier(4)

    def overtaking(chat: Chat) -> str:
        gate.wait()
        return prompt(chat)

    one, _ = made(tmp_path / "1" / "a.jsonl", prompt, limit=14, settings={"parallel": 1})
    many, _ = made(tmp_path / "4" / "a.jsonl", overtaking, limit=14)
    assert one.path.read_text() == many.path.read_text()


def test_what_is_there_already_is_asked_for_again(tmp_path: Path) -> None:
    """A text that repeats another, or the source, or is empty, is none; the model is told what there is."""
    replies = iter(["How do I start?", " ", "first", "first", "second"])
    generated, chats = made(
        tmp_path / "a.jsonl",
        lambda chat: next(replies),
        base=[{"input": "How do I start?", "persona": "novice"}],
        limit=3,
        settings={"parallel": 1, "strategies": ["base", "concise"]},
    )
    assert [entry["input"] for entry in entries(generated.path)] == ["How do I start?", "first", "second"]
    assert 'none of these: ["How do I start?"]' in prompt(chats[1])
    assert 'none of these: ["How do I start?","first","first"]' in prompt(chats[4])


def test_a_model_that_has_no_more_ends_it(tmp_path: Path) -> None:
    """What there is is written, and how many that are is said."""
    settings = {"parallel": 1}
    generated, chats = made(
        tmp_path / "a.yaml", lambda chat: '"The same."', base=["a", "b"], limit=50, settings=settings
    )
    # the same text is another input for another persona
    assert (generated.count, generated.by_strategy["base"]) == (4, 2)
    assert generated.remark.startswith("the model gave 4 distinct inputs, not 50; more base_inputs")
    assert len(chats) == 2 + 3 * 20  # each kind of variation is asked for until it fails three times
    texts = [entry["input"] for entry in YAML(typ="safe", pure=True).load(generated.path)["generated_inputs"]]
    assert texts == ["a", "b", "The same.", "The same."]


def test_a_model_that_gives_nothing_leaves_no_file(tmp_path: Path) -> None:
    """Never an empty file called done."""
    with pytest.raises(GenerationError, match=r"no text that is new\. Nothing was written"):
        made(tmp_path / "a.yaml", lambda chat: "", limit=5, strategies=["concise"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "trouble",
    [overloaded(), Answer(503), Answer(fault="reset"), Answer(fault="cut")],
    ids=["429", "503", "reset", "cut"],
)
def test_what_passes_is_tried_again(tmp_path: Path, trouble: Answer) -> None:
    """Every third answer is trouble, and nothing is missing in the end."""
    numbers = count(1)
    generated, chats = made(
        tmp_path / "a.jsonl", lambda chat: f"words {n}" if (n := next(numbers)) % 3 else trouble, limit=17
    )
    assert generated.count == 17
    assert len(chats) > 20


def test_after_an_overload_nobody_asks(tmp_path: Path) -> None:
    """For as long as the service wants to be left alone."""
    first = threading.Event()

    def reply(chat: Chat) -> Answer | str:
        if first.is_set():
            return words(chat)
        first.set()
        return overloaded(0.3)

    with model_service(reply) as service:
        config = {
            "base_inputs": ["How do I start?"],
            "input_generation": {"mode": "llm", "base_url": f"{service.url}/v1", "parallel": 1},
        }
        generate(config, output=tmp_path / "a.jsonl", limit=3)
    times = [asked.arrived for asked in service.asked]
    assert times[1] - times[0] >= 0.3


def test_a_service_that_stays_away_leaves_what_there_is(tmp_path: Path) -> None:
    """The error says what is kept and where; the same call goes on, and asks for nothing twice."""
    path = tmp_path / "a.jsonl"
    numbers = count(1)
    with pytest.raises(
        GenerationError, match=r"InternalServerError.*\. 6 inputs of the model are kept in .*partial"
    ) as e:
        made(
            path,
            lambda chat: f"early {n}" if (n := next(numbers)) <= 6 else Answer(500),
            limit=17,
            settings={"parallel": 1, "max_retries": 1},
        )
    assert KEY not in str(e.value)
    assert not path.exists()
    generated, chats = made(path, limit=17, settings={"parallel": 3})
    assert len(chats) == 9
    assert sum(entry["input"].startswith("early") for entry in entries(path)) == 6
    assert len({(one["source_id"], one["persona"], one.get("strategy")) for one in entries(path)}) == 17
    assert list(tmp_path.iterdir()) == [generated.path]


def test_a_torn_line_is_cut(tmp_path: Path) -> None:
    """What a crash left of a line is asked for again."""
    path = tmp_path / "a.jsonl"
    numbers = count(1)
    settings = {"parallel": 1, "max_retries": 0}
    with pytest.raises(GenerationError):
        made(path, lambda chat: f"early {n}" if (n := next(numbers)) <= 3 else Answer(500), limit=9, settings=settings)
    kept = partial_path(path)
    kept.write_bytes(kept.read_bytes()[:-10])
    _, chats = made(path, limit=9)
    assert len(chats) == 5
    assert sum(entry["input"].startswith("early") for entry in entries(path)) == 2


def test_what_is_kept_is_not_written_again(tmp_path: Path) -> None:
    """A generation that goes on knows the texts that are there."""
    path = tmp_path / "a.jsonl"
    options: dict[str, Any] = {"base": ["hi"], "personas": ["novice"], "strategies": ["concise"], "limit": 3}
    replies = iter(["early", Answer(500), "early", "late", "later"])
    settings = {"parallel": 1, "max_retries": 0}
    with pytest.raises(GenerationError, match="1 input of the model is kept"):
        made(path, lambda chat: next(replies), settings=settings, **options)
    _, chats = made(path, lambda chat: next(replies), settings=settings, **options)
    assert [entry["input"] for entry in entries(path)] == ["early", "late", "later"]
    assert 'none of these: ["early"]' in prompt(chats[0])


def test_what_another_generation_has_kept_is_not_mixed_in(tmp_path: Path) -> None:
    """Other inputs, personas, strategies, model or seed are refused, or begun anew with overwrite."""
    path = tmp_path / "a.jsonl"
    numbers = count(1)
    settings = {"parallel": 1, "max_retries": 0}
    with pytest.raises(GenerationError):
        made(path, lambda chat: f"early {n}" if (n := next(numbers)) <= 3 else Answer(500), limit=9, settings=settings)
    kept = partial_path(path).read_text()
    others: list[dict[str, Any]] = [
        *(
            {"seed": 1},
            {"model": "other"},
            {"base": ["another"]},
            {"personas": ["novice"]},
            {"strategies": ["concise"]},
        ),
    ]
    for other in others:
        with pytest.raises(OutputError, match="begun with other inputs, personas, strategies, model or seed; --overw"):
            made(path, limit=9, **other)
    assert partial_path(path).read_text() == kept
    generated, _ = made(path, limit=9, seed=1, overwrite=True)
    assert not [entry for entry in entries(generated.path) if entry["input"].startswith("early")]


def test_what_is_no_unfinished_generation_is_not_touched(tmp_path: Path) -> None:
    """A file of somebody else's of that name is refused with its line."""
    kept = partial_path(tmp_path / "a.jsonl")
    kept.write_text("mine\n")
    with pytest.raises(OutputError, match="line 1 is no line of an unfinished generation"):
        made(tmp_path / "a.jsonl", limit=9)
    assert kept.read_text() == "mine\n"


def test_two_at_one_output(tmp_path: Path) -> None:
    """The second is told; the first goes on."""
    path = tmp_path / "a.jsonl"
    told = []

    def reply(chat: Chat) -> str:
        if not told:
            with pytest.raises(OutputError, match="another process writes to it") as caught:
                generate(
                    {"base_inputs": ["hi"], "input_generation": {"mode": "llm", "base_url": "http://127.0.0.1:9/v1"}},
                    output=path,
                )
            told.append(caught.value)
        return words(chat)

    generated, _ = made(path, reply, limit=5, settings={"parallel": 1})
    assert told
    assert generated.count == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_for_the_user_to_mend(tmp_path: Path, status: int) -> None:
    """It ends at once, with what the service says, and without the key."""
    asked = count(1)

    def reply(chat: Chat) -> Answer:
        next(asked)
        return Answer(status, body={"error": {"message": f"not with {KEY}"}})

    with pytest.raises(UsageError, match=rf"refuses the request.*{status} - .*not with \*\*\*.*Nothing was written"):
        made(tmp_path / "a.yaml", reply, settings={"parallel": 1})
    assert next(asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_spent_quota_is_not_tried_again(tmp_path: Path) -> None:
    """Waiting does not fill it."""
    asked = count(1)

    def reply(chat: Chat) -> Answer:
        next(asked)
        return Answer(429, {}, {"error": {"message": "no more", "code": "insufficient_quota"}})

    with pytest.raises(GenerationError, match="no more"):
        made(tmp_path / "a.yaml", reply, settings={"parallel": 1})
    assert next(asked) == 2


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    """Is told as a failure, after the retries."""
    url = f"http://127.0.0.1:{closed_port()}/v1"
    settings = {"mode": "llm", "base_url": url, "max_retries": 1, "retry_delay_seconds": 0}
    with pytest.raises(GenerationError, match=r"service failed: APIConnectionError: Connection error\. Nothing was"):
        generate({"base_inputs": ["hi"], "input_generation": settings}, output=tmp_path / "a.yaml")


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, [], "text", {"choices": [{"message": None}]}])
def test_answers_of_another_shape_are_none(tmp_path: Path, body: Any) -> None:
    """They count as nothing said."""
    with pytest.raises(GenerationError, match="no text that is new"):
        made(tmp_path / "a.yaml", lambda chat: Answer(body=body), base=["hi"], strategies=["concise"], limit=2)


def test_hostile_answers_are_texts(tmp_path: Path) -> None:
    """Half characters are replaced, and the rest is kept as it came."""
    answer = (
        b'{"choices": [{"message": {"content": "a\\ud800b\\u0000\\u001b[31m\\n- x: y"}}], "model": "m", "object": "o"}'
    )
    generated, _ = made(
        tmp_path / "a.yaml", lambda chat: Answer(body=answer), base=["hi"], strategies=["concise"], limit=1
    )
    (entry,) = YAML(typ="safe", pure=True).load(generated.path)["generated_inputs"]
    assert entry["input"] == "a?b\0\x1b[31m\n- x: y"


def test_quotes_around_an_answer_are_taken_off(tmp_path: Path) -> None:
    """Unless the source is in quotes, too."""
    for base, text in (("hi", "said"), ('"hi"', '"said"')):
        path = tmp_path / f"{len(base)}.jsonl"
        made(path, lambda chat: ' "said"\n', base=[base], strategies=["concise"], limit=1)
        assert entries(path)[0]["input"] == text


def test_without_a_key_the_ways_to_give_one_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked or written."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError) as caught:
        generate({"base_inputs": ["hi"], "input_generation": {"mode": "llm"}}, output=tmp_path / "a.yaml", limit=1)
    for way in ("OPENAI_API_KEY", "api_key: ${NAME}", "api_key: none", "--mode deterministic"):
        assert way in str(caught.value)
    settings = {"mode": "llm", "api_key": "${MY_KEY}"}
    with pytest.raises(ConfigError, match=r"input_generation\.api_key: the environment variable MY_KEY is not set"):
        generate({"base_inputs": ["hi"], "input_generation": settings}, output=tmp_path / "a.yaml")
    assert list(tmp_path.iterdir()) == []


def test_the_configured_key_is_the_one_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the variable it names, before OPENAI_API_KEY; without a model it is not even looked for."""
    monkeypatch.setenv("MY_KEY", "mine-only")
    with model_service(words) as service:
        settings = {"base_url": f"{service.url}/v1", "api_key": "${MY_KEY}"}
        config = {"base_inputs": ["hi"], "input_generation": settings}
        generate(config, output=tmp_path / "a.yaml", mode="llm", limit=2)
    headers = {name.lower(): value for name, value in service.asked[0].headers.items()}
    assert headers["authorization"] == "Bearer mine-only"
    monkeypatch.delenv("MY_KEY")
    assert generate(config, output=tmp_path / "b.yaml", limit=2).count == 2


def test_without_the_package_pip_is_told(tmp_path: Path) -> None:
    """In one plain line."""
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "from fluxloop.generating import generate\n"
        "from fluxloop import MissingPackageError\n"
        "try: generate({'base_inputs': ['hi']}, mode='llm', output=sys.argv[1])\n"
        "except MissingPackageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.yaml")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "mode llm needs openai, which is not installed: pip install 'fluxloop[llm]'\n"


def test_progress_is_told(tmp_path: Path) -> None:
    """With what is there, what the model has written, and what is wanted."""
    told: list[tuple[int, int]] = []
    made(tmp_path / "a.jsonl", limit=6, on_progress=lambda *both: told.append(both))
    assert told == [(2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
