"""Read a model's graph from its file, and the place of each weight in the file, without reading any weight."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edge_trgl.export.onnx_file.stream_writer import GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA
from edge_trgl.export.onnx_file.weights import Weight
from edge_trgl.runtime.storage import files

_MAX_VARINT_BYTES = 10
_NUMBER, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
"""Size of a value, by wire type, for the types with a fixed size."""


@dataclass(frozen=True, kw_only=True)
class StreamedModel:
    """A model whose weights stay in files.

    Args:
        model: the model without its initializers.
        weights: the place of each initializer in a file, by name.
    """

    model: onnx.ModelProto
    weights: dict[str, Weight]


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One field of a protobuf message.

    Args:
        number: the field's number.
        begin: byte of the file at which the field begins.
        start: byte at which its value begins.
        stop: byte after its value.
    """

    number: int
    begin: int
    start: int
    stop: int


def read(path: Path, data: Path | None = None) -> StreamedModel:
    """Read the model at `path`.

    Args:
        path: the model file.
        data: path of its data file, if that is not at the location that the model names.

    Raises:
        ValueError: the file is not an ONNX model, or a weight's size does not fit its shape.
        StorageError: the file cannot be read.
    """
    try:
        return _read(path, data)
    except (DecodeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path, data: Path | None) -> StreamedModel:
    model = onnx.ModelProto()
    weights: dict[str, Weight] = {}
    with files.opened(path, os.O_RDONLY) as fd:
        for field in _fields(fd, 0, files.size(fd)):
            if field.number != MODEL_GRAPH:
                model.MergeFromString(_bytes(fd, field.begin, field.stop))
                continue
            for inner in _fields(fd, field.start, field.stop):
                if inner.number == GRAPH_INITIALIZER:
                    weight = _weight(fd, inner, path, data)
                    weights[weight.name] = weight
                else:
                    model.graph.MergeFromString(_bytes(fd, inner.begin, inner.stop))
    return StreamedModel(model=model, weights=weights)


def _weight(fd: int, field: _Field, path: Path, data: Path | None) -> Weight:
    tensor, raw = onnx.TensorProto(), None
    for inner in _fields(fd, field.start, field.stop):
        if inner.number == TENSOR_RAW_DATA:
            raw = inner
        else:
            tensor.MergeFromString(_bytes(fd, inner.begin, inner.stop))
    place = {entry.key: entry.value for entry in tensor.external_data}
    if raw is not None:
        start, num_bytes = raw.start, raw.stop - raw.start
    elif place:
        path = data or path.with_name(place["location"])
        start, num_bytes = int(place["offset"]), int(place["length"])
    else:
        raise ValueError(f"{path}: the weight {tensor.name} has no bytes")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    expected = math.prod(tensor.dims) * dtype.itemsize
    if num_bytes != expected:
        raise ValueError(f"{path}: the weight {tensor.name} has {num_bytes} bytes, its shape takes {expected}")
    return Weight(
        name=tensor.name, dtype=dtype.name, shape=tuple(tensor.dims), path=path, start=start, num_bytes=num_bytes
    )


def _fields(fd: int, start: int, stop: int) -> Iterator[_Field]:
    """Iterate over the fields of the message in bytes `start` to `stop`."""
    while start < stop:
        key, position = _varint(fd, start)
        wire_type = key & 7
        if wire_type == _LENGTH_DELIMITED:
            length, position = _varint(fd, position)
            end = position + length
        elif wire_type == _NUMBER:
            end = _varint(fd, position)[1]
        elif wire_type in _FIXED_BYTES:
            end = position + _FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"byte {start}: not the beginning of a protobuf field")
        if end > stop:
            raise ValueError(
                f"byte {start}: the field ends at byte {end}, after its message, which ends at {stop}"
            )
        yield _Field(number=key >> 3, begin=start, start=position, stop=end)
        start = end


def _varint(fd: int, start: int) -> tuple[int, int]:
    """Read the variable-length integer at byte `start`; returns it and the position after it."""
    read = _bytes(fd, start, min(start + _MAX_VARINT_BYTES, files.size(fd)))
    value = 0
    for place, byte in enumerate(read):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, start + place + 1
    raise ValueError(f"byte {start}: the integer does not end")


def _bytes(fd: int, start: int, stop: int) -> bytes:
    read = bytearray(stop - start)
    files.read_into(fd, read, start)
    return bytes(read)
