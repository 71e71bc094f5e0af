"""Exporting a trained run: its model written, checked and published, then the smaller files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from edge_trgl.config.export_request import FORMS, Form, leaving_of
from edge_trgl.jobs.requests import (
    CALIBRATE,
    CHECK,
    EXPORT,
    REPORT,
    CalibrateRequest,
    CheckRequest,
    ExportRequest,
    ReportRequest,
)
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.pipeline.smaller_files import add_smaller
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import OverBudgetError, UsageError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage import files


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, as the command line says it: see `edge_trgl.config.export_request`.

    `depth`: in modules, or chosen, last or all. `target`: what will run it; None is the profile's. `batch`:
    samples at a time, or dynamic. `exits`: leave early at this probability, or auto:POINTS of accuracy to lose.
    `stages`: the depths where stages end. `forms`: of the smaller files beside model.onnx.
    """

    depth: str = "chosen"
    target: str | None = None
    batch: str = "dynamic"
    exits: str | None = None
    stages: str | None = None
    forms: Sequence[Form] = ()

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: says what.
        """
        if self.exits is not None:
            leaving_of(self.exits)
        elif self.stages is not None:
            raise UsageError("--stages goes with --exits", hint="--exits 0.9 writes the network in stages.")


def export(run: Run, options: ExportOptions, limits: Limits, jobs: JobRunner) -> ExportRecord:
    """Write model.onnx and what else is asked for, and check it; returns what export.json says.

    Raises:
        UsageError: the run has no such depth or stage.
        DoesNotFitError: the budget has no room for it.
        OverBudgetError: it took more than was foreseen.
        ExportRejectedError: it does not give what the network gives; an older export is still there.
    """
    with _cleared(run):
        try:
            record = _model(options, limits, jobs)
            try:
                return add_smaller(run, record, options.forms, limits, jobs) if options.forms else record
            finally:
                if options.forms or options.exits is not None:
                    jobs.do(REPORT, ReportRequest())  # it shows what leaving early spares, and the smaller files
        except OverBudgetError as error:
            raise OverBudgetError(
                f"exporting took more than the budget of {limits.memory_mb:.0f} MiB: {error.message}",
                hint=f"edge-trgl resume {run.folder} --budget-mb N --export tries again with more.",
            ) from error


def _model(options: ExportOptions, limits: Limits, jobs: JobRunner) -> ExportRecord:
    """model.onnx, and its stages, checked and published."""
    request = ExportRequest(
        limits=limits,
        depth=options.depth,
        target=options.target,
        batch=options.batch,
        in_stages=options.exits is not None,
        stages=options.stages,
    )
    written = jobs.do(EXPORT, request)
    others_mb = high_water.peak_mb()
    peak_mb, chosen = written.peak_mb, None
    if options.exits is not None:
        done = jobs.do(
            CALIBRATE,
            CalibrateRequest(limits=limits, others_mb=others_mb, written=written.result, leaving=options.exits),
        )
        peak_mb, chosen = max(peak_mb, done.peak_mb), done.result
    check = CheckRequest(
        limits=limits,
        others_mb=others_mb,
        export_mb=peak_mb + others_mb,
        written=written.result,
        chosen=chosen,
    )
    return jobs.do(CHECK, check).result


@contextmanager
def _cleared(run: Run) -> Iterator[None]:
    """Remove what an export that did not come to its end has written."""
    try:
        yield
    finally:
        models = (run.onnx_file, *map(run.smaller_file, FORMS))
        written = [path for model in models for path in run.folder.glob(f"{model.name}*.new")]
        for path in (*written, *run.exits_folder.glob("*.new")):
            files.remove(path)
        with suppress(OSError):  # it is not there, or not empty
            run.exits_folder.rmdir()
