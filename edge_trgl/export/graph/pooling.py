"""Export adaptive average pooling, which ONNX lacks, as operations that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.onnx import symbolic_helper

from edge_trgl.runtime.errors import ExportRejectedError

OPERATION = "aten::adaptive_avg_pool2d"


class _Graph(Protocol):
    """The graph context that the exporter passes to a symbolic function.

    It must be a class: torch before 2.5 calls `issubclass` on the annotation, and `Any` is not a class before
    Python 3.11.
    """

    def op(self, name: str, *inputs: Any, **attributes: Any) -> Any: ...


@contextmanager
def any_size(opset: int) -> Iterator[None]:
    """Let the exporter write adaptive average pooling of any size while the context lasts.

    Its own function requires the input size to be a multiple of the output size.
    """
    torch.onnx.register_custom_op_symbolic(OPERATION, _pooling, opset)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(OPERATION, opset)  # type: ignore[attr-defined]


def means(size: int, wanted: int) -> Tensor:
    """The float32 matrix [wanted, size] that maps `size` values to `wanted` means of them.

    The windows are torch's: they overlap where `wanted` does not divide `size`, and repeat values where it is
    larger.
    """
    matrix = torch.zeros(wanted, size)
    for row in range(wanted):
        start, end = row * size // wanted, -(-(row + 1) * size // wanted)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


@symbolic_helper.parse_args("v", "is")
def _pooling(g: _Graph, x: Any, wanted: list[int]) -> Any:
    """The nodes that pool `x`, float32 [N, C, H, W], to [N, C, *wanted]."""
    if tuple(wanted) == (1, 1):
        return g.op("GlobalAveragePool", x)
    sizes = x.type().varyingSizes()
    if sizes is None or None in sizes[2:]:
        raise ExportRejectedError(
            "the network pools a map of unknown size", hint="replace adaptive pooling behind that operation"
        )
    sides = sizes[2:]
    if all(size % want == 0 for size, want in zip(sides, wanted, strict=True)):
        window = [size // want for size, want in zip(sides, wanted, strict=True)]
        return g.op("AveragePool", x, kernel_shape_i=window, strides_i=window)
    rows, columns = (means(size, want) for size, want in zip(sides, wanted, strict=True))
    across = g.op("MatMul", x, g.op("Constant", value_t=columns.T.contiguous()))
    return g.op("MatMul", g.op("Constant", value_t=rows), across)
