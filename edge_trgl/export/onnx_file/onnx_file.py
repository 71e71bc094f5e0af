"""Write an ONNX file, read it back and check it, then publish or reject it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from edge_trgl.config.export_request import Target
from edge_trgl.export.onnx_file import stream_reader, stream_writer
from edge_trgl.export.onnx_file.stream_reader import StreamedModel
from edge_trgl.export.onnx_file.weights import SLICE_BYTES, Weight
from edge_trgl.run.export_record import FileRecord
from edge_trgl.runtime.errors import ExportRejectedError, StorageError
from edge_trgl.runtime.records import Document
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

MAX_INSIDE_BYTES = 512 * MIB
"""Models up to this size are a single file; the weights of larger ones go to a separate file.

While a runtime loads a single file, it holds the weights twice, whereas it maps a separate file into memory. Above
2 GiB a separate file is required, because the size of a protobuf message must fit a signed 32-bit integer.
"""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The final paths of an exported model: `model`, and `data` if its weights are in a separate file.

    Until they are published, both files have `.new` appended to their names.
    """

    model: Path
    data: Path | None

    @property
    def unpublished(self) -> list[Path]:
        """The paths of its files before they are published, the data first."""
        return [new_of(path) for path in (self.data, self.model) if path is not None]

    def read(self) -> StreamedModel:
        """Read the model that is not published yet."""
        return stream_reader.read(new_of(self.model), None if self.data is None else new_of(self.data))


def new_of(path: Path) -> Path:
    """The path of a file before it is published."""
    return path.with_name(path.name + ".new")


def rejected(path: Path) -> Path:
    """The path at which a rejected file is kept: `model.onnx.rejected` for `model.onnx`."""
    return path.with_name(path.name + ".rejected")


def write(
    model: onnx.ModelProto, weights: Sequence[Weight], path: Path, *, max_inside: int = MAX_INSIDE_BYTES
) -> ModelFiles:
    """Write `model` with `weights` durably to unpublished files, for `publish` to rename to `path`.

    Weights are copied a slice at a time. If the model exceeds `max_inside` bytes, they go to a file beside it.

    Raises:
        StorageError: the disk is full or fails.
    """
    if stream_writer.inside_bytes(model, weights) <= max_inside:
        written = ModelFiles(model=path, data=None)
        files.write_durable(new_of(path), stream_writer.inside(model, weights))
        return written
    data = _free_data(path)
    files.write_durable(new_of(data), stream_writer.data(weights))
    files.write_durable(new_of(path), [stream_writer.beside(model, weights, data.name)])
    return ModelFiles(model=path, data=data)


def check(written: ModelFiles, target: Target) -> StreamedModel:
    """Read the unpublished files back and run ONNX's checker on the whole graph, types and shapes included.

    The checker sees the weights as inputs, so that none is in memory. Reading has already checked that the number
    of their bytes fits their shapes.

    Raises:
        ExportRejectedError: the checker rejects the model; the files are kept as `.rejected`.
    """
    streamed = written.read()
    opsets = {entry.domain: entry.version for entry in streamed.model.opset_import}
    assert opsets == {"": target.opset}, f"asked for opset {target.opset}, the file has {opsets}"
    ir_version = streamed.model.ir_version
    assert ir_version == target.ir, f"asked for IR {target.ir}, the file has {ir_version}"
    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(streamed.model)
    open_graph.graph.input.extend(map(typed, streamed.weights.values()))
    try:
        onnx.checker.check_model(open_graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = f"{written.model.name} was refused by the ONNX checker: {str(error).splitlines()[0]}"
        refuse(written, {"reason": reason}, hint="please report it")
    return streamed


def typed(weight: Weight) -> onnx.ValueInfoProto:
    """Declare `weight` as an input of a graph."""
    return onnx.helper.make_tensor_value_info(weight.name, weight.elem_type, list(weight.shape))


def publish(written: ModelFiles) -> None:
    """Rename the files to their final names, replacing those of an older export.

    An interruption leaves either the old model or the new one: the data file has a name that the old model does
    not use, and the model is renamed last.
    """
    old = _data_of(written.model)
    if written.data is not None:
        files.rename(new_of(written.data), written.data)
    files.rename(new_of(written.model), written.model)
    if old is not None and old != written.data:
        files.remove(old)


def refuse(written: ModelFiles, document: Document, *, hint: str) -> None:
    """Rename the files to `.rejected`, with `document` as JSON beside them; a published model is left as it is.

    Args:
        written: files that are not published yet.
        document: the cause in `reason`, and whatever else is known.
        hint: what to do about it.

    Raises:
        ExportRejectedError: always.
    """
    kept = rejected(written.model)
    for path in (written.data, written.model):
        if path is not None:
            files.rename(new_of(path), rejected(path))
    files.write_durable(kept.with_name(kept.name + ".json"), [json.dumps(document, indent=2).encode() + b"\n"])
    raise ExportRejectedError(document["reason"], hint=f"the file is kept as {kept}; {hint}")


def described(path: Path) -> FileRecord:
    """Describe an unpublished file under its final name: its size in bytes and its SHA-256 sum."""
    digest, view = hashlib.sha256(), memoryview(bytearray(SLICE_BYTES))
    with files.opened(path, os.O_RDONLY) as fd:
        num_bytes = files.size(fd)
        for start in range(0, num_bytes, SLICE_BYTES):
            part = view[: num_bytes - start]
            files.read_into(fd, part, start)
            digest.update(part)
    return FileRecord(name=path.name.removesuffix(".new"), num_bytes=num_bytes, sha256=digest.hexdigest())


def withdraw(path: Path) -> None:
    """Remove a published model, if there is one, and its data file."""
    data = _data_of(path)
    files.remove(path)
    if data is not None:
        files.remove(data)


def _free_data(path: Path) -> Path:
    """A path for the data file of `path` that the currently published model does not use."""
    first, second = (path.with_name(path.name + suffix) for suffix in (".data", ".data2"))
    return second if _data_of(path) == first else first


def _data_of(path: Path) -> Path | None:
    """The data file of the published model; None if there is none, or the model cannot be read."""
    try:
        paths = {weight.path for weight in stream_reader.read(path).weights.values()}
    except (StorageError, ValueError):
        return None
    return next(iter(paths - {path}), None)
