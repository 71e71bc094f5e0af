"""Layers of torch.nn, described by their class and the options of its constructor."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from edge_trgl.networks.cutting.expressions import Bindings, Expression, decode, encode
from edge_trgl.networks.cutting.piece_source import LayerSource

BatchNorm = nn.modules.batchnorm._BatchNorm

_STOCHASTIC_DEPTH = "StochasticDepth"

_DROP_OPTIONS = {"DropPath": ("drop_prob", "scale_by_keep"), _STOCHASTIC_DEPTH: ("p", "mode")}
"""Classes of other libraries that drop whole branches at random, and the names of their two options."""


class StochasticDepth(nn.Module):
    """Drop branches at random in training (Huang et al., Deep Networks with Stochastic Depth, 2016).

    Args:
        rate: the probability that a branch is dropped.
        mode: "row" draws for every sample, "batch" once for all.
        scaled: divide what is kept by the probability of being kept.
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
    """Return whether `part` is called as a whole and can be built again from its description."""
    if type(part).__name__ in _DROP_OPTIONS:
        return True
    of_torch = type(part).__module__.startswith("torch.nn.modules.") and not isinstance(part, nn.Identity)
    if not of_torch or (list(part.children()) and not isinstance(part, nn.MultiheadAttention)):
        return False
    return not isinstance(part, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) and _can_be_rebuilt(part)


def has_weight_matrix(part: nn.Module) -> bool:
    """Return whether `part` has weights that mix features; norms and scales do not."""
    return any(weight.dim() > 1 for weight in part.parameters())


def batch_norm_class(part: nn.Module) -> type[nn.Module] | None:
    """Return the batch norm class of torch that `part` is or derives from; None if there is none."""
    classes = (cls for cls in type(part).__mro__ if cls.__module__ == BatchNorm.__module__)
    return next(classes, None) if isinstance(part, BatchNorm) else None


def describe_layer(part: nn.Module) -> LayerSource:
    """Describe a layer by its class and the options of its constructor.

    Raises:
        AttributeError, TypeError: the layer does not keep an option, or it cannot be written down.
    """
    name = type(part).__name__
    if name in _DROP_OPTIONS:
        return LayerSource(class_name=_STOCHASTIC_DEPTH, options=_drop_options(part, name))
    layer_class = batch_norm_class(part) or type(part)
    class_name = f"{layer_class.__module__}.{layer_class.__qualname__}"
    return LayerSource(class_name=class_name, options=_options(part, layer_class))


def build_layer(source: LayerSource) -> nn.Module:
    """Build the layer that was described; its constructor draws the weights."""
    options = {name: decode(value, _NOTHING_BOUND) for name, value in source.options.items()}
    if source.class_name == _STOCHASTIC_DEPTH:
        return StochasticDepth(**options)
    layer_class: Any = torch
    for name in source.class_name.split(".")[1:]:
        layer_class = getattr(layer_class, name)
    layer: nn.Module = layer_class(**options)
    return layer


_NOTHING_BOUND = Bindings(values={}, weights={}, x=torch.empty(0), training=False)


def _refuse_tensor(tensor: Tensor) -> Any:
    raise TypeError("an option that is a tensor cannot be written down")


def _drop_options(part: nn.Module, name: str) -> dict[str, Expression]:
    rate, other = (getattr(part, option, None) for option in _DROP_OPTIONS[name])
    if name == _STOCHASTIC_DEPTH:
        return {"rate": float(rate or 0.0), "mode": other}
    return {"rate": float(rate or 0.0), "scaled": bool(other)}


def _options(part: nn.Module, layer_class: type[nn.Module]) -> dict[str, Expression]:
    """Return the options of the constructor that differ from its defaults, as far as the layer keeps them."""
    options = {}
    for name, parameter in inspect.signature(layer_class.__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = _option(part, name)
        if value is not parameter.default:
            options[name] = encode(value, _refuse_tensor)
    return options


def _option(part: nn.Module, name: str) -> Any:
    if name == "bias":
        bias = getattr(part, "bias", None)
        return (bias if bias is not None else getattr(part, "in_proj_bias", None)) is not None
    if name == "add_bias_kv":
        return getattr(part, "bias_k", None) is not None
    return getattr(part, name)


def _can_be_rebuilt(part: nn.Module) -> bool:
    """Return whether a layer keeps everything that its constructor was told."""
    try:
        with torch.device("meta"):
            rebuilt = build_layer(describe_layer(part))
    except (AttributeError, TypeError, ValueError):
        return False
    shapes, rebuilt_shapes = (
        {name: tensor.shape for name, tensor in layer.state_dict().items()} for layer in (part, rebuilt)
    )
    return shapes == rebuilt_shapes and repr(part) == repr(rebuilt)
