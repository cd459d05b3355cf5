"""The JSON Schemas of the configuration files of a project."""

from __future__ import annotations

import json

from fluxloop.config.schema import Schema, json_schema
from fluxloop.generating.settings import STRATEGIES, GenerationConfig
from fluxloop.inputs.entry import FIELDS

FILES = {"simulation": "configs/simulation.schema.json", "input": "configs/input.schema.json"}
"""Where each stands in a project, beside the file it is of."""


def schema_of(name: str) -> Schema:
    """Return the schema of `simulation` or `input`."""
    if name == "simulation":
        return json_schema(title="What fluxloop run experiment reads")
    schema = json_schema(GenerationConfig, title="What fluxloop generate inputs reads", references=False)
    persona = schema["properties"]["personas"]["items"]["properties"]
    for key in ("goals", "knowledge"):
        persona[key] = {**persona[key], "type": ["array", "string", "null"]}
    strategies = schema["properties"]["input_generation"]["properties"]["strategies"]
    strategies["items"] = {"enum": list(dict.fromkeys(name for names in STRATEGIES.values() for name in names))}
    inputs = schema["properties"]["base_inputs"]
    schema["properties"]["base_inputs"] = {**inputs, "type": "array", "minItems": 1, "items": _entry()}
    return {**schema, "required": ["base_inputs"]}


def schema_text(name: str) -> str:
    """Return the schema as a file holds it."""
    return json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


def _entry() -> Schema:
    name = {"type": ["string", "integer", "null"], "pattern": r"\S"}
    shapes: dict[str, Schema] = {
        "id": name,
        "source_id": name,
        "persona": {"type": ["string", "null"]},
        "metadata": {"type": ["object", "null"]},
    }
    properties = {field: shapes.get(field, {}) for field in FIELDS}
    mapping = {"type": "object", "properties": properties, "required": ["input"]}
    return {"anyOf": [{"type": "string"}, mapping]}
