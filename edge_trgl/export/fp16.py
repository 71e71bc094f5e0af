"""Convert a model to half precision.

Weights and arithmetic become float16; the inputs, their normalisation and the outputs stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from edge_trgl.export.arrays import Array
from edge_trgl.export.graph.names import INPUT, prefix_of
from edge_trgl.export.onnx_file.made_weights import MadeWeights
from edge_trgl.export.onnx_file.stream_reader import StreamedModel
from edge_trgl.export.onnx_file.weights import SLICE_BYTES, Weight

LARGEST = float(np.finfo(np.float16).max)
NORMALISING = ("Div", "Sub")
"""The operations at the start of the first module (see `stage.Normalisation`)."""

WHOLE_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Positions of inputs that ONNX requires to be float32 even if the others are float16: sizes, not values."""


def to_half_precision(written: StreamedModel, made: MadeWeights) -> StreamedModel:
    """Convert `written`, a float32 model, to half precision, and store its new weights in `made`.

    Weights beyond the range of float16 are clipped to it. Memory: one slice of a weight.
    """
    model = onnx.ModelProto()
    model.CopyFrom(written.model)
    graph = model.graph
    sizes = _sizes(graph)
    normalising, computing = _parted(graph)
    normalised = normalising[-1].output[0] if normalising else INPUT
    outputs = [value.name for value in graph.output]
    inner = {name: f"{prefix_of(1)}half/{name}" for name in (normalised, *outputs)}
    casts_out = [_cast(inner[name], name, TensorProto.FLOAT, _module_of(graph, name)) for name in outputs]
    for node in computing:
        _halve(node, keep=node.output[0] in sizes)
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    cast_in = _cast(normalised, inner[normalised], TensorProto.FLOAT16, prefix_of(1))
    nodes = [*normalising, cast_in, *computing, *casts_out]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.value_info:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    weights = {name: _half_weight(weight, made) for name, weight in written.weights.items()}
    return StreamedModel(model=model, weights=weights)


def _parted(graph: onnx.GraphProto) -> tuple[list[NodeProto], list[NodeProto]]:
    """Split the nodes into the normalisation and all others.

    The normalisation stays in float32, because raw units may exceed the range of float16.
    """
    nodes = list(graph.node)
    num_normalising = 0
    for place, node in enumerate(nodes):
        if node.op_type not in ("Constant", *NORMALISING):
            break
        if node.op_type in NORMALISING:
            num_normalising = place + 1
    return nodes[:num_normalising], nodes[num_normalising:]


def _sizes(graph: onnx.GraphProto) -> set[str]:
    """The names of all tensors from which the sizes in `WHOLE_INPUTS` are computed.

    The search goes back to constants and to the shapes of values.
    """
    makers = {name: node for node in graph.node for name in node.output}
    sizes: set[str] = set()
    names = [
        node.input[place]
        for node in graph.node
        for place in WHOLE_INPUTS.get(node.op_type, ())
        if place < len(node.input)
    ]
    while names:
        name = names.pop()
        maker = makers.get(name)
        if maker is not None and name not in sizes:
            sizes.add(name)
            names += [] if maker.op_type == "Shape" else maker.input
    return sizes


def _halve(node: NodeProto, *, keep: bool) -> None:
    """Convert the node's constants and cast targets, those in its subgraphs too, unless `keep`."""
    if keep:
        return
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            values = _half(onnx.numpy_helper.to_array(attribute.t))
            attribute.t.CopyFrom(onnx.numpy_helper.from_array(values, attribute.t.name))
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                _halve(inner, keep=False)


def _cast(source: str, target: str, to: int, prefix: str) -> NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"{prefix}Cast/{target}", to=to)


def _module_of(graph: onnx.GraphProto, name: str) -> str:
    """The name prefix of the module that computes `name`."""
    maker = next(node for node in graph.node if name in node.output)
    return str(maker.name).partition("/")[0] + "/"


def _half_weight(weight: Weight, made: MadeWeights) -> Weight:
    if weight.dtype != "float32":
        return weight
    return made.add_parts(weight.name, weight.shape, np.dtype(np.float16), _halves(weight))


def _halves(weight: Weight) -> Iterator[Array]:
    assert SLICE_BYTES % 4 == 0
    for part in weight.slices():
        yield _half(np.frombuffer(part, "<f4"))


def _half(values: Array) -> Array:
    halves: Array = np.clip(values, -LARGEST, LARGEST).astype(np.float16)
    return halves
