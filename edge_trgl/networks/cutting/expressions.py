"""The arguments and results of calls as plain values that JSON can hold.

None, bool, int, float and str stand for themselves. All else is a list that begins with what it is:

    ["value", n]            a tensor that was computed before
    ["weight", name]        a parameter, buffer or constant
    ["batch", k]            k times the number of samples
    ["mode", a, b]          a in training, b in evaluation
    ["device"]              where the input is
    ["dtype", name], ["format", name], ["slice", start, stop, step], ["ellipsis"]
    ["list", ...], ["tuple", ...], ["dict", [key, value], ...]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Expression = Any
"""See above; nested."""


def encode(value: Any, find: Callable[[Tensor], Expression]) -> Expression:
    """`value` as an expression; `find` names the tensors.

    Raises:
        TypeError: there is no expression for it.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return find(value)
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", *(encode(item, find) for item in value)]
    if isinstance(value, dict):
        return ["dict", *(["item", key, encode(item, find)] for key, item in value.items())]
    if isinstance(value, slice):
        return ["slice", *(encode(part, find) for part in (value.start, value.stop, value.step))]
    if value is Ellipsis:
        return ["ellipsis"]
    if isinstance(value, (torch.dtype, torch.memory_format)):
        kind = "dtype" if isinstance(value, torch.dtype) else "format"
        return [kind, str(value).removeprefix("torch.")]
    if isinstance(value, torch.device):
        return ["device"]
    raise TypeError(f"an argument of type {type(value).__name__} cannot be written down")


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What an expression may refer to."""

    values: Mapping[int, Tensor]
    weights: Mapping[str, Tensor]
    x: Tensor
    training: bool


def decode(expression: Expression, around: Surroundings) -> Any:
    """What an expression stands for."""
    if not isinstance(expression, list):
        return expression
    kind, *parts = expression
    if kind == "value":
        return around.values[parts[0]]
    if kind == "weight":
        return around.weights[parts[0]]
    if kind == "list":
        return [decode(part, around) for part in parts]
    if kind == "tuple":
        return tuple(decode(part, around) for part in parts)
    if kind == "dict":
        return {name: decode(part, around) for _, name, part in parts}
    return _decoded_rest(kind, parts, around)


def _decoded_rest(kind: str, parts: list[Any], around: Surroundings) -> Any:
    if kind == "batch":
        return parts[0] * around.x.shape[0]
    if kind == "mode":
        return decode(parts[0 if around.training else 1], around)
    if kind == "slice":
        return slice(*(decode(part, around) for part in parts))
    if kind == "device":
        return around.x.device
    if kind == "ellipsis":
        return Ellipsis
    return getattr(torch, parts[0])


def function(name: str) -> Callable[..., Any]:
    """The function of torch with this full name, such as `torch.nn.functional.relu`.

    Raises:
        AttributeError: there is none.
    """
    first, *names = name.split(".")
    if first != "torch":
        raise AttributeError(f"{name} is not of torch")
    found: Any = torch
    for part in names:
        found = nn if found is torch and part == "nn" else getattr(found, part)
    return found  # type: ignore[no-any-return]


def references(expression: Expression, kind: str) -> Iterator[Any]:
    """The numbers (`value`) or names (`weight`) that an expression refers to."""
    if isinstance(expression, list):
        if expression[0] == kind:
            yield expression[1]
        else:
            for part in expression[1:]:
                yield from references(part, kind)


def renamed(expression: Expression, kind: str, names: Mapping[Any, Any]) -> Expression:
    """The same with other numbers or names."""
    if not isinstance(expression, list):
        return expression
    if expression[0] == kind:
        return [kind, names[expression[1]]]
    return [expression[0], *(renamed(part, kind, names) for part in expression[1:])]
