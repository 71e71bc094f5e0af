"""Compare the models that `write_models` wrote with the network's own logits, then publish or reject them.

Runs without torch. A model runs one module at a time, with the weights stored in its file; the boundaries between
modules are kept on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from edge_trgl.config.export_request import FORMS, LOGITS, TARGETS, output_names
from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.deploy.manifest import Manifest, Stage
from edge_trgl.export.arrays import Array
from edge_trgl.export.compare.boundary_files import read_samples
from edge_trgl.export.compare.comparison import Tally, why_refused
from edge_trgl.export.compare.module_by_module import ModuleByModule, SampledImages, batches_of
from edge_trgl.export.early_exit import exits_folder
from edge_trgl.export.early_exit.search import model_files, stage_files
from edge_trgl.export.graph.names import logits_name
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.run.export_record import (
    ChosenThresholds,
    Comparison,
    Differences,
    EarlyExitRecord,
    ExportRecord,
    StageRecord,
    WrittenModels,
)
from edge_trgl.run.exported_files import export_document, write_export
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import guard, high_water
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import Document, to_json
from edge_trgl.runtime.storage import files


def check_models(
    run: Run,
    *,
    written: WrittenModels,
    export_mb: float,
    others_mb: float,
    limits: Limits,
    chosen: ChosenThresholds | None = None,
) -> ExportRecord:
    """Check the model and its stages, publish them, and write export.json.

    Args:
        run: a run whose new model is not published yet.
        written: the result of `write_models`.
        export_mb: peak memory of the earlier export jobs and their parent, MiB.
        others_mb: memory of this process's parent, MiB.
        limits: for this process and its parent.
        chosen: the early-exit thresholds; None if the network is not exported in stages.

    Returns:
        The contents of the new export.json.

    Raises:
        ExportRejectedError: the logits of the model or of a stage differ too much from the network's; its files
            are kept as `.rejected`.
        StorageError: a file is damaged, or the disk is full.
    """
    guard.set_guard(limits, others_mb)
    exported, stages = model_files(run, written), stage_files(run, written)
    checking = _Checking(run, written)
    comparisons = checking.model(exported, written.exits)
    record = _record(run, written, exported, comparisons, limits)
    _refuse_what_differs(exported, comparisons, export_document(record))
    manifest = None if chosen is None else _manifest(run, written, chosen)
    if chosen is not None and manifest is not None:
        early_exit = _early_exit(run, checking, stages, written, manifest, chosen)
        record = replace(record, early_exit=early_exit)
    checking.close()
    peak_mb = max(export_mb, high_water.peak_mb() + others_mb)
    record = replace(record, peak_mb=round(peak_mb, 1))
    for form in FORMS:
        # The smaller files were derived from the model that is being replaced.
        onnx_file.withdraw(run.smaller_file(form))
    onnx_file.publish(exported)
    if manifest is not None:
        exits_folder.publish(stages, run.exits_folder, manifest)
    write_export(run, record)
    return record


def _record(
    run: Run, written: WrittenModels, exported: ModelFiles, comparisons: Sequence[Comparison], limits: Limits
) -> ExportRecord:
    """The record of the whole model for export.json, with `peak_mb` still 0: it is not known yet."""
    described = tuple(onnx_file.described(path) for path in exported.unpublished)
    target = TARGETS[written.target]
    return ExportRecord(
        **vars(_worst(comparisons)),
        file=str(run.onnx_file),
        files=described,
        num_bytes=sum(file.num_bytes for file in described),
        target=written.target,
        opset=target.opset,
        ir=target.ir,
        batch=written.batch,
        depth=max(written.exits),
        exits=tuple(comparisons),
        early_exit=None,
        budget_mb=round(limits.memory_mb, 1),
        peak_mb=0.0,
    )


def _refuse_what_differs(exported: ModelFiles, comparisons: Iterable[Comparison], document: Document) -> None:
    for comparison in comparisons:
        if not comparison.ok:
            reason = why_refused(exported.model.name, comparison)
            onnx_file.refuse(exported, {"reason": reason, **document}, hint="do not deploy it")


def _early_exit(
    run: Run,
    checking: _Checking,
    stages: Sequence[ModelFiles],
    written: WrittenModels,
    manifest: Manifest,
    chosen: ChosenThresholds,
) -> EarlyExitRecord:
    """Check the stages in order and return their record for export.json."""
    records: list[StageRecord] = []
    comparisons: list[Comparison] = []
    for stage, written_stage, deployed in zip(stages, written.stages, manifest.stages, strict=True):
        comparison = checking.stage(stage, *written_stage.modules)
        _refuse_what_differs(stage, [comparison], {"exits": to_json([comparison])})
        comparisons.append(comparison)
        records.append(
            StageRecord(
                files=tuple(onnx_file.described(path) for path in stage.unpublished),
                modules=written_stage.modules,
                flops=deployed.flops,
                threshold=deployed.threshold,
            )
        )
    return EarlyExitRecord(
        **vars(_worst(comparisons)),
        folder=str(run.exits_folder),
        stages=tuple(records),
        asked=chosen.asked,
        chosen_on=chosen.chosen_on,
        model_flops=chosen.model_flops,
        validation=chosen.validation,
        test=chosen.test,
    )


def _manifest(run: Run, written: WrittenModels, chosen: ChosenThresholds) -> Manifest:
    thresholds = [*chosen.thresholds, None]
    return Manifest(
        class_names=tuple(open_dataset(run.data).class_names),
        stages=tuple(
            Stage(file=stage.file, flops=flops, threshold=threshold)
            for stage, flops, threshold in zip(written.stages, chosen.flops, thresholds, strict=True)
        ),
    )


class _Checking:
    """Runs models on the images whose network logits `write_models` stored."""

    def __init__(self, run: Run, written: WrittenModels) -> None:
        self._scratch = run.scratch
        self._threads = run.config().train.threads or 0
        self._reader = RecordReader(run.data, "val", open_dataset(run.data))
        self._images = SampledImages(self._reader, written.num_images)
        self._batch = written.batch
        self._batches = batches_of(written.num_images, written.at_a_time)
        self._depths = {*written.exits, *(stage.modules[-1] for stage in written.stages)}

    def model(self, exported: ModelFiles, exits: Sequence[int]) -> list[Comparison]:
        """Compare all exits of the whole model; the deepest comes last."""
        return self._compared(exported, range(1, max(exits) + 1), output_names(exits))

    def stage(self, exported: ModelFiles, first: int, last: int) -> Comparison:
        """Compare a stage's exit. Call in stage order: each stage reads the boundary that the one before wrote."""
        (comparison,) = self._compared(exported, range(first, last + 1), {last: LOGITS})
        return comparison

    def close(self) -> None:
        """Close the image reader and remove the network's stored logits."""
        self._reader.close()
        for depth in self._depths:
            files.remove(self._scratch / logits_name(depth))

    def _compared(self, exported: ModelFiles, numbers: range, names: Mapping[int, str]) -> list[Comparison]:
        model = ModuleByModule(
            exported.read(), numbers, scratch=self._scratch, batch=self._batch, threads=self._threads
        )
        depths = {name: depth for depth, name in names.items()}
        tallies = {name: Tally() for name in depths}

        def compare(name: str, samples: range, logits: Array) -> None:
            expected = read_samples(self._scratch / logits_name(depths[name]), samples, model.shapes[name])
            tallies[name].add(expected, logits, self._images.labels(samples))

        model.run(self._batches, self._images, list(tallies), compare)
        return [tallies[name].comparison(depth) for depth, name in names.items()]


def _worst(comparisons: Sequence[Comparison]) -> Differences:
    """The largest differences and the lowest agreement over all exits."""
    return Differences(
        num_images=comparisons[0].num_images,
        max_abs_diff=max(comparison.max_abs_diff for comparison in comparisons),
        median_abs_diff=max(comparison.median_abs_diff for comparison in comparisons),
        top1_agreement=min(comparison.top1_agreement for comparison in comparisons),
    )
