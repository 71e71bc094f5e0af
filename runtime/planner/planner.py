"""The choice of a plan: what stays in memory, where boundaries are, how long a chunk is, what is computed again.

Exact plans are tried first, the fastest first, and the first one that fits is taken. A work that was not measured
yet counts as estimated; if the plan depends on it, it must be measured before the plan is final.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.planner import refusals
from edge_trgl.runtime.planner.calibrated import OPTIMISM, STEP_DOWN
from edge_trgl.runtime.planner.candidates import ladder, least_memory
from edge_trgl.runtime.planner.costing import Candidate
from edge_trgl.runtime.planner.demand import Demand, Measurements, work_key
from edge_trgl.runtime.planner.plan import Plan, Wanted


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that has begun: its form must stay, except for narrower boundaries if they are allowed.

    `chunks`: the lengths, in batches, with which it may go on from its last commit. `live_bytes`: of the
    boundaries that the commit names, which stay as they are.
    """

    plan: Plan
    chunks: tuple[int, ...]
    live_bytes: int = 0


def choose(
    demand: Demand,
    budget_mb: float,
    measured: Measurements,
    *,
    probing: bool,
    disk_mb: float = math.inf,
    begun: Begun | None = None,
) -> Plan | list[Wanted]:
    """The fastest plan that fits, or the works to measure before there can be one.

    `probing`: measure what is not known yet; without it, estimates are taken as they are. `disk_mb`: MiB that the
    run may take on the disk. `begun`: the run goes on from a commit.

    Raises:
        DoesNotFitError: no plan fits. The message names the smallest budget that would do and the module in the
            way, or the disk space that would do and the boundary in the way.
        UsageError: more resident modules are asked for than there are.
    """
    _check_resident(demand)
    for candidate in _ladder(demand, measured, begun):
        peak_mb = candidate.hoped_mb if probing else candidate.peak_mb
        if candidate.least_disk_mb <= disk_mb and peak_mb <= budget_mb:
            return (probing and wanted(candidate, measured)) or candidate.plan(disk_mb)
    # For a work that was refused under this budget there is only the estimate.
    accepted = {key: found for key, found in measured.items() if not found.refused}
    candidates = _ladder(demand, accepted, begun)
    if any(one.peak_mb <= budget_mb for one in candidates if one.least_disk_mb > disk_mb):
        raise refusals.of_disk([one for one in candidates if one.peak_mb <= budget_mb], disk_mb)
    candidates = _on_disk(candidates, disk_mb)
    # If the budget is too small even for the jobs before training, nothing is measured.
    if probing and demand.floor_mb <= budget_mb:
        waited_for = wanted(least_memory(candidates, probing=True), measured)
        if waited_for:
            return waited_for
    raise refusals.of_memory(least_memory(candidates), budget_mb, accepted, begun=begun is not None)


def smallest(
    demand: Demand, measured: Measurements, *, probing: bool, disk_mb: float = math.inf
) -> Plan | list[Wanted]:
    """The plan with the smallest peak, or the works to measure before there can be one.

    Raises:
        DoesNotFitError: no plan fits the disk.
    """
    _check_resident(demand)
    least = least_memory(_on_disk(ladder(demand, measured), disk_mb), probing=probing)
    return (probing and wanted(least, measured)) or least.plan(disk_mb)


def worth_measuring_mb(demand: Demand, measured: Measurements, disk_mb: float = math.inf) -> float:
    """The MiB beyond which a work need not be measured in the search for the smallest peak.

    Twice the error of an estimate, because the prediction before a measurement may be off by as much.
    """
    return (1 + 2 * OPTIMISM) * least_memory(_on_disk(ladder(demand, measured), disk_mb)).peak_mb


def lower(demand: Demand, plan: Plan, measured: Measurements, *, disk_mb: float = math.inf) -> Plan | None:
    """The fastest plan that takes clearly less memory than `plan` and computes the same; None if there is none."""
    step_mb = STEP_DOWN * (plan.peak_mb - plan.fixed_mb)
    fitting = [one for one in ladder(demand, measured, plan) if one.least_disk_mb <= disk_mb]
    below = [one for one in fitting if one.peak_mb < plan.peak_mb - 1]
    clearly = (one for one in below if one.peak_mb <= plan.peak_mb - step_mb)
    found = next(clearly, None) or min(below, key=lambda one: one.peak_mb, default=None)
    return found.plan(disk_mb) if found else None


def _ladder(demand: Demand, measured: Measurements, begun: Begun | None) -> list[Candidate]:
    if begun is None:
        return ladder(demand, measured)
    found = ladder(demand, measured, begun.plan, chunks=begun.chunks, narrower=True)
    return [_beside(demand, begun, candidate) for candidate in found]


def _beside(demand: Demand, begun: Begun, candidate: Candidate) -> Candidate:
    """Add to `candidate` what existing boundaries take beyond the narrower ones that it counts."""
    own = demand.forms[begun.plan.layout.form]
    if candidate.form is own:
        return candidate
    narrow, wide = (sum(row.reads for row in form.rows[1:]) for form in (candidate.form, own))
    stored = candidate.disk.stored + begun.live_bytes * (wide - narrow) // wide
    return replace(candidate, disk=replace(candidate.disk, stored=stored))


def _on_disk(candidates: Sequence[Candidate], disk_mb: float) -> list[Candidate]:
    """The candidates that fit the disk.

    Raises:
        DoesNotFitError: none does.
    """
    fitting = [one for one in candidates if one.least_disk_mb <= disk_mb]
    if not fitting:
        raise refusals.of_disk(candidates, disk_mb)
    return fitting


def wanted(candidate: Candidate, measured: Measurements) -> list[Wanted]:
    """The works of `candidate` that were not measured, one of each kind, the heaviest first.

    A process holds more the more it has done, so the work that makes the plan's peak is measured first.
    """
    found: dict[str, Wanted] = {}
    for module, row in enumerate(candidate.form.rows):
        for work in candidate.demand.works_of(module, candidate.layout.recompute):
            key = work_key(row.kind, work, candidate.form.size)
            if key not in measured and key not in found:
                found[key] = Wanted(
                    form=candidate.layout.form,
                    module=module,
                    work=work,
                    size=candidate.form.size,
                    parts=2 if "micro-batch" in candidate.form.lossy else 1,
                    key=key,
                )
    rows = candidate.form.rows
    return sorted(found.values(), key=lambda one: -rows[one.module].works[one.work])


def _check_resident(demand: Demand) -> None:
    most = max(len(form.rows) for form in demand.forms)
    if demand.resident is not None and demand.resident > most:
        raise UsageError(
            f"--resident {demand.resident}: the net has {most} modules",
            hint="Ask for fewer, or leave it at auto.",
        )
