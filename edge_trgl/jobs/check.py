"""Compare a model that `jobs.export` wrote with what the network gave, and publish or refuse it. No torch here.

The model runs module by module, each with the weights that its file holds, the boundaries between them on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.export import onnx_file
from edge_trgl.export.comparison import Comparison, Tally, why_refused
from edge_trgl.export.onnx_file import ModelFiles
from edge_trgl.export.passing import put, take
from edge_trgl.export.reading import Written
from edge_trgl.export.session import Session
from edge_trgl.export_options import output_names
from edge_trgl.run import Run
from edge_trgl.runtime import budget, files, memory

SLICE_BYTES = 8 << 20

Array = np.ndarray[Any, np.dtype[Any]]


def run(
    run: Run, *, written: dict[str, Any], export_mb: float, others_mb: float, budget_mb: float
) -> dict[str, Any]:
    """Check the model; what stands in export.json from then on.

    Args:
        run: with a model that is not published yet.
        written: what `jobs.export` said of it.
        export_mb: MiB at most of that job and its parent.
        others_mb: of the parent of this one.
        budget_mb: for both.

    Raises:
        ExportRejectedError: the model does not give what the network gives; it is kept as `.rejected`.
        StorageError: a file is damaged, or the disk is full.
    """
    budget.set_guard(budget_mb - others_mb)
    exported = ModelFiles(model=run.onnx_file, data=written["data"] and run.folder / written["data"])
    comparisons = _Checking(run, exported.read(), written).comparisons()
    described = [_described(path) for path in exported.unpublished]
    document = {
        "schema": 1,
        "file": str(run.onnx_file),
        "files": described,
        "num_bytes": sum(file["num_bytes"] for file in described),
        **{name: written[name] for name in ("target", "opset", "ir", "batch")},
        "depth": max(written["exits"]),
        **_worst(comparisons.values()),
        "exits": [{"depth": depth, **asdict(found)} for depth, found in comparisons.items()],
        "budget_mb": round(budget_mb, 1),
        "peak_mb": round(max(export_mb, memory.usage().peak + others_mb), 1),
    }
    for depth, found in comparisons.items():
        if not found.ok:
            reason = why_refused(run.onnx_file.name, depth, found)
            onnx_file.refuse(exported, {"reason": reason, **document}, hint="do not deploy it")
    onnx_file.publish(exported)
    files.write_durable(run.export_file, [json.dumps(document, indent=2).encode() + b"\n"])
    return document


class _Checking:
    """A model on the images that the network was shown."""

    def __init__(self, run: Run, model: Written, written: dict[str, Any]) -> None:
        self._scratch, self._model = run.scratch, model
        self._threads = run.config().train.threads or 0
        self._reader = RecordReader(run.data, "val", open_dataset(run.data))
        self._exits: list[int] = written["exits"]
        self._batch: int | None = written["batch"]
        count, size = written["num_images"], written["at_a_time"]
        self._batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
        self._tallies = {name: Tally() for name in output_names(self._exits).values()}
        graph = model.model.graph
        self._shapes = {
            value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim[1:])
            for value in (*graph.output, *graph.value_info)
        }

    def comparisons(self) -> dict[int, Comparison]:
        """Of every exit, by its depth."""
        for number in range(1, max(self._exits) + 1):
            session = Session(self._model, number, self._threads)
            for samples in self._batches:
                self._run(session, samples)
            if session.entry in self._shapes:
                files.remove(self._scratch / session.entry)
            del session
            memory.trim()
        self._reader.close()
        for name in self._tallies:
            files.remove(self._scratch / name)
        return {depth: self._tallies[name].comparison() for depth, name in output_names(self._exits).items()}

    def _run(self, session: Session, samples: range) -> None:
        """One batch through one module: its boundary to disk, its logits to be compared."""
        numbers = np.asarray(samples, np.int64)
        for name, values in session(self._filled(self._entering(session.entry, samples))).items():
            found = values[: len(samples)]
            if name in self._tallies:
                expected = take(self._scratch / name, samples, self._shapes[name])
                self._tallies[name].add(expected, found, self._reader.labels[numbers])
            else:
                put(self._scratch / name, samples.start, found)

    def _entering(self, name: str, samples: range) -> Array:
        """float32 [N, ...]: a boundary, or the images as a user gives them."""
        if name in self._shapes:
            return take(self._scratch / name, samples, self._shapes[name])
        records = self._reader.read(np.asarray(samples, np.int64))
        return np.ascontiguousarray(np.moveaxis(records, -1, 1), np.float32)

    def _filled(self, x: Array) -> Array:
        """As many samples as a model with a fixed batch takes, the last one again and again."""
        missing = 0 if self._batch is None else self._batch - len(x)
        return np.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)], "edge") if missing else x


def _worst(comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """The figures of all exits together."""
    found = list(comparisons)
    return {
        "num_images": found[0].num_images,
        "max_abs_diff": max(one.max_abs_diff for one in found),
        "median_abs_diff": max(one.median_abs_diff for one in found),
        "top1_agreement": min(one.top1_agreement for one in found),
    }


def _described(path: Path) -> dict[str, Any]:
    """The file that `path`, which is not published yet, will be: its name, size and sha256."""
    digest, view = hashlib.sha256(), memoryview(bytearray(SLICE_BYTES))
    with files.opened(path, os.O_RDONLY) as fd:
        num_bytes = files.size(fd)
        for start in range(0, num_bytes, SLICE_BYTES):
            part = view[: num_bytes - start]
            files.read_into(fd, part, start)
            digest.update(part)
    return {"name": path.name.removesuffix(".new"), "num_bytes": num_bytes, "sha256": digest.hexdigest()}
