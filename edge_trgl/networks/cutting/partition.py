"""From a recording to blocks: where they end, what is the classifier, which way round a boundary lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edge_trgl.networks.cutting.cut_points import open_gaps
from edge_trgl.networks.cutting.expressions import references
from edge_trgl.networks.cutting.layers import has_matrix
from edge_trgl.networks.cutting.piece import build_block
from edge_trgl.networks.cutting.source_writer import Model, Stretch, calls_of, names_in, write
from edge_trgl.runtime.errors import InputError

_MATRICES = ("linear", "bilinear", "conv1d", "conv2d", "conv3d")
"""Functions that are layers but for their weights."""

_GATES = ("torch.Tensor.mul", "torch.Tensor.mul_", "torch.mul")
"""What squeeze and excitation ends with."""

_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)
_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
"""Layers that read, and make, channels as the last dimension, or as the first after the samples."""

_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Blocks, each of one or more stretches; `classifier`: the last linear layer, if it reads what a `linear` head
    reads, namely the mean over positions of the last block's output."""

    blocks: tuple[tuple[Stretch, ...], ...]
    classifier: str | None


def partition(model: Model) -> Partition:
    """The finest partition in which every block has a layer with a matrix of weights.

    A ReLU, a norm, a gate or a pooling belongs to the layer before it. Layers that share weights are in one block.

    Raises:
        InputError: there is no place to cut.
    """
    stretches = _stretches(model)
    last = max((number for number, one in enumerate(stretches) if _has_matrix(model, one)), default=0)
    if last == 0:
        _refuse(model)
    trunk, classifier = stretches[:last], _linear(model, stretches[last])
    while classifier and not _has_matrix(model, trunk[-1]) and _is_mean(model, trunk[-1], stretches[last - 1]):
        trunk = trunk[:-1]
    blocks = _joined(model, trunk)
    return Partition(blocks=tuple(tuple(_pieces(model, block)) for block in blocks), classifier=classifier)


def _refuse(model: Model) -> None:
    calls, alive = model.recording.calls, model.flow.alive
    most = max(range(len(calls)), key=lambda number: len(alive[number]))
    raise InputError(
        "the model cannot be cut: between its layers there is no place where one batch of samples alone is alive; "
        f"at {calls[most].place}, after {calls[most].target}, there are {len(alive[most])}",
        hint="Write its stages as a chain of blocks yourself: Chain.from_blocks.",
    )


def _stretches(model: Model) -> list[Stretch]:
    """From each gap to the next, the boundaries all one way round."""
    gaps = open_gaps(model.recording, model.flow)
    starts = [0, *(gap + 1 for gap in gaps), len(model.recording.calls)]
    values = [0, *(next(iter(model.flow.alive[gap])) for gap in gaps), model.recording.output]
    found = []
    last = [False, *(_channels_last(model, value) for value in values[1:-1]), False]
    for place in range(len(starts) - 1):
        found.append(
            Stretch(
                start=starts[place],
                stop=starts[place + 1],
                entering=values[place],
                output=values[place + 1],
                turned=(last[place], last[place + 1]),
            )
        )
    return [one for one in found if one.entering != one.output]


def _has_matrix(model: Model, stretch: Stretch) -> bool:
    """Whether a stretch has a layer that mixes features, and is more than a gate on what enters."""
    calls = model.recording.calls[stretch.start : stretch.stop]
    if calls[-1].target in _GATES and stretch.entering in references(calls[-1].arguments, "value"):
        return False
    layers = [call.target.removeprefix("layer ") for call in calls if call.target.startswith("layer ")]
    functions = {call.target.rpartition(".")[2] for call in calls}
    return any(has_matrix(model.net.get_submodule(name)) for name in layers) or not functions.isdisjoint(_MATRICES)


# ---- blocks


def _joined(model: Model, trunk: Sequence[Stretch]) -> list[list[Stretch]]:
    """Stretches without a layer joined to the block before (the first ones to the first block); one block of those
    that share weights."""
    blocks: list[list[Stretch]] = [[]]
    for stretch in trunk:
        begun = any(_has_matrix(model, one) for one in blocks[-1])
        if begun and _has_matrix(model, stretch):
            blocks.append([])
        blocks[-1].append(stretch)
    names = [set().union(*(_weighted(model, one) for one in block)) for block in blocks]
    for first in reversed(range(len(blocks))):
        sharing = [number for number in range(first + 1, len(blocks)) if names[number] & names[first]]
        if sharing:
            stop = max(sharing) + 1
            blocks[first:stop] = [[one for block in blocks[first:stop] for one in block]]
            names[first:stop] = [set().union(*names[first:stop])]
    return blocks


def _weighted(model: Model, stretch: Stretch) -> set[str]:
    """The weights that a stretch uses, by name."""
    found = set()
    for name in names_in(model, stretch):
        part = _submodule(model.net, name)
        if part is None:
            found.add(name)
        else:
            found |= {f"{name}.{own}" for own, _ in part.named_parameters()}
    named = dict(model.net.named_parameters(remove_duplicate=False))
    one_name = {id(weight): name for name, weight in reversed(list(named.items()))}
    return {one_name[id(named[name])] for name in found if name in named}


def _submodule(net: nn.Module, name: str) -> nn.Module | None:
    try:
        return net.get_submodule(name)
    except AttributeError:
        return None


def _pieces(model: Model, block: Sequence[Stretch]) -> list[Stretch]:
    """A pooling at the end is a piece of its own: of the layer before it, the residue is that of equal shapes."""
    pieces: list[Stretch] = []
    for number, stretch in enumerate(block):
        begun = any(_has_matrix(model, one) for one in block[:number])
        if not pieces or (begun and not _has_matrix(model, stretch) and _resizes(model, stretch)):
            pieces.append(stretch)
        else:
            turned = pieces[-1].turned[0], stretch.turned[1]
            pieces[-1] = replace(pieces[-1], stop=stretch.stop, output=stretch.output, turned=turned)
    return pieces


def _resizes(model: Model, stretch: Stretch) -> bool:
    before, after = (
        torch.Size(model.recording.values[value].shapes[0]).numel() for value in (stretch.entering, stretch.output)
    )
    return before != after


# ---- which way round


def _channels_last(model: Model, value: int) -> bool:
    """Whether a boundary has its channels last, as far as the layers around it tell."""
    if len(model.recording.values[value].shapes[0]) < 3:
        return False
    for look in (_readers, _makers):
        seen, ahead = {value}, [value]
        while ahead:
            kinds, ahead = look(model, ahead)
            if any(issubclass(kind, _LAST) for kind in kinds):
                return True
            if any(issubclass(kind, _FIRST) for kind in kinds):
                return False
            ahead = [one for one in ahead if one not in seen and _same_shape(model, one, value)]
            seen.update(ahead)
    return False


def _readers(model: Model, values: Sequence[int]) -> tuple[list[type[nn.Module]], list[int]]:
    """What reads one of these, and what that makes."""
    numbers = [number for number, read in enumerate(model.flow.reads) if not read.isdisjoint(values)]
    return _kinds(model, numbers), [value for number in numbers for value in model.flow.makes[number]]


def _makers(model: Model, values: Sequence[int]) -> tuple[list[type[nn.Module]], list[int]]:
    """What makes one of these, and what that reads."""
    numbers = [number for number, made in enumerate(model.flow.makes) if not made.isdisjoint(values)]
    return _kinds(model, numbers), [value for number in numbers for value in model.flow.reads[number]]


_FUNCTIONS: dict[str, type[nn.Module]] = {
    "torch.nn.functional.layer_norm": nn.LayerNorm,
    "torch.nn.functional.linear": nn.Linear,
    "torch.nn.functional.group_norm": nn.GroupNorm,
    "torch.conv1d": nn.Conv1d,
    "torch.conv2d": nn.Conv2d,
}


def _kinds(model: Model, numbers: Sequence[int]) -> list[type[nn.Module]]:
    targets = [model.recording.calls[number].target for number in numbers]
    layers = [type(model.net.get_submodule(target[6:])) for target in targets if target.startswith("layer ")]
    return [*layers, *(_FUNCTIONS[target] for target in targets if target in _FUNCTIONS)]


def _same_shape(model: Model, one: int, other: int) -> bool:
    values = model.recording.values
    return values[one].shapes == values[other].shapes


# ---- the classifier


def _linear(model: Model, stretch: Stretch) -> str | None:
    """The linear layer that a stretch consists of, if it reads feature vectors [B, C]."""
    numbers = calls_of(model, stretch)
    call = model.recording.calls[numbers[0]]
    weights = [name.rpartition(".")[0] for name in references(call.arguments, "weight")]
    name = call.target.removeprefix("layer ") if call.target.startswith("layer ") else (weights or [""])[0]
    plain = isinstance(_submodule(model.net, name), nn.Linear) and len(numbers) == 1
    return name if plain and len(model.recording.values[stretch.entering].shapes[0]) == 2 else None


def _is_mean(model: Model, first: Stretch, last: Stretch) -> bool:
    """Whether what happens from one stretch to another takes the mean over positions, as a `linear` head does."""
    whole = replace(first, stop=last.stop, output=last.output, turned=(first.turned[0], False))
    block = build_block([write(model, whole, "Piece").text]).eval()
    shape = list(model.recording.values[first.entering].shapes[0])
    if first.turned[0]:
        shape.insert(1, shape.pop())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = block(x)
    mean = x.flatten(2).mean(2) if x.dim() > 2 else x
    return out.shape == mean.shape and bool((out - mean).abs().max() <= _TOLERANCE)
