"""The JSON Schema of a configuration, read off the classes it is structured as.

Its limits are those of `convert`, as far as a schema can tell them: what it cannot is in the test
that holds the two together.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from fluxloop.config.convert import MOST, MOST_CPUS, is_section
from fluxloop.config.model import (
    Choice,
    Count,
    Cpus,
    Duration,
    ExperimentConfig,
    Failures,
    Mode,
    Name,
    Pattern,
    PositiveInt,
    Rate,
    Seconds,
    ShardText,
    Share,
    SinkConfig,
)

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_LARGEST = 2**63 - 1
_SHARE = r"(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?) *%"
_PART = r"(0?\.[0-9]+|0|1(\.0+)?)"
_SOME = "(?=.*[1-9])"  # more than nothing
_TIME = r"(([0-9]+(\.[0-9]+)?) *h)? *(([0-9]+(\.[0-9]+)?) *m)? *(([0-9]+(\.[0-9]+)?) *s)?|[0-9]+(\.[0-9]+)?"
_UNITS = "s|sec|second|min|m|minute|h|hour"

# Patterns are in what Python and JavaScript read alike.
SHAPES: dict[Any, Schema] = {
    Any: {},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -_LARGEST, "maximum": _LARGEST},
    PositiveInt: {"type": "integer", "minimum": 1, "maximum": MOST},
    Count: {"type": "integer", "minimum": 0, "maximum": _LARGEST},
    Seconds: {"type": "number", "minimum": 0, "maximum": 1e9},
    Cpus: {"type": "number", "minimum": 0, "maximum": MOST_CPUS},
    Share: {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string", "pattern": f"^ *({_SHARE}|{_PART}) *$"},
        ],
        "examples": [0.95, "95%"],
    },
    Duration: {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9},
            {"type": "string", "pattern": f"^{_SOME} *({_TIME}) *$"},
        ],
        "examples": ["90s", "30m", "1h30m"],
    },
    Failures: {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            {"type": "string", "pattern": f"^{_SOME} *({_SHARE}|[1-9][0-9]*|{_PART}) *$"},
        ],
        "examples": [10, "10%"],
    },
    Rate: {
        "type": "string",
        "pattern": rf"^{_SOME} *[0-9]+(\.[0-9]+)? */ *({_UNITS}) *$",
        "examples": ["60/min", "5/s", "1000/h"],
    },
    ShardText: {"type": "string", "pattern": "^[1-9][0-9]*/[1-9][0-9]*$", "maxLength": 80, "examples": ["2/8"]},
    Mode: {"type": "string", "pattern": "^0?6[046][046]$", "examples": ["0600", "0640", "0644"]},
    Pattern: {"type": "string"},  # Python's own regular expressions, which an editor would misread
    Name: {
        "type": "string",
        "pattern": r"^(?!\.{1,2}$)(?=.*\S)[^\u0000-\u001f\u007f-\u009f/\\]*$",
        "maxLength": 200,
    },
}
"""What each type takes in a file."""

_REFERENCE: Schema = {
    "type": "string",
    "pattern": r"(^|[^$])\$\{[A-Za-z_][A-Za-z0-9_]*\}",
    "description": "Read from the environment, as `${NAME}`.",
}


def json_schema(
    kind: type[Any] = ExperimentConfig, *, title: str = "A fluxloop configuration", references: bool = True
) -> Schema:
    """Return the JSON Schema (2020-12) of a class of configurations, strict and with a word on each key.

    Args:
        kind: an attrs class.
        title: what it describes.
        references: whether any value may be `${NAME}`.

    Example:
        >>> json_schema()["properties"]["fail_under"]["description"]
        'The least pass rate for exit code 0, as `0.95` or `95%`.'
    """
    shared = {"$defs": {"reference": _REFERENCE}} if references else {}
    return {"$schema": DIALECT, "title": title, **shared, **_class(kind, references)}


def shape_of(kind: Any, references: bool) -> Schema:
    """Return the schema of a type's values."""
    if kind is SinkConfig:
        return {"anyOf": [shape_of(str, references), _class(SinkConfig, references)]}
    if kind is Choice:
        picked = {"target": shape_of(str, references), "iteration": shape_of(Count, references)}
        by_key = {"type": "object", "properties": picked, "additionalProperties": False, "minProperties": 1}
        return _or_reference({"anyOf": [{"enum": ["last", "first", "all"]}, by_key]}, references)
    if kind in SHAPES:
        return _or_reference(SHAPES[kind], references)
    if isinstance(kind, type) and attrs.has(kind):
        return _class(kind, references)
    origin, of = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _or_reference({"enum": list(of)}, references)
    if origin is tuple:
        return {"type": ["array", "null"], "items": shape_of(of[0], references)}
    if origin is dict:
        return {"type": ["object", "null"], **_entries(of[0], of[1], references)}
    if origin in (Union, types.UnionType):
        (inner,) = (one for one in of if one is not type(None))
        return _or_null(shape_of(inner, references))
    raise TypeError(f"no schema for {kind!r}; add it to SHAPES")


def _class(kind: type[Any], references: bool) -> Schema:
    hints = get_type_hints(kind)
    told = docs_of(kind)
    properties: dict[str, Schema] = {}
    required = []
    for field in attrs.fields(kind):
        of = hints[field.name]
        has_keys = is_section(field)
        shape = shape_of(of, references)
        shape = _or_null(shape) if has_keys else dict(shape)  # all its keys may be commented out
        if said := inspect.getdoc(of) if has_keys else told.get(field.name):
            shape["description"] = said
        if field.default is attrs.NOTHING:
            required.append(field.name)
        elif not has_keys:
            shape["default"] = default_of(field)
        properties[field.name] = shape
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def default_of(field: attrs.Attribute[Any]) -> Any:
    """Return a key's default as plain data."""
    default: Any = field.default
    made = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
    return list(made) if isinstance(made, tuple) else made


def docs_of(kind: type[Any]) -> Mapping[str, str]:
    """Return what stands under the keys of a class, which Python itself does not keep."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:  # installed without its source
        return {}
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for key, told in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)):
            continue
        if isinstance(told, ast.Expr) and isinstance(told.value, ast.Constant) and isinstance(told.value.value, str):
            found[key.target.id] = " ".join(told.value.value.split())
    return found


def _entries(keys: Any, values: Any, references: bool) -> Schema:
    known = get_args(keys)
    if not known:
        return {"additionalProperties": shape_of(values, references)}
    return {"properties": {key: shape_of(values, references) for key in known}, "additionalProperties": False}


def _or_null(shape: Schema) -> Schema:
    if shape == SHAPES[Any]:
        return shape
    if isinstance(shape.get("type"), str):
        return {**shape, "type": [shape["type"], "null"]}
    wide = _alternatives(shape)
    return {**wide, "anyOf": [*wide["anyOf"], {"type": "null"}]}


def _or_reference(shape: Schema, references: bool) -> Schema:
    """A value may be a reference to the environment, unless it is any text anyhow."""
    if not references or shape in (SHAPES[Any], SHAPES[str]):
        return shape
    wide = _alternatives(shape)
    return {**wide, "anyOf": [*wide["anyOf"], {"$ref": "#/$defs/reference"}]}


def _alternatives(shape: Schema) -> Schema:
    """The shape as one of some, to which more can be added; examples are of them all."""
    if "anyOf" in shape:
        return shape
    examples = {"examples": shape["examples"]} if "examples" in shape else {}
    return {"anyOf": [{key: value for key, value in shape.items() if key != "examples"}], **examples}
