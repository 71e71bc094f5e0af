"""What one sample costs in a written model: FLOPs of convolutions and matrix products.

The sizes are taken from running it: not all of them follow from the graph for ONNX's own shape inference.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from edge_trgl.export.compare.session import opened, part_of
from edge_trgl.export.onnx_file.stream_reader import Written

COUNTED = ("Conv", "Gemm", "MatMul")

Shape = tuple[int, ...]


def flops_of(written: Written, numbers: range) -> int:
    """FLOPs of one sample through modules `numbers` of a model; at least 1.

    A multiplication and its addition are two. All other operations are left out, as is usual: in networks of this
    kind they are a few percent. One module is in memory at a time.

    Raises:
        StorageError: the weights cannot be read.
    """
    return max(1, sum(_of_module(written, number) for number in numbers))


def _of_module(written: Written, number: int) -> int:
    part = part_of(written, number)
    counted = [node for node in part.graph.node if node.op_type in COUNTED]
    entry = part.graph.input[0]
    first, *sides = (side.dim_value for side in entry.type.tensor_type.shape.dim)
    batch = first or 1
    shapes = _shapes(written, part, counted, (batch, *sides))
    return sum(_of_node(node, shapes) for node in counted) // batch


def _shapes(
    written: Written, part: onnx.ModelProto, counted: list[onnx.NodeProto], entering: Shape
) -> dict[str, Shape]:
    """The shapes of what the `counted` nodes multiply and make, for zeros of the shape `entering`."""
    entry, *weights = (value.name for value in part.graph.input)
    fed = {entry: np.zeros(entering, np.float32), **{name: written.weights[name].read() for name in weights}}
    wanted = {name for node in counted for name in (node.output[0], node.input[1])} - set(fed)
    del part.graph.output[:]
    part.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(wanted))
    found = opened(part, 1).run(sorted(wanted), fed) if wanted else []
    known = {**fed, **dict(zip(sorted(wanted), found, strict=True))}
    return {name: value.shape for name, value in known.items()}


def _of_node(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    return 2 * math.prod(shapes[node.output[0]]) * _terms(node, shapes[node.input[1]])


def _terms(node: onnx.NodeProto, right: Shape) -> int:
    """Products that are added up for one number of the output; `right`: the shape of the second input."""
    if node.op_type == "Conv":
        return math.prod(right[1:])  # channels of a group, and the window
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return right[-1] if transposed or len(right) == 1 else right[-2]
