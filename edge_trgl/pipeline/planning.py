"""From a configuration to a planned run: prepared data, counted modules, measured steps, a plan that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import (
    COUNT,
    CUT,
    PLAN,
    PREPARE,
    PROBE,
    CountRequest,
    Nothing,
    PlanRequest,
    PrepareRequest,
    ProbeRequest,
)
from edge_trgl.pipeline import limits
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.facts import Planned, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import OverBudgetError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.demand import REFUSED
from edge_trgl.runtime.planner.planner import Wanted
from edge_trgl.runtime.records import Document, to_json
from edge_trgl.runtime.storage.state import Phase


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What `edge-trgl plan` shows: the plan, the limits it is held against, and what the jobs before it took.

    `disk_mb`: MiB that the run may take on the disk, which is what is free where nothing else was asked for.
    """

    limits: Limits
    disk_mb: float
    planned: Planned
    phases: tuple[Phase, ...]

    def document(self) -> Document:
        """As `edge-trgl plan --json` prints it."""
        plan = {**to_json(self.planned.plan), "peak_mb": self.planned.plan.peak_mb}
        limits = {"budget_mb": self.limits.budget_mb, "disk_limit_mb": self.disk_mb}
        return {**limits, **to_json(self.planned), "plan": plan, "phases": to_json(self.phases)}


class Planning:
    """The jobs before training."""

    def __init__(self, run: Run, config: RunConfig, facts: RunFacts, jobs: JobRunner) -> None:
        self._run = run
        self._config = config
        self._facts = facts
        self._jobs = jobs

    def plan(self, asked: Limits) -> Limits:
        """Prepare the data and plan, unless there is a plan that fits; returns the limits that the run has then.

        `asked`: other limits than the run's own, or none.

        Raises:
            DoesNotFitError: nothing that is allowed fits; a run that has begun must keep its form and chunk.
        """
        facts = self._facts
        if asked.disk_mb is not None:
            facts.limits = Limits(budget_mb=facts.limits.budget_mb, disk_mb=asked.disk_mb)
        budget_mb = limits.budget_mb(self._config, facts, asked.budget_mb, self._jobs)
        if not (self._run.data / "dataset.json").is_file():
            self._prepare(Limits(budget_mb=budget_mb))
        self._count(Limits(budget_mb=budget_mb))
        there = Limits(budget_mb=budget_mb, disk_mb=self._disk_mb())
        if self._needs_plan(there):
            self._make_plan(there)
        if budget_mb is None:
            # What probing took for plans that were not taken counts as well.
            highest_mb = max(facts.planned.plan.peak_mb, *(phase.peak_mb for phase in facts.phases()))
            budget_mb = float(math.ceil(highest_mb))
        facts.limits = Limits(budget_mb=budget_mb, disk_mb=facts.limits.disk_mb)
        return facts.limits

    def foresee_export(self) -> None:
        """Warn, before the long part, of a budget in which the trained network may not be exported."""
        export_mb, budget_mb = math.ceil(self._facts.planned.export_mb), self._facts.limits.memory_mb
        if export_mb > budget_mb and not self._facts.is_trained:
            self._jobs.tell(
                f"exporting the trained network may take {export_mb} MiB, more than the budget; "
                f"edge-trgl resume {self._run.folder} --budget-mb {export_mb} --export does it then"
            )

    def _prepare(self, budget: Limits) -> None:
        """Decode the images; where they are large, once it is counted that they fit the budget as they are."""
        prepared = self._jobs.do(PREPARE, PrepareRequest(survey_large=True)).result
        if prepared.decoded:
            return
        height, width, _ = prepared.shape
        self._jobs.tell(
            f"the images are large, {width}x{height} pixels, and are taken as they are; "
            "--image-size N (for example 224) trains on smaller ones, in less memory and time"
        )
        self._count(budget)
        self._jobs.do(PREPARE, PrepareRequest())

    def _count(self, budget: Limits) -> None:
        """Find out what the modules cost, once."""
        if self._config.model.imported and not self._facts.is_cut:
            self._jobs.do(CUT, Nothing())
        if not self._facts.is_counted:
            self._jobs.do(COUNT, CountRequest(limits=budget))

    def _disk_mb(self) -> float:
        """MiB that the run may take on the disk now; warns where that is less than it was given."""
        wanted_mb = limits.wanted_disk_mb(self._config, self._facts)
        there_mb = limits.disk_mb(self._run, self._config, self._facts)
        if wanted_mb is not None and there_mb < wanted_mb:
            self._jobs.warn(
                "disk",
                f"the disk has no room for a run of {wanted_mb:.0f} MiB; lowered to {there_mb:.0f} MiB",
            )
        return there_mb

    def _needs_plan(self, there: Limits) -> bool:
        """Whether there is none, or what is left to do has no room in one of the limits."""
        if not self._facts.is_planned:
            return True
        plan = self._facts.planned.plan
        fits_memory = there.budget_mb is None or plan.peak_mb <= there.budget_mb
        fits_disk = there.disk_mb is None or plan.disk_mb <= there.disk_mb
        return not (fits_memory and fits_disk) and not self._config.budget.force and not self._facts.is_trained

    def _make_plan(self, there: Limits) -> None:
        # What another budget had no room for is tried again under this one.
        self._facts.measured = {key: one for key, one in self._facts.measured.items() if not one.refused}
        while (answer := self._jobs.do(PLAN, PlanRequest(limits=there)).result).wanted:
            self._probe(answer.wanted, Limits(budget_mb=answer.room_mb))

    def _probe(self, wanted: Sequence[Wanted], room: Limits) -> None:
        try:
            self._jobs.do(PROBE, ProbeRequest(wanted=tuple(wanted), limits=room))
        except OverBudgetError:
            # Killed in the middle of one: it is the first that has no result.
            measured = self._facts.measured
            key = next(one.key for one in wanted if one.key not in measured)
            self._facts.measured = {**measured, key: REFUSED}
