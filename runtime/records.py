"""Converts frozen dataclasses to JSON and back: between processes, in a run's database, in its files.

    record = read_record(Plan, json.loads(text))     # nested dataclasses, tuples, mappings, unions with None
    json.dumps(document_of(record))

JSON has no tuples and no dataclasses; the types of the fields say what a list or an object becomes.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")

Document = dict[str, Any]
"""A JSON object."""


def document_of(record: Any) -> Document:
    """Return a dataclass as a JSON object; `read_record` is the inverse."""
    return {field.name: to_json(getattr(record, field.name)) for field in fields(record)}


def to_json(value: Any) -> Any:
    """Return `value` with dataclasses, at any depth, as JSON objects; `from_json` is the inverse."""
    if is_dataclass(value) and not isinstance(value, type):
        return document_of(value)
    if isinstance(value, Mapping):
        return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    return value


def read_record(kind: type[T], document: Mapping[str, Any]) -> T:
    """Return the dataclass `kind` from a JSON object of `document_of`; missing fields get their defaults.

    Raises:
        TypeError: a field is unknown, or one without a default is missing.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    unknown = document.keys() - hints.keys()
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    return kind(**{name: from_json(hints[name], value) for name, value in document.items()})


def from_json(hint: Any, value: Any) -> Any:
    """Convert a JSON value to the type `hint`: a dataclass, tuple, list, mapping, union or plain type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        # The dataclasses of a union are distinguished by their fields.
        fitting = [kind for kind in kinds if is_dataclass(kind) and _fits(kind, value)]
        return from_json((fitting or kinds)[0], value) if fitting or len(kinds) == 1 else value
    if is_dataclass(hint) and isinstance(hint, type):
        return read_record(hint, value)
    if origin is tuple and arguments[1:] == (...,):
        return tuple(from_json(arguments[0], part) for part in value)
    if origin is tuple:
        return tuple(from_json(kind, part) for kind, part in zip(arguments, value, strict=True))
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        key, item = arguments
        return {from_json(key, name): from_json(item, part) for name, part in value.items()}
    if origin is not None and origin is not Literal and issubclass(origin, Sequence):
        return [from_json(arguments[0], part) for part in value]
    if hint is float:
        return float(value)
    if hint is int and isinstance(value, str):
        return int(value)  # keys of a JSON object are strings
    return value


def _fits(kind: Any, value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == _hints(kind).keys()


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
