"""What `configs/input.yaml` holds, read strictly: every fault at its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from attrs import Factory, field, frozen

from fluxloop.config.convert import Path as KeyPath
from fluxloop.config.convert import shown, structure_as
from fluxloop.config.document import Document, read_document
from fluxloop.config.model import Count, PositiveInt, Seconds
from fluxloop.exceptions import ConfigError, Problem
from fluxloop.generating.material import Source, as_written, source_from
from fluxloop.inputs.entry import EntryError
from fluxloop.tracing.secret_names import is_secret_name

DEFAULT_CONFIG = Path("configs/input.yaml")
BASE = "base"
"""The strategy that takes the base inputs as they are."""
STRATEGIES = {
    "deterministic": (BASE, "error_prone", "surface", "persona"),
    "llm": (BASE, "rephrase", "verbose", "concise", "error_prone", "adversarial"),
}


@frozen(kw_only=True)
class Persona:
    """Somebody who asks."""

    name: str
    description: str | None = None
    """Who they are."""
    goals: tuple[str, ...] = ()
    """What they want; a single text does."""
    knowledge: tuple[str, ...] = ()
    """What they know, likewise."""


@frozen(kw_only=True)
class GenerationSettings:
    """How inputs are made."""

    mode: Literal["deterministic", "llm"] = "deterministic"
    """By rule and offline, or by a model."""
    strategies: tuple[str, ...] = ()
    """All of the mode by default."""
    limit: PositiveInt = field(default=PositiveInt(100))
    """How many inputs are wanted in all."""
    seed: int | None = None
    """By default it follows from the output's name without suffix, so that batches differ."""
    greetings: tuple[str, ...] = ("Hi!", "Hello!", "Hey!", "Good morning.", "Hi there!")
    """What `surface` puts before a text."""
    politeness: tuple[str, ...] = ("Please.", "Thanks!", "Thank you.", "Thanks in advance.", "Please help.")
    """What `surface` puts after a text."""
    model: str = "gpt-4o-mini"
    """Which one writes."""
    base_url: str | None = None
    """Of any OpenAI-compatible service."""
    api_key: str | None = None
    """As `${NAME}`; OPENAI_API_KEY by default."""
    args: dict[str, Any] = Factory(dict)
    """Further arguments of each call, as `{temperature: 1.2}`."""
    parallel: PositiveInt = field(default=PositiveInt(8))
    """Calls of the model in flight at a time."""
    timeout_seconds: Seconds = field(default=Seconds(60.0))
    """What a call may take; 0 for any time."""
    max_retries: Count = field(default=Count(5))
    """Further attempts of a call after an error that may pass."""
    retry_delay_seconds: Seconds = field(default=Seconds(1.0))
    """Before the first retry; doubled for each further one, to a minute at most, and spread by chance."""


@frozen(kw_only=True)
class GenerationConfig:
    """A whole `configs/input.yaml`."""

    personas: tuple[Persona, ...] = ()
    """Who asks."""
    base_inputs: tuple[Any, ...] = ()
    """Texts, or mappings as in a file of inputs."""
    input_generation: GenerationSettings = GenerationSettings()


@frozen(kw_only=True)
class Material:
    """A configuration, checked, and its base inputs."""

    config: GenerationConfig
    sources: tuple[Source, ...]
    root: Path
    """The project root, below which the output goes by default."""
    name: str
    """The configuration's, for messages."""


def load_material(source: Path | Mapping[str, Any], *, overrides: Mapping[str, Any]) -> Material:
    """Read and check what inputs are made of.

    Args:
        source: a file, or its content as plain data.
        overrides: values below `input_generation` that go before its own.

    Raises:
        ConfigError: with every problem found.
    """
    document = _read(source) if isinstance(source, Path) else None
    data: Any = source if document is None else document.data
    if not isinstance(data, Mapping):
        raise ConfigError([Problem("configuration", f"expected a file or a mapping, got {shown(data)}")])
    name = str(source) if isinstance(source, Path) else "configuration"
    data, overridden = _overridden(_with_lists(data), overrides)
    config, faults = structure_as(GenerationConfig, data)
    sources: tuple[Source, ...] = ()
    if config is not None:
        faults = list(_strategy_faults(config.input_generation))
        faults += _repeated(("personas", index, "name", one.name) for index, one in enumerate(config.personas))
        faults += _half_characters(config.personas)
        sources, found = _sources(config.base_inputs)
        faults += found
    if document is not None:
        faults.sort(key=lambda fault: document.position(fault[0]))
    problems = [_problem(path, message, name, document, overridden) for path, message in faults]
    if problems or config is None:
        raise ConfigError(problems)
    return Material(config=config, sources=sources, root=root_of(source), name=name)


def _read(path: Path) -> Document:
    if not path.exists():
        raise ConfigError([Problem(str(path), "no such file; it holds base_inputs and personas; see --config")])
    return read_document(path, needs="base_inputs:")


def root_of(source: Path | Mapping[str, Any]) -> Path:
    """Return the project root: the folder that holds `configs`, else the file's own, else where we are."""
    if not isinstance(source, Path):
        return Path.cwd()
    folder = source.resolve().parent
    return folder.parent if folder.name == "configs" else folder


def _with_lists(data: Mapping[str, Any]) -> dict[str, Any]:
    """A goal or a piece of knowledge that stands alone is a list of one."""
    result = {str(key): value for key, value in data.items()}
    if isinstance(personas := result.get("personas"), list | tuple):
        result["personas"] = [_with_listed(one) for one in personas]
    return result


def _with_listed(persona: Any) -> Any:
    if persona is None:
        return {}
    if not isinstance(persona, Mapping):
        return persona
    lists = ("goals", "knowledge")
    return {key: [value] if key in lists and isinstance(value, str) else value for key, value in persona.items()}


def _overridden(data: dict[str, Any], overrides: Mapping[str, Any]) -> tuple[dict[str, Any], set[KeyPath]]:
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in overrides.items()}
    given = {key: value for key, value in given.items() if value not in (None, [])}
    section = data.get("input_generation") or {}
    if not given or not isinstance(section, Mapping):
        return data, set()
    return {**data, "input_generation": {**section, **given}}, {("input_generation", key) for key in given}


def _strategy_faults(settings: GenerationSettings) -> list[tuple[KeyPath, str]]:
    faults: list[tuple[KeyPath, str]] = []
    known = STRATEGIES[settings.mode]
    for index, name in enumerate(settings.strategies):
        if name not in known:
            other = next((mode for mode, names in STRATEGIES.items() if name in names), None)
            hint = f"; it is one of --mode {other}" if other else ""
            what = f"expected one of {', '.join(known)} in mode {settings.mode}, got {shown(name)}{hint}"
            faults.append((("input_generation", "strategies", index), what))
    return faults


def _repeated(values: Any) -> list[tuple[KeyPath, str]]:
    """Faults of the values, each the last of a path, that stand there a second time."""
    seen: dict[Any, KeyPath] = {}
    faults: list[tuple[KeyPath, str]] = []
    for *path, value in values:
        if value in seen:
            first = ".".join(str(part) for part in seen[value])
            faults.append((tuple(path), f"the same as {first}; expected each once"))
        seen.setdefault(value, tuple(path))
    return faults


_HALF = "holds half a character (a lone surrogate), which no file of inputs can"


def _half_characters(personas: Sequence[Persona]) -> Iterator[tuple[KeyPath, str]]:
    for index, persona in enumerate(personas):
        try:
            msgspec.json.encode(persona)
        except UnicodeEncodeError:
            yield ("personas", index), _HALF


def _sources(entries: Sequence[Any]) -> tuple[tuple[Source, ...], list[tuple[KeyPath, str]]]:
    if not entries:
        return (), [(("base_inputs",), "expected at least one input to start from")]
    sources: list[Source] = []
    faults: list[tuple[KeyPath, str]] = []
    keys = []
    for index, entry in enumerate(entries):
        path = ("base_inputs", index)
        try:
            source = source_from(entry, index)
            msgspec.json.encode(as_written(source))
        except EntryError as error:
            said, hint, _ = str(error).partition("; name the one to use with --map")
            faults.append((path, said + ("; write it under input:" if hint else "")))
        except UnicodeEncodeError:
            faults.append((path, _HALF))
        except TypeError:
            faults.append((path, "expected plain data, as a file holds it"))
        else:
            sources.append(source)
            keys.append((*path, msgspec.json.encode((source.input, source.persona))))
    ids = [("base_inputs", source.index, "id", source.id) for source in sources]
    return tuple(sources), faults + _repeated(ids) + _repeated(keys)


def _problem(path: KeyPath, message: str, name: str, document: Document | None, overridden: set[KeyPath]) -> Problem:
    key = ".".join(str(part) for part in path) or None
    if any(is_secret_name(str(part)) for part in path):
        message = message.partition(", got ")[0]
    if path[:2] in overridden:
        return Problem(f"--{str(path[1]).replace('strategies', 'strategy').replace('_', '-')}", message)
    if document is None:
        return Problem(name, message, key)
    return Problem(document.where(path, key=message.startswith("unknown key")), message, key)
