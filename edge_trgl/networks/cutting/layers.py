"""Layers of torch.nn, written down as their class and the options of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edge_trgl.networks.cutting.expressions import Surroundings, decode, encode

BatchNorm = nn.modules.batchnorm._BatchNorm

_DROPS = {"DropPath": ("drop_prob", "scale_by_keep"), "StochasticDepth": ("p", "mode")}
"""Classes by other libraries that drop a whole branch at random, with the options that they have."""


class StochasticDepth(nn.Module):
    """In training drops the branches of some samples (of all, where `mode` is batch) with probability `rate`.

    `scaled`: what is left is divided by the probability to be so.
    """

    def __init__(self, rate: float, mode: str = "row", *, scaled: bool = True) -> None:
        super().__init__()
        self.rate = rate
        self.mode = mode
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] → the same shape."""
        if not self.training or self.rate == 0:
            return x
        kept = 1 - self.rate
        draws = x.new_empty((len(x) if self.mode == "row" else 1, *(1,) * (x.dim() - 1))).bernoulli_(kept)
        return x * (draws.div_(kept) if self.scaled and kept > 0 else draws)


def is_layer(part: nn.Module) -> bool:
    """Whether `part` is called as a whole, and can be built again from what `written` says of it."""
    if type(part).__name__ in _DROPS:
        return True
    own = type(part).__module__.startswith("torch.nn.modules.") and not isinstance(part, nn.Identity)
    if not own or (list(part.children()) and not isinstance(part, nn.MultiheadAttention)):
        return False
    return not isinstance(part, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) and _is_rebuilt(part)


def has_matrix(part: nn.Module) -> bool:
    """Whether `part` has weights that mix features; norms and scales do not."""
    return any(weight.dim() > 1 for weight in part.parameters())


def norm_class(part: nn.Module) -> type[nn.Module] | None:
    """The batch norm of torch's own that `part` is, or is derived from."""
    kinds = (kind for kind in type(part).__mro__ if kind.__module__ == BatchNorm.__module__)
    return next(kinds, None) if isinstance(part, BatchNorm) else None


def written(part: nn.Module) -> dict[str, Any]:
    """`class` and `options` of a layer."""
    name = type(part).__name__
    if name in _DROPS:
        return {"class": "StochasticDepth", "options": _drop_options(part, name)}
    kind = norm_class(part) or type(part)
    options = {key: encode(value, _no_tensor) for key, value in _options(part, kind).items()}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "options": options}


def built(layer: Mapping[str, Any]) -> nn.Module:
    """The layer that was written down, its weights as its constructor draws them."""
    options = {name: decode(value, _NOWHERE) for name, value in layer["options"].items()}
    if layer["class"] == "StochasticDepth":
        return StochasticDepth(**options)
    found: Any = torch
    for name in layer["class"].split(".")[1:]:
        found = getattr(found, name)
    part: nn.Module = found(**options)
    return part


_NOWHERE = Surroundings(values={}, weights={}, x=torch.empty(0), training=False)


def _no_tensor(tensor: Tensor) -> Any:
    raise TypeError("an option that is a tensor cannot be written down")


def _drop_options(part: nn.Module, name: str) -> dict[str, Any]:
    rate, other = (getattr(part, option, None) for option in _DROPS[name])
    options: dict[str, Any] = {"rate": float(rate or 0.0)}
    if name == "StochasticDepth":
        return {**options, "mode": other}
    return {**options, "scaled": bool(other)}


def _options(part: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """What the constructor would have to be told, as far as the layer remembers it."""
    found = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = _option(part, name)
        if value is not parameter.default:
            found[name] = value
    return found


def _option(part: nn.Module, name: str) -> Any:
    if name == "bias":
        given = getattr(part, "bias", None)
        return (given if given is not None else getattr(part, "in_proj_bias", None)) is not None
    if name in ("add_bias_kv",):
        return getattr(part, "bias_k", None) is not None
    return getattr(part, name)


def _is_rebuilt(part: nn.Module) -> bool:
    """Whether a layer remembers all that its constructor was told."""
    try:
        with torch.device("meta"):
            again = built(written(part))
    except (AttributeError, TypeError, ValueError):
        return False
    ours, theirs = ({k: v.shape for k, v in one.state_dict().items()} for one in (part, again))
    return ours == theirs and repr(part) == repr(again)
