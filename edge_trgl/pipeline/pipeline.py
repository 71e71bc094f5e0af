"""From a configuration to a trained and exported run: one child process at a time, this parent staying small."""

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
from edge_trgl.run.summary import summarise
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import Document
from edge_trgl.runtime.storage import files


class Pipeline:
    """What can be done with a run, each by jobs in processes of their own.

    `listener` is told what happens: messages of kind `phase`, `progress`, `warning`.
    """

    def __init__(self, run: Run, listener: Listener) -> None:
        self.run = run
        self.listener = listener
        self.config = run.config()

    def train(self, asked: Limits = Limits()) -> Document:  # noqa: B008 - it is frozen
        """Do whatever of the run is not done yet; returns its summary.

        `asked`: other limits than the run's own, when it is resumed.

        Raises:
            EdgeTrglError: with the exit code of its kind; what was committed stays.
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
        """Prepare and plan; train nothing.

        Raises:
            DoesNotFitError: nothing that is allowed fits.
        """
        with self._open() as (facts, jobs):
            held_to = Planning(self.run, self.config, facts, jobs).plan(Limits())
            disk_mb = limits.disk_mb(self.run, self.config, facts)
            phases = tuple(facts.phases())
            return PlannedRun(limits=held_to, disk_mb=disk_mb, planned=facts.planned, phases=phases)

    def report(self, against: Sequence[str] = ()) -> None:
        """Write the report of what there is so far, compared with the runs in other folders.

        Raises:
            UsageError: there is no plan yet, or one of the others is not trained to its end.
        """
        with self._open() as (_, jobs):
            jobs.do(REPORT, ReportRequest(against=tuple(against)))

    def evaluate(self) -> EvaluateResult:
        """Score the trained run again, at every depth.

        Raises:
            UsageError: the run is not trained to its end.
        """
        with self._trained() as (_, jobs):
            return jobs.do(EVALUATE, Nothing()).result

    def export(self, options: ExportOptions = ExportOptions()) -> ExportRecord:  # noqa: B008 - it is frozen
        """Export the trained run; see `exporting.export`.

        Raises:
            UsageError: the run is not trained to its end, or the options contradict one another.
        """
        options.check()
        with self._trained() as (facts, jobs):
            return exporting.export(self.run, options, facts.limits, jobs)

    @contextmanager
    def _trained(self) -> Iterator[tuple[RunFacts, JobRunner]]:
        with self._open() as (facts, jobs):
            if not facts.is_trained:
                raise UsageError(
                    f"{self.run.folder} is not trained to its end",
                    hint=f"Run edge-trgl resume {self.run.folder} first.",
                )
            yield facts, jobs

    @contextmanager
    def _open(self) -> Iterator[tuple[RunFacts, JobRunner]]:
        facts = self.run.facts()
        try:
            yield facts, JobRunner(self.run, self.config, facts, self.listener)
        finally:
            facts.close()
