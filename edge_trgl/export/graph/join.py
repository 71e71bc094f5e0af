"""Graphs of single modules chained into one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from edge_trgl import __version__
from edge_trgl.config.export_request import Target
from edge_trgl.export.graph.names import INPUT
from edge_trgl.export.graph.trace import Traced


def join(
    parts: Sequence[Traced],
    *,
    input_shape: tuple[int, ...],
    outputs: Sequence[str],
    target: Target,
    batch: int | None,
    metadata: Mapping[str, str],
    entry: str = INPUT,
) -> onnx.ModelProto:
    """One model of all `parts`, in order, without their weights.

    Args:
        parts: each reads what the one before gives.
        input_shape: of one sample.
        outputs: which of the parts' exits the model gives; the others are boundaries.
        target: decides the opset, that of the parts, and the version of the format.
        batch: samples that the model takes at a time; None for any number.
        metadata: goes into the model's `metadata_props`.
        entry: the name of the input.
    """
    shapes = {name: shape for part in parts for name, shape in part.exits.items()}
    first = "batch" if batch is None else batch

    def described(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [first, *shape])

    graph = onnx.helper.make_graph(
        [node for part in parts for node in part.nodes],
        "edge-trgl",
        [described(entry, input_shape)],
        [described(name, shapes[name]) for name in outputs],
        value_info=[described(name, shape) for name, shape in shapes.items() if name not in outputs],
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", target.opset)],
        ir_version=target.ir,
        producer_name="edge-trgl",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, dict(metadata))
    return model
