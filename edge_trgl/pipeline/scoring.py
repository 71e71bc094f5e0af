"""What is done with a trained run in one job: scoring it again, and writing its report."""

from __future__ import annotations

from dataclasses import dataclass

from edge_trgl.jobs.requests import EVALUATE, REPORT, EvaluateResult, Nothing, ReportRequest
from edge_trgl.pipeline.dialogue import Dialogue, Done, Next
from edge_trgl.runtime.records import document_of


class Evaluate(Dialogue[Nothing]):
    """Scores the trained run again, at every depth; the result is an EvaluateResult."""

    state_type = Nothing

    def begin(self) -> Next:
        """Score it.

        Raises:
            UsageError: the run is not fully trained.
        """
        self.require_trained()
        return self.do(EVALUATE, Nothing(), then=self.scored)

    def scored(self, result: EvaluateResult) -> Next:
        """End with the scores."""
        return Done(result=document_of(result))


@dataclass(frozen=True, kw_only=True)
class ReportState:
    """The folders of other trained runs to compare with."""

    against: tuple[str, ...] = ()


class Report(Dialogue[ReportState]):
    """Writes report.html from the results so far."""

    state_type = ReportState

    def begin(self) -> Next:
        """Write it."""
        return self.do(REPORT, ReportRequest(against=self.state.against), then=self.written)

    def written(self, _: None) -> Next:
        """End."""
        return Done()
