"""Exports a trained run: writes, checks and publishes its model, then the smaller files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from edge_trgl.config.export_request import FORMS, Form
from edge_trgl.jobs.requests import (
    CALIBRATE,
    CHECK,
    EXPORT,
    LATENCY,
    REPORT,
    SMALLER,
    CalibrateRequest,
    CheckRequest,
    ExportRequest,
    LatencyRequest,
    ReportRequest,
    SmallerRequest,
)
from edge_trgl.pipeline.dialogue import Dialogue, Done, Next
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.run.export_record import (
    ChosenThresholds,
    ExportRecord,
    Latencies,
    RefusedFile,
    SmallerFile,
    WrittenModels,
)
from edge_trgl.run.exported_files import write_export
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import (
    RESUME,
    EdgeTrglError,
    ExportRejectedError,
    OverBudgetError,
    UsageError,
    command,
    error_document,
    read_error,
)
from edge_trgl.runtime.memory.limits import larger_mb
from edge_trgl.runtime.records import Document, document_of
from edge_trgl.runtime.storage import files


@dataclass(frozen=True, kw_only=True)
class ExportState:
    """What an export has to remember; sizes in MiB.

    Attributes:
        options: what is asked for.
        others_mb: the peak of the parent process.
        peak_mb: the highest peak of a job that writes models.
        written: the models that were written.
        chosen: the thresholds of their early exits.
        record: the content of export.json so far.
        smaller: the smaller files so far.
        peaks_mb: the peaks of the jobs that wrote them.
        error: of `error_document`; what the export ends with when the report is written. None if all went well.
    """

    options: ExportOptions
    others_mb: float = 0.0
    peak_mb: float = 0.0
    written: WrittenModels | None = None
    chosen: ChosenThresholds | None = None
    record: ExportRecord | None = None
    smaller: Mapping[Form, SmallerFile | RefusedFile] = field(default_factory=dict)
    peaks_mb: tuple[float, ...] = ()
    error: Document | None = None


class Export(Dialogue[ExportState]):
    """Writes, checks and publishes model.onnx and what else is asked for; the result is the ExportRecord.

    Its errors: the run is not trained, or has no such depth or stage (UsageError); the budget is too small
    (DoesNotFitError, OverBudgetError); a file's outputs differ from the network's, and an older one is kept
    (ExportRejectedError).
    """

    state_type = ExportState

    def begin(self) -> Next:
        """Write the models."""
        options = self.state.options
        options.check()
        self.require_trained()
        self._require_classifier()
        request = ExportRequest(
            limits=self.facts.limits,
            depth=options.depth,
            target=options.target,
            batch=options.batch,
            in_stages=options.exits is not None,
            stages=options.stages,
        )
        return self.do(EXPORT, request, then=self.written, failed=self.refused)

    def _require_classifier(self) -> None:
        if not self.config.loss.reads_labels:
            model, blocks = self.config.model.name, self.run.blocks_file
            raise UsageError(
                f"{self.run.folder} was trained without labels: it has no classifier to export",
                hint=f"Train one on its blocks: {command('train', '--model', model, '--pretrained', blocks)}",
            )

    def written(self, written: WrittenModels) -> Next:
        """Choose when to leave early, if that is asked for."""
        ended, exits = self.ended, self.state.options.exits
        others_mb = self.parent_mb
        self.state = replace(self.state, others_mb=others_mb, peak_mb=ended.peak_mb, written=written)
        if exits is None:
            return self._check(written)
        request = CalibrateRequest(limits=self.facts.limits, others_mb=others_mb, written=written, leaving=exits)
        return self.do(CALIBRATE, request, then=self.calibrated, failed=self.refused)

    def calibrated(self, chosen: ChosenThresholds) -> Next:
        """Check the models with the thresholds that were chosen."""
        peak_mb = max(self.state.peak_mb, self.ended.peak_mb)
        self.state = replace(self.state, peak_mb=peak_mb, chosen=chosen)
        assert self.state.written is not None
        return self._check(self.state.written)

    def _check(self, written: WrittenModels) -> Next:
        state = self.state
        request = CheckRequest(
            limits=self.facts.limits,
            others_mb=state.others_mb,
            export_mb=state.peak_mb + state.others_mb,
            written=written,
            chosen=state.chosen,
        )
        return self.do(CHECK, request, then=self.checked, failed=self.refused)

    def checked(self, record: ExportRecord) -> Next:
        """Write the smaller files of the model that was published."""
        self.state = replace(self.state, record=record, peaks_mb=(record.peak_mb,))
        return self._next_form() if self.state.options.forms else self._report()

    # ---- smaller files

    def _next_form(self) -> Next:
        """Write the next smaller file; measure the latency when all are there."""
        state = self.state
        left = [form for form in state.options.forms if form not in state.smaller]
        if left:
            request = SmallerRequest(limits=self.facts.limits, others_mb=self.parent_mb, form=left[0])
            return self.do(SMALLER, request, then=self.smaller_written, failed=self.smaller_refused)
        made = [
            self.run.smaller_file(form).name
            for form in state.options.forms
            if not isinstance(state.smaller[form], RefusedFile)
        ]
        if not made:
            return self.measured(None)
        names = (self.run.onnx_file.name, *made)
        latency = LatencyRequest(limits=self.facts.limits, others_mb=self.parent_mb, names=names)
        return self.do(LATENCY, latency, then=self.measured, failed=self.not_measured)

    def _form(self) -> Form:
        form: Form = self.request["form"]
        return form

    def smaller_written(self, file: SmallerFile) -> Next:
        """Keep what is known of a smaller file."""
        peak_mb = round(self.ended.peak_mb + self.parent_mb, 1)
        self.state = replace(
            self.state,
            smaller={**self.state.smaller, self._form(): file},
            peaks_mb=(*self.state.peaks_mb, peak_mb),
        )
        return self._next_form()

    def smaller_refused(self, error: EdgeTrglError) -> Next:
        """Keep why there is no smaller file of a form; the others are written nevertheless."""
        if not isinstance(error, ExportRejectedError):
            return self._report_after(error)
        refused = RefusedFile(rejected=error.message)
        self.state = replace(
            self.state,
            smaller={**self.state.smaller, self._form(): refused},
            error=self.state.error or error_document(error),
        )
        return self._next_form()

    def not_measured(self, error: EdgeTrglError) -> Next:
        """Go on without latencies if there is no memory to measure them.

        An optimised session holds the weights several times; the files are valid without a latency.
        """
        return self.measured(None) if isinstance(error, OverBudgetError) else self._report_after(error)

    def measured(self, latency: Latencies | None) -> Next:
        """Write export.json anew, with the smaller files."""
        state = self.state
        assert state.record is not None
        record = replace(state.record, peak_mb=max(state.peaks_mb), smaller=state.smaller, latency=latency)
        write_export(self.run, record)
        self.state = replace(state, record=record)
        return self._report()

    # ---- the end

    def _report_after(self, error: EdgeTrglError) -> Next:
        self.state = replace(self.state, error=error_document(error))
        return self._report()

    def _report(self) -> Next:
        """Write the report if it has something new to show: what early exits save, and the smaller files."""
        options = self.state.options
        if options.forms or options.exits is not None:
            return self.do(REPORT, ReportRequest(), then=self.reported, failed=self.refused)
        return self.reported(None)

    def reported(self, _: None) -> Next:
        """End with what was exported, or with the first error."""
        if self.state.error is not None:
            return self.refused(read_error(self.state.error))
        assert self.state.record is not None
        return Done(result=document_of(self.state.record))

    def refused(self, error: EdgeTrglError) -> Next:
        """End with an error; one of memory says how to try again with more."""
        if not isinstance(error, OverBudgetError):
            raise error
        budget_mb = self.facts.limits.memory_mb
        raise OverBudgetError(
            f"exporting took more than the budget of {budget_mb:.0f} MiB: {error.message}",
            hint=f"To try again with more: {RESUME} --budget-mb {larger_mb(budget_mb)} --export",
        )


def remove_unfinished(run: Run) -> None:
    """Remove what an unfinished export has written."""
    models = (run.onnx_file, *map(run.smaller_file, FORMS))
    written = [path for model in models for path in run.folder.glob(f"{model.name}*.new")]
    for path in (*written, *run.exits_folder.glob("*.new")):
        files.remove(path)
    with suppress(OSError):  # missing or not empty
        run.exits_folder.rmdir()
