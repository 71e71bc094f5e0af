"""Takes a run from its configuration to training and export, with one child process at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edge_trgl.jobs.requests import EVALUATE, REPORT, EvaluateResult, Nothing, ReportRequest
from edge_trgl.pipeline import exporting, limits
from edge_trgl.pipeline.exporting import ExportOptions
from edge_trgl.pipeline.job_runner import JobRunner, Listener
from edge_trgl.pipeline.planning import PlannedRun, Planning
from edge_trgl.pipeline.training import Training
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.run.summary import data_document, summarise
from edge_trgl.runtime.errors import RESUME, EdgeTrglError, UsageError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import Document
from edge_trgl.runtime.storage import files


class Pipeline:
    """What can be done with a run. Jobs in child processes do the work; this parent process stays small.

    Args:
        run: the run's folder.
        listener: called with every message; kinds are `phase`, `progress`, `warning` and others.
    """

    def __init__(self, run: Run, listener: Listener) -> None:
        self.run = run
        self.listener = listener
        self.config = run.config()

    def train(self, asked: Limits = Limits()) -> Document:  # noqa: B008 - it is frozen
        """Do what is left of planning and training, write summary and report, and return the summary.

        Args:
            asked: limits that replace the run's own when it is resumed; a limit that is None stays as it was.

        Raises:
            EdgeTrglError: with the exit code of its kind; what was committed is kept.
        """
        with self._open() as (facts, jobs):
            planning = Planning(self.run, self.config, facts, jobs)
            planning.plan(asked)
            planning.foresee_export()
            Training(self.run, self.config, facts, jobs).train()
            summary = summarise(self.config, facts)
            files.write_durable(self.run.summary_file, [json.dumps(summary, indent=2).encode() + b"\n"])
            jobs.do(REPORT, ReportRequest())
        return summary

    def plan(self) -> PlannedRun:
        """Prepare the data and plan, without training.

        Raises:
            DoesNotFitError: no allowed plan fits the limits.
        """
        with self._open(kept=False) as (facts, jobs):
            run_limits = Planning(self.run, self.config, facts, jobs).plan(Limits())
            disk_mb = limits.disk_mb(self.run, self.config, facts)
            phases = tuple(facts.phases())
            return PlannedRun(
                limits=run_limits,
                disk_mb=disk_mb,
                data=data_document(self.config, facts),
                weights=facts.pretrained_fit,
                normalisation=facts.normalisation,
                planned=facts.planned,
                phases=phases,
            )

    def report(self, against: Sequence[str] = ()) -> None:
        """Write report.html from the results so far.

        Args:
            against: folders of other trained runs to compare with.

        Raises:
            UsageError: there is no plan yet, or another run is not fully trained.
        """
        with self._open() as (_, jobs):
            jobs.do(REPORT, ReportRequest(against=tuple(against)))

    def evaluate(self) -> EvaluateResult:
        """Score the trained run again, at every depth.

        Raises:
            UsageError: the run is not fully trained.
        """
        with self._trained() as (_, jobs):
            return jobs.do(EVALUATE, Nothing()).result

    def export(self, options: ExportOptions = ExportOptions()) -> ExportRecord:  # noqa: B008 - it is frozen
        """Export the trained run; see `exporting.export`.

        Raises:
            UsageError: the run is not fully trained, or the options contradict one another.
        """
        options.check()
        with self._trained() as (facts, jobs):
            return exporting.export(self.run, options, facts.limits, jobs)

    @contextmanager
    def _trained(self) -> Iterator[tuple[RunFacts, JobRunner]]:
        with self._open() as (facts, jobs):
            if not facts.is_trained:
                raise UsageError(
                    f"{self.run.folder} is not fully trained",
                    hint=f"First: {RESUME}",
                )
            yield facts, jobs

    @contextmanager
    def _open(self, *, kept: bool = True) -> Iterator[tuple[RunFacts, JobRunner]]:
        """Open the run; `kept`: whether it will be there to be resumed if this ends early."""
        try:
            facts = self.run.facts()
            try:
                yield facts, JobRunner(self.run, self.config, facts, self.listener)
            finally:
                facts.close()
        except EdgeTrglError as error:
            error.name_run(self.run.folder if kept else None)
            raise
