"""Choose the early-exit thresholds from the answers of every stage that `write_models` wrote, without torch.

The stages run module by module, as in `check_models`, on all validation images and then on all test images.
"""

from __future__ import annotations

import numpy as np

from edge_trgl.config.export_request import LOGITS, Leaving, leaving_of
from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.deploy.prediction import softmax
from edge_trgl.export.arrays import Array
from edge_trgl.export.compare.module_by_module import Images, ModuleByModule, batches_of
from edge_trgl.export.early_exit.thresholds import Answers, Outcome, common, outcome, search, shares_of
from edge_trgl.export.graph.flops import flops_of
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.run.export_record import (
    Balance,
    ChosenThresholds,
    CommonThreshold,
    EarlyExitScores,
    SearchedThresholds,
    ValidationScores,
    WrittenModels,
    WrittenStage,
)
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.limits import Limits

IMAGES_AT_ONCE = 256
"""Images that pass through all stages before the next ones start. It bounds the boundaries on disk to the number
that checking the export needs."""

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 1.0)
"""Points of the report's curve for one threshold shared by all exits."""

POINTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Points of the report's curve for one threshold per exit: percentage points of accuracy that may be lost."""


def choose_thresholds(
    run: Run, *, written: WrittenModels, leaving: str, others_mb: float, limits: Limits
) -> ChosenThresholds:
    """Choose the thresholds of all stages except the last, and measure the accuracy and FLOPs they lead to.

    Args:
        run: a run whose new stages are not published yet.
        written: the result of `write_models`.
        leaving: a threshold from 0 to 1, or `auto:` and the percentage points of accuracy that may be lost.
        others_mb: memory of the parent process, MiB.
        limits: for this process and its parent.

    Raises:
        StorageError: a file is damaged, or the disk is full.
    """
    guard.set_guard(limits, others_mb)
    flops = [
        flops_of(files.read(), _numbers(stage))
        for files, stage in zip(stage_files(run, written), written.stages, strict=True)
    ]
    shares = shares_of(flops)
    answers = _answers(run, written, "val")
    chosen = _chosen(answers, shares, leaving_of(leaving))
    tested = open_dataset(run.data).splits["test"].num_images > 0
    return ChosenThresholds(
        asked=leaving,
        chosen_on=run.config().data.choose_on,
        thresholds=chosen.thresholds,
        flops=tuple(flops),
        model_flops=flops_of(model_files(run, written).read(), range(1, max(written.exits) + 1)),
        validation=_validated(answers, shares, chosen),
        test=_scored(_answers(run, written, "test"), shares, chosen) if tested else None,
    )


def model_files(run: Run, written: WrittenModels) -> ModelFiles:
    """The files of the whole model that `write_models` wrote."""
    return ModelFiles(model=run.onnx_file, data=None if written.data is None else run.folder / written.data)


def stage_files(run: Run, written: WrittenModels) -> list[ModelFiles]:
    """The files of the stages that `write_models` wrote."""
    folder = run.exits_folder
    return [
        ModelFiles(model=folder / stage.file, data=None if stage.data is None else folder / stage.data)
        for stage in written.stages
    ]


def _numbers(stage: WrittenStage) -> range:
    first, last = stage.modules
    return range(first, last + 1)


def _chosen(answers: Answers, shares: Array, leaving: Leaving) -> Outcome:
    if leaving.points is not None:
        return search(answers, shares, leaving.points)
    assert leaving.threshold is not None
    return outcome(answers, shares, (leaving.threshold,) * (len(shares) - 1))


def _validated(answers: Answers, shares: Array, chosen: Outcome) -> ValidationScores:
    """The scores of the chosen thresholds, with the curves of one shared threshold and of one per exit."""
    searched = [(points, search(answers, shares, points)) for points in POINTS]
    return ValidationScores(
        **vars(_scored(answers, shares, chosen)),
        common=tuple(
            CommonThreshold(threshold=threshold, **vars(_balance(reached)))
            for threshold, reached in zip(THRESHOLDS, common(answers, shares, THRESHOLDS), strict=True)
        ),
        searched=tuple(
            SearchedThresholds(points=points, thresholds=reached.thresholds, **vars(_balance(reached)))
            for points, reached in searched
        ),
    )


def _scored(answers: Answers, shares: Array, chosen: Outcome) -> EarlyExitScores:
    """The scores of the chosen thresholds, with the accuracy of every exit on its own."""
    return EarlyExitScores(
        **vars(_balance(outcome(answers, shares, chosen.thresholds))),
        num_images=answers.right.shape[1],
        per_exit=tuple(answers.right.mean(axis=1).tolist()),
    )


def _balance(reached: Outcome) -> Balance:
    return Balance(accuracy=reached.accuracy, compute_share=reached.compute_share, exits=reached.exits)


def _answers(run: Run, written: WrittenModels, split: str) -> Answers:
    """The answers of all exits for all images of a split, computed `IMAGES_AT_ONCE` at a time."""
    reader = RecordReader(run.data, split, open_dataset(run.data))
    lots = batches_of(len(reader), IMAGES_AT_ONCE)
    try:
        parts = [_lot(run, written, Images(reader, lot.start), len(lot)) for lot in lots]
    finally:
        reader.close()
    return Answers.joined(parts)


def _lot(run: Run, written: WrittenModels, images: Images, count: int) -> Answers:
    """The answers of all exits for `count` images."""
    batches = batches_of(count, written.at_a_time)
    stages = zip(stage_files(run, written), written.stages, strict=True)
    rows = [
        _answers_of_stage(run, files, _numbers(stage), written.batch, images, batches) for files, stage in stages
    ]
    return Answers(
        sureness=np.stack([sureness for sureness, _ in rows]), right=np.stack([right for _, right in rows])
    )


def _answers_of_stage(
    run: Run, stage: ModelFiles, numbers: range, batch: int | None, images: Images, batches: list[range]
) -> tuple[Array, Array]:
    """The confidence of a stage's exit, float32 [N], and whether it is right, bool [N]."""
    threads = run.config().train.threads or 0
    model = ModuleByModule(stage.read(), numbers, scratch=run.scratch, batch=batch, threads=threads)
    sureness: list[Array] = []
    right: list[Array] = []

    def note(name: str, samples: range, logits: Array) -> None:
        sureness.append(softmax(logits).max(axis=1))
        right.append(logits.argmax(axis=1) == images.labels(samples))

    model.run(batches, images, [LOGITS], note)
    return np.concatenate(sureness), np.concatenate(right)
