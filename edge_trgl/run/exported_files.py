"""Writes and reads export.json, and lists the exported files that it describes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edge_trgl.run.export_record import ExportRecord, QuantisedFile, RefusedFile, SmallerFile
from edge_trgl.run.folder import Run
from edge_trgl.runtime.records import Document, document_of, read_record
from edge_trgl.runtime.storage import files

SCHEMA = 1


def export_document(record: ExportRecord) -> Document:
    """Return the content of export.json."""
    return {"schema": SCHEMA, **document_of(record)}


def write_export(run: Run, record: ExportRecord) -> None:
    """Write export.json.

    Raises:
        StorageError: the disk is full or fails.
    """
    files.write_durable(run.export_file, [json.dumps(export_document(record), indent=2).encode() + b"\n"])


def read_export(run: Run) -> ExportRecord | None:
    """Read export.json, the record of the last export; None if there was none."""
    if not run.export_file.is_file():
        return None
    document: Document = json.loads(run.export_file.read_text())
    del document["schema"]
    return read_record(ExportRecord, document)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file of an export with smaller files beside model.onnx; None where a number is not known.

    Attributes:
        name: of the file.
        num_bytes: of it and its weights.
        accuracy: at the deepest exit, on the validation images that smaller files are judged on; a fraction.
        top1_agreement: fraction of the same images for which it predicts the class that model.onnx predicts.
        latency_ms: the median of a run.
        note: how it was quantised, or why it was refused; may be empty.
    """

    name: str
    num_bytes: int | None
    accuracy: float | None
    top1_agreement: float | None
    latency_ms: float | None
    note: str


def exported_files(run: Run, record: ExportRecord) -> tuple[ExportedFile, ...]:
    """List model.onnx and the smaller files beside it; empty if there are no smaller files."""
    if not record.smaller:
        return ()
    latencies = {} if record.latency is None else record.latency.p50_ms
    published = [file for file in record.smaller.values() if not isinstance(file, RefusedFile)]
    name = run.onnx_file.name
    model = ExportedFile(
        name=name,
        num_bytes=record.num_bytes,
        accuracy=published[0].accuracy_fp32 if published else None,
        top1_agreement=None,
        latency_ms=latencies.get(name),
        note="",
    )
    smaller = (_row(run.smaller_file(form).name, file, latencies) for form, file in record.smaller.items())
    return (model, *smaller)


def _row(name: str, file: SmallerFile | RefusedFile, latencies: Mapping[str, float]) -> ExportedFile:
    if isinstance(file, RefusedFile):
        return ExportedFile(
            name=name, num_bytes=None, accuracy=None, top1_agreement=None, latency_ms=None, note=file.rejected
        )
    return ExportedFile(
        name=name,
        num_bytes=file.num_bytes,
        accuracy=file.accuracy,
        top1_agreement=file.top1_agreement,
        latency_ms=latencies.get(name),
        note=f"{file.method}; {file.form}" if isinstance(file, QuantisedFile) else "",
    )
