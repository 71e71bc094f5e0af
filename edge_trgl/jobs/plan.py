"""Lay the run out within its budget. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

from edge_trgl.config.export_request import COPIES
from edge_trgl.engine.schedule import carries_chunk
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.planner import measurements_cache, planner
from edge_trgl.runtime.planner.alternatives import alternatives
from edge_trgl.runtime.planner.costing import boundary_bytes
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Measurement, Measurements, work_key
from edge_trgl.runtime.planner.plan import Plan
from edge_trgl.runtime.planner.planner import Begun, Wanted
from edge_trgl.runtime.planner.savings import missed
from edge_trgl.runtime.planner.traffic import traffic_of
from edge_trgl.runtime.storage import disk_space
from edge_trgl.runtime.storage.state import RunState
from edge_trgl.runtime.units import MIB

SPARE_MB = 3.0
"""Between identical jobs before training the peak was seen to differ by up to 2 MiB."""

EXPORTER_MB = 10.0
"""What exporting loads that training does not; 8 were seen."""


def run(
    run: Run, budget_mb: float | None, disk_mb: float, *, refused: Literal["memory", "disk"] | None = None
) -> dict[str, Any]:
    """Plan the run for `budget_mb` MiB, None for the least that works, and `disk_mb` MiB on the disk.

    `refused`: what its plan was refused; the new one takes a step less memory, or what the disk has room for.

    Returns:
        `wanted`: works to measure, within `room_mb`, before there can be a plan; else `changed`: how the plan
        differs from the one before, None where there is none to go on with.

    Raises:
        DoesNotFitError: nothing that is allowed fits.
    """
    state = run.state()
    demand = Demand.from_document(state.meta("demand"))
    demand = replace(
        demand,
        floor_mb=_floor_mb(state, demand),
        stored_bytes=_stored_bytes(run),
        block_bytes=disk_space.block_bytes(run.folder),
    )
    measured = _known(demand, state)
    before = Plan.from_document(state.meta("plan")) if state.meta("plan") else None
    begun = _begun(state, demand, before) if before and state.position() > 0 else None
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
        return {"wanted": [asdict(one) for one in found], "room_mb": room_mb}
    _store(state, demand, found, measured, augmented=run.config().data.augment)
    state.close()
    changed = before is not None and before.layout != found.layout
    return {"wanted": [], "changed": f"{described(before)} -> {described(found)}" if before and changed else None}


def _begun(state: RunState, demand: Demand, plan: Plan) -> Begun:
    """The run as its last commit left it.

    Positions count visits, and visits end where chunks do: another chunk may only begin where every module has
    done the last one, and where the chunks to come begin where its own would.
    """
    own, order = plan.layout.chunk, demand.forms[plan.layout.form].order
    specs = [record.spec for record in state.boundaries()]
    inside = any(carries_chunk(spec.name) for spec in specs)
    fixed = inside or order != "stream" or demand.one_by_one or demand.chunk is not None
    chunks = (own,) if fixed else tuple(length for length in range(own, 0, -1) if own % length == 0)
    return Begun(plan=plan, chunks=chunks, live_bytes=sum(spec.file_bytes for spec in specs))


def _with_disk(
    demand: Demand, budget_mb: float, measured: Measurements, disk_mb: float, begun: Begun | None
) -> Plan | None:
    """The fastest plan that the disk has room for; None: there is none."""
    try:
        found = planner.choose(demand, budget_mb, measured, probing=False, disk_mb=disk_mb, begun=begun)
    except DoesNotFitError:
        return None
    assert isinstance(found, Plan)
    return found


def _stored_bytes(run: Run) -> int:
    """On the disk, beside the files of modules and boundaries, which the plan counts."""
    stored_mb = disk_space.taken_mb(run.folder, without=(run.modules, run.boundaries, run.scratch))
    return int(stored_mb * MIB)


def _floor_mb(state: RunState, demand: Demand) -> float:
    """MiB at most of the jobs before training: those that are done, and the conversion of a model that was cut.

    The conversion loads the model's library, as cutting did; then it makes one module after the other and, beside
    each, draws or reads its weights.
    """
    done = [phase for phase in state.phases() if phase.name in ("prepare", "cut", "costs")]
    floor_mb = max((phase.peak_mb for phase in done), default=0.0)
    if not state.meta("net"):
        return floor_mb
    cut_mb = max((phase.peak_mb for phase in done if phase.name == "cut"), default=0.0)
    making = min(max(row.opening + row.weights for row in form.rows) for form in demand.forms)
    return max(floor_mb, cut_mb + making / MIB + SPARE_MB)


def described(plan: Plan) -> str:
    """A plan in a few words."""
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
        DoesNotFitError: there is none; what it names leaves the jobs before training of other runs a little more,
            as the least does.
    """
    wanted = run.config().budget
    for_others = replace(demand, floor_mb=demand.floor_mb + SPARE_MB)
    if budget_mb is None:
        disk_mb = math.inf if wanted.force else disk_mb
        return planner.smallest(for_others, measured, probing=wanted.probe, disk_mb=disk_mb)
    choose = partial(planner.choose, probing=wanted.probe, disk_mb=disk_mb, begun=begun)
    try:
        return choose(demand, budget_mb, measured)
    except DoesNotFitError:
        if not wanted.force:
            return choose(for_others, budget_mb, measured)
    return planner.smallest(demand, measured, probing=wanted.probe)


def _known(demand: Demand, state: RunState) -> Measurements:
    """What was measured of the demand's works, in this run or before."""
    keys = {
        work_key(row.kind, work, form.size)
        for form in demand.forms
        for row in form.rows
        for work in (*demand.levels, FORWARD)
    }
    here = {key: Measurement(**values) for key, values in state.meta("measured", {}).items()}
    return {**here, **measurements_cache.recall(keys)}


def _store(state: RunState, demand: Demand, plan: Plan, measured: Measurements, *, augmented: bool) -> None:
    layout = state.meta("layouts")[plan.layout.form]
    state.set_meta("layout", layout)
    state.set_meta("table", _table(demand, plan, measured, layout))
    state.set_meta("traffic", asdict(traffic_of(demand, plan, measured)))
    others = alternatives(demand, plan, measured, augmented=augmented)
    state.set_meta("alternatives", [asdict(one) for one in others])
    state.set_meta("missed", missed(demand, plan, measured))
    heaviest = max(row.weights for row in demand.forms[plan.layout.form].rows)
    state.set_meta("export_mb", plan.fixed_mb + EXPORTER_MB + COPIES * heaviest / MIB)
    state.set_meta("plan", plan.document())  # last: it says that all is there


def _table(demand: Demand, plan: Plan, measured: Measurements, layout: dict[str, Any]) -> list[dict[str, Any]]:
    """What `edge-trgl plan` shows of each module: the parts of its peak, in MiB."""
    form, table = demand.forms[plan.layout.form], []
    for module, row in enumerate(form.rows):
        work = demand.works_of(module, plan.layout.recompute)[0]
        measurement = measured.get(work_key(row.kind, work, form.size))
        tensors_mb = row.works[work] / MIB
        taken_mb = measurement.work_mb if measurement else tensors_mb * (1 + demand.workspace)
        buffers = boundary_bytes(demand, form, module, plan.layout, trains=work != FORWARD)
        table.append(
            {
                "module": module,
                "name": layout["names"][module],
                "head": layout["heads"][module],
                "params": layout["num_params"][module],
                "weights_mb": row.weights / MIB,
                "gradients_mb": row.gradients / MIB,
                "momentum_mb": row.momentum / MIB,
                "activations_mb": max(tensors_mb - row.gradients / MIB, 0.0),
                "workspace_mb": max(taken_mb - tensors_mb, 0.0),
                "buffers_mb": buffers / MIB,
                "peak_mb": plan.peaks_mb[module],
                "step_s": measurement.seconds if measurement else None,
            }
        )
    return table
