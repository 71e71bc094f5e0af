"""Jobs to plan, with modules of a few MiB, and helpers that plan them."""

from __future__ import annotations

import dataclasses
import re

import pytest

from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, ModuleRow
from edge_trgl.runtime.planner.planner import choose
from edge_trgl.runtime.units import MIB

PLENTY = 1e6
LEVELS = {"none": 0.0, "some": 0.5, "all": 1.0}


def row(state=4, step=20, recomputed=12, forward=6, reads=0, writes=0, kind="k"):
    """Make a module; state, step, recomputed step and forward are in MiB, reads and writes in KiB per sample."""
    works = {"none": step * MIB, "some": 19 * step * MIB // 20, "all": recomputed * MIB, FORWARD: forward * MIB}
    return ModuleRow(
        kind=f"{kind}{state}-{step}-{recomputed}-{forward}",
        weights=state * MIB // 2,
        momentum=state * MIB - state * MIB // 2,
        opening=0,
        gradients=0,
        works=works,
        reads=reads * 1024,
        writes=writes * 1024,
    )


# Module 1 reads 64 KiB and writes 32 KiB of a sample: 0.5 and 0.25 MiB of a batch of 8.
ROWS = (
    row(state=1, step=1, recomputed=1, forward=1),
    row(state=4, step=20, recomputed=12, forward=6, reads=64, writes=32),
    row(state=2, step=1, recomputed=1, forward=1),
)


def demand_of(rows=ROWS, *, order="stream", parts=(), batch_size=8, **changes):
    """Make a job of `rows`; `parts` are pairs of a micro-batch size and its rows."""
    exact = Form(order=order, rows=tuple(rows), size=batch_size)
    lossy = tuple(Form(order=order, rows=tuple(r), size=size, lossy=("micro-batch",)) for size, r in parts)
    fields = {
        "forms": (exact, *lossy),
        "levels": LEVELS,
        "batch_size": batch_size,
        "batches_per_epoch": 100,
        "num_samples": 800,
        "fixed_mb": 100.0,
        "others_mb": 10.0,
        "workspace": 0.0,
        "held_bytes": 0,
        "epochs": (1,) * len(rows),
        "copies": 2,
    }
    return Demand(**{**fields, **changes})


def make_plan(demand, budget_mb):
    return choose(demand, budget_mb, {}, probing=False)


def smallest_budget(demand):
    """Return the budget in MiB that the refusal of a tiny budget suggests."""
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(demand, 0.5)
    return int(re.search(r"smallest budget that would do is (\d+) MiB", caught.value.message)[1])


def shrunk(mb):
    """Return `ROWS` with `mb` MiB for every kind of step."""
    return tuple(dataclasses.replace(module, works=dict.fromkeys(module.works, mb * MIB)) for module in ROWS)
