"""The job `plan`: choose the plan of a run. No torch here."""

from __future__ import annotations

from edge_trgl.jobs.requests import PlanRequest
from edge_trgl.planning.choose import choose
from edge_trgl.run.folder import Run
from edge_trgl.runtime.planner.plan import PlanStep


def run(run: Run, request: PlanRequest) -> PlanStep:
    """Choose a plan, or return the steps to measure first; see `choose`."""
    return choose(run, request.limits, refused=request.refused)
