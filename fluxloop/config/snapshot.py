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
from fluxloop.tracing.redaction import MASK, is_secret_name

_LITERAL = re.compile(r"\$\{(?=[A-Za-z_][A-Za-z0-9_]*\})")


def snapshot(loaded: LoadedConfig, config: ExperimentConfig) -> dict[str, Any]:
    """Return the configuration as plain data that can be run again from anywhere.

    Paths are absolute, references to the environment stay references, and a literal under a
    key that sounds secret is masked.

    Args:
        loaded: tells the references and the project root.
        config: what was run, with the name, seed and target that were chosen.
    """
    data: dict[str, Any] = _tell(unstructure(config), (), loaded.references, False)
    runner = data["runner"]
    runner["working_directory"] = _absolute(
        loaded.root, config.runner.working_directory or os.getcwd(), runner["working_directory"] or os.getcwd()
    )
    extra = zip(config.runner.python_path, runner["python_path"], strict=True)
    runner["python_path"] = [str(loaded.root), *(_absolute(loaded.root, *path) for path in extra)]
    data["inputs"]["file"] = _absolute(loaded.root, config.inputs.file, data["inputs"]["file"])
    data["output"]["directory"] = _absolute(loaded.root, config.output.directory, data["output"]["directory"])
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
    text = io.BytesIO()
    yaml.dump(data, text)
    return text.getvalue()


def _absolute(root: Path, path: str | None, told: str | None) -> str | None:
    """Make what is told of a path absolute, be it the path or the reference it came from."""
    if path is None or told is None or Path(path).is_absolute():
        return told
    return str(root / told)


def _tell(value: Any, path: KeyPath, references: dict[KeyPath, str], secret: bool) -> Any:
    if path in references:
        return references[path]
    if isinstance(value, dict):
        return {
            key: _tell(item, (*path, key), references, secret or is_secret_name(str(key)))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_tell(item, (*path, index), references, secret) for index, item in enumerate(value)]
    if secret and value is not None and value != "" and not isinstance(value, bool):
        return MASK
    if isinstance(value, str):
        return _LITERAL.sub("$${", capture(value))
    # YAML tells these; what else an argument of Python's may be becomes plain data.
    return value if isinstance(value, float | date | bytes) else capture(value)
