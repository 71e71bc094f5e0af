"""Compare a model that `write_models` wrote with what the network gave, and publish or refuse it. No torch here.

The model runs module by module, each with the weights that its file holds, the boundaries between them on disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edge_trgl.config.export_request import FORMS, output_names
from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.deploy.manifest import MANIFEST, Manifest, Stage
from edge_trgl.export.compare.boundary_files import take
from edge_trgl.export.compare.comparison import Comparison, Tally, why_refused
from edge_trgl.export.compare.module_by_module import Running, Spread, batches_of
from edge_trgl.export.early_exit import exits_folder
from edge_trgl.export.early_exit.search import model_files, stage_files
from edge_trgl.export.graph.names import LOGITS, logits_name
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import guard, high_water
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage import files

Array = np.ndarray[Any, np.dtype[Any]]


def check_models(
    run: Run,
    *,
    written: dict[str, Any],
    export_mb: float,
    others_mb: float,
    limits: Limits,
    calibrated: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Check the model and its stages; what stands in export.json from then on.

    Args:
        run: with a model that is not published yet.
        written: what `write_models` said of it.
        export_mb: MiB at most of the jobs before and their parent.
        others_mb: of the parent of this one.
        limits: for all.
        calibrated: what `early_exit.search` said, of a model in stages.

    Raises:
        ExportRejectedError: the model, or a stage, does not give what the network gives; it is kept as
            `.rejected`.
        StorageError: a file is damaged, or the disk is full.
    """
    guard.set_guard(limits, others_mb)
    exported = model_files(run, written)
    checking = _Checking(run, written)
    comparisons = checking.model(exported, written["exits"])
    described = [onnx_file.described(path) for path in exported.unpublished]
    document = {
        "schema": 1,
        "file": str(run.onnx_file),
        "files": described,
        "num_bytes": sum(file["num_bytes"] for file in described),
        **{name: written[name] for name in ("target", "opset", "ir", "batch")},
        "depth": max(written["exits"]),
        **_worst(comparisons.values()),
        "exits": [{"depth": depth, **asdict(found)} for depth, found in comparisons.items()],
        "early_exit": None,
        "budget_mb": round(limits.memory_mb, 1),
    }
    _refuse_what_differs(exported, comparisons, document)
    stages = stage_files(run, written)
    manifest = None if calibrated is None else _manifest(run, written, calibrated)
    if calibrated is not None and manifest is not None:
        document["early_exit"] = _early_exit(run, checking, stages, written, manifest, calibrated)
    checking.close()
    document["peak_mb"] = round(max(export_mb, high_water.peak_mb() + others_mb), 1)
    for form in FORMS:
        # They were made of the model that now goes.
        onnx_file.withdraw(run.smaller_file(form))
    onnx_file.publish(exported)
    if manifest is not None:
        exits_folder.publish(stages, run.exits_folder / MANIFEST, manifest.document())
    files.write_durable(run.export_file, [json.dumps(document, indent=2).encode() + b"\n"])
    return document


def _refuse_what_differs(
    exported: ModelFiles, comparisons: Mapping[int, Comparison], document: Mapping[str, Any]
) -> None:
    for depth, found in comparisons.items():
        if not found.ok:
            reason = why_refused(exported.model.name, depth, found)
            onnx_file.refuse(exported, {"reason": reason, **document}, hint="do not deploy it")


def _early_exit(
    run: Run,
    checking: _Checking,
    stages: Sequence[ModelFiles],
    written: Mapping[str, Any],
    manifest: Manifest,
    calibrated: Mapping[str, Any],
) -> dict[str, Any]:
    """Check the stages, one after the other; what export.json says of them."""
    described: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    for stage, known, one in zip(stages, written["stages"], manifest.stages, strict=True):
        found = checking.stage(stage, *known["modules"])
        document = {"exits": [{"depth": depth, **asdict(compared)} for depth, compared in found.items()]}
        _refuse_what_differs(stage, found, document)
        comparisons += found.values()
        described.append(
            {
                "files": [onnx_file.described(path) for path in stage.unpublished],
                "modules": known["modules"],
                "flops": one.flops,
                "threshold": one.threshold,
            }
        )
    kept = {name: calibrated[name] for name in ("asked", "chosen_on", "model_flops", "validation", "test")}
    return {"folder": str(run.exits_folder), "stages": described, **_worst(comparisons), **kept}


def _manifest(run: Run, written: Mapping[str, Any], calibrated: Mapping[str, Any]) -> Manifest:
    thresholds = [*calibrated["thresholds"], None]
    return Manifest(
        class_names=tuple(open_dataset(run.data).class_names),
        stages=tuple(
            Stage(file=known["file"], flops=flops, threshold=threshold)
            for known, flops, threshold in zip(written["stages"], calibrated["flops"], thresholds, strict=True)
        ),
    )


class _Checking:
    """Models on the images that the network was shown."""

    def __init__(self, run: Run, written: dict[str, Any]) -> None:
        self._scratch = run.scratch
        self._threads = run.config().train.threads or 0
        self._reader = RecordReader(run.data, "val", open_dataset(run.data))
        self._images = Spread(self._reader, written["num_images"])
        self._batch: int | None = written["batch"]
        self._batches = batches_of(written["num_images"], written["at_a_time"])
        self._depths = {*written["exits"], *(known["modules"][-1] for known in written["stages"])}

    def model(self, exported: ModelFiles, exits: Sequence[int]) -> dict[int, Comparison]:
        """Of every exit of the whole model, by its depth."""
        return self._compared(exported, range(1, max(exits) + 1), output_names(exits))

    def stage(self, exported: ModelFiles, first: int, last: int) -> dict[int, Comparison]:
        """Of the exit of a stage, by its depth; the stage before it was checked just before."""
        return self._compared(exported, range(first, last + 1), {last: LOGITS})

    def close(self) -> None:
        """Close the images and forget what the network gave."""
        self._reader.close()
        for depth in self._depths:
            files.remove(self._scratch / logits_name(depth))

    def _compared(self, exported: ModelFiles, numbers: range, names: Mapping[int, str]) -> dict[int, Comparison]:
        running = Running(
            exported.read(), numbers, scratch=self._scratch, batch=self._batch, threads=self._threads
        )
        depths = {name: depth for depth, name in names.items()}
        tallies = {name: Tally() for name in depths}

        def compare(name: str, samples: range, found: Array) -> None:
            expected = take(self._scratch / logits_name(depths[name]), samples, running.shapes[name])
            tallies[name].add(expected, found, self._images.labels(samples))

        running.run(self._batches, self._images, list(tallies), compare)
        return {depth: tallies[name].comparison() for depth, name in names.items()}


def _worst(comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """The figures of all exits together."""
    found = list(comparisons)
    return {
        "num_images": found[0].num_images,
        "max_abs_diff": max(one.max_abs_diff for one in found),
        "median_abs_diff": max(one.median_abs_diff for one in found),
        "top1_agreement": min(one.top1_agreement for one in found),
    }
