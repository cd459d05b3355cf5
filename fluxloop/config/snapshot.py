"""`config.yaml`: the configuration as it was resolved, enough to run again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fluxloop.config.convert import Path as KeyPath
from fluxloop.config.convert import unstructure
from fluxloop.config.load import LoadedConfig
from fluxloop.config.model import ExperimentConfig
from fluxloop.tracing.redaction import MASK, is_secret_name


def snapshot(loaded: LoadedConfig, config: ExperimentConfig) -> dict[str, Any]:
    """Return the configuration as plain data that can be run again from anywhere.

    Paths are absolute, references to the environment stay references, and a literal under a
    key that sounds secret is masked.

    Args:
        loaded: tells the references and the project root.
        config: what was run, with the name, seed and target that were chosen.
    """
    data = unstructure(config)
    runner = data["runner"]
    runner["working_directory"] = _absolute(loaded.root, runner["working_directory"])
    runner["python_path"] = [str(loaded.root), *(_absolute(loaded.root, path) for path in runner["python_path"])]
    data["inputs"]["file"] = _absolute(loaded.root, data["inputs"]["file"])
    data["output"]["directory"] = _absolute(loaded.root, data["output"]["directory"])
    masked: dict[str, Any] = _tell(data, (), loaded.references, False)
    return masked


def to_yaml(data: dict[str, Any]) -> bytes:
    """Return plain data as YAML text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    text = io.BytesIO()
    yaml.dump(data, text)
    return text.getvalue()


def _absolute(root: Path, path: str | None) -> str | None:
    return None if path is None else str(root / path)


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
    return MASK if secret and value not in (None, "") else value
