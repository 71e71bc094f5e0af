"""Cuts a model into a net of blocks."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import torch

from edge_trgl.networks.chain import Shape
from edge_trgl.networks.cutting.cut_points import CONTAINERS
from edge_trgl.networks.cutting.layers import has_weight_matrix
from edge_trgl.networks.cutting.net import Net, NetBlock
from edge_trgl.networks.cutting.partition import Partition, partition
from edge_trgl.networks.cutting.recorded_model import CallRange, RecordedModel
from edge_trgl.networks.cutting.recording import BATCH_SIZES
from edge_trgl.networks.cutting.source_writer import write_piece
from edge_trgl.networks.cutting.users_code import users_code
from edge_trgl.networks.cutting.without_weights import Factory
from edge_trgl.runtime.errors import InputError


def cut(
    factory: Factory,
    *,
    name: str,
    input_shape: Shape,
    num_classes: int,
    any_classifier: bool = False,
    scratch: Path | None = None,
) -> Net:
    """Cut a model into blocks between which one tensor alone is alive; its weights are never in memory.

    Args:
        factory: makes the model.
        name: the model's name, for messages and reports.
        input_shape: one sample, of any number of dimensions.
        num_classes: number of logits.
        any_classifier: take a model that gives another number of logits: its classifier is replaced in any case.
        scratch: an existing folder for a file of weights, should its constructor need their values.

    Raises:
        InputError: the model cannot be followed, there is no place to cut it, or it gives something else than
            logits; the message says where and why.
        UsageError: the user's own code raises an error.
    """
    try:
        with torch.device("cpu"):  # whatever device the caller has set
            with users_code(name):
                model = RecordedModel.of(factory, input_shape, scratch)
            _check_output(model, num_classes, any_classifier=any_classifier)
            return _net(model, partition(model), name, input_shape, num_classes)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", hint=error.hint) from error


def _check_output(model: RecordedModel, num_classes: int, *, any_classifier: bool) -> None:
    """Refuse a model that does not give one number for each class."""
    output = model.recording.values[model.recording.output]
    shape = output.shapes[0][1:]
    found = f"{list(shape)}{'' if output.floating else ' whole numbers'} for each sample"
    if len(shape) != 1 or not output.floating or output.shapes[0][0] != BATCH_SIZES[0]:
        raise InputError(
            f"the model gives {found}, not logits of {num_classes} classes: it is no classifier",
            hint="Give a network whose forward returns [N, classes]; other tasks are not supported.",
        )
    if shape[0] != num_classes and not any_classifier:
        raise InputError(
            f"the model gives {shape[0]} logits, and the data has {num_classes} classes",
            hint="Build its last layer for num_classes; with --pretrained, the last layer is replaced.",
        )


def _net(model: RecordedModel, parts: Partition, name: str, input_shape: Shape, num_classes: int) -> Net:
    pieces: dict[str, int] = {}
    blocks = []
    for block in parts.blocks:
        written = [write_piece(model, call_range, _title(model, call_range)) for call_range in block]
        numbers = [pieces.setdefault(piece.text, len(pieces)) for piece in written]
        blocks.append(NetBlock(pieces=tuple(numbers), prefixes=tuple(piece.prefix for piece in written)))
    return Net(
        name=name,
        input_shape=tuple(input_shape),
        num_classes=num_classes,
        num_logits=model.recording.values[model.recording.output].shapes[0][1],
        pieces=tuple(pieces),
        blocks=tuple(blocks),
        classifier=parts.classifier,
        outside=_names_outside(model, parts),
    )


def _names_outside(model: RecordedModel, parts: Partition) -> tuple[str, ...]:
    """Return the names of the weights and buffers that no block uses."""
    used = {name for block in parts.blocks for call_range in block for name in model.names_in(call_range)}
    named = [*model.net.named_parameters(remove_duplicate=False), *model.net.named_buffers(remove_duplicate=False)]
    return tuple(name for name, _ in named if used.isdisjoint(accumulate(name.split("."), "{}.{}".format)))


def _title(model: RecordedModel, call_range: CallRange) -> str:
    """Return the name of the class that a piece stands for.

    Of the modules that lie wholly inside the range it is the outermost that has a matrix of weights, else the
    outermost of all; of bare layers, the first.
    """
    calls = model.recording.calls
    inside = calls[call_range.start : call_range.stop]
    outside = {scope for call in (*calls[: call_range.start], *calls[call_range.stop :]) for scope in call.scope}
    scopes = [model.recording.scopes[scope] for call in inside for scope in call.scope if scope not in outside]
    layers = [call.layer_name for call in inside if call.layer_name is not None]
    parts = [model.net.get_submodule(name) for name in (*(scope.name for scope in scopes), *layers)]
    candidates = [part for part in parts if not isinstance(part, CONTAINERS)]
    candidates.sort(key=lambda part: not has_weight_matrix(part))  # stable: those with a matrix come first
    return type(candidates[0]).__name__ if candidates else "Piece"
