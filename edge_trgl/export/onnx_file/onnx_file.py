"""Write an ONNX file, read it back and check it, then publish or refuse it."""

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
from edge_trgl.export.onnx_file.stream_reader import Written
from edge_trgl.export.onnx_file.weights import SLICE_BYTES, Weight
from edge_trgl.run.export_record import FileRecord
from edge_trgl.runtime.errors import ExportRejectedError, StorageError
from edge_trgl.runtime.records import Document
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

MAX_INSIDE_BYTES = 512 * MIB
"""A model up to this size is one file. A runtime that opens one holds its weights twice for a while; weights in a
file of their own are mapped. Beyond 2 GiB there is no choice: readers count a protobuf message in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where an exported model goes: `model`, and `data` where its weights are in a file of their own.

    Until they are published both have another name, with `.new` behind it.
    """

    model: Path
    data: Path | None

    @property
    def unpublished(self) -> list[Path]:
        """What there is of it before it is published, the data first."""
        return [new_of(path) for path in (self.data, self.model) if path is not None]

    def read(self) -> Written:
        """The model that is not yet published."""
        return stream_reader.read(new_of(self.model), None if self.data is None else new_of(self.data))


def new_of(path: Path) -> Path:
    """The name of a file before it is published."""
    return path.with_name(path.name + ".new")


def rejected(path: Path) -> Path:
    """Where a refused file is kept: `model.onnx` goes to `model.onnx.rejected`."""
    return path.with_name(path.name + ".rejected")


def write(
    model: onnx.ModelProto, weights: Sequence[Weight], path: Path, *, max_inside: int = MAX_INSIDE_BYTES
) -> ModelFiles:
    """Write `model` with `weights`, durably, in files that are yet to be published as `path`.

    The weights' files are copied a slice at a time. Above `max_inside` bytes they go to a file beside the model.

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


def check(written: ModelFiles, target: Target) -> Written:
    """Read the unpublished files back and have ONNX's checker look at the whole graph, types and shapes included.

    The weights are inputs there, so that none is in memory; that their bytes fit their shapes and fill the file
    was seen in reading it.

    Raises:
        ExportRejectedError: the checker refuses it; the files are kept as `.rejected`.
    """
    found = written.read()
    opsets = {entry.domain: entry.version for entry in found.model.opset_import}
    assert opsets == {"": target.opset}, f"asked for opset {target.opset}, the file has {opsets}"
    assert found.model.ir_version == target.ir, f"asked for IR {target.ir}, the file has {found.model.ir_version}"
    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(found.model)
    open_graph.graph.input.extend(map(typed, found.weights.values()))
    try:
        onnx.checker.check_model(open_graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = f"{written.model.name} was refused by the ONNX checker: {str(error).splitlines()[0]}"
        refuse(written, {"reason": reason}, hint="please report it")
    return found


def typed(weight: Weight) -> onnx.ValueInfoProto:
    """`weight` as the input of a graph."""
    return onnx.helper.make_tensor_value_info(weight.name, weight.elem_type, list(weight.shape))


def publish(written: ModelFiles) -> None:
    """Give the files their names, over those of an older export.

    An interruption leaves the old model or the new one: the data have a name that the old model does not use, and
    the model is renamed last.
    """
    old = _data_of(written.model)
    if written.data is not None:
        files.rename(new_of(written.data), written.data)
    files.rename(new_of(written.model), written.model)
    if old is not None and old != written.data:
        files.remove(old)


def refuse(written: ModelFiles, document: Document, *, hint: str) -> None:
    """Keep the files as `.rejected`, with `document`, and leave what was published before alone.

    Args:
        written: not yet published.
        document: why, in its `reason`, and whatever else is known.
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
    """Describe the file that `path`, which is not published yet, will be."""
    digest, view = hashlib.sha256(), memoryview(bytearray(SLICE_BYTES))
    with files.opened(path, os.O_RDONLY) as fd:
        num_bytes = files.size(fd)
        for start in range(0, num_bytes, SLICE_BYTES):
            part = view[: num_bytes - start]
            files.read_into(fd, part, start)
            digest.update(part)
    return FileRecord(name=path.name.removesuffix(".new"), num_bytes=num_bytes, sha256=digest.hexdigest())


def withdraw(path: Path) -> None:
    """Remove a published model, if there is one, and its weights where they are beside it."""
    data = _data_of(path)
    files.remove(path)
    if data is not None:
        files.remove(data)


def _free_data(path: Path) -> Path:
    """A name for the weights beside `path` that the model which is there now does not use."""
    first, second = (path.with_name(path.name + suffix) for suffix in (".data", ".data2"))
    return second if _data_of(path) == first else first


def _data_of(path: Path) -> Path | None:
    """Where the published model has its weights, if not in itself; None if there is none that can be read."""
    try:
        places = {weight.path for weight in stream_reader.read(path).weights.values()}
    except (StorageError, ValueError):
        return None
    return next(iter(places - {path}), None)
