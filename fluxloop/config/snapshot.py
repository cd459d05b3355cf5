"""`config.yaml`: the configuration as it was resolved, enough to run again."""

from __future__ import annotations

import io
import os
import re
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fluxloop.config.convert import Path as KeyPath
from fluxloop.config.convert import unstructure
from fluxloop.config.load import LoadedConfig
from fluxloop.config.model import ExperimentConfig
from fluxloop.tracing.capture import capture
from fluxloop.tracing.redaction import MASK, NOTHING, Redaction, secrets_by_key
from fluxloop.tracing.secret_forms import looks_secret, tells_password
from fluxloop.tracing.secret_names import Secrecy, secrecy

_LITERAL = re.compile(r"\$\{(?=[A-Za-z_][A-Za-z0-9_]*\})")


_FREE = (
    *(("runner", "args"), ("runner", "input_template"), ("replay_args", "values"), ("output", "sinks")),
    *(("description",), ("tags",)),
)
"""What is any text; patterns would take paths and names away elsewhere."""


def redaction_for(config: ExperimentConfig) -> Redaction:
    """Return what a configuration wants masked: its own secrets, the environment's, and its patterns."""
    output = config.output
    secrets = dict(secrets_by_key(capture(unstructure(config))))
    return Redaction(enabled=output.redact, patterns=output.redact_patterns, secrets=secrets)


def snapshot(loaded: LoadedConfig, config: ExperimentConfig, redaction: Redaction = NOTHING) -> dict[str, Any]:
    """Return the configuration as plain data that can be run again from anywhere.

    Paths are absolute, references to the environment stay references, a literal under a key
    that sounds secret is masked, and so is a text with a secret in it, for example a URL with a
    password, as a whole: loading it again asks for it.

    Args:
        loaded: tells the references and the project root.
        config: what was run, with the name, seed and target that were chosen.
        redaction: what is masked beside literals under such keys.
    """
    data = told(loaded, config, redaction)
    runner = data["runner"]
    runner["working_directory"] = _absolute(
        loaded.root, config.runner.working_directory or os.getcwd(), runner["working_directory"] or os.getcwd()
    )
    extra = zip(config.runner.python_path, runner["python_path"], strict=True)
    runner["python_path"] = [str(loaded.root), *(_absolute(loaded.root, *path) for path in extra)]
    data["inputs"]["file"] = _absolute(loaded.root, config.inputs.file, data["inputs"]["file"])
    replay = data["replay_args"]
    replay["recording_file"] = _absolute(loaded.root, config.replay_args.recording_file, replay["recording_file"])
    data["output"]["directory"] = _absolute(loaded.root, config.output.directory, data["output"]["directory"])
    return data


def told(loaded: LoadedConfig, config: ExperimentConfig, redaction: Redaction) -> dict[str, Any]:
    """Return the configuration as plain data, with references as they were written and secrets masked."""
    data: dict[str, Any] = _Telling(loaded.references, redaction).value(unstructure(config), (), Secrecy.NONE)
    return data


def to_yaml(data: dict[str, Any]) -> bytes:
    """Return plain data as YAML text."""
    text = _dumped(data, allow_unicode=True)
    # ruamel writes this line end of Unicode's as it is, and reads it back as another.
    return _dumped(data, allow_unicode=False) if "\x85".encode() in text else text


def _dumped(data: dict[str, Any], *, allow_unicode: bool) -> bytes:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = allow_unicode
    yaml.width = 2**31  # ruamel folds a long text with escapes so that it reads back with one space more
    text = io.BytesIO()
    yaml.dump(data, text)
    return text.getvalue()


def _absolute(root: Path, path: str | None, told: str | None) -> str | None:
    """Make what is told of a path absolute, be it the path or the reference it came from."""
    if path is None or told is None or told == MASK or Path(path).is_absolute():
        return told
    return str(root / told)


class _Telling:
    """Plain data of a configuration as the file has it."""

    def __init__(self, references: dict[KeyPath, str], redaction: Redaction) -> None:
        self._references = references
        self._redaction = redaction

    def value(self, value: Any, path: KeyPath, said: Secrecy) -> Any:
        if path in self._references:
            return self._text(self._references[path], path)
        if isinstance(value, dict):
            return {
                self._redaction.text(str(key)): self.value(
                    item, (*path, key), said if said is Secrecy.ALL else secrecy(str(key))
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item, (*path, index), said) for index, item in enumerate(value)]
        if said is Secrecy.ALL and value is not None and value != "" and not isinstance(value, bool):
            return MASK
        if isinstance(value, str):
            if tells_password(value) or (said and looks_secret(value)):
                return MASK
            text = capture(value)
            return MASK if self._text(text, path) == MASK else _LITERAL.sub("$${", text)
        # YAML tells these; what else an argument of Python's may be becomes plain data.
        return value if isinstance(value, float | date | bytes) else capture(value, self._redaction)

    def _text(self, text: str, path: KeyPath) -> str:
        if any(path[: len(free)] == free for free in _FREE):
            return text if self._redaction.text(text) == text else MASK
        return MASK if self._redaction.holds(text) else text
