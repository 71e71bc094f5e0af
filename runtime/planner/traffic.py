"""What a plan reads and writes, how much it wears the storage, and how long it takes."""

from __future__ import annotations

import math

from edge_trgl.runtime.planner.costing import loads_per_round
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, Measurements, work_key
from edge_trgl.runtime.planner.plan import Plan, Traffic
from edge_trgl.runtime.units import MIB


def traffic_of(demand: Demand, plan: Plan, measured: Measurements) -> Traffic:
    """The traffic of training by `plan`, without evaluation."""
    form = demand.forms[plan.layout.form]
    compute_s = _compute_s(demand, form, plan, measured)
    read, written = _boundaries(demand, form) if plan.layout.placement == "disk" else (0.0, 0.0)
    loaded = _loads(demand, form, plan)
    read += loaded + _images(demand, form) + _scoring_loads(demand, form, plan)
    written += loaded
    written += _commits(demand, form, plan, compute_s)
    moving_s = read / (demand.read_mbs * 1e6) + written / (demand.write_mbs * 1e6)
    return Traffic(
        epochs=max(demand.epochs),
        read_mb=read / MIB,
        written_mb=written / MIB,
        compute_s=compute_s,
        seconds=None if compute_s is None else compute_s + moving_s,
        wear=None if demand.endurance_tb is None else written / (demand.endurance_tb * 1e12),
    )


def _samples(demand: Demand) -> int:
    """Samples trained in an epoch: a short last batch is dropped."""
    return min(demand.batches_per_epoch * demand.batch_size, demand.num_samples)


def passes(demand: Demand, form: Form) -> list[tuple[int, int]]:
    """For each module, the passes over the data in which it is trained, and those in which it is not."""
    last = len(form.rows) - 1
    trained = demand.epochs[: last + 1]  # a net that is trained whole is one module
    frozen: list[int]
    if form.order == "cache":
        frozen = [demand.copies * demand.laps] * last + [0]
    elif form.order == "rounds":  # the way up
        frozen = [*trained[:last], 0]
    elif demand.one_by_one:
        frozen = [sum(trained[module + 1 :]) for module in range(last + 1)]
    else:
        frozen = [max(trained)] * demand.frozen + [0] * (last + 1 - demand.frozen)
    if demand.kept:
        frozen[: demand.frozen] = [demand.copies] * demand.frozen
    again = int(demand.recalibrates)
    return [(epochs, others + again) for epochs, others in zip(trained, frozen, strict=True)]


def _images(demand: Demand, form: Form) -> float:
    """Bytes of images read."""
    passed = passes(demand, form)
    times = sum(passed[0]) + sum(passed[module][0] for module in demand.pictured)
    scored = demand.scorings(form, 0) * demand.num_looked_at
    return float((times * _samples(demand) + scored) * demand.image_bytes)


def _boundaries(demand: Demand, form: Form) -> tuple[float, float]:
    """Bytes of boundaries on disk, read and written."""
    read = written = 0
    for module, (row, each) in enumerate(zip(form.rows, passes(demand, form), strict=True)):
        if module == 0:
            continue
        once, (trained, frozen) = row.reads * _samples(demand), each
        scored = row.reads * demand.num_looked_at * demand.scorings(form, module)
        read += scored
        written += scored
        if form.order == "rounds":  # up, and down again with a gradient of the same size
            read += 3 * once * trained
            written += 2 * once * trained
            continue
        read += once * (trained + frozen)
        if demand.kept and module <= demand.frozen:
            written += once * demand.copies
        elif form.order == "cache":
            written += once * demand.copies * demand.laps
        else:
            written += once * (trained + frozen)
    return float(read), float(written)


def _loads(demand: Demand, form: Form, plan: Plan) -> float:
    """Bytes of modules read, and as many written, between commits."""
    rows = demand.repeated(form)
    states = sum(row.state for row in rows)
    passed_once = sum(row.state for row in form.rows) - states
    rounds = demand.rounds(form, plan.layout.chunk)
    if form.order == "cache":
        return float(states * rounds + passed_once)
    return passed_once + rounds * loads_per_round(len(rows), plan.layout, form) * states / len(rows)


def _scoring_loads(demand: Demand, form: Form, plan: Plan) -> float:
    """Bytes of modules read while validation samples go through them between two that are trained."""
    at_once = demand.growing_at_once if form.order == "cache" else plan.layout.chunk * demand.batch_size
    states = sum(row.state * demand.scorings(form, module) for module, row in enumerate(form.rows))
    return float(math.ceil(demand.num_looked_at / max(at_once, 1)) * states)


def _commits(demand: Demand, form: Form, plan: Plan, compute_s: float | None) -> float:
    """Bytes written by commits: the modules that changed, every few minutes, and all of them at the end.

    A cached boundary in memory is written once if a commit comes while it is in use.
    """
    once = float(sum(row.state for row in form.rows))
    commits = 0.0 if compute_s is None else compute_s / max(demand.checkpoint_s, 1.0)
    if plan.layout.placement == "memory" and form.order == "cache":
        num_boundaries = max((len(form.rows) - 1) * demand.laps, 1)
        once += _boundaries(demand, form)[1] * min(commits / num_boundaries, 1.0)
    trained = form.rows[demand.frozen :]
    changed = sum(row.state for row in trained) / (len(trained) if form.order == "cache" else 1)
    return once + int(commits) * changed


def _compute_s(demand: Demand, form: Form, plan: Plan, measured: Measurements) -> float | None:
    """Seconds of all steps, or None if a work was not measured."""
    total = 0.0
    steps = demand.batches_per_epoch * max(demand.batch_size // form.size, 1)
    for module, (row, (trained, frozen)) in enumerate(zip(form.rows, passes(demand, form), strict=True)):
        scored = demand.scorings(form, module) * demand.num_looked_at / demand.num_samples
        for work, epochs in ((plan.layout.recompute, trained), (FORWARD, frozen + scored)):
            if not epochs:
                continue
            key = work_key(row.kind, work, form.size)
            if key not in measured:
                return None
            total += epochs * steps * measured[key].seconds
    return total
