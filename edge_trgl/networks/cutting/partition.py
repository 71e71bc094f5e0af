"""From a recorded model to blocks: where each one ends, and which layer is the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edge_trgl.networks.cutting.channel_order import has_channels_last
from edge_trgl.networks.cutting.cut_points import find_cut_points
from edge_trgl.networks.cutting.expressions import references
from edge_trgl.networks.cutting.layers import has_weight_matrix
from edge_trgl.networks.cutting.piece import build_block
from edge_trgl.networks.cutting.recorded_model import CallRange, RecordedModel
from edge_trgl.networks.cutting.source_writer import write_piece
from edge_trgl.runtime.errors import InputError

_MATRIX_FUNCTIONS = ("linear", "bilinear", "conv1d", "conv2d", "conv3d")
"""Functions that multiply by a matrix of weights, as layers do."""

_PRODUCTS = ("torch.Tensor.mul", "torch.Tensor.mul_", "torch.mul")
"""The last call of a squeeze-and-excitation gate."""

_MEAN_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The blocks of a model.

    Args:
        blocks: each one or more ranges, which become its pieces.
        classifier: the name of the last linear layer, if it reads what a `linear` head reads: the mean of the last
            block's output over positions.
    """

    blocks: tuple[tuple[CallRange, ...], ...]
    classifier: str | None


def partition(model: RecordedModel) -> Partition:
    """Return the finest partition in which every block has a layer with a matrix of weights.

    A ReLU, a norm, a gate or a pooling belongs to the layer before it. Layers that share weights are in one block.

    Raises:
        InputError: there is no place to cut.
    """
    ranges = _ranges_between_cut_points(model)
    last = max((number for number, part in enumerate(ranges) if _has_matrix(model, part)), default=0)
    if last == 0:
        _refuse(model)
    trunk, classifier = ranges[:last], _linear_layer(model, ranges[last])
    while classifier and not _has_matrix(model, trunk[-1]) and _is_mean(model, trunk[-1], ranges[last - 1]):
        trunk = trunk[:-1]
    blocks = _blocks(model, trunk)
    return Partition(blocks=tuple(tuple(_pieces(model, block)) for block in blocks), classifier=classifier)


def _refuse(model: RecordedModel) -> None:
    calls, alive = model.recording.calls, model.liveness.alive
    most = max(range(len(calls)), key=lambda number: len(alive[number]))
    raise InputError(
        "the model cannot be cut: at no place between its layers is a single batch of samples alive; "
        f"at {calls[most].source_line}, after {calls[most].target}, there are {len(alive[most])}",
        hint="Write its stages as a chain of blocks yourself: Chain.from_blocks.",
    )


def _ranges_between_cut_points(model: RecordedModel) -> list[CallRange]:
    cut_points = find_cut_points(model.recording, model.liveness)
    starts = [0, *(number + 1 for number in cut_points), len(model.recording.calls)]
    values = [
        0,
        *(next(iter(model.liveness.alive[number])) for number in cut_points),
        model.recording.output,
    ]
    channels_last = [False, *(has_channels_last(model, value) for value in values[1:-1]), False]
    ranges = [
        CallRange(
            start=starts[number],
            stop=starts[number + 1],
            entering=values[number],
            output=values[number + 1],
            channels_last=(channels_last[number], channels_last[number + 1]),
        )
        for number in range(len(starts) - 1)
    ]
    return [part for part in ranges if part.entering != part.output]


def _has_matrix(model: RecordedModel, part: CallRange) -> bool:
    """Return whether a range has a layer that mixes features, and is more than a gate on what enters."""
    calls = model.recording.calls[part.start : part.stop]
    if calls[-1].target in _PRODUCTS and part.entering in references(calls[-1].arguments, "value"):
        return False
    layers = [layer for call in calls if (layer := model.layer_of(call)) is not None]
    functions = {call.target.rpartition(".")[2] for call in calls}
    return any(map(has_weight_matrix, layers)) or not functions.isdisjoint(_MATRIX_FUNCTIONS)


# ---- blocks


def _blocks(model: RecordedModel, trunk: Sequence[CallRange]) -> list[list[CallRange]]:
    """Group ranges into blocks.

    Ranges without a matrix join the block before them, the first ones the first block; blocks that share weights
    become one.
    """
    blocks: list[list[CallRange]] = [[]]
    for part in trunk:
        if _has_matrix(model, part) and any(_has_matrix(model, other) for other in blocks[-1]):
            blocks.append([])
        blocks[-1].append(part)
    weights = [set().union(*(_weights(model, part) for part in block)) for block in blocks]
    for first in reversed(range(len(blocks))):
        sharing = [number for number in range(first + 1, len(blocks)) if weights[number] & weights[first]]
        if sharing:
            stop = max(sharing) + 1
            blocks[first:stop] = [[part for block in blocks[first:stop] for part in block]]
            weights[first:stop] = [set().union(*weights[first:stop])]
    return blocks


def _weights(model: RecordedModel, part: CallRange) -> set[str]:
    """Return the names of the parameters that a range uses; a parameter of several names has the first of them."""
    names = set()
    for name in model.names_in(part):
        layer = model.submodule(name)
        if layer is None:
            names.add(name)
        else:
            names |= {f"{name}.{own}" for own, _ in layer.named_parameters()}
    parameters = dict(model.net.named_parameters(remove_duplicate=False))
    first_names = {id(weight): name for name, weight in reversed(list(parameters.items()))}
    return {first_names[id(parameters[name])] for name in names if name in parameters}


def _pieces(model: RecordedModel, block: Sequence[CallRange]) -> list[CallRange]:
    """Join the ranges of a block, except for a pooling at its end.

    The layer before the pooling then has an output as large as its input, and so a residue.
    """
    pieces: list[CallRange] = []
    for number, part in enumerate(block):
        has_layer = any(_has_matrix(model, other) for other in block[:number])
        if not pieces or (has_layer and not _has_matrix(model, part) and _resizes(model, part)):
            pieces.append(part)
        else:
            channels_last = pieces[-1].channels_last[0], part.channels_last[1]
            pieces[-1] = replace(pieces[-1], stop=part.stop, output=part.output, channels_last=channels_last)
    return pieces


def _resizes(model: RecordedModel, part: CallRange) -> bool:
    entering, output = (
        torch.Size(model.recording.values[value].shapes[0]).numel() for value in (part.entering, part.output)
    )
    return entering != output


# ---- the classifier


def _linear_layer(model: RecordedModel, part: CallRange) -> str | None:
    """Return the name of the linear layer that is all of a range, if it reads feature vectors [B, C]."""
    numbers = model.call_numbers(part)
    call = model.recording.calls[numbers[0]]
    owners = [name.rpartition(".")[0] for name in references(call.arguments, "weight")]
    name = call.layer_name if call.layer_name is not None else (owners or [""])[0]
    is_linear = len(numbers) == 1 and isinstance(model.submodule(name), nn.Linear)
    return name if is_linear and len(model.recording.values[part.entering].shapes[0]) == 2 else None


def _is_mean(model: RecordedModel, first: CallRange, last: CallRange) -> bool:
    """Return whether the ranges from `first` to `last` take the mean over positions, as a `linear` head does."""
    whole = replace(first, stop=last.stop, output=last.output, channels_last=(first.channels_last[0], False))
    block = build_block([write_piece(model, whole, "Piece").text]).eval()
    shape = list(model.recording.values[first.entering].shapes[0])
    if first.channels_last[0]:
        shape.insert(1, shape.pop())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = block(x)
    mean = x.flatten(2).mean(2) if x.dim() > 2 else x
    return out.shape == mean.shape and bool((out - mean).abs().max() <= _MEAN_TOLERANCE)
