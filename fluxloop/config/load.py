"""Default < file < environment < caller: one configuration, and where each value came from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from fluxloop.config.convert import Given, parse_scalar, shown, structure
from fluxloop.config.convert import Path as KeyPath
from fluxloop.config.document import Document, read_document
from fluxloop.config.model import ExperimentConfig
from fluxloop.exceptions import ConfigError, Problem
from fluxloop.tracing.redaction import MASK, secret_texts
from fluxloop.tracing.secret_forms import tells_password
from fluxloop.tracing.secret_names import secrecy

DEFAULT_CONFIG = Path("configs/simulation.yaml")

_REFERENCE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")  # `$${NAME}` stands for the text `${NAME}`
_VARIABLE = re.compile(r"FLUXLOOP_([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)__(.+)")
_ARGUMENTS = (("runner", "args"), ("replay_args", "values"))


@frozen(kw_only=True)
class LoadedConfig:
    """A configuration with what is needed to tell it again."""

    config: ExperimentConfig
    root: Path
    """The project root, which the configuration's paths are relative to."""
    path: Path | None
    references: dict[KeyPath, str] = field(factory=dict)
    """Texts with `${NAME}` as they were written, by their place."""
    document: Document | None = field(default=None, repr=False)
    """The file as it was read."""
    given: dict[str, Any] = field(factory=dict, repr=False)
    """What stood in the place of defaults, from wherever it came, as it was written."""
    applied: dict[KeyPath, str] = field(factory=dict)
    """What went before the file, by its place: an environment variable, `--set`, or the caller's own word."""


@frozen(kw_only=True)
class Override:
    """A value that goes before the file's."""

    path: KeyPath
    value: Any
    source: str
    """What a message calls it: an option, or an environment variable."""


def default_config(*, optional: bool) -> Path | None:
    """Return `configs/simulation.yaml`, or None when it is optional and not there."""
    return None if optional and not DEFAULT_CONFIG.exists() else DEFAULT_CONFIG


def load_config(
    source: Path | Mapping[str, Any] | None,
    *,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """Load, override and validate a configuration.

    Args:
        source: a file, its content as plain data, or None for the defaults.
        settings: texts `key=value`, read as YAML where the key takes more than text.
        overrides: values by dotted key, which go before everything else.
        environment: `os.environ` by default; `FLUXLOOP_RUNNER__ITERATIONS=3` sets
            `runner.iterations`, and `${NAME}` in a value reads `NAME`.

    Raises:
        ConfigError: with every problem found.
    """
    if not isinstance(source, Path | Mapping | None):
        hint = f"; did you mean Experiment(target={getattr(source, '__name__', '…')})?" if callable(source) else ""
        raise ConfigError([Problem("configuration", f"expected a file or a mapping, got {shown(source)}{hint}")])
    environment = os.environ if environment is None else environment
    document = read_document(source) if isinstance(source, Path) else None
    given: Any = document.data if document else {} if source is None else source
    data = _copied(given)
    problems: list[Problem] = []
    applied: dict[KeyPath, str] = {}
    for override in (
        *_from_environment(environment),
        *_from_settings(settings, problems),
        *_from_caller(overrides or {}),
    ):
        _apply(data, override, applied, problems)
    resolving = _Resolving(environment, applied)
    config, faults = structure(resolving.value(data, ()))
    faults = [*resolving.faults, *(fault for fault in faults if fault[0] not in resolving.failed)]
    if document is not None:
        faults.sort(key=lambda fault: document.position(fault[0]))
    problems += [_problem(path, message, document, applied) for path, message in faults]
    if problems or config is None:
        raise ConfigError(problems)
    path = source if isinstance(source, Path) else None
    return LoadedConfig(
        config=config,
        root=project_root(path),
        path=path,
        references=resolving.references,
        document=document,
        given=data,
        applied=applied,
    )


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def project_root(path: Path | None) -> Path:
    """Return the folder that a configuration's paths are relative to."""
    if path is None:
        return Path.cwd()
    folder = path.resolve().parent
    return folder.parent if folder.name == "configs" else folder


class _Resolving:
    """Put the environment's values in the place of `${NAME}`, where no override stands."""

    def __init__(self, environment: Mapping[str, str], applied: Mapping[KeyPath, str]) -> None:
        self._environment = environment
        self._applied = applied
        self.references: dict[KeyPath, str] = {}
        self.faults: list[tuple[KeyPath, str]] = []

    @property
    def failed(self) -> set[KeyPath]:
        return {path for path, _ in self.faults}

    def value(self, value: Any, path: KeyPath) -> Any:
        if path in self._applied:
            return value
        if isinstance(value, dict):
            return {key: self.value(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        if value == MASK:
            self.faults.append((path, "masked when this file was written; give it again with --set, or as ${NAME}"))
        if not isinstance(value, str) or "${" not in value:
            return value
        return self._text(value, path)

    def _text(self, text: str, path: KeyPath) -> Any:
        names = [name for dollar, name in _REFERENCE.findall(text) if not dollar]
        resolved, missing = expand(text, self._environment)
        for name in missing:
            message = f"the environment variable {name} is not set; set it, or write the value here"
            self.faults.append((path, message))
        if missing:
            return text
        if names:
            self.references[path] = text
        # Among the agent's arguments a reference stays text (an id may look like a number); elsewhere its key decides.
        return Given(resolved) if names and path[:2] not in _ARGUMENTS else resolved


def expand(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Put the environment's values in the place of `${NAME}`; return the names that are not set as well."""
    missing: dict[str, None] = {}

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]
        if match[2] not in environment:
            missing[match[2]] = None
            return match[0]
        return environment[match[2]]

    return _REFERENCE.sub(value, text), list(missing)


def _from_environment(environment: Mapping[str, str]) -> list[Override]:
    found = []
    for name in sorted(environment):
        if match := _VARIABLE.fullmatch(name):
            path = (match[1].lower(), *match[2].lower().split("__"))
            found.append(Override(path=path, value=_given(environment[name]), source=f"environment variable {name}"))
    return found


def _from_settings(settings: Sequence[str], problems: list[Problem]) -> list[Override]:
    found = []
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            problems.append(Problem("--set", f"expected key=value, got {shown(setting)}"))
            continue
        path = tuple(key.strip().split("."))
        told = f"{key}=…" if any(map(secrecy, path)) or tells_password(text) else setting
        found.append(Override(path=path, value=_given(text), source=f"--set {told}"))
    return found


def _from_caller(overrides: Mapping[str, Any]) -> list[Override]:
    return [
        Override(
            path=tuple(key.split(".")),
            value=_copied(value),
            source=_told_override(key, value),
        )
        for key, value in overrides.items()
    ]


def _told_override(key: str, value: Any) -> str:
    if any(map(secrecy, key.split("."))) or list(secret_texts(_copied(value))) or tells_password(repr(value)):
        return f"{key}=…"
    return f"{key}={value!r}" if len(repr(value)) < 80 else key


def _given(text: str) -> Any:
    """A text whose key decides its type; lists and mappings are clear by themselves."""
    parsed = parse_scalar(text)
    return parsed if isinstance(parsed, dict | list) else Given(text)


def _apply(
    data: dict[str, Any],
    override: Override,
    applied: dict[KeyPath, str],
    problems: list[Problem],
) -> None:
    place = data
    for depth, key in enumerate(override.path[:-1], 1):
        below = place.setdefault(str(key), {})
        if below is None:
            below = place[str(key)] = {}
        if not isinstance(below, dict):
            above = ".".join(map(str, override.path[:depth]))
            problems.append(Problem(override.source, f"{above} is not a mapping"))
            return
        place = below
    place[str(override.path[-1])] = override.value
    for path in [path for path in applied if path[: len(override.path)] == override.path]:
        del applied[path]  # what it said is gone
    applied[override.path] = override.source


def _problem(path: KeyPath, message: str, document: Document | None, applied: Mapping[KeyPath, str]) -> Problem:
    key = ".".join(str(part) for part in path) or None

    def overridden(source: str) -> Problem:
        return Problem(source, message, None if f"{key}=" in source or source == key else key)

    for length in range(len(path), 0, -1):
        if path[:length] in applied:
            return overridden(applied[path[:length]])
    below = next((source for place, source in applied.items() if place[: len(path)] == path), None)
    if below and (document is None or path not in document.marks):
        return overridden(below)
    if document is None:
        return Problem("configuration", message, key)
    return Problem(document.where(path, key=message.startswith("unknown key")), message, key)
