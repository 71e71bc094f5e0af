"""Trains in a child process; when memory or disk runs out, continues from the last commit with a smaller plan."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, replace

from edge_trgl.jobs.requests import (
    CONVERT,
    PLAN,
    REPORT,
    SCAN,
    TRAIN,
    Nothing,
    PlanRequest,
    ReportRequest,
    ScanRequest,
    TrainRequest,
)
from edge_trgl.pipeline import limits
from edge_trgl.pipeline.dialogue import Done, Next
from edge_trgl.pipeline.planning import Planning, PlanningState
from edge_trgl.run import tau_scan
from edge_trgl.run.facts import Result
from edge_trgl.run.summary import summarise
from edge_trgl.runtime.errors import RESUME, DiskFullError, EdgeTrglError, OverBudgetError, command
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.plan import PlanStep
from edge_trgl.runtime.storage import files

ATTEMPTS = 3
"""Times that training may run out of memory or disk space without a commit in between."""


@dataclass(frozen=True, kw_only=True)
class TrainingState(PlanningState):
    """What training has to remember beside the database.

    Attributes:
        position: of the last commit when training was last started.
        stuck: times that training has run out of something since that commit.
        refusal: what it ran out of last, in a sentence.
    """

    position: int = 0
    stuck: int = 0
    refusal: str = ""


class Train(Planning[TrainingState]):
    """Does what is left of planning and training, and writes summary and report; the result is the summary."""

    state_type = TrainingState

    def planned(self) -> Next:
        """Copy the weights of a model that is built by its library, unless that is done."""
        self._foresee_export()
        if self.facts.planned.layout.built and not self.facts.modules():
            return self.do(CONVERT, Nothing(), then=self.ready)
        return self.ready()

    def ready(self, _: None = None) -> Next:
        """Make room on the disk, and train."""
        limits.make_room(self.run, self.facts.planned.plan.disk_mb)
        return self._train()

    def scanned(self, result: Result) -> Next:
        """Keep the score of a value of tau; go on with the next one, or with the best."""
        candidate = tau_scan.next_candidate(self.config, self.facts)
        assert candidate is not None
        self.facts.tau_scores = (*self.facts.tau_scores, tau_scan.score(candidate, result.scores))
        tau_scan.discard(self.run)
        self.state = replace(self.state, stuck=0)
        if tau_scan.next_candidate(self.config, self.facts) is None:
            self.warn("tau", tau_scan.choice_text(self.config, self.facts))
        return self._train()

    def trained(self, _: Result) -> Next:
        """Go on after training has ended well."""
        self._note_cgroup()
        return self._train()

    def failed(self, error: EdgeTrglError) -> Next:
        """Plan with less of what ran out; end with the error if it did so `ATTEMPTS` times without a commit."""
        self._note_cgroup()
        if not isinstance(error, (OverBudgetError, DiskFullError)):
            raise error
        tau_scan.discard(self.run)  # a short training that was planned otherwise
        stuck = self.state.stuck + 1 if self.facts.position() == self.state.position else 1
        self.state = replace(self.state, stuck=stuck, refusal=error.message)
        try:
            return self._with_less(error)
        except DiskFullError as full:  # the disk may be too full even to store the event
            raise self._with_hint(full) from None

    def replanned(self, answer: PlanStep) -> Next:
        """Go on from the last commit with the new plan."""
        text = f"{self.state.refusal}; {answer.changed or 'the plan stays: no other takes less'}"
        try:
            self.facts.add_event("restart", text)
        except DiskFullError as full:
            raise self._with_hint(full) from None
        self.tell(f"{text}; going on from the last commit")
        return self._train()

    def no_plan(self, error: EdgeTrglError) -> Next:
        """End, because there is no smaller plan."""
        raise self._with_hint(error) if isinstance(error, DiskFullError) else error

    def reported(self, _: None) -> Next:
        """End with the summary."""
        return Done(result=self.run.summary())

    def _train(self) -> Next:
        facts = self.facts
        if facts.is_trained:
            summary = summarise(self.config, facts, self.parent_mb)
            files.write_durable(self.run.summary_file, [json.dumps(summary, indent=2).encode() + b"\n"])
            return self.do(REPORT, ReportRequest(), then=self.reported)
        self.state = replace(self.state, position=facts.position())
        candidate = tau_scan.next_candidate(self.config, facts)
        if candidate is not None:
            return self._scan(candidate)
        facts.starts += 1
        if facts.starts > 1:
            facts.add_event("resume", f"start number {facts.starts}, from position {facts.position()}")
        return self.do(
            TRAIN,
            TrainRequest(limits=facts.limits),
            then=self.trained,
            failed=self.failed,
            cgroup=self._cgroup_name() if self.config.budget.cgroup else "",
            cgroup_mb=facts.limits.memory_mb,
        )

    def _scan(self, candidate: tau_scan.Candidate) -> Next:
        tau_scan.begin(self.run, self.config, self.facts, candidate)
        self.note(f"trying {candidate.name}, {candidate.number + 1} of {len(tau_scan.CANDIDATES)}")
        request = ScanRequest(limits=self.facts.limits, number=candidate.number)
        return self.do(SCAN, request, then=self.scanned, failed=self.failed)

    def _with_less(self, refusal: OverBudgetError | DiskFullError) -> Next:
        is_disk = isinstance(refusal, DiskFullError)
        if is_disk:
            # Uncommitted files are lost anyway, and the database needs room for the event.
            self.run.remove_uncommitted(self.facts)
            limits.make_room(self.run, math.inf)
        if self.state.stuck == ATTEMPTS:
            self.facts.add_event("stop", f"{refusal.message}; {ATTEMPTS} times without progress")
            raise refusal
        request = PlanRequest(
            limits=Limits(budget_mb=self.facts.limits.budget_mb, disk_mb=self._allowed_disk_mb()),
            refused="disk" if is_disk else "memory",
        )
        return self.do(PLAN, request, then=self.replanned, failed=self.no_plan)

    def _foresee_export(self) -> None:
        """Warn before training if the budget may be too small to export the trained network, if it is for that."""
        if not self.config.loss.reads_labels:
            return
        export_mb, budget_mb = math.ceil(self.facts.planned.export_mb), self.facts.limits.memory_mb
        if export_mb > budget_mb and not self.facts.is_trained:
            self.tell(
                f"exporting the trained network may take {export_mb} MiB, more than the budget; "
                f"to do it then: {command('resume', self.run.folder, '--budget-mb', export_mb, '--export')}"
            )

    def _allowed_disk_mb(self) -> float:
        return limits.disk_mb(self.run, self.config, self.facts)

    def _with_hint(self, full: DiskFullError) -> DiskFullError:
        """The error with a hint that says how much is missing."""
        missing_mb = math.ceil(self.facts.planned.plan.disk_mb - self._allowed_disk_mb())
        where = f"the disk that holds {self.run.folder}"
        free = (
            f"free {missing_mb} MiB on {where}"
            if missing_mb > 0
            else f"free space, or raise the quota, on {where}"
        )
        full.hint = f"What was committed is kept: {free}, then go on: {RESUME}"
        return full

    def _cgroup_name(self) -> str:
        # Named after the run, so that the next start finds and replaces what a killed parent left behind.
        return f"edge-trgl-{zlib.crc32(str(self.run.folder.resolve()).encode()):08x}"

    def _note_cgroup(self) -> None:
        ended = self.ended
        if ended.cgroup_refused:
            self.facts.add_event("cgroup", ended.cgroup_refused)
        elif ended.cgroup_peak_mb is not None:
            self.facts.cgroup_peak_mb = max(ended.cgroup_peak_mb, self.facts.cgroup_peak_mb or 0.0)
