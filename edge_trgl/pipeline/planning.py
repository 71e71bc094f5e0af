"""Plans a run: prepares its data, counts its modules, measures steps, and chooses a plan that fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

from edge_trgl.jobs.requests import (
    COUNT,
    CUT,
    MATCH,
    PLAN,
    PREPARE,
    PROBE,
    CountRequest,
    MatchRequest,
    Nothing,
    PlanRequest,
    PrepareResult,
    ProbeRequest,
)
from edge_trgl.pipeline import limits
from edge_trgl.pipeline.dialogue import Dialogue, Done, Next
from edge_trgl.run import tau_scan
from edge_trgl.run.facts import Normalisation, Planned, PretrainedFit
from edge_trgl.run.summary import data_document
from edge_trgl.runtime.errors import EdgeTrglError, OverBudgetError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.demand import REFUSED
from edge_trgl.runtime.planner.plan import PlanStep
from edge_trgl.runtime.records import Document, document_of, read_record, to_json
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
        parent_mb, engine_mb: of the MiB before any module, what the parent process takes, and this package in the
            training process. The rest is Python's and torch's.
        scan: what choosing tau takes beside that, in a sentence; empty where it is given.
    """

    limits: Limits
    disk_mb: float
    data: Document | None
    planned: Planned
    phases: tuple[Phase, ...]
    parent_mb: float
    engine_mb: float
    weights: PretrainedFit | None = None
    normalisation: Normalisation | None = None
    scan: str = ""

    @property
    def libraries_mb(self) -> float:
        """What Python and torch take before any module."""
        return self.planned.plan.fixed_mb - self.engine_mb - self.parent_mb

    def document(self) -> Document:
        """Return the JSON object that `edge-trgl plan --json` prints."""
        plan = {**to_json(self.planned.plan), "peak_mb": self.planned.plan.peak_mb}
        limits = {"budget_mb": self.limits.budget_mb, "disk_limit_mb": self.disk_mb}
        return {
            **limits,
            "data": self.data,
            "pretrained": to_json(self.weights),
            "normalisation": to_json(self.normalisation),
            "scan": self.scan,
            **to_json(self.planned),
            "plan": plan,
            "phases": to_json(self.phases),
            "fixed": {"libraries_mb": self.libraries_mb, "engine_mb": self.engine_mb, "parent_mb": self.parent_mb},
        }


@dataclass(frozen=True, kw_only=True)
class PlanningState:
    """What planning has to remember beside the database.

    Attributes:
        asked: limits that replace the run's own; a limit that is None stays as it was.
        budget_mb: the budget to plan for, in MiB; None for the smallest that works.
        available: the limits that the plan must fit.
    """

    asked: Limits = Limits()  # noqa: RUF009 - it is frozen
    budget_mb: float | None = None
    available: Limits = Limits()  # noqa: RUF009 - it is frozen

    @property
    def budget(self) -> Limits:
        """The budget alone."""
        return Limits(budget_mb=self.budget_mb)


S = TypeVar("S", bound=PlanningState)


class Planning(Dialogue[S]):
    """Runs the jobs before training: `prepare`, `cut`, `count`, `match`, `plan` and `probe`.

    A job whose result is there is left out, so planning goes on where an earlier start of the run stopped.
    """

    def planned(self) -> Next:
        """Go on with a plan that fits, and the run's limits."""
        raise NotImplementedError

    def begin(self) -> Next:
        """Prepare the data, unless they are."""
        facts, asked = self.facts, self.state.asked
        if asked.disk_mb is not None:
            facts.limits = Limits(budget_mb=facts.limits.budget_mb, disk_mb=asked.disk_mb)
        budget_mb = limits.budget_mb(self.config, facts, asked.budget_mb, self.warn)
        self.state = replace(self.state, budget_mb=budget_mb)
        if not self.run.dataset_file.is_file():
            return self.do(PREPARE, self.prepare_request(survey_large=True), then=self.surveyed)
        return self.count()

    def surveyed(self, prepared: PrepareResult) -> Next:
        """Count; if the images are large, they are decoded after that, for training on them may not fit."""
        self.note_prepared(prepared)
        if not prepared.decoded:
            height, width, _ = prepared.summary.shape
            self.tell(
                f"the images are large, {width}x{height} pixels, and are not scaled down; "
                "--image-size N (for example 224) trains on smaller ones, in less memory and time"
            )
        return self.count()

    def count(self, _: None = None) -> Next:
        """Cut the model if necessary and count what its modules cost, unless that is done."""
        if self.config.model.imported and not self.facts.is_cut:
            return self.do(CUT, Nothing(), then=self.count)
        if not self.facts.is_counted:
            return self.do(COUNT, CountRequest(limits=self.state.budget), then=self.counted)
        return self.counted()

    def counted(self, _: None = None) -> Next:
        """Decode the images, if so far they were only surveyed."""
        if not self.run.dataset_file.is_file():
            return self.do(PREPARE, self.prepare_request(), then=self.decoded)
        return self.match()

    def decoded(self, prepared: PrepareResult) -> Next:
        """Go on with the prepared data."""
        self.note_prepared(prepared)
        return self.match()

    def match(self) -> Next:
        """Compare the pretrained file with the network, if there is one and that is not done."""
        if self.config.model.pretrained is not None and self.facts.pretrained_fit is None:
            return self.do(MATCH, MatchRequest(limits=self.state.budget), then=self.choose)
        return self.choose()

    def choose(self, _: None = None) -> Next:
        """Plan, unless there is a plan that fits."""
        available = Limits(budget_mb=self.state.budget_mb, disk_mb=self._disk_mb())
        self.state = replace(self.state, available=available)
        if not self._needs_plan(available):
            return self._with_limits()
        # Steps refused under another budget may fit this one, so they are measured again.
        measured = self.facts.measured
        self.facts.measured = {key: result for key, result in measured.items() if not result.refused}
        return self.ask()

    def ask(self, _: None = None) -> Next:
        """Ask for a plan."""
        return self.do(PLAN, PlanRequest(limits=self.state.available), then=self.answered)

    def answered(self, answer: PlanStep) -> Next:
        """Measure the steps that the planner wants, until there is a plan."""
        if not answer.wanted:
            return self._with_limits()
        request = ProbeRequest(wanted=answer.wanted, limits=Limits(budget_mb=answer.room_mb))
        return self.do(PROBE, request, then=self.ask, failed=self.probe_failed)

    def probe_failed(self, error: EdgeTrglError) -> Next:
        """Note the step that cannot be measured in the budget.

        The process was killed while it measured it: the first that has no result.
        """
        if not isinstance(error, OverBudgetError):
            raise error
        measured = self.facts.measured
        wanted = read_record(ProbeRequest, self.request).wanted
        key = next(step.key for step in wanted if step.key not in measured)
        self.facts.measured = {**measured, key: REFUSED}
        return self.ask()

    def _with_limits(self) -> Next:
        facts, budget_mb = self.facts, self.state.budget_mb
        if budget_mb is None:
            # The phases too: probing plans that were not chosen may have taken more than the chosen one.
            highest_mb = max(facts.planned.plan.peak_mb, *(phase.peak_mb for phase in facts.phases()))
            budget_mb = float(math.ceil(highest_mb))
        facts.limits = Limits(budget_mb=budget_mb, disk_mb=facts.limits.disk_mb)
        return self.planned()

    def _disk_mb(self) -> float:
        """Return the MiB that the run may take on the disk now; warn if that is less than its limit."""
        limit_mb = limits.wanted_disk_mb(self.config, self.facts)
        allowed_mb = limits.disk_mb(self.run, self.config, self.facts)
        if limit_mb is not None and allowed_mb < limit_mb:
            self.warn(
                "disk",
                f"the disk has no room for a run of {limit_mb:.0f} MiB; lowered to {allowed_mb:.0f} MiB",
            )
        return allowed_mb

    def _needs_plan(self, available: Limits) -> bool:
        """Return whether there is no plan, or training is left to do and the plan exceeds one of the limits."""
        if not self.facts.is_planned:
            return True
        plan = self.facts.planned.plan
        fits_memory = available.budget_mb is None or plan.peak_mb <= available.budget_mb
        fits_disk = available.disk_mb is None or plan.disk_mb <= available.disk_mb
        return not (fits_memory and fits_disk) and not self.config.budget.force and not self.facts.is_trained


class Plan(Planning[PlanningState]):
    """Plans without training; the result is a PlannedRun."""

    state_type = PlanningState

    def planned(self) -> Next:
        """End with the plan."""
        facts = self.facts
        planned = PlannedRun(
            limits=facts.limits,
            disk_mb=limits.disk_mb(self.run, self.config, facts),
            data=data_document(self.config, facts),
            weights=facts.pretrained_fit,
            normalisation=facts.normalisation,
            planned=facts.planned,
            phases=tuple(facts.phases()),
            parent_mb=facts.counted.demand.others_mb,
            engine_mb=facts.counted.engine_mb,
            scan=tau_scan.cost_text(self.config, facts),
        )
        return Done(result=document_of(planned))
