"""Write report.html from a run's database, also for unfinished runs."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_trgl.report.document import (
    MAX_AGAINST,
    Data,
    DepthAccuracy,
    EarlyExit,
    Event,
    IoSample,
    LookPoint,
    LossPoint,
    MemorySample,
    ModuleMemory,
    OtherRun,
    Report,
)
from edge_trgl.report.page import render
from edge_trgl.run.data_summary import augmentation_of
from edge_trgl.run.depth_gain import VALIDATION, trained_depth
from edge_trgl.run.export_record import EarlyExitRecord
from edge_trgl.run.exported_files import exported_files, read_export
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.run.summary import storage_use
from edge_trgl.run.transport_share import influences
from edge_trgl.runtime.errors import RESUME, UsageError, command
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.state import Metric


def write_report(run: Run, against: Sequence[str] = ()) -> None:
    """Render the page of a run.

    Args:
        run: the run, at least planned.
        against: folders of other runs with which to compare the accuracy of each depth.

    Raises:
        UsageError: the run has no plan yet, `against` has too many runs, or one of them is not fully trained.
    """
    # matplotlib writes a font cache; runs must not write outside their folder.
    os.environ["MPLCONFIGDIR"] = str(run.folder / "cache")
    facts = run.facts()
    if not facts.is_planned:
        raise UsageError(f"{run.folder} has no plan yet", hint=f"First: {RESUME}")
    if len(against) > MAX_AGAINST:
        raise UsageError(
            f"{len(against)} runs are too many to compare with",
            hint=f"Give at most {MAX_AGAINST} times --against.",
        )
    page = render(gather(run, facts, tuple(map(_other, against))))
    files.write_durable(run.report_file, [page.encode()])
    facts.close()


def gather(run: Run, facts: RunFacts, against: tuple[OtherRun, ...] = ()) -> Report:
    """Collect the report's plain data."""
    samples = facts.samples()
    export = read_export(run)
    return Report(
        name=run.folder.resolve().name,
        summary=run.summary() or _unfinished(run, facts),
        config=run.config().document(),
        memory=tuple(
            MemorySample(time_s=s.time_s, phase=s.phase, rss_mb=s.rss_mb, peak_mb=s.peak_mb) for s in samples
        ),
        modules=_modules(facts),
        losses=_losses(facts.metrics("train")),
        looks=_looks(facts.metrics(VALIDATION)),
        influences=influences(facts.metrics("train")),
        accuracy=_accuracies(facts),
        against=against,
        early_exit=None if export is None or export.early_exit is None else _early_exit(export.early_exit),
        io=tuple(IoSample(time_s=s.time_s, read_mb=s.read_mb, written_mb=s.written_mb) for s in samples),
        events=tuple(Event(time_s=e.time_s, kind=e.kind, text=e.text) for e in facts.events()),
        exported=() if export is None else exported_files(run, export),
        data=_data(run, facts),
    )


def _other(folder: str) -> OtherRun:
    run = Run.open(Path(folder))
    accuracy: tuple[DepthAccuracy, ...] = ()
    if run.state_file.is_file():
        facts = run.facts()
        accuracy, is_trained = _accuracies(facts), facts.is_trained
        facts.close()
        if is_trained and not accuracy:
            raise UsageError(f"{folder} was trained without labels: it has no accuracy", hint="Leave it out.")
    if not accuracy:
        raise UsageError(
            f"{folder} is not fully trained",
            hint=f"Leave it out, or first: {command('resume', folder)}",
        )
    return OtherRun(name=folder, config=run.config().document(), accuracy=accuracy)


def _data(run: Run, facts: RunFacts) -> Data | None:
    summary = facts.data_summary
    if summary is None:
        return None
    normalisation = facts.normalisation
    return Data(
        summary=summary,
        augmentation=augmentation_of(run.config().data, summary.shape),
        normalised="" if normalisation is None else normalisation.text,
    )


def _modules(facts: RunFacts) -> tuple[ModuleMemory, ...]:
    plan, layout, measured = facts.planned.plan, facts.planned.layout, facts.progress.module_peaks
    return tuple(
        ModuleMemory(
            module=module,
            name=name,
            head=layout.heads[module],
            params=layout.num_params[module],
            planned_mb=plan.peaks_mb[module],
            measured_mb=measured.get(module),
        )
        for module, name in enumerate(layout.names)
    )


def _losses(metrics: list[Metric]) -> tuple[LossPoint, ...]:
    # An epoch may have been committed in several parts.
    parts: dict[tuple[int, int], list[Metric]] = defaultdict(list)
    for metric in metrics:
        parts[metric.module, metric.epoch].append(metric)
    points = []
    for (module, epoch), commits in sorted(parts.items()):
        images = sum(metric.num_images for metric in commits)
        points.append(
            LossPoint(
                module=module,
                epoch=epoch,
                loss=sum(metric.loss_sum for metric in commits) / images,
                accuracy=sum(metric.num_correct for metric in commits) / images,
                transport=sum(metric.transport_sum for metric in commits) / images,
            )
        )
    return tuple(points)


def _looks(metrics: list[Metric]) -> tuple[LookPoint, ...]:
    return tuple(
        LookPoint(module=metric.module, epoch=metric.epoch, accuracy=metric.num_correct / metric.num_images)
        for metric in metrics
    )


def _accuracies(facts: RunFacts) -> tuple[DepthAccuracy, ...]:
    if not facts.is_trained:
        return ()
    scores = facts.result.scores
    tests = scores.test_per_depth or [None] * len(scores.per_depth)
    return tuple(
        DepthAccuracy(depth=depth, validation=validation, test=test)
        for depth, (validation, test) in enumerate(zip(scores.per_depth, tests, strict=True), scores.first_depth)
    )


def _early_exit(record: EarlyExitRecord) -> EarlyExit:
    scores = record.validation
    return EarlyExit(
        num_images=scores.num_images,
        common=scores.common,
        searched=scores.searched,
        chosen=scores,
        test=record.test,
    )


def _unfinished(run: Run, facts: RunFacts) -> dict[str, Any]:
    """The summary of an unfinished run, with None for what is not known yet."""
    plan, layout, progress = facts.planned.plan, facts.planned.layout, facts.progress
    peaks = [*progress.module_peaks.values(), *(phase.peak_mb for phase in facts.phases())]
    return {
        "schema": 1,
        "regime": run.config().train.regime,
        "modules": len(layout.starts),
        "params": sum(layout.num_params),
        "accuracy": {
            "last": None,
            "chosen": None,
            "chosen_depth": None,
            "per_depth": [],
            "chosen_on": run.config().data.choose_on,
            "depth": trained_depth(run.config(), facts),
            "gain": None,
        },
        "memory": {
            "budget_mb": facts.limits.budget_mb,
            "peak_mb": max(peaks, default=None),
            "planned_peak_mb": plan.peak_mb,
            "fixed_mb": plan.fixed_mb,
            "method": "",
        },
        "storage": storage_use(run.config(), facts),
        "time_s": progress.work.seconds or None,
        "images_per_s": None,
        "restarts": max(facts.starts - 1, 0),
        "lossy": list(plan.lossy),
        "weights_sha256": None,
    }
