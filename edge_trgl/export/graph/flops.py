"""Count the FLOPs of one sample in an exported model: those of convolutions and matrix products.

Tensor sizes come from running the model, because ONNX's shape inference cannot derive all of them.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from edge_trgl.export.compare.session import opened, part_of
from edge_trgl.export.onnx_file.stream_reader import StreamedModel

COUNTED = ("Conv", "Gemm", "MatMul")

Shape = tuple[int, ...]


def flops_of(written: StreamedModel, numbers: range) -> int:
    """Count the FLOPs of one sample through modules `numbers` of a model; at least 1.

    A multiplication and its addition count as two. Other operations are left out, as is usual: in networks of this
    kind they are a few percent. One module is in memory at a time.

    Raises:
        StorageError: the weights cannot be read.
    """
    return max(1, sum(_of_module(written, number) for number in numbers))


def _of_module(written: StreamedModel, number: int) -> int:
    part = part_of(written, number)
    counted = [node for node in part.graph.node if node.op_type in COUNTED]
    entry = part.graph.input[0]
    first, *sides = (side.dim_value for side in entry.type.tensor_type.shape.dim)
    batch = first or 1
    shapes = _shapes(written, part, counted, (batch, *sides))
    return sum(_of_node(node, shapes) for node in counted) // batch


def _shapes(
    written: StreamedModel, part: onnx.ModelProto, counted: list[onnx.NodeProto], entering: Shape
) -> dict[str, Shape]:
    """The shapes of outputs and second inputs of the `counted` nodes, for an input of shape `entering`."""
    entry, *weights = (value.name for value in part.graph.input)
    fed = {entry: np.zeros(entering, np.float32), **{name: written.weights[name].read() for name in weights}}
    wanted = {name for node in counted for name in (node.output[0], node.input[1])} - set(fed)
    del part.graph.output[:]
    part.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(wanted))
    computed = opened(part, 1).run(sorted(wanted), fed) if wanted else []
    values = {**fed, **dict(zip(sorted(wanted), computed, strict=True))}
    return {name: value.shape for name, value in values.items()}


def _of_node(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    return 2 * math.prod(shapes[node.output[0]]) * _terms(node, shapes[node.input[1]])


def _terms(node: onnx.NodeProto, right: Shape) -> int:
    """The number of products summed for one output value; `right` is the shape of the second input."""
    if node.op_type == "Conv":
        return math.prod(right[1:])  # input channels of a group, times the kernel size
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return right[-1] if transposed or len(right) == 1 else right[-2]
