"""Untyped values, as a file or a command line gives them, become the types of the configuration's fields."""

from __future__ import annotations

import types
import typing
from typing import Literal

from edge_trgl.runtime.storage import files


class NotUtf8Error(ValueError):
    """A text cannot be written down: it has bytes that are not UTF-8."""


def convert(value: object, hint: object) -> object:
    """Convert `value` to the type `hint`, one of the few that the sections use.

    Raises:
        ValueError: it is not of that type, and is not written as one either.
        NotUtf8Error: it is a text that is not valid UTF-8.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _first_of(value, [one for one in arguments if one is not type(None)])
    if origin is Literal:
        if value not in arguments:
            raise ValueError
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else str(value).split(",")
        return tuple(convert(item, arguments[0]) for item in items if item != "")
    if hint is bool or isinstance(value, bool):
        if not (hint is bool and isinstance(value, bool)):
            raise ValueError
        return value
    return _text(value) if hint is str else _number(value, whole=hint is int)


def _first_of(value: object, hints: list[object]) -> object:
    """The value as the first of the types that takes it."""
    for hint in hints[:-1]:
        try:
            return convert(value, hint)
        except ValueError:
            continue
    return convert(value, hints[-1])


def _text(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if not files.is_utf8(text):
        raise NotUtf8Error
    return text


def _number(value: object, *, whole: bool) -> float:
    if not isinstance(value, (str, int, float)):
        raise ValueError
    if not whole:
        return float(value)
    try:
        number = int(value)
    except OverflowError:  # infinity
        raise ValueError from None
    if isinstance(value, float) and number != value:
        raise ValueError
    return number
