"""Trace one module to an ONNX graph without its weights, which takes a few kilobytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edge_trgl.export.graph import pooling
from edge_trgl.export.graph.names import entry_name, prefix_of
from edge_trgl.export.graph.stage import Stage
from edge_trgl.runtime.errors import ExportRejectedError


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The part of a graph that one module contributes.

    Args:
        nodes: in order; all names except those of the module's input and of `exits` begin with its prefix.
        weights: maps the names in the nodes to the names of the module's tensors.
        exits: maps the names of the module's outputs to the shape of one sample.
    """

    nodes: Sequence[onnx.NodeProto]
    weights: dict[str, str]
    exits: dict[str, tuple[int, ...]]


def trace(stage: Stage, number: int, input_shape: tuple[int, ...], exits: Sequence[str], *, opset: int) -> Traced:
    """Trace `stage`, float32 on the CPU, as module `number` of a network.

    Memory: the stage, and the copies of weights that a layer makes while it computes, one layer at a time.

    Args:
        stage: is left in eval mode.
        number: counted from 1.
        input_shape: shape of one sample; the stage takes [N, *input_shape].
        exits: names for the outputs of the stage, in order.
        opset: of the default ONNX domain.

    Raises:
        ExportRejectedError: the opset lacks one of the module's operations.
    """
    entry, tensors = entry_name(number), stage.eval().tensors()
    traced = _WeightsAsInputs(stage, list(tensors))
    graph = _exported(traced, [entry, *tensors], input_shape, tensors, exits, opset)
    assert not graph.initializer, "the exporter wrote a weight as a constant"
    prefix = prefix_of(number)

    def renamed(name: str) -> str:
        # An empty name stands for an omitted optional input.
        return name if name in ("", entry, *exits) else prefix + name.lstrip("/")

    _mend(graph.node, renamed)
    used = {value.name for value in graph.input}
    return Traced(
        nodes=list(graph.node),
        weights={renamed(name): name for name in tensors if name in used},
        exits=dict(zip(exits, traced.shapes, strict=True)),
    )


class _WeightsAsInputs(nn.Module):
    """A stage whose weights are inputs of `forward`.

    If they were parameters, the exporter would copy them, up to three times at once.
    """

    def __init__(self, stage: Stage, names: list[str]) -> None:
        super().__init__()
        self._held = (stage,)  # a tuple, so that torch does not register the stage and its parameters
        self._names = names
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        (stage,) = self._held
        places = _places(stage)
        own = [tensor for _, _, tensor in places]
        names = {id(tensor): name for name, tensor in _named(stage).items()}
        lent = dict(zip(self._names, weights, strict=True))
        try:
            for table, name, tensor in places:
                table[name] = lent[names[id(tensor)]]
            outputs: tuple[Tensor, ...] = stage(x)
        finally:
            for (table, name, _), tensor in zip(places, own, strict=True):
                table[name] = tensor
        self.shapes = [tuple(int(side) for side in value.shape[1:]) for value in outputs]
        return outputs


def _named(stage: Stage) -> dict[str, Tensor]:
    return dict(stage.named_parameters()) | dict(stage.named_buffers())


def _places(stage: Stage) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter or buffer table entry of the stage: the table, the name in it, and the tensor."""
    tables: list[dict[str, Any]] = [
        table for part in stage.modules() for table in (part._parameters, part._buffers)
    ]
    return [(table, name, held) for table in tables for name, held in table.items() if held is not None]


def _exported(
    traced: _WeightsAsInputs,
    names: list[str],
    input_shape: tuple[int, ...],
    tensors: dict[str, Tensor],
    exits: Sequence[str],
    opset: int,
) -> onnx.GraphProto:
    written = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad(), _attention_in_steps(), pooling.any_size(opset):
            # The warnings recommend the newer exporter, which writes opset 18 when asked for 17.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                traced,
                (torch.zeros(1, *input_shape), *tensors.values()),
                written,  # type: ignore[arg-type]
                export_params=False,
                do_constant_folding=False,
                input_names=names,
                output_names=list(exits),
                dynamic_axes={name: {0: "batch"} for name in (names[0], *exits)},
                opset_version=opset,
                dynamo=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).splitlines()[0]
        raise ExportRejectedError(
            f"the network cannot be written at opset {opset}: {reason}",
            hint="replace that operation in the model, or export for another target",
        ) from error
    model = onnx.load_from_string(written.getvalue())
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    # Some exporters silently write another opset than the one asked for.
    assert opsets == {"": opset}, f"asked for opset {opset}, got {opsets}"
    return model.graph


@contextmanager
def _attention_in_steps() -> Iterator[None]:
    """Disable torch's fused attention in eval mode, which the exporter cannot write."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _mend(nodes: Sequence[onnx.NodeProto], new: Callable[[str], str]) -> None:
    """Rename nodes and tensors, subgraphs included, and fix what ONNX's checker would refuse."""
    for node in nodes:
        node.name = new(node.name)
        for names in (node.input, node.output):
            names[:] = [new(name) for name in names]
        for attribute in node.attribute:
            if node.op_type == "Transpose":
                # The exporter keeps the negative axes of permute(0, -1, 1), which ONNX does not allow.
                attribute.ints[:] = [axis % len(attribute.ints) for axis in attribute.ints]
            if attribute.HasField("g"):
                inner = attribute.g
                _mend(inner.node, new)
                for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
                    value.name = new(value.name)
