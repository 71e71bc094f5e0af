"""Plans a run: prepares its data, counts its modules, measures steps, and chooses a plan that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import (
    COUNT,
    CUT,
    MATCH,
    PLAN,
    PROBE,
    CountRequest,
    MatchRequest,
    Nothing,
    PlanRequest,
    ProbeRequest,
)
from edge_trgl.pipeline import limits
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.facts import Normalisation, Planned, PretrainedFit, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import OverBudgetError, command
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.demand import REFUSED
from edge_trgl.runtime.planner.plan import Wanted
from edge_trgl.runtime.records import Document, to_json
from edge_trgl.runtime.storage.state import Phase


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What `edge-trgl plan` shows.

    Attributes:
        limits: the limits that the plan must fit.
        disk_mb: MiB that the run may take on the disk: its limit, or what is free.
        data: what was found in the data, and what training does to them.
        weights: how the pretrained file fits the network; None without one.
        normalisation: what pixels are normalised with; None for the statistics of the training images.
        planned: the plan and what it means.
        phases: time and memory that each job took so far.
    """

    limits: Limits
    disk_mb: float
    data: Document | None
    planned: Planned
    phases: tuple[Phase, ...]
    weights: PretrainedFit | None = None
    normalisation: Normalisation | None = None

    def document(self) -> Document:
        """Return the JSON object that `edge-trgl plan --json` prints."""
        plan = {**to_json(self.planned.plan), "peak_mb": self.planned.plan.peak_mb}
        limits = {"budget_mb": self.limits.budget_mb, "disk_limit_mb": self.disk_mb}
        return {
            **limits,
            "data": self.data,
            "pretrained": to_json(self.weights),
            "normalisation": to_json(self.normalisation),
            **to_json(self.planned),
            "plan": plan,
            "phases": to_json(self.phases),
        }


class Planning:
    """Runs the jobs before training: `prepare`, `cut`, `count`, `match`, `plan` and `probe`."""

    def __init__(self, run: Run, config: RunConfig, facts: RunFacts, jobs: JobRunner) -> None:
        self._run = run
        self._config = config
        self._facts = facts
        self._jobs = jobs

    def plan(self, asked: Limits) -> Limits:
        """Prepare the data and plan, unless there is a plan that fits; return the limits that the run now has.

        Args:
            asked: limits that replace the run's own; a limit that is None stays as it was.

        Raises:
            DoesNotFitError: no allowed plan fits; a run that has begun must keep its form and chunk.
        """
        facts = self._facts
        if asked.disk_mb is not None:
            facts.limits = Limits(budget_mb=facts.limits.budget_mb, disk_mb=asked.disk_mb)
        budget_mb = limits.budget_mb(self._config, facts, asked.budget_mb, self._jobs)
        if not self._run.dataset_file.is_file():
            self._prepare(Limits(budget_mb=budget_mb))
        self._count(Limits(budget_mb=budget_mb))
        if self._config.model.pretrained is not None and facts.pretrained_fit is None:
            self._jobs.do(MATCH, MatchRequest(limits=Limits(budget_mb=budget_mb)))
        available = Limits(budget_mb=budget_mb, disk_mb=self._disk_mb())
        if self._needs_plan(available):
            self._make_plan(available)
        if budget_mb is None:
            # The phases too: probing plans that were not chosen may have taken more than the chosen one.
            highest_mb = max(facts.planned.plan.peak_mb, *(phase.peak_mb for phase in facts.phases()))
            budget_mb = float(math.ceil(highest_mb))
        facts.limits = Limits(budget_mb=budget_mb, disk_mb=facts.limits.disk_mb)
        return facts.limits

    def foresee_export(self) -> None:
        """Warn before training if the budget may be too small to export the trained network."""
        export_mb, budget_mb = math.ceil(self._facts.planned.export_mb), self._facts.limits.memory_mb
        if export_mb > budget_mb and not self._facts.is_trained:
            self._jobs.tell(
                f"exporting the trained network may take {export_mb} MiB, more than the budget; "
                f"to do it then: {command('resume', self._run.folder, '--budget-mb', export_mb, '--export')}"
            )

    def _prepare(self, budget: Limits) -> None:
        """Decode the images; if they are large, first count whether training on them fits the budget."""
        prepared = self._jobs.prepare(survey_large=True)
        if prepared.decoded:
            return
        height, width, _ = prepared.summary.shape
        self._jobs.tell(
            f"the images are large, {width}x{height} pixels, and are not scaled down; "
            "--image-size N (for example 224) trains on smaller ones, in less memory and time"
        )
        self._count(budget)
        self._jobs.prepare()

    def _count(self, budget: Limits) -> None:
        """Cut the model if necessary and count what its modules cost, unless that is done."""
        if self._config.model.imported and not self._facts.is_cut:
            self._jobs.do(CUT, Nothing())
        if not self._facts.is_counted:
            self._jobs.do(COUNT, CountRequest(limits=budget))

    def _disk_mb(self) -> float:
        """Return the MiB that the run may take on the disk now; warn if that is less than its limit."""
        limit_mb = limits.wanted_disk_mb(self._config, self._facts)
        allowed_mb = limits.disk_mb(self._run, self._config, self._facts)
        if limit_mb is not None and allowed_mb < limit_mb:
            self._jobs.warn(
                "disk",
                f"the disk has no room for a run of {limit_mb:.0f} MiB; lowered to {allowed_mb:.0f} MiB",
            )
        return allowed_mb

    def _needs_plan(self, available: Limits) -> bool:
        """Return whether there is no plan, or training is left to do and the plan exceeds one of the limits."""
        if not self._facts.is_planned:
            return True
        plan = self._facts.planned.plan
        fits_memory = available.budget_mb is None or plan.peak_mb <= available.budget_mb
        fits_disk = available.disk_mb is None or plan.disk_mb <= available.disk_mb
        return not (fits_memory and fits_disk) and not self._config.budget.force and not self._facts.is_trained

    def _make_plan(self, available: Limits) -> None:
        measured = self._facts.measured
        # Steps refused under another budget may fit this one, so they are measured again.
        self._facts.measured = {key: result for key, result in measured.items() if not result.refused}
        while (answer := self._jobs.do(PLAN, PlanRequest(limits=available)).result).wanted:
            self._probe(answer.wanted, Limits(budget_mb=answer.room_mb))

    def _probe(self, wanted: Sequence[Wanted], room: Limits) -> None:
        try:
            self._jobs.do(PROBE, ProbeRequest(wanted=tuple(wanted), limits=room))
        except OverBudgetError:
            # The process was killed while it measured a step: the first that has no result.
            measured = self._facts.measured
            key = next(step.key for step in wanted if step.key not in measured)
            self._facts.measured = {**measured, key: REFUSED}
