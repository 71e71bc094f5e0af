"""`edge-trgl plan`: whether a run fits its budget, and how the plan reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from edge_trgl.api import check_plan
from edge_trgl.cli.configured import ConfiguredVerb, configured, read_configuration
from edge_trgl.cli.orders import Order, Plan
from edge_trgl.cli.progress import duration, size
from edge_trgl.cli.verb import option
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.run.facts import ModuleNeeds
from edge_trgl.runtime.planner import plan as planner
from edge_trgl.runtime.planner.plan import Alternative, Traffic
from edge_trgl.runtime.records import Document, read_record

COLUMNS = ("weights", "gradients", "momentum", "activations", "workspace", "buffers", "peak")
SMALLEST_MB = 0.05
"""The smallest size that is not 0.0 MiB."""
RECOMPUTED = {
    "none": "",
    "norms": ", normalisations recomputed in the backward pass",
    "blocks": ", blocks recomputed in the backward pass",
}


@click.command(cls=ConfiguredVerb)
@configured
@option("--json", "as_json", is_flag=True, group="Output", help="print the plan as one JSON document")
def plan(as_json: bool, **given: Any) -> Order:  # noqa: FBT001
    """Say whether a run fits its budget and what each module takes, without training."""
    config = read_configuration(given)
    check_plan(config)
    return Plan(config=config.document(), as_json=as_json)


def result_text(document: Document, *, as_json: bool) -> str:
    """Lay out a plan."""
    planned = read_record(PlannedRun, document)
    return json.dumps(planned.document()) if as_json else plan_text(planned)


def plan_text(run: PlannedRun) -> str:
    """Lay out a plan as a table and a few sentences."""
    planned, budget_mb, disk_mb = run.planned, run.limits.memory_mb, run.disk_mb
    plan, table = planned.plan, planned.table
    lines = ["module" + "".join(f"{name:>12}" for name in COLUMNS) + "  MiB"]
    for row in table:
        sizes = "".join(map(_cell, _sizes_mb(row)))
        head = f", {row.head} head" if row.head else ""
        lines.append(f"{row.module:6d}{sizes}  {row.name}{head}")
    lines += [
        _layout(plan, len(table)) + _missed(planned.missed),
        *_traffic(planned.traffic),
        *([run.scan] if run.scan else []),
        *_alternatives(planned.alternatives, in_memory=plan.layout.placement == "memory"),
    ]
    basis = "measured by steps in a separate process" if plan.probed else "estimated; no step was measured"
    phases = ", ".join(f"{phase.name} {phase.peak_mb:.0f}" for phase in run.phases)
    lines += [
        f"peak {plan.peak_mb:.0f} MiB of {budget_mb:.0f} MiB: {_fits(plan.peak_mb, budget_mb)}; "
        f"{plan.fixed_mb:.0f} MiB are fixed, before any module ({basis})",
        f"of these, {run.libraries_mb:.0f} MiB are Python and torch, {run.engine_mb:.0f} the engine, "
        f"{run.parent_mb:.0f} the parent process",
        f"disk at most {plan.disk_mb:.0f} MiB of {disk_mb:.0f} MiB: {_fits(plan.disk_mb, disk_mb)}",
        f"peaks before training: {phases} MiB",
        f"exporting the network takes at most {planned.export_mb:.0f} MiB: {_fits(planned.export_mb, budget_mb)}",
    ]
    lines += [stated.text for stated in (run.weights, run.normalisation) if stated is not None]
    if plan.lossy:
        lines.append(f"this plan changes the results: {', '.join(plan.lossy)}")
    return "\n".join(lines)


def _cell(size_mb: float) -> str:
    """A size of the table: a number of MiB, or KiB where that would be 0.0."""
    if not 0 < size_mb < SMALLEST_MB:
        return f"{size_mb:12.1f}"
    return f"{f'{max(1, round(size_mb * 1024))} KiB':>12}"


def _sizes_mb(row: ModuleNeeds) -> tuple[float, ...]:
    """The sizes of a module in the order of `COLUMNS`."""
    return (
        row.weights_mb,
        row.gradients_mb,
        row.momentum_mb,
        row.activations_mb,
        row.workspace_mb,
        row.buffers_mb,
        row.peak_mb,
    )


def _fits(size_mb: float, limit_mb: float) -> str:
    return "fits" if size_mb <= limit_mb else "does not fit"


def _layout(plan: planner.Plan, num_modules: int) -> str:
    layout = plan.layout
    ahead = ", the next module is read ahead" if layout.prefetch else ""
    return (
        f"{layout.resident} of {num_modules} modules in memory, chunks of {layout.chunk} batches, "
        f"boundaries {'in memory' if layout.placement == 'memory' else 'on disk'}{ahead}"
        + RECOMPUTED[layout.recompute]
        + (f", batches in parts of {plan.micro_batch}" if plan.micro_batch else "")
    )


def _missed(peaks_mb: Mapping[str, float]) -> str:
    """The peak without each saving that the budget has no room to leave out."""
    return "".join(f"; {name} would take {peak_mb:.0f} MiB" for name, peak_mb in peaks_mb.items())


def _traffic(traffic: Traffic) -> list[str]:
    epochs, read_mb, written_mb = traffic.epochs, traffic.read_mb, traffic.written_mb
    each = f"an epoch reads {size(read_mb / epochs)} and writes {size(written_mb / epochs)}"
    whole = f"all {epochs} read {size(read_mb)} and write {size(written_mb)}"
    if traffic.seconds is not None:
        each += f" in {duration(traffic.seconds / epochs)}"
        whole += f" in {duration(traffic.seconds)}"
    if traffic.wear is not None:
        whole += f", {traffic.wear:.2%} of the storage's endurance"
    return [f"{each}; {whole}"]


def _alternatives(others: Sequence[Alternative], *, in_memory: bool) -> list[str]:
    """What more copies of a cached boundary, or none, would mean for augmentation, storage and time."""
    if not others:
        return []
    here, *more, none = others
    each = f"the same {here.copies} augmented copies" if here.copies > 1 else "the same augmented copy"
    words = [
        f"cached boundaries show {each} of an image in every epoch" if more else "cached boundaries are exact"
    ]
    for one in more:
        takes = "takes as many times their memory" if in_memory else _writes(one)
        words.append(f"--views {one.copies} varies the images more, {takes}{_time(one, here)}")
    draws = "augments anew in every epoch, " if more else ""
    takes = "keeps none" if in_memory else _writes(none)
    words.append(f"--cache none {draws}{takes}{_time(none, here)}")
    return ["; ".join(words)]


def _writes(one: Alternative) -> str:
    return f"writes {size(one.traffic.written_mb)} in all"


def _time(one: Alternative, here: Alternative) -> str:
    """How long it takes, if that is known."""
    seconds, ours = one.traffic.seconds, here.traffic.seconds
    return "" if seconds is None or ours is None else f", takes {seconds / ours:.1f} times as long"
