"""Variations a model writes: many calls at a time, each kept as it arrives."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from attrs import evolve, frozen

from fluxloop.clock import monotonic
from fluxloop.config.load import expand
from fluxloop.exceptions import ConfigError, FluxloopError, GenerationError, MissingPackageError, Problem, UsageError
from fluxloop.failures import infrastructure, is_overload, may_pass, retry_after
from fluxloop.generating.deterministic import Distinct
from fluxloop.generating.material import Source, derived
from fluxloop.generating.prompts import messages
from fluxloop.generating.settings import BASE, GenerationSettings, Material, Persona
from fluxloop.tracing.redaction import Redaction

_MOST_TRIES = 3
"""How often a kind of variation is asked for before it counts as exhausted."""
_LONGEST_WAIT = 60.0
_PATIENCE = 600.0
"""A service that asks to be left alone for longer ends the generation."""
_TOLD = 10
"""Texts a model is told not to repeat."""


@frozen(eq=False)
class Kind:
    """One way to vary one base input."""

    source: Source
    strategy: str
    persona: Persona | None
    place: int
    """Of its persona among the `personas` that may ask for the same."""
    personas: int


@frozen
class Wanted:
    """A variation to be written."""

    number: int
    """Its place among all that could be asked for, the same whenever the material and the seed are."""
    kind: Kind
    turn: int
    """Which of its kind it is, from 1."""
    tries: int = 0


def kinds(material: Material, personas: Sequence[Persona], seed: int) -> list[Kind]:
    """Return what can be asked for: base inputs in turn, each with strategies and personas in an order of chance."""
    strategies = [name for name in dict.fromkeys(material.config.input_generation.strategies) if name != BASE]
    rows = []
    for source in material.sources:
        if source.text is None:
            continue
        who: list[Persona | None] = [one for one in personas if source.persona in (None, one.name)]
        who = who or [None]
        row = [Kind(source, name, one, place, len(who)) for place, one in enumerate(who) for name in strategies]
        random.Random(repr((seed, source.id))).shuffle(row)
        rows.append(row)
    longest = max(map(len, rows), default=0)
    return [row[place] for place in range(longest) for row in rows if place < len(row)]


@frozen(kw_only=True)
class Service:
    """A model that can be asked, with what is secret about it."""

    client: Any
    settings: GenerationSettings
    redaction: Redaction

    def create(self, chat: list[dict[str, str]]) -> Any:
        """Ask once."""
        return self.client.chat.completions.create(model=self.settings.model, messages=chat, **self.settings.args)


def open_service(material: Material, environment: Mapping[str, str]) -> Service:
    """Return the model's service, before anything is asked.

    Raises:
        UsageError: there is no key, or a variable that is named is not set.
        MissingPackageError: the openai package is not installed.
    """
    settings = material.config.input_generation
    key = _expanded(material, "api_key", settings.api_key, environment) or environment.get("OPENAI_API_KEY")
    url = _expanded(material, "base_url", settings.base_url, environment) or None
    if not key:
        raise UsageError(
            "mode llm needs a key, and there is none. Either set the environment variable OPENAI_API_KEY; or write"
            f" api_key: ${{NAME}} below input_generation: in {material.name} and set NAME; or, for a server of your"
            " own that wants none, write base_url: and api_key: none; or take --mode deterministic, which needs none"
        )
    try:
        from openai import OpenAI
    except ImportError:
        raise MissingPackageError("openai", "mode llm", "'fluxloop[llm]'") from None
    # Its own retries would neither wait for one another nor end with ours.
    client = OpenAI(api_key=key, base_url=url, max_retries=0, timeout=settings.timeout_seconds or None)
    return Service(client=client, settings=settings, redaction=Redaction(secrets=[key]))


def _expanded(material: Material, name: str, text: str | None, environment: Mapping[str, str]) -> str:
    resolved, missing = expand(text or "", environment)
    if missing:
        what = f"the environment variable {missing[0]} is not set; set it, or take --mode deterministic"
        raise ConfigError([Problem(material.name, what, f"input_generation.{name}")])
    return resolved


def write_variations(
    material: Material,
    service: Service,
    kinds: Sequence[Kind],
    *,
    count: int,
    there: Mapping[int, Mapping[str, Any]],
    keep: Callable[[int, dict[str, Any]], None],
) -> None:
    """Have variations written until there are enough, or the model has no more.

    Args:
        material: the base inputs.
        service: who is asked.
        kinds: what may be asked for.
        count: how many are wanted, with those that are there.
        there: entries by number, which an earlier generation has kept.
        keep: takes each entry, with its number, as it arrives; called in this thread.

    Raises:
        UsageError: the service refuses what it is asked.
        GenerationError: the service fails; what has arrived was kept.
    """
    if len(there) < count and kinds:
        _Writing(material, service, kinds, there, keep).until(count)


class _Writing:
    """The caller's thread gives out work and keeps what comes of it; the threads beside it only ask."""

    def __init__(
        self,
        material: Material,
        service: Service,
        kinds: Sequence[Kind],
        there: Mapping[int, Mapping[str, Any]],
        keep: Callable[[int, dict[str, Any]], None],
    ) -> None:
        self._service = service
        self._kinds = kinds
        self._there = there
        self._keep = keep
        self._count = len(there)
        self._distinct = Distinct(material.sources)
        self._ids = {source.id for source in material.sources}
        self._texts: dict[Kind, list[str]] = {kind: [] for kind in kinds}
        self._exhausted: set[Kind] = set()
        for number, entry in there.items():
            self._distinct.add(entry["input"], entry["persona"])
            kind = kinds[number % len(kinds)]
            self._texts[kind].append(entry["input"] if kind.source.key is None else entry["input"][kind.source.key])

    def until(self, count: int) -> None:
        asking = _Asking(self._service, min(count - self._count, self._service.settings.parallel))
        new, again = self._wanted(), list[Wanted]()
        failure: BaseException | None = None
        with asking:
            while True:
                while failure is None and asking.has_room and self._count + asking.flying < count:
                    wanted = again.pop() if again else next(new, None)
                    if wanted is None:
                        break
                    asking.put(wanted, self._chat(wanted))
                if not asking.flying:
                    break
                wanted, text, error = asking.get()
                if error is not None:
                    failure = failure or error
                    asking.stop()
                elif not self._take(wanted, text):
                    if wanted.tries + 1 < _MOST_TRIES:
                        again.append(evolve(wanted, tries=wanted.tries + 1))
                    else:
                        self._exhausted.add(wanted.kind)
        if failure is not None:
            raise _told(failure, self._service) from failure

    def _wanted(self) -> Iterator[Wanted]:
        for turn in count(1):
            going = [(place, kind) for place, kind in enumerate(self._kinds) if kind not in self._exhausted]
            if not going:
                return
            for place, kind in going:
                number = (turn - 1) * len(self._kinds) + place
                if number not in self._there and kind not in self._exhausted:
                    yield Wanted(number, kind, turn)

    def _chat(self, wanted: Wanted) -> list[dict[str, str]]:
        kind = wanted.kind
        return messages(kind.source.text or "", kind.strategy, kind.persona, wanted.turn, self._texts[kind][-_TOLD:])

    def _take(self, wanted: Wanted, text: str) -> bool:
        """Keep what the model wrote; False when it is empty or there already."""
        kind = wanted.kind
        text = _bare(text, kind.source.text or "")
        persona = kind.source.persona if kind.persona is None else kind.persona.name
        if not text:
            return False
        if not self._distinct.add(kind.source.with_text(text), persona):
            self._texts[kind].append(text)
            return False
        self._texts[kind].append(text)
        entry = derived(
            kind.source,
            id=self._id(wanted),
            text=text,
            strategy=kind.strategy,
            persona=persona,
            model=self._service.settings.model,
            same=kind.strategy != "adversarial",
        )
        self._count += 1
        self._keep(wanted.number, entry)
        return True

    def _id(self, wanted: Wanted) -> str:
        """An id of the source, the strategy and a number, whatever the order in which answers come."""
        kind = wanted.kind
        id = f"{kind.source.id}.{kind.strategy}.{(wanted.turn - 1) * kind.personas + kind.place + 1}"
        while id in self._ids:
            id += "_"
        return id


def _bare(text: str, source: str) -> str:
    """The message alone: without the quotes some models put around it, and with whole characters only."""
    bare = text.encode("utf-8", "replace").decode().strip()
    quoted = len(bare) > 1 and (bare[0], bare[-1]) in (('"', '"'), ("“", "”"))
    return bare[1:-1].strip() if quoted and source[:1] != bare[0] else bare


class _Asking:
    """Threads that ask the service, and ask again after what may pass."""

    def __init__(self, service: Service, threads: int) -> None:
        self._service = service
        self._threads = threads
        self._todo: queue.SimpleQueue[tuple[Wanted, list[dict[str, str]]] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Wanted, str, BaseException | None]] = queue.SimpleQueue()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._held_until = 0.0
        self.flying = 0

    def __enter__(self) -> _Asking:
        for _ in range(self._threads):
            # Daemons, so that Ctrl-C does not wait for a service that hangs.
            threading.Thread(target=self._work, name="fluxloop-generating", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        for _ in range(self._threads):
            self._todo.put(None)

    @property
    def has_room(self) -> bool:
        return self.flying < self._threads

    def put(self, wanted: Wanted, chat: list[dict[str, str]]) -> None:
        self.flying += 1
        self._todo.put((wanted, chat))

    def get(self) -> tuple[Wanted, str, BaseException | None]:
        done = self._done.get()
        self.flying -= 1
        return done

    def stop(self) -> None:
        """Ask for nothing more; what is in flight may still come."""
        self._over.set()

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            wanted, chat = job
            try:
                self._done.put((wanted, self._ask(chat), None))
            except BaseException as error:
                self._done.put((wanted, "", error))

    def _ask(self, chat: list[dict[str, str]]) -> str:
        settings = self._service.settings
        for retry in count():
            self._wait()
            if self._over.is_set():
                break
            try:
                return _text_of(self._service.create(chat))
            except Exception as error:
                transient = infrastructure(error)
                asked = 0.0 if transient is None else retry_after(transient) or 0.0
                if transient is None or not may_pass(transient) or retry >= settings.max_retries or asked > _PATIENCE:
                    raise
                backoff = min(settings.retry_delay_seconds * 2**retry, _LONGEST_WAIT) * random.uniform(0.75, 1.25)
                self._pause(max(backoff, asked), all=is_overload(transient))
        raise GenerationError("stopped")

    def _pause(self, seconds: float, *, all: bool) -> None:
        """Wait; after a 429 nobody else asks until then either."""
        if not all:
            self._over.wait(seconds)
            return
        with self._lock:
            self._held_until = max(self._held_until, monotonic() + seconds)

    def _wait(self) -> None:
        while not self._over.is_set() and (left := self._held_until - monotonic()) > 0:
            self._over.wait(left)


def _text_of(response: Any) -> str:
    """What the model wrote; nothing where it refused, or where the answer has another shape."""
    try:
        text = response.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return ""
    return text if isinstance(text, str) else ""


def _told(error: BaseException, service: Service) -> FluxloopError:
    said = service.redaction.text(" ".join(f"{type(error).__name__}: {error}".split()))
    said = said if len(said) <= 500 else said[:499] + "…"
    status = getattr(error, "status_code", None)
    if infrastructure(error) is None and isinstance(status, int) and 400 <= status < 500:
        return UsageError(
            f"the model's service refuses the request; check model, api_key and base_url. It said: {said}"
        )
    return GenerationError(f"the model's service failed: {said}")
