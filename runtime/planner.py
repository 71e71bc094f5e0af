"""Costs in, plan out: what stays in memory, where boundaries live, how long a chunk is, what is computed again.

Exact plans are tried first, the fastest first; the first plan that fits is taken. Works that were not measured
yet are taken as estimated, and asked for when the plan in question rests on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_trgl.runtime.costing import OPTIMISM, Candidate, Costing, boundary_bytes
from edge_trgl.runtime.demand import Demand, Measurements, work_key
from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.layouts import layouts
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.plan import Plan

STEP_DOWN = 0.1
"""A step down the ladder gives back this share of what the plan can give back, where it can."""


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


def choose(
    demand: Demand, budget_mb: float, measured: Measurements, *, probing: bool, like: Plan | None = None
) -> Plan | list[Wanted]:
    """The fastest plan that fits, or the works to measure before it can be told.

    Without `probing`, estimates are taken as they are. `like`: the plan of a run that has begun, whose form and
    chunk must stay.

    Raises:
        DoesNotFitError: none does; names the smallest budget that would do and the module in the way.
        UsageError: more resident modules are asked for than there are.
    """
    _check_resident(demand)
    for candidate in ladder(demand, measured, like):
        if (candidate.hoped_mb if probing else candidate.peak_mb) <= budget_mb:
            return (probing and wanted(candidate, measured)) or candidate.plan()
    # What was refused under this budget has its estimate only.
    accepted = {key: found for key, found in measured.items() if not found.refused}
    candidates = ladder(demand, accepted, like)
    # Nothing is measured that has no room even in the jobs before training.
    if probing and demand.floor_mb <= budget_mb:
        waited_for = wanted(_least(candidates, probing=True), measured)
        if waited_for:
            return waited_for
    least = _least(candidates, probing=False)
    raise DoesNotFitError(_refusal(least, budget_mb), hint=_ways_out(least, accepted))


def smallest(demand: Demand, measured: Measurements, *, probing: bool) -> Plan | list[Wanted]:
    """The plan of the smallest peak, or the works to measure before it can be told."""
    _check_resident(demand)
    least = _least(ladder(demand, measured, None), probing=probing)
    return (probing and wanted(least, measured)) or least.plan()


def worth_measuring_mb(demand: Demand, measured: Measurements) -> float:
    """Looking for the smallest peak, what takes more than this is of no interest."""
    return (1 + OPTIMISM) * _least(ladder(demand, measured, None), probing=False).peak_mb


def lower(demand: Demand, plan: Plan, measured: Measurements) -> Plan | None:
    """One step down the ladder: the fastest plan that takes clearly less than `plan` and computes the same.

    None: there is nothing below it.
    """
    step_mb = STEP_DOWN * (plan.peak_mb - plan.fixed_mb)
    below = [one for one in ladder(demand, measured, plan) if one.peak_mb < plan.peak_mb - 1]
    clearly = (one for one in below if one.peak_mb <= plan.peak_mb - step_mb)
    found = next(clearly, None) or min(below, key=lambda one: one.peak_mb, default=None)
    return found.plan() if found else None


def ladder(demand: Demand, measured: Measurements, like: Plan | None) -> list[Candidate]:
    """Every plan that is allowed: exact ones first, then the fastest; among equals, what keeps more in memory."""
    if like is not None:
        demand = replace(demand, chunk=like.layout.chunk)
    found: list[Candidate] = []
    costing = Costing(demand, measured)
    for number, form in enumerate(demand.forms):
        allowed = set(form.lossy) <= set(demand.allowed)
        if (like.layout.form == number) if like else allowed:
            found += [costing.candidate(layout) for layout in layouts(demand, number)]
    # Of whole batches with narrow boundaries, fp16 comes before int8, as in the alphabet.
    return sorted(found, key=lambda one: (len(one.form.lossy), -one.form.size, one.form.lossy, one.seconds))


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


def _least(candidates: Sequence[Candidate], *, probing: bool) -> Candidate:
    """The candidate of the smallest peak, as it may turn out to be."""
    return min(candidates, key=lambda one: one.hoped_mb if probing else one.peak_mb)


def _refusal(least: Candidate, budget_mb: float) -> str:
    if least.peak_mb > max(least.peaks_mb):
        return (
            f"this does not fit {budget_mb:.0f} MiB: the jobs before training (reading the images, counting what "
            f"the modules take, cutting a model) need {math.ceil(least.peak_mb)} MiB"
        )
    module = least.peaks_mb.index(least.peak_mb)
    row, form, layout = least.form.rows[module], least.form, least.layout
    trains = module >= least.demand.frozen
    buffers = boundary_bytes(least.demand, form, module, layout, trains=trains)
    work = least.bases_mb[module] - least.fixed_mb - buffers / MIB
    opening = least.openings_mb[module] - least.fixed_mb
    smallest_mb = math.ceil(least.peak_mb)
    return (
        f"this does not fit {budget_mb:.0f} MiB: the smallest budget that would do is {smallest_mb} MiB, "
        f"{least.fixed_mb:.0f} of it before any module; module {module} is in the way, with "
        f"{row.weights / MIB:.1f} MiB of weights, {row.momentum / MIB:.1f} of momentum, {work:.1f} for a step and "
        f"{buffers / MIB:.1f} of boundaries"
        + (f"; making it takes {opening:.1f}" if least.openings_mb[module] == least.peak_mb else "")
    )


def _ways_out(least: Candidate, measured: Measurements) -> str:
    """Changes that would make it fit, each with its peak."""
    demand = least.demand
    ways = [f"Give --budget-mb {math.ceil(least.peak_mb)}"]
    for form in (form for form in demand.forms if form.lossy == ("micro-batch",)):
        smaller = demand.at_batch_size(form.size, form)
        ways.append(f"--batch-size {form.size} (peak {math.ceil(_peak_of(smaller, measured))} MiB)")
        if "micro-batch" not in demand.allowed:
            allowing = replace(demand, allowed=form.lossy, forms=(form,))
            peak_mb = math.ceil(_peak_of(allowing, measured))
            ways.append(f"--allow micro-batch (in parts of {form.size}: peak {peak_mb} MiB; changes results)")
        break
    if demand.without:
        ways.append(f"leave out --without {', '.join(demand.without)}")
    return f"{'; or '.join(ways)}."


def _peak_of(demand: Demand, measured: Measurements) -> float:
    return _least(ladder(demand, measured, None), probing=False).peak_mb
