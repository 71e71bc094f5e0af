"""Which axis of a boundary holds the channels: the first after the samples, or the last."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edge_trgl.networks.cutting.recorded_model import RecordedModel

_LAST_AXIS = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)
_FIRST_AXIS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
"""Layers that read and write channels on the last axis, or on the first after the samples."""

_LAYER_OF_FUNCTION: dict[str, type[nn.Module]] = {
    "torch.nn.functional.layer_norm": nn.LayerNorm,
    "torch.nn.functional.linear": nn.Linear,
    "torch.nn.functional.group_norm": nn.GroupNorm,
    "torch.conv1d": nn.Conv1d,
    "torch.conv2d": nn.Conv2d,
}
"""Functions that do what a layer does."""


def has_channels_last(model: RecordedModel, value: int) -> bool:
    """Return whether a value has its channels last, as the nearest layers after it, or else before it, tell."""
    values = model.recording.values
    if len(values[value].shapes[0]) < 3:
        return False
    for neighbours in (_readers, _makers):
        seen, frontier = {value}, [value]
        while frontier:
            kinds, reached = neighbours(model, frontier)
            if any(issubclass(kind, _LAST_AXIS) for kind in kinds):
                return True
            if any(issubclass(kind, _FIRST_AXIS) for kind in kinds):
                return False
            frontier = [
                other for other in reached if other not in seen and values[other].shapes == values[value].shapes
            ]
            seen.update(frontier)
    return False


def _readers(model: RecordedModel, values: Sequence[int]) -> tuple[list[type[nn.Module]], list[int]]:
    """Return the kinds of layers that read one of `values`, and the values that they make."""
    liveness = model.liveness
    numbers = [number for number, read in enumerate(liveness.reads) if not read.isdisjoint(values)]
    return _kinds(model, numbers), [made for number in numbers for made in liveness.makes[number]]


def _makers(model: RecordedModel, values: Sequence[int]) -> tuple[list[type[nn.Module]], list[int]]:
    """Return the kinds of layers that make one of `values`, and the values that they read."""
    liveness = model.liveness
    numbers = [number for number, made in enumerate(liveness.makes) if not made.isdisjoint(values)]
    return _kinds(model, numbers), [read for number in numbers for read in liveness.reads[number]]


def _kinds(model: RecordedModel, numbers: Sequence[int]) -> list[type[nn.Module]]:
    kinds: list[type[nn.Module]] = []
    for number in numbers:
        call = model.recording.calls[number]
        layer = model.layer_of(call)
        if layer is not None:
            kinds.append(type(layer))
        elif call.target in _LAYER_OF_FUNCTION:
            kinds.append(_LAYER_OF_FUNCTION[call.target])
    return kinds
