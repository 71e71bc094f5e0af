"""Lay the run out within its budget. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from edge_trgl.run import Run
from edge_trgl.runtime import planner, probes
from edge_trgl.runtime.alternatives import alternatives
from edge_trgl.runtime.costing import boundary_bytes
from edge_trgl.runtime.demand import FORWARD, Demand, Measurement, Measurements, work_key
from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.plan import Plan
from edge_trgl.runtime.planner import Wanted
from edge_trgl.runtime.state import RunState
from edge_trgl.runtime.traffic import traffic_of

# Between identical conversions the peak was seen to differ by 1 to 2 MiB.
SPARE_MB = 2.0


def run(run: Run, budget_mb: float | None, *, below: bool = False) -> dict[str, Any]:
    """Plan the run for `budget_mb` MiB, None for the least that works; `below`: one step less than its plan.

    Returns:
        `wanted`: works to measure, within `room_mb`, before there can be a plan; else `changed`: how the plan
        differs from the one before, None where there is nothing below it.

    Raises:
        DoesNotFitError: nothing that is allowed fits.
    """
    state = run.state()
    demand = Demand.from_document(state.meta("demand"))
    demand = replace(demand, floor_mb=_floor_mb(state, demand))
    measured = _known(demand, state)
    begun = Plan.from_document(state.meta("plan")) if state.meta("plan") else None
    if below:
        assert begun is not None
        lower = planner.lower(demand, begun, measured)
        found: Plan | Sequence[Wanted] = lower or begun
    else:
        found = _chosen(run, demand, measured, budget_mb, begun if state.position() > 0 else None)
    if not isinstance(found, Plan):
        room_mb = budget_mb or planner.worth_measuring_mb(demand, measured)
        return {"wanted": [asdict(one) for one in found], "room_mb": room_mb}
    _store(state, demand, found, measured, augmented=run.config().data.augment)
    state.close()
    changed = begun is not None and begun.layout != found.layout
    return {"wanted": [], "changed": f"{described(begun)} -> {described(found)}" if begun and changed else None}


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
    words = [f"{layout.resident} in memory", where, f"recompute {layout.recompute}", f"{plan.peak_mb:.0f} MiB"]
    return ", ".join(words[:1] + (["prefetch"] if layout.prefetch else []) + words[1:])


def _chosen(
    run: Run, demand: Demand, measured: Measurements, budget_mb: float | None, like: Plan | None
) -> Plan | Sequence[Wanted]:
    wanted = run.config().budget
    if budget_mb is not None:
        try:
            return planner.choose(demand, budget_mb, measured, probing=wanted.probe, like=like)
        except DoesNotFitError:
            if not wanted.force:
                raise
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
    return {**here, **probes.recall(keys)}


def _store(state: RunState, demand: Demand, plan: Plan, measured: Measurements, *, augmented: bool) -> None:
    layout = state.meta("layouts")[plan.layout.form]
    state.set_meta("layout", layout)
    state.set_meta("table", _table(demand, plan, measured, layout))
    state.set_meta("traffic", asdict(traffic_of(demand, plan, measured)))
    others = alternatives(demand, plan, measured, augmented=augmented)
    state.set_meta("alternatives", [asdict(one) for one in others])
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
