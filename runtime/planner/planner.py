"""Costs in, plan out: what stays in memory, where boundaries live, how long a chunk is, what is computed again.

Exact plans are tried first, the fastest first; the first plan that fits is taken. Works that were not measured
yet are taken as estimated, and asked for when the plan in question rests on them.
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
from edge_trgl.runtime.planner.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A work that the plan waits for: the first module of its kind, and its key among the measurements.

    `parts`: 2 where it stands for a batch in parts of `size` samples, else 1.
    """

    form: int
    module: int
    work: str
    size: int
    parts: int
    key: str


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that has begun: its plan, whose form must stay, but for narrower boundaries where they are allowed.

    `chunks`: those with which it may go on from its last commit, in batches. `live_bytes`: of the boundaries that
    the commit names, which stay as they are.
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
    """The fastest plan that fits, or the works to measure before it can be told.

    Without `probing`, estimates are taken as they are. `disk_mb`: MiB that the run may take on the disk.

    Raises:
        DoesNotFitError: none does; names the smallest budget that would do and the module in the way, or what
            the disk would have to have and the boundary in the way.
        UsageError: more resident modules are asked for than there are.
    """
    _check_resident(demand)
    for candidate in _ladder(demand, measured, begun):
        peak_mb = candidate.hoped_mb if probing else candidate.peak_mb
        if candidate.least_disk_mb <= disk_mb and peak_mb <= budget_mb:
            return (probing and wanted(candidate, measured)) or candidate.plan(disk_mb)
    # What was refused under this budget has its estimate only.
    accepted = {key: found for key, found in measured.items() if not found.refused}
    candidates = _ladder(demand, accepted, begun)
    if any(one.peak_mb <= budget_mb for one in candidates if one.least_disk_mb > disk_mb):
        raise refusals.of_disk([one for one in candidates if one.peak_mb <= budget_mb], disk_mb)
    candidates = _on_disk(candidates, disk_mb)
    # Nothing is measured that has no room even in the jobs before training.
    if probing and demand.floor_mb <= budget_mb:
        waited_for = wanted(least_memory(candidates, probing=True), measured)
        if waited_for:
            return waited_for
    raise refusals.of_memory(least_memory(candidates), budget_mb, accepted, begun=begun is not None)


def smallest(
    demand: Demand, measured: Measurements, *, probing: bool, disk_mb: float = math.inf
) -> Plan | list[Wanted]:
    """The plan of the smallest peak, or the works to measure before it can be told.

    Raises:
        DoesNotFitError: none fits the disk.
    """
    _check_resident(demand)
    least = least_memory(_on_disk(ladder(demand, measured), disk_mb), probing=probing)
    return (probing and wanted(least, measured)) or least.plan(disk_mb)


def worth_measuring_mb(demand: Demand, measured: Measurements, disk_mb: float = math.inf) -> float:
    """Looking for the smallest peak, what takes more than this is of no interest.

    Twice what an estimate may be off by: so is what is foretold of a step before it is measured.
    """
    return (1 + 2 * OPTIMISM) * least_memory(_on_disk(ladder(demand, measured), disk_mb)).peak_mb


def lower(demand: Demand, plan: Plan, measured: Measurements, *, disk_mb: float = math.inf) -> Plan | None:
    """One step down the ladder: the fastest plan that takes clearly less than `plan` and computes the same.

    None: there is nothing below it.
    """
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
    """`candidate` where what it counts as narrow boundaries may be the wide ones that are there."""
    own = demand.forms[begun.plan.layout.form]
    if candidate.form is own:
        return candidate
    narrow, wide = (sum(row.reads for row in form.rows[1:]) for form in (candidate.form, own))
    stored = candidate.disk.stored + begun.live_bytes * (wide - narrow) // wide
    return replace(candidate, disk=replace(candidate.disk, stored=stored))


def _on_disk(candidates: Sequence[Candidate], disk_mb: float) -> list[Candidate]:
    """Those that fit the disk.

    Raises:
        DoesNotFitError: none does.
    """
    fitting = [one for one in candidates if one.least_disk_mb <= disk_mb]
    if not fitting:
        raise refusals.of_disk(candidates, disk_mb)
    return fitting


def wanted(candidate: Candidate, measured: Measurements) -> list[Wanted]:
    """The works of `candidate` that were not measured, one of each kind, the heaviest first.

    What a process rests at grows with what it has done: the peak of the plan is measured in a clean one.
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
