"""Choose the plan of a run within its budget, from its demand and what was measured. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from edge_trgl.config.export_request import COPIES
from edge_trgl.engine.passes import carries_chunk
from edge_trgl.planning.calibrated import EXPORTER_MB, JOB_MARGIN_MB
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.facts import ModuleNeeds, Planned, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner import measurements_cache, planner
from edge_trgl.runtime.planner.alternatives import alternatives
from edge_trgl.runtime.planner.costing import boundary_bytes
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Measurements, work_key
from edge_trgl.runtime.planner.plan import Plan, PlanStep, Wanted
from edge_trgl.runtime.planner.planner import Begun
from edge_trgl.runtime.planner.savings import missed
from edge_trgl.runtime.planner.traffic import traffic_of
from edge_trgl.runtime.storage import blocks, disk_space
from edge_trgl.runtime.units import MIB

Refused = Literal["memory", "disk"]
"""What a run was refused under the plan that it has."""


def choose(run: Run, limits: Limits, *, refused: Refused | None = None) -> PlanStep:
    """Choose and store a plan within `limits`; an open budget means the smallest that works.

    `refused`: what the run was refused under its plan; the new plan takes a step less memory, or what the disk has
    room for.

    Raises:
        DoesNotFitError: no plan that is allowed fits.
    """
    facts = run.facts()
    budget_mb, disk_mb = limits.budget_mb, math.inf if limits.disk_mb is None else limits.disk_mb
    demand = facts.counted.demand
    demand = replace(
        demand,
        floor_mb=_floor_mb(facts, demand),
        stored_bytes=_stored_bytes(run),
        block_bytes=blocks.block_bytes(run.folder),
    )
    measured = _known(demand, facts)
    before = facts.planned.plan if facts.is_planned else None
    begun = _begun(facts, demand, before) if before and facts.position() > 0 else None
    found: Plan | Sequence[Wanted]
    if refused == "memory":
        assert before is not None
        found = planner.lower(demand, before, measured, disk_mb=disk_mb) or before
    elif refused == "disk":
        assert before is not None
        assert budget_mb is not None
        found = _with_disk(demand, budget_mb, measured, disk_mb, begun) or before
    else:
        found = _chosen(run, demand, measured, budget_mb, disk_mb, begun)
    if not isinstance(found, Plan):
        room_mb = budget_mb or planner.worth_measuring_mb(demand, measured, disk_mb)
        return PlanStep(wanted=tuple(found), room_mb=room_mb)
    facts.planned = _planned(facts, demand, found, measured, augmented=run.config().data.augment)
    facts.close()
    changed = before is not None and before.layout != found.layout
    return PlanStep(changed=f"{described(before)} -> {described(found)}" if before and changed else None)


def _begun(facts: RunFacts, demand: Demand, plan: Plan) -> Begun:
    """The run as its last commit left it.

    Positions count visits, and visits end where chunks end: the length of a chunk may only change where every
    module has finished the last chunk, and to a divisor of it, so that later chunks begin at the same batches.
    """
    own, order = plan.layout.chunk, demand.forms[plan.layout.form].order
    specs = [record.spec for record in facts.boundaries()]
    inside = any(carries_chunk(spec.name) for spec in specs)
    fixed = inside or order != "stream" or demand.one_by_one or demand.chunk is not None
    chunks = (own,) if fixed else tuple(length for length in range(own, 0, -1) if own % length == 0)
    return Begun(plan=plan, chunks=chunks, live_bytes=sum(spec.file_bytes for spec in specs))


def _with_disk(
    demand: Demand, budget_mb: float, measured: Measurements, disk_mb: float, begun: Begun | None
) -> Plan | None:
    """The fastest plan that the disk has room for, None if there is none."""
    try:
        found = planner.choose(demand, budget_mb, measured, probing=False, disk_mb=disk_mb, begun=begun)
    except DoesNotFitError:
        return None
    assert isinstance(found, Plan)
    return found


def _stored_bytes(run: Run) -> int:
    """Bytes of the run's folder on the disk without the files of modules and boundaries, which the plan counts."""
    stored_mb = disk_space.taken_mb(run.folder, without=(run.modules, run.boundaries, run.scratch))
    return int(stored_mb * MIB)


def _floor_mb(facts: RunFacts, demand: Demand) -> float:
    """Peak in MiB of the jobs before training: those that are done, and the conversion of a model that was cut.

    The conversion loads the model's library, as cutting did; then it makes one module at a time and, beside each,
    draws or reads its weights.
    """
    done = [phase for phase in facts.phases() if phase.name in ("prepare", "cut", "count")]
    floor_mb = max((phase.peak_mb for phase in done), default=0.0)
    if not facts.is_cut or not facts.net:
        return floor_mb
    cut_mb = max((phase.peak_mb for phase in done if phase.name == "cut"), default=0.0)
    making = min(max(row.opening + row.weights for row in form.rows) for form in demand.forms)
    return max(floor_mb, cut_mb + making / MIB + JOB_MARGIN_MB)


def described(plan: Plan) -> str:
    """One line of text about a plan."""
    layout = plan.layout
    where = "boundaries in memory" if layout.placement == "memory" else "boundaries on disk"
    words = [f"{layout.resident} in memory", f"chunks of {layout.chunk}", where, f"recompute {layout.recompute}"]
    words += [f"{plan.peak_mb:.0f} MiB", f"{plan.disk_mb:.0f} MiB of the disk"]
    return ", ".join(words[:1] + (["prefetch"] if layout.prefetch else []) + words[1:])


def _chosen(
    run: Run,
    demand: Demand,
    measured: Measurements,
    budget_mb: float | None,
    disk_mb: float,
    begun: Begun | None,
) -> Plan | Sequence[Wanted]:
    """The plan, or what to measure for it.

    Raises:
        DoesNotFitError: no plan fits. The suggested budget, like the smallest one, includes `JOB_MARGIN_MB` of
            headroom for the jobs before training.
    """
    wanted = run.config().budget
    with_margin = replace(demand, floor_mb=demand.floor_mb + JOB_MARGIN_MB)
    if budget_mb is None:
        disk_mb = math.inf if wanted.force else disk_mb
        return planner.smallest(with_margin, measured, probing=wanted.probe, disk_mb=disk_mb)
    choose = partial(planner.choose, probing=wanted.probe, disk_mb=disk_mb, begun=begun)
    try:
        return choose(demand, budget_mb, measured)
    except DoesNotFitError:
        if not wanted.force:
            return choose(with_margin, budget_mb, measured)
    return planner.smallest(demand, measured, probing=wanted.probe)


def _known(demand: Demand, facts: RunFacts) -> Measurements:
    """What was measured of the demand's works, in this run or an earlier one."""
    keys = {
        work_key(row.kind, work, form.size)
        for form in demand.forms
        for row in form.rows
        for work in (*demand.levels, FORWARD)
    }
    return {**facts.measured, **measurements_cache.recall(keys)}


def _planned(facts: RunFacts, demand: Demand, plan: Plan, measured: Measurements, *, augmented: bool) -> Planned:
    layout = facts.counted.layouts[plan.layout.form]
    heaviest = max(row.weights for row in demand.forms[plan.layout.form].rows)
    return Planned(
        plan=plan,
        layout=layout,
        table=tuple(_needs(demand, plan, measured, layout)),
        traffic=traffic_of(demand, plan, measured),
        alternatives=tuple(alternatives(demand, plan, measured, augmented=augmented)),
        missed=missed(demand, plan, measured),
        export_mb=plan.fixed_mb + EXPORTER_MB + COPIES * heaviest / MIB,
    )


def _needs(demand: Demand, plan: Plan, measured: Measurements, layout: ChainLayout) -> Iterator[ModuleNeeds]:
    """The rows of `edge-trgl plan`: for each module, the parts of its peak."""
    form = demand.forms[plan.layout.form]
    for module, row in enumerate(form.rows):
        work = demand.works_of(module, plan.layout.recompute)[0]
        measurement = measured.get(work_key(row.kind, work, form.size))
        tensors_mb = row.works[work] / MIB
        taken_mb = measurement.work_mb if measurement else tensors_mb * (1 + demand.workspace)
        buffers = boundary_bytes(demand, form, module, plan.layout, trains=work != FORWARD)
        yield ModuleNeeds(
            module=module,
            name=layout.names[module],
            head=layout.heads[module],
            params=layout.num_params[module],
            weights_mb=row.weights / MIB,
            gradients_mb=row.gradients / MIB,
            momentum_mb=row.momentum / MIB,
            activations_mb=max(tensors_mb - row.gradients / MIB, 0.0),
            workspace_mb=max(taken_mb - tensors_mb, 0.0),
            buffers_mb=buffers / MIB,
            peak_mb=plan.peaks_mb[module],
            step_s=measurement.seconds if measurement else None,
        )
