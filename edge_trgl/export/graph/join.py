"""Chain the graphs of single modules into one model."""

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
    """Join `parts` into one float32 model without weights.

    Args:
        parts: consecutive modules; each reads the boundary of the one before.
        input_shape: shape of one sample.
        outputs: names of the parts' exits that the model returns; the other exits are boundaries inside it.
        target: gives the opset, which must be that of the parts, and the IR version.
        batch: fixed batch size; None for any.
        metadata: the model's `metadata_props`.
        entry: name of the input.
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
