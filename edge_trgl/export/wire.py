"""An ONNX model as a stream of bytes, so that no second copy of the weights is ever in memory.

A protobuf message is its fields, one after the other, and a message inside another is preceded by its
length. Lengths are known from shapes, so the weights can go from their tensors straight to the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch

# Field numbers of onnx.proto, each with wire type 2 (length-delimited).
_MODEL_GRAPH = 7 << 3 | 2
_GRAPH_INITIALIZER = 5 << 3 | 2
_TENSOR_RAW_DATA = 9 << 3 | 2


@dataclass(frozen=True, kw_only=True)
class ModelStream:
    """`num_bytes` in all, and the chunks that make them up; chunks can be asked for once or again."""

    num_bytes: int
    prefix: bytes
    tensors: tuple[tuple[bytes, torch.Tensor], ...]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        yield self.prefix
        for prefix, tensor in self.tensors:
            yield prefix
            yield _raw(tensor)


def stream(graph: onnx.ModelProto, weights: Mapping[str, torch.Tensor]) -> ModelStream:
    """Stream of `graph`, a model without initializers, with `weights` as its initializers."""
    tensors = tuple((_tensor_prefix(name, tensor), tensor) for name, tensor in weights.items())
    inner = graph.graph.SerializeToString()
    outer = onnx.ModelProto()
    outer.CopyFrom(graph)
    outer.ClearField("graph")
    num_weights = sum(len(prefix) + tensor.nbytes for prefix, tensor in tensors)
    header = _varint(_MODEL_GRAPH) + _varint(len(inner) + num_weights)
    prefix = outer.SerializeToString() + header + inner
    return ModelStream(num_bytes=len(prefix) + num_weights, prefix=prefix, tensors=tensors)


def _tensor_prefix(name: str, tensor: torch.Tensor) -> bytes:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(str(tensor.dtype).removeprefix("torch.")))
    described: bytes = onnx.TensorProto(name=name, dims=tensor.shape, data_type=kind).SerializeToString()
    described += _varint(_TENSOR_RAW_DATA) + _varint(tensor.nbytes)
    return _varint(_GRAPH_INITIALIZER) + _varint(len(described) + tensor.nbytes) + described


def _raw(tensor: torch.Tensor) -> memoryview:
    array = tensor.detach().cpu().numpy().reshape(-1)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8).data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
