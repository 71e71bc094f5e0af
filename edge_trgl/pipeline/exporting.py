"""Exports a trained run: writes, checks and publishes its model, then the smaller files beside it."""

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
from edge_trgl.runtime.errors import RESUME, OverBudgetError, UsageError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.limits import Limits, larger_mb
from edge_trgl.runtime.storage import files


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, in the words of the command line; `edge_trgl.config.export_request` parses them.

    Attributes:
        depth: in modules, or chosen, last or all.
        target: the runtime that will run the model; None for the profile's.
        batch: samples at a time, or dynamic.
        exits: the confidence at which to leave early, or auto:POINTS of accuracy to lose; None for no stages.
        stages: the depths where stages end; None for every one with a classifier.
        forms: of the smaller files to write beside model.onnx.
    """

    depth: str = "chosen"
    target: str | None = None
    batch: str = "dynamic"
    exits: str | None = None
    stages: str | None = None
    forms: Sequence[Form] = ()

    def check(self) -> None:
        """Check that the options go together.

        Raises:
            UsageError: `exits` is not valid, or `stages` is given without it.
        """
        if self.exits is not None:
            leaving_of(self.exits)
        elif self.stages is not None:
            raise UsageError("--stages goes with --exits", hint="--exits 0.9 writes the network in stages.")


def export(run: Run, options: ExportOptions, limits: Limits, jobs: JobRunner) -> ExportRecord:
    """Write, check and publish model.onnx and what else the options ask for; return the content of export.json.

    Raises:
        UsageError: the run has no such depth or stage.
        DoesNotFitError: the budget is too small for the export.
        OverBudgetError: the export took more memory than was estimated.
        ExportRejectedError: the model's outputs differ from the network's; an older export is kept.
    """
    with _cleared(run):
        try:
            record = _model(options, limits, jobs)
            try:
                return add_smaller(run, record, options.forms, limits, jobs) if options.forms else record
            finally:
                if options.forms or options.exits is not None:
                    jobs.do(REPORT, ReportRequest())  # it shows what early exits save, and the smaller files
        except OverBudgetError as error:
            raise OverBudgetError(
                f"exporting took more than the budget of {limits.memory_mb:.0f} MiB: {error.message}",
                hint=f"To try again with more: {RESUME} --budget-mb {larger_mb(limits.memory_mb)} --export",
            ) from error


def _model(options: ExportOptions, limits: Limits, jobs: JobRunner) -> ExportRecord:
    """Write, check and publish model.onnx and its early-exit stages."""
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
    """Remove on leaving what an unfinished export has written."""
    try:
        yield
    finally:
        models = (run.onnx_file, *map(run.smaller_file, FORMS))
        written = [path for model in models for path in run.folder.glob(f"{model.name}*.new")]
        for path in (*written, *run.exits_folder.glob("*.new")):
            files.remove(path)
        with suppress(OSError):  # missing or not empty
            run.exits_folder.rmdir()
