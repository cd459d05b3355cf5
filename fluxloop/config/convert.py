"""Plain data → ExperimentConfig, strictly, with every fault found at its place.

cattrs alone would take `"10"` for 10, `true` for 1 and `"abc"` for a list of letters.
"""

from __future__ import annotations

import difflib
import operator
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

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
from fluxloop.pace import spacing
from fluxloop.plan import Shard
from fluxloop.store.layout import name_problem
from fluxloop.tracing.redaction import without_secrets

T = TypeVar("T")

Path = tuple[str | int, ...]
"""Keys and positions from the top."""


class Given(str):
    """A text from the environment or the command line, which has no type of its own yet."""


def lifts(value: Any) -> bool:
    """Tell whether a text lifts a value where it has no type of its own yet: `null` or `none`."""
    return isinstance(value, str) and value.strip().lower() in ("null", "none")


def is_null(value: Any) -> bool:
    """Tell whether plain data stands for no value."""
    return value is None or (isinstance(value, Given) and lifts(value))


def given_text(value: Any) -> Any:
    """Return what an argument gives; a text that lifts has no type of its own yet, the rest are values."""
    return Given(value) if lifts(value) else value


class InvalidError(Exception):
    """A value is not what its key takes."""


def structure(data: Mapping[str, Any]) -> tuple[ExperimentConfig | None, list[tuple[Path, str]]]:
    """Return the configuration, or None and what is wrong with the data, each with its path."""
    return structure_as(ExperimentConfig, data)


def structure_as(kind: type[T], data: Mapping[str, Any]) -> tuple[T | None, list[tuple[Path, str]]]:
    """Return the data as a class of configurations, as `structure` does."""
    try:
        return _converter.structure(data, kind), []
    except Exception as error:
        return None, list(_faults(error, ()))


def unstructure(config: ExperimentConfig) -> dict[str, Any]:
    """Return the configuration as plain data."""
    plain: dict[str, Any] = _converter.unstructure(config)
    return plain


def parse_scalar(text: str) -> Any:
    """Return what the text means in YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, LookupError, RecursionError):
        return text


def _faults(error: BaseException, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(error, ClassValidationError):
        for inner in error.exceptions:
            yield from _faults(inner, path + _step(inner, AttributeValidationNote))
    elif isinstance(error, IterableValidationError):
        for inner in error.exceptions:
            yield from _faults(inner, path + _step(inner, IterableValidationNote))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        for key in sorted(error.extra_fields):
            yield (*path, key), f"unknown key; {_hint(key, known, path, error.cl)}"
    elif isinstance(error, KeyError):
        yield path, f"expected the key {error.args[0]!r}"
    else:
        yield path, str(error)


# Keys of the earlier fluxloop, and of what a later version brings.
_ELSEWHERE = {
    "module_path": "it is part of runner.target now, as module:function",
    "function_name": "it is part of runner.target now, as module:function",
    "inputs_file": "it is inputs.file now",
    "base_inputs": "write them to a file and name it in inputs.file",
    "output_directory": "it is output.directory now",
}


def _hint(key: str, known: Sequence[str], path: Path = (), of: type[Any] | None = None) -> str:
    if key in _ELSEWHERE:
        return _ELSEWHERE[key]
    if of is not None and (section := _section_of(key, of)):
        return f"it belongs below {'.'.join(map(str, (*path, *section)))}:"
    close = difflib.get_close_matches(key, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def _section_of(key: str, of: type[Any]) -> Path:
    """Return the path from a class to the section below it that has the key."""
    for field in filter(is_section, attrs.fields(of)):
        below = type(field.default)
        if key in attrs.fields_dict(below):
            return (field.name,)
        if path := _section_of(key, below):
            return (field.name, *path)
    return ()


def is_section(field: attrs.Attribute[Any]) -> bool:
    """Tell whether a key has keys of its own."""
    return attrs.has(type(field.default))


def _step(error: BaseException, note: type[Any]) -> Path:
    for candidate in getattr(error, "__notes__", ()):
        if isinstance(candidate, AttributeValidationNote) and note is AttributeValidationNote:
            return (candidate.name,)
        if isinstance(candidate, IterableValidationNote) and note is IterableValidationNote:
            return (candidate.index,)
    return ()


def shown(value: Any) -> str:
    """Return a value as a message quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = without_secrets(repr(str(value) if isinstance(value, str) else value))  # before it is cut
    return text if len(text) <= 80 else text[:79] + "…"


def _typed(value: Any) -> Any:
    return parse_scalar(value) if isinstance(value, Given) else value


MOST = 2**31 - 1
"""Of what is counted from 1; all the runs of a plan can be counted then."""


def _integer(value: Any, _: Any) -> int:
    found = _typed(value)
    if type(found) is not int:
        raise InvalidError(f"expected an integer, got {shown(value)}")
    if abs(found) >= 2**63:
        raise InvalidError("expected an integer of at most 64 bits, got a larger one")
    return found


def _boolean(value: Any, _: Any) -> bool:
    found = _typed(value)
    if not isinstance(found, bool):
        raise InvalidError(f"expected true or false, got {shown(value)}")
    return found


def _positive(value: Any, _: Any) -> PositiveInt:
    found = _typed(value)
    if type(found) is not int or found < 1:
        raise InvalidError(f"expected an integer >= 1, got {shown(value)}")
    if found > MOST:
        raise InvalidError(f"expected an integer <= {MOST}, got {shown(value)}")
    return PositiveInt(found)


def _count(value: Any, _: Any) -> Count:
    found = _typed(value)
    if type(found) is not int or not 0 <= found < 2**63:
        raise InvalidError(f"expected an integer >= 0, got {shown(value)}")
    return Count(found)


_LONGEST = 1e9  # seconds: 30 years; the waits of threads overflow at 300


def _seconds(value: Any, _: Any) -> Seconds:
    found = _typed(value)
    if type(found) not in (int, float) or not 0 <= found <= _LONGEST:
        raise InvalidError(f"expected seconds, a number from 0 to 1e9, got {shown(value)}")
    return Seconds(float(found))


MOST_CPUS = 10_000


def _cpus(value: Any, _: Any) -> Cpus:
    found = _typed(value)
    if type(found) not in (int, float) or not 0 <= found <= MOST_CPUS:
        raise InvalidError(f"expected processors, a number from 0 to {MOST_CPUS} such as 1 or 0.5, got {shown(value)}")
    return Cpus(float(found))


_MODE = re.compile("0?6[046][046]")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def _duration(value: Any, _: Any) -> Duration:
    found = _in_seconds(_typed(value))
    if type(found) not in (int, float) or not 0 < found <= _LONGEST:
        raise InvalidError(f"expected a time such as 90s, 30m or 1h30m, got {shown(value)}")
    return Duration(float(found))


def _in_seconds(value: Any) -> Any:
    """A time such as `1h30m` as a number; what is none as it is."""
    if not isinstance(value, str) or not value.strip():
        return value
    if (number := _number(value)) is not None and "%" not in value:
        return number  # alone it is seconds; beside another it needs its unit
    parts = _DURATION.fullmatch(value.replace(" ", ""))
    if parts is None:
        return value
    hours, minutes, seconds = (float(part or 0) for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds


def _rate(value: Any, _: Any) -> Rate:
    try:
        spacing(text := _string(value, str))
    except (ValueError, InvalidError):
        raise InvalidError(f"expected a rate such as 60/min, 5/s or 1000/h, got {shown(value)}") from None
    return Rate(text)


def _shard(value: Any, _: Any) -> ShardText:
    if not isinstance(value, str) or len(value) > 80:
        raise InvalidError(f"expected a shard such as 2/8, the second of eight, got {shown(value)}")
    try:
        return ShardText(str(Shard.of(str(value))))
    except ValueError as error:
        raise InvalidError(str(error)) from None


def _failures(value: Any, _: Any) -> Failures:
    number: Any = _typed(value)
    if isinstance(number, str):  # as an option gives it: 1 is one run, 100% is all
        number = _number(number) if "%" in number else parse_scalar(number)
    if type(number) is int and number >= 1:
        return Failures(number)
    if type(number) is float and 0 < number <= 1:
        return Failures(number)
    raise InvalidError(f"expected a number of runs, as 10, or a share, as 10%, got {shown(value)}")


def _string(value: Any, _: Any) -> str:
    if not isinstance(value, str) or is_null(value):
        raise InvalidError(f"expected a text, got {shown(value)}")
    if "\0" in value:
        raise InvalidError(f"expected a text without NUL, got {shown(value)}")
    return str(value)


def _name(value: Any, _: Any) -> Name:
    problem = name_problem(text := _string(value, str))
    if problem:
        raise InvalidError(problem)
    return Name(text)


def _mode(value: Any, _: Any) -> Mode:
    text = value if isinstance(value, str) else ""
    if not _MODE.fullmatch(text):
        # In YAML 0640 without quotes is the number 640.
        raise InvalidError(f'expected permissions in octal and in quotes, as "0600" or "0640", got {shown(value)}')
    return Mode(text)


def _pattern(value: Any, _: Any) -> Pattern:
    text = _string(value, str)
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidError(f"expected a regular expression, got {shown(value)}: {error}") from None
    return Pattern(text)


def _choice(value: Any, _: Any) -> Choice:
    """Which recorded calls; of a mapping, the faults of all its keys."""
    if isinstance(value, str) and value in ("last", "first", "all"):
        return Choice(str(value))
    if not isinstance(value, Mapping) or not value:
        told = f"expected last, first, all, or a mapping of target and iteration, got {shown(value)}"
        raise InvalidError(told)
    kinds: dict[str, Any] = {"target": str, "iteration": Count}
    found, errors = {}, []
    for key, item in value.items():
        try:
            if key not in kinds:
                raise InvalidError(f"unknown key; {_hint(str(key), tuple(kinds))}")
            found[str(key)] = _converter.structure(item, kinds[key])
        except Exception as error:
            error.add_note(IterableValidationNote("", str(key), Any))
            errors.append(error)
    if errors:
        raise IterableValidationError("", errors, dict)
    return Choice(found)


def _share(value: Any, _: Any) -> Share:
    found = _typed(value)
    number: Any = _number(found) if isinstance(found, str) else found
    if type(number) not in (int, float) or not 0 <= number <= 1:
        hint = (
            f"; did you mean {found}%?"
            if type(number) in (int, float) and 1 < number <= 100 and "%" not in str(found)
            else ""
        )
        raise InvalidError(f"expected a share such as 0.95 or 95%, got {shown(value)}{hint}")
    return Share(float(number))


def _number(text: str) -> float | None:
    """A text such as `0.95` or `95%`, as an option gives it."""
    try:
        return float(text.strip()[:-1]) / 100 if text.strip().endswith("%") else float(text)
    except ValueError:
        return None


def _literal(value: Any, kind: Any) -> Any:
    allowed = get_args(kind)
    if not isinstance(value, str) or value not in allowed:
        expected = repr(allowed[0]) if len(allowed) == 1 else "one of " + ", ".join(allowed)
        raise InvalidError(f"expected {expected}, got {shown(value)}")
    return str(value)


def _anything(value: Any, _: Any) -> Any:
    """Free data: only what has no type of its own yet gets one."""
    if isinstance(value, Given):
        return parse_scalar(value)
    if isinstance(value, Mapping):
        return {key: _anything(item, None) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anything(item, None) for item in value]
    return value


def _is_attrs(kind: Any) -> bool:
    return isinstance(kind, type) and attrs.has(kind)


def _make_class(kind: Any, converter: Any) -> Any:
    inner = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)

    def structure_class(value: Any, kind: Any) -> Any:
        if is_null(value) and kind is not SinkConfig:
            return kind()  # a section whose keys are all commented out
        if not isinstance(value, Mapping):
            raise InvalidError(f"expected a mapping, got {shown(value)}")
        return inner({str(key): item for key, item in value.items()}, kind)

    return structure_class


def _make_tuple(kind: Any, converter: Any) -> Any:
    inner = homogenous_tuple_structure_factory(kind, converter)

    def structure_tuple(value: Any, kind: Any) -> Any:
        if is_null(value):
            return ()
        if not isinstance(value, list | tuple):
            raise InvalidError(f"expected a list, got {shown(value)}")
        return inner(value, kind)

    return structure_tuple


def _make_dict(kind: Any, converter: Any) -> Any:
    key_kind, of = get_args(kind)
    known = get_args(key_kind)

    def structure_dict(value: Any, kind: Any) -> Any:
        if is_null(value):
            return {}
        if not isinstance(value, Mapping):
            raise InvalidError(f"expected a mapping, got {shown(value)}")
        result, errors = {}, []
        for key, item in value.items():
            try:
                if known and key not in known:
                    raise InvalidError(f"unknown key; {_hint(str(key), known)}")
                result[str(key)] = converter.structure(item, of)
            except Exception as error:
                error.add_note(IterableValidationNote("", str(key), of))
                errors.append(error)
        if errors:
            raise IterableValidationError("", errors, dict)
        return result

    return structure_dict


def _sink(value: Any, kind: Any) -> SinkConfig:
    if isinstance(value, str):
        value = {"sink": str(value)}
    structured: SinkConfig = _sink_class(value, kind)
    return structured


def _is(origin: Any) -> Any:
    return lambda kind: get_origin(kind) is origin


def _optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _make_optional(kind: Any, converter: Any) -> Any:
    inner = next(one for one in get_args(kind) if one is not type(None))

    def structure_optional(value: Any, _: Any) -> Any:
        is_empty = isinstance(value, Given) and value == "" and inner is not str
        return None if is_null(value) or is_empty else converter.structure(value, inner)

    return structure_optional


_LIMITED: dict[Any, Any] = {
    PositiveInt: _positive,
    Count: _count,
    Share: _share,
    Seconds: _seconds,
    Cpus: _cpus,
    Duration: _duration,
    Rate: _rate,
    ShardText: _shard,
    Failures: _failures,
    Name: _name,
    Pattern: _pattern,
    Mode: _mode,
    Choice: _choice,
}


def _build() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook_func(lambda kind: kind is Any, _anything)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(str, _string)
    for kind, hook in _LIMITED.items():
        converter.register_structure_hook_func(partial(operator.is_, kind), hook)
    converter.register_structure_hook_func(_is(Literal), _literal)
    converter.register_structure_hook_factory(_is_attrs, _make_class)
    converter.register_structure_hook_factory(_is(tuple), _make_tuple)
    converter.register_structure_hook_factory(_is(dict), _make_dict)
    converter.register_structure_hook_factory(_optional, _make_optional)
    return converter


_converter = _build()
_sink_class = _make_class(SinkConfig, _converter)
_converter.register_structure_hook(SinkConfig, _sink)
