"""The arguments and results of calls as plain values that JSON can hold.

None, bool, int, float and str stand for themselves. Everything else is a list that begins with its kind:

    ["value", n]            a tensor that an earlier call computed
    ["weight", name]        a parameter, buffer or constant
    ["batch", k]            k times the number of samples
    ["mode", a, b]          a in training, b in evaluation
    ["device"]              the device of the input
    ["dtype", name], ["format", name], ["slice", start, stop, step], ["ellipsis"]
    ["list", ...], ["tuple", ...], ["dict", ["item", key, value], ...]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Expression = Any
"""A nested value of the kinds above."""


def encode(value: Any, encode_tensor: Callable[[Tensor], Expression]) -> Expression:
    """Return `value` as an expression; `encode_tensor` says how tensors are written.

    Raises:
        TypeError: there is no expression for a value of this type.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return encode_tensor(value)
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", *(encode(item, encode_tensor) for item in value)]
    if isinstance(value, dict):
        return ["dict", *(["item", key, encode(item, encode_tensor)] for key, item in value.items())]
    if isinstance(value, slice):
        return ["slice", *(encode(part, encode_tensor) for part in (value.start, value.stop, value.step))]
    if value is Ellipsis:
        return ["ellipsis"]
    if isinstance(value, (torch.dtype, torch.memory_format)):
        kind = "dtype" if isinstance(value, torch.dtype) else "format"
        return [kind, str(value).removeprefix("torch.")]
    if isinstance(value, torch.device):
        return ["device"]
    raise TypeError(f"an argument of type {type(value).__name__} cannot be written down")


@dataclass(frozen=True, kw_only=True)
class Bindings:
    """What the names in an expression stand for.

    Args:
        values: the tensors computed so far, by number.
        weights: parameters, buffers and constants, by name.
        x: the input, [B, ...].
        training: whether the module is in training mode.
    """

    values: Mapping[int, Tensor]
    weights: Mapping[str, Tensor]
    x: Tensor
    training: bool


def decode(expression: Expression, bindings: Bindings) -> Any:
    """Return the value of an expression."""
    if not isinstance(expression, list):
        return expression
    kind, *parts = expression
    if kind == "value":
        return bindings.values[parts[0]]
    if kind == "weight":
        return bindings.weights[parts[0]]
    if kind == "list":
        return [decode(part, bindings) for part in parts]
    if kind == "tuple":
        return tuple(decode(part, bindings) for part in parts)
    if kind == "dict":
        return {key: decode(part, bindings) for _, key, part in parts}
    return _decode_setting(kind, parts, bindings)


def _decode_setting(kind: str, parts: list[Expression], bindings: Bindings) -> Any:
    if kind == "batch":
        return parts[0] * bindings.x.shape[0]
    if kind == "mode":
        return decode(parts[0 if bindings.training else 1], bindings)
    if kind == "slice":
        return slice(*(decode(part, bindings) for part in parts))
    if kind == "device":
        return bindings.x.device
    if kind == "ellipsis":
        return Ellipsis
    return getattr(torch, parts[0])


def torch_function(name: str) -> Callable[..., Any]:
    """Return the function of torch with this full name, such as `torch.nn.functional.relu`.

    Raises:
        AttributeError: torch has no such function.
    """
    first, *path = name.split(".")
    if first != "torch":
        raise AttributeError(f"{name} is not of torch")
    attribute: Any = torch
    for part in path:
        attribute = nn if attribute is torch and part == "nn" else getattr(attribute, part)
    return attribute  # type: ignore[no-any-return]


def references(expression: Expression, kind: str) -> Iterator[Any]:
    """Yield the numbers (`kind` "value") or names ("weight") that an expression refers to."""
    if isinstance(expression, list):
        if expression[0] == kind:
            yield expression[1]
        else:
            for part in expression[1:]:
                yield from references(part, kind)


def renamed(expression: Expression, kind: str, new_names: Mapping[Any, Any]) -> Expression:
    """Return the expression with other numbers (`kind` "value") or names ("weight")."""
    if not isinstance(expression, list):
        return expression
    if expression[0] == kind:
        return [kind, new_names[expression[1]]]
    return [expression[0], *(renamed(part, kind, new_names) for part in expression[1:])]
