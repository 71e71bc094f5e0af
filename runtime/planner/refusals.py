"""Errors that say in one sentence why no plan fits, with a hint at what would make it fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.planner.calibrated import SHORTFALL
from edge_trgl.runtime.planner.candidates import NARROW, ladder, least_disk, least_memory
from edge_trgl.runtime.planner.costing import Candidate, boundary_bytes
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Measurements
from edge_trgl.runtime.units import MIB

SHOWN = 3
"""The most changes that a hint proposes beside a larger budget."""


def of_memory(
    least: Candidate, budget_mb: float, measured: Measurements, *, begun: bool = False
) -> DoesNotFitError:
    """The error for a budget that not even the candidate `least` fits; `begun`: settings cannot change any
    more."""
    ways = [f"Give --budget-mb {math.ceil(least.peak_mb)}"]
    ways += [] if begun else _less_memory(least, budget_mb, measured)
    return DoesNotFitError(_memory_text(least, budget_mb), hint=f"{'; or '.join(ways)}.")


def of_disk(candidates: Sequence[Candidate], disk_mb: float) -> DoesNotFitError:
    """The error for a disk that has no room for any of `candidates`."""
    least = least_disk(candidates)
    need, (module, size) = least.disk, least.disk.largest
    boundaries = need.boundaries - need.spared
    text = (
        f"this does not fit {math.floor(disk_mb)} MiB of the disk: the least that would do is "
        f"{math.ceil(least.least_disk_mb)} MiB, {need.stored / MIB:.1f} of it there already (the prepared data), "
        f"{need.modules / MIB:.1f} for files of modules and {boundaries / MIB:.1f} for boundaries"
    )
    if boundaries:
        text += f"; the largest is that into module {module}, with {size / MIB:.1f} MiB"
    return DoesNotFitError(text, hint=_less_disk(least, disk_mb))


def _memory_text(least: Candidate, budget_mb: float) -> str:
    if least.peak_mb > max(least.peaks_mb):
        return (
            f"this does not fit {budget_mb:.0f} MiB: the jobs before training (reading the data, counting what "
            f"the modules take, cutting a model) need {math.ceil(least.peak_mb)} MiB"
        )
    module = least.peaks_mb.index(least.peak_mb)
    row, form, layout = least.form.rows[module], least.form, least.layout
    # By the work that makes the peak, which may be a forward pass because of what it writes.
    taken = [
        (row.works[work], boundary_bytes(least.demand, form, module, layout, trains=work != FORWARD))
        for work in least.demand.works_of(module, layout.recompute)
    ]
    buffers = max(taken, key=sum)[1]
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


def _less_memory(least: Candidate, budget_mb: float, measured: Measurements) -> list[str]:
    kinds = [[(text, _peak_of(one, measured)) for text, one in kind] for kind in _lighter(least.demand)]
    return _proposed(kinds, budget_mb, least.peak_mb, "peak")


def _proposed(
    kinds: Sequence[Sequence[tuple[str, float]]], limit_mb: float, least_mb: float, what: str
) -> list[str]:
    """Texts of changes that would make it fit, with the MiB of each: the smallest change of each kind.

    If no change is enough, the one that comes nearest, provided it takes clearly less than `least_mb`.
    """
    fitting = [found for kind in kinds if (found := next((one for one in kind if one[1] <= limit_mb), None))]
    if fitting:
        return [f"{text} ({what} {math.ceil(mb)} MiB)" for text, mb in fitting[:SHOWN]]
    text, mb = min((one for kind in kinds for one in kind), key=lambda one: one[1], default=("", math.inf))
    if mb > (1 - SHORTFALL) * least_mb:
        return []  # within the error of estimates
    return [f"less than that with {text} ({what} {math.ceil(mb)} MiB); no single change fits {limit_mb:.0f} MiB"]


def _lighter(demand: Demand) -> Iterator[list[tuple[str, Demand]]]:
    """Changes of settings that need less memory, each with its demand, by kind; the smallest change first."""
    yield [(f"leave out --without {one}", _without_less(demand, one)) for one in demand.without]
    parts = [form for form in demand.forms if form.lossy == ("micro-batch",)]
    yield [(f"--batch-size {form.size}", demand.at_batch_size(form)) for form in parts]
    if "micro-batch" not in demand.allowed:
        yield [
            (
                f"--allow micro-batch, in parts of {form.size}, which changes results",
                replace(demand, allowed=form.lossy, forms=(form,)),
            )
            for form in parts
        ]


def _without_less(demand: Demand, name: str) -> Demand:
    return replace(demand, without=tuple(one for one in demand.without if one != name))


def _peak_of(demand: Demand, measured: Measurements) -> float:
    """The smallest peak of a demand; an estimate includes a margin, because it will be measured."""
    least = least_memory(ladder(demand, measured))
    return least.peak_mb * (1 + (SHORTFALL if least.slack_mb > 0 else 0))


def _less_disk(least: Candidate, disk_mb: float) -> str:
    missing_mb = math.ceil(least.least_disk_mb - disk_mb)
    ways = [f"Free {missing_mb} MiB, or give --disk-mb {math.ceil(least.least_disk_mb)} where they are free"]
    kinds = [
        [(text, least_disk(ladder(demand, {})).least_disk_mb) for text, demand in kind]
        for kind in _smaller(least.demand)
    ]
    ways += _proposed(kinds, disk_mb, least.least_disk_mb, "needs")
    return f"{'; or '.join(ways)}."


def _smaller(demand: Demand) -> Iterator[list[tuple[str, Demand]]]:
    """Changes of settings that need less disk space, like `_lighter`."""
    if demand.copies > 1:
        yield [("--views 1", replace(demand, copies=1))]
    yield [
        (f"--allow {name}, which changes results", replace(demand, allowed=(*demand.allowed, name)))
        for name in NARROW
        if name not in demand.allowed and any(form.lossy == (name,) for form in demand.forms)
    ]
    if demand.kept or any(form.order == "cache" for form in demand.forms):
        forms = tuple(replace(form, order="stream") if form.order == "cache" else form for form in demand.forms)
        one_by_one = demand.forms[0].order == "cache"
        streamed = replace(demand, forms=forms, kept=False, one_by_one=one_by_one, copies=1)
        option = "--cache none --views 1" if demand.copies > 1 else "--cache none"
        yield [(f"{option}, which passes the frozen modules anew in every epoch", streamed)]
    if demand.chunk is not None and demand.chunk > 1:
        yield [("a shorter --chunk", replace(demand, chunk=1))]
