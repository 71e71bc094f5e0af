"""Cut a model into a net of blocks."""

from __future__ import annotations

from itertools import accumulate

import torch

from edge_trgl.networks.cutting.cut_points import CONTAINERS, flow_of
from edge_trgl.networks.cutting.layers import has_matrix
from edge_trgl.networks.cutting.net import Block, Net, Shape
from edge_trgl.networks.cutting.partition import Partition, partition
from edge_trgl.networks.cutting.recorder import record
from edge_trgl.networks.cutting.source_writer import Model, Stretch, names_in, write
from edge_trgl.networks.cutting.without_weights import Factory, numbers
from edge_trgl.runtime.errors import InputError


def cut(factory: Factory, *, name: str, input_shape: Shape, num_classes: int) -> Net:
    """The model that `factory` makes, as a chain of blocks between which one tensor alone is alive.

    Its weights are never in memory. `input_shape`: of one sample, whatever its number of dimensions.

    Raises:
        InputError: it cannot be followed, or there is no place to cut it; says where and why.
    """
    try:
        with torch.device("cpu"):  # whatever the caller makes tensors on
            model = _followed(factory, input_shape)
            return _net(model, partition(model), name, input_shape, num_classes)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", hint=error.hint) from error


def _followed(factory: Factory, input_shape: Shape) -> Model:
    net, _ = numbers(factory)
    buffers = {name: buffer.detach().clone() for name, buffer in net.named_buffers()}
    recording = record(net.to("meta"), input_shape)
    return Model(net=net, buffers=buffers, recording=recording, flow=flow_of(recording))


def _net(model: Model, found: Partition, name: str, input_shape: Shape, num_classes: int) -> Net:
    pieces: dict[str, int] = {}
    blocks = []
    for block in found.blocks:
        writings = [write(model, stretch, _title(model, stretch)) for stretch in block]
        numbers = [pieces.setdefault(writing.text, len(pieces)) for writing in writings]
        blocks.append(Block(pieces=tuple(numbers), prefixes=tuple(writing.prefix for writing in writings)))
    return Net(
        name=name,
        input_shape=tuple(input_shape),
        num_classes=num_classes,
        pieces=tuple(pieces),
        blocks=tuple(blocks),
        classifier=found.classifier,
        left=_left(model, found),
    )


def _left(model: Model, found: Partition) -> tuple[str, ...]:
    used = {name for block in found.blocks for stretch in block for name in names_in(model, stretch)}
    named = [*model.net.named_parameters(remove_duplicate=False), *model.net.named_buffers(remove_duplicate=False)]
    return tuple(name for name, _ in named if used.isdisjoint(accumulate(name.split("."), "{}.{}".format)))


def _title(model: Model, stretch: Stretch) -> str:
    """The class of the outermost module with a matrix of weights that lies in a stretch, or of a layer."""
    calls = model.recording.calls
    inside = calls[stretch.start : stretch.stop]
    outside = {scope for call in (*calls[: stretch.start], *calls[stretch.stop :]) for scope in call.scope}
    scopes = [model.recording.scopes[scope] for call in inside for scope in call.scope if scope not in outside]
    layers = [call.target.removeprefix("layer ") for call in inside if call.target.startswith("layer ")]
    parts = [model.net.get_submodule(name) for name in (*(scope.name for scope in scopes), *layers)]
    named = [part for part in parts if not isinstance(part, CONTAINERS)]
    named.sort(key=lambda part: not has_matrix(part))  # the first of those that have one
    return type(named[0]).__name__ if named else "Piece"
