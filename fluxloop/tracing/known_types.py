"""Objects of well-known packages → what their users would write for them.

No package is imported for it: a type is known by the names of its classes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

Conversion = Callable[[Any], Any]


def conversion(kind: type) -> Conversion | None:
    """Return what makes plainer data of the objects of a type; None when the type is not known."""
    for base in kind.__mro__:
        module = base.__module__
        if module == "builtins" or type(module) is not str:
            continue
        of_package = _KNOWN.get(module) or _KNOWN.get(module.partition(".")[0])
        if of_package is not None and (found := of_package.get(base.__name__)) is not None:
            return found
    return None


# numpy


def _scalar(value: Any) -> Any:
    sort = value.dtype.kind
    if sort == "f":  # by its own digits: float32(0.1) is 0.1, and not 0.10000000149
        return float(str(value))
    if sort == "M":
        text = str(value)
        return None if text == "NaT" else text
    if sort == "m":
        return _seconds(value)
    if sort == "V" and value.dtype.names:
        return {name: value[name] for name in value.dtype.names}
    plain = value.item()
    return str(plain) if sort == "c" or type(plain) is type(value) else plain


def _seconds(value: Any) -> Any:
    unit = value.dtype.type(1, "s")
    return (value / unit).tolist()


def _array(value: Any) -> Any:
    sort = value.dtype.kind
    if sort == "f" and value.dtype.itemsize != 8:
        return _masked(value, _shortest(value) if value.dtype.itemsize < 8 else value.astype("f8"))
    if sort == "M":
        return _without_nat(value.astype("U32").tolist())
    if sort == "m":
        return _seconds(value)
    if sort == "V" and value.dtype.names and value.ndim == 1:
        return [_scalar(row) for row in value]
    return value.tolist()


def _shortest(value: Any) -> Any:
    """The numbers of fewest digits that are these numbers: 0.1, and not 0.10000000149."""
    numpy = sys.modules["numpy"]
    value = numpy.asarray(value)
    exact = value.astype("f8")
    with numpy.errstate(all="ignore"):
        power = numpy.floor(numpy.log10(numpy.abs(exact)))
        near = numpy.abs(power) < 15  # where powers of ten are exact; not so for 0, NaN and infinities
        far = numpy.isfinite(power) & ~near
        found = exact.copy()
        found[far] = value[far].astype("U32").astype("f8")
        for digits in range(1, 9):
            scale = 10.0 ** (digits - power)
            rounded = numpy.round(exact * scale) / scale
            fits = near & (rounded.astype(value.dtype) == value)
            found[fits] = rounded[fits]
            near &= ~fits
    return found


def _masked(value: Any, converted: Any) -> Any:
    return converted.tolist() if not hasattr(value, "mask") else type(value)(converted, mask=value.mask).tolist()


def _without_nat(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nat(item) for item in value]
    return None if value in ("NaT", None) else value


# pandas


def _frame(frame: Any) -> Any:
    """Rows as mappings; the index is a column of them, unless it only counts."""
    if not frame.columns.is_unique:  # which mappings cannot hold
        return {"columns": list(frame.columns), "rows": frame.to_numpy(dtype=object).tolist()}
    if not _only_counts(frame.index) and not set(frame.index.names) & set(frame.columns):
        frame = frame.reset_index()
    return frame.to_dict("records")


def _series(series: Any) -> Any:
    """The values; under the labels of the index, unless it only counts."""
    if _only_counts(series.index) or not series.index.is_unique:
        return series.tolist()
    return dict(zip(series.index.tolist(), series.tolist(), strict=True))


def _only_counts(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1 and index.name is None


# protobuf


def _message(value: Any) -> Any:
    if hasattr(value, "ToJsonString"):  # a Timestamp, a Duration
        return value.ToJsonString()
    name = value.DESCRIPTOR.full_name
    if name == "google.protobuf.Struct":
        return dict(value.items())
    if name == "google.protobuf.ListValue":
        return [value[index] for index in range(len(value))]
    if name == "google.protobuf.Value":
        held = value.WhichOneof("kind")
        return None if held in (None, "null_value") else getattr(value, held)
    return {field.name: _field(field, item) for field, item in value.ListFields()}


def _field(field: Any, item: Any) -> Any:
    if hasattr(item, "items") and hasattr(item, "keys"):
        return dict(item.items())
    if isinstance(item, Iterable) and not isinstance(item, str | bytes):
        return [_one(field, one) for one in item]
    return _one(field, item)


def _one(field: Any, item: Any) -> Any:
    known = field.enum_type.values_by_number.get(item) if field.enum_type is not None else None
    return item if known is None else known.name


# pydantic, msgspec


def _model(value: Any) -> Any:
    """The fields as `model_dump` has them, by their names in Python; also of a model that was never validated."""
    kind = type(value)
    decorators = getattr(kind, "__pydantic_decorators__", None)
    if decorators is not None and (decorators.field_serializers or decorators.model_serializers):
        with suppress(Exception):
            return value.model_dump(warnings=False)
    fields = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "__fields__", {})
    plain = {name: item for name, item in vars(value).items() if name in fields and not _is_excluded(fields[name])}
    plain.update(getattr(value, "__pydantic_extra__", None) or {})
    for name in getattr(decorators, "computed_fields", ()):
        with suppress(Exception):  # of an agent's own property, which may raise anything
            plain[name] = getattr(value, name)
    return plain


def _is_excluded(field: Any) -> bool:
    return getattr(getattr(field, "field_info", field), "exclude", None) is True


def _struct(value: Any) -> Any:
    fields = {name: getattr(value, name) for name in type(value).__struct_fields__ if hasattr(value, name)}
    return {name: item for name, item in fields.items() if type(item).__name__ != "UnsetType"}


# Others


def _nothing(value: Any) -> None:
    return None


def _element(value: Any) -> Any:
    return sys.modules["xml.etree.ElementTree"].tostring(value, encoding="unicode")


def _method(name: str) -> Conversion:
    return lambda value: getattr(value, name)()


def _attribute(name: str) -> Conversion:
    return lambda value: getattr(value, name)


_KNOWN: dict[str, dict[str, Conversion]] = {
    "array": {"array": _method("tolist")},
    "bs4": {"Tag": str},
    "collections": {"UserList": _attribute("data"), "UserString": str},
    "datetime": {"tzinfo": str},
    "google.protobuf.message": {"Message": _message},
    "httpx": {"URL": str},
    "ipaddress": dict.fromkeys(("_BaseAddress", "_BaseNetwork"), str),
    "jax": {"Array": _method("tolist")},
    "jaxlib": {"ArrayImpl": _method("tolist")},
    "msgspec": {"Struct": _struct},
    "numpy": {"generic": _scalar, "ndarray": _array},
    "pandas": {
        "BaseOffset": str,
        "Categorical": _method("tolist"),
        "DataFrame": _frame,
        "ExtensionArray": _method("tolist"),
        "Index": _method("tolist"),
        "Interval": str,
        "NAType": _nothing,
        "NaTType": _nothing,
        "Period": str,
        "Series": _series,
        "_Period": str,
    },
    "polars": {"DataFrame": _method("to_dicts"), "Series": _method("to_list")},
    "pyarrow": {
        "Array": _method("to_pylist"),
        "ChunkedArray": _method("to_pylist"),
        "RecordBatch": _method("to_pylist"),
        "Scalar": _method("as_py"),
        "Table": _method("to_pylist"),
    },
    "pydantic": {
        "BaseModel": _model,
        "RootModel": _attribute("root"),
        "_BaseMultiHostUrl": str,
        "_BaseUrl": str,
        "_SecretBase": str,
    },
    "pydantic_core": dict.fromkeys(("MultiHostUrl", "Url"), str),
    "re": {"Pattern": _attribute("pattern")},
    "torch": {"Tensor": _method("tolist")},
    "urllib": dict.fromkeys(("ParseResult", "SplitResult", "ParseResultBytes", "SplitResultBytes"), _method("geturl")),
    "xml": {"Element": _element},
    "yarl": {"URL": str},
    "zoneinfo": {"ZoneInfo": str},
}
