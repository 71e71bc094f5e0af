"""Choose the plan of a run within its budget, from its demand and what was measured. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

from edge_trgl.config.export_request import COPIES
from edge_trgl.engine.schedule import carries_chunk
from edge_trgl.planning.calibrated import EXPORTER_MB, JOB_MARGIN_MB
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

Refused = Literal["memory", "disk"]
"""What a run was refused under the plan that it has."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A step towards a plan.

    `wanted`: the works to measure, within `room_mb` MiB, before there can be a plan; empty once a plan is stored.
    `changed`: how that plan differs from the one before, None if it does not or if it is the first.
    """

    wanted: tuple[Wanted, ...] = ()
    room_mb: float | None = None
    changed: str | None = None


def choose(run: Run, budget_mb: float | None, disk_mb: float, *, refused: Refused | None = None) -> Choice:
    """Choose and store a plan within `budget_mb` MiB (None: the smallest that works) and `disk_mb` MiB of disk.

    `refused`: what the run was refused under its plan; the new plan takes a step less memory, or what the disk has
    room for.

    Raises:
        DoesNotFitError: no plan that is allowed fits.
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
        return Choice(wanted=tuple(found), room_mb=room_mb)
    _store(state, demand, found, measured, augmented=run.config().data.augment)
    state.close()
    changed = before is not None and before.layout != found.layout
    return Choice(changed=f"{described(before)} -> {described(found)}" if before and changed else None)


def _begun(state: RunState, demand: Demand, plan: Plan) -> Begun:
    """The run as its last commit left it.

    Positions count visits, and visits end where chunks end: the length of a chunk may only change where every
    module has finished the last chunk, and to a divisor of it, so that later chunks begin at the same batches.
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


def _floor_mb(state: RunState, demand: Demand) -> float:
    """Peak in MiB of the jobs before training: those that are done, and the conversion of a model that was cut.

    The conversion loads the model's library, as cutting did; then it makes one module at a time and, beside each,
    draws or reads its weights.
    """
    done = [phase for phase in state.phases() if phase.name in ("prepare", "cut", "costs")]
    floor_mb = max((phase.peak_mb for phase in done), default=0.0)
    if not state.meta("net"):
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


def _known(demand: Demand, state: RunState) -> Measurements:
    """What was measured of the demand's works, in this run or an earlier one."""
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
    state.set_meta("plan", plan.document())  # last: its presence says that the rest is there


def _table(demand: Demand, plan: Plan, measured: Measurements, layout: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `edge-trgl plan`: for each module, the parts of its peak in MiB."""
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
