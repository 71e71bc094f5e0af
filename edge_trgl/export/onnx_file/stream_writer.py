"""Write an ONNX model as a stream of bytes, so that no weight is ever in memory as a whole.

A protobuf message is a sequence of fields, and a nested message is preceded by its length. The lengths follow from
the shapes, so weights can be copied straight from their files into the model's. Larger models have their weights
in a separate file, each at a multiple of `ALIGNMENT`, so that a runtime can map them into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from edge_trgl.export.onnx_file.weights import Weight

ALIGNMENT = 65_536
"""Bytes: a multiple of every system's page size (4, 16 or 64 KiB), and the granularity of mappings on Windows."""

# All three are length-delimited: wire type 2.
MODEL_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
GRAPH_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
TENSOR_RAW_DATA = onnx.TensorProto.RAW_DATA_FIELD_NUMBER


def inside_bytes(model: onnx.ModelProto, weights: Sequence[Weight]) -> int:
    """The size in bytes of the file that `inside` yields."""
    prefix, tensors = _laid_out(model, weights)
    return len(prefix) + sum(len(head) + weight.num_bytes for head, weight in zip(tensors, weights, strict=True))


def inside(model: onnx.ModelProto, weights: Sequence[Weight]) -> Iterator[bytes | memoryview]:
    """The bytes of a single file: `model`, which has no initializers, with `weights` as its initializers."""
    prefix, tensors = _laid_out(model, weights)
    yield prefix
    for head, weight in zip(tensors, weights, strict=True):
        yield head
        yield from weight.slices()


def beside(model: onnx.ModelProto, weights: Sequence[Weight], location: str) -> bytes:
    """The bytes of `model` with `weights` as external initializers in the file `location` beside it."""
    described = onnx.ModelProto()
    described.CopyFrom(model)
    for weight, start in zip(weights, _starts(weights), strict=True):
        tensor = described.graph.initializer.add(name=weight.name, dims=weight.shape, data_type=weight.elem_type)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", start), ("length", weight.num_bytes)):
            tensor.external_data.add(key=key, value=str(value))
    content: bytes = described.SerializeToString()
    return content


def data(weights: Sequence[Weight]) -> Iterator[bytes | memoryview]:
    """The bytes of the data file: all `weights`, each at a multiple of `ALIGNMENT`."""
    position = 0
    for weight, start in zip(weights, _starts(weights), strict=True):
        yield bytes(start - position)
        yield from weight.slices()
        position = start + weight.num_bytes


def _starts(weights: Sequence[Weight]) -> list[int]:
    starts, position = [], 0
    for weight in weights:
        starts.append(position)
        position += -(-weight.num_bytes // ALIGNMENT) * ALIGNMENT
    return starts


def _laid_out(model: onnx.ModelProto, weights: Sequence[Weight]) -> tuple[bytes, list[bytes]]:
    """The bytes before the first weight, and the bytes that precede each weight's values."""
    tensors = [_head(weight) for weight in weights]
    inner = model.graph.SerializeToString()
    outer = onnx.ModelProto()
    outer.CopyFrom(model)
    outer.ClearField("graph")
    num_bytes = len(inner) + sum(
        len(head) + weight.num_bytes for head, weight in zip(tensors, weights, strict=True)
    )
    return outer.SerializeToString() + _before(MODEL_GRAPH, num_bytes) + inner, tensors


def _head(weight: Weight) -> bytes:
    tensor = onnx.TensorProto(name=weight.name, dims=weight.shape, data_type=weight.elem_type)
    described: bytes = tensor.SerializeToString() + _before(TENSOR_RAW_DATA, weight.num_bytes)
    return _before(GRAPH_INITIALIZER, len(described) + weight.num_bytes) + described


def _before(field: int, num_bytes: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(num_bytes)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
