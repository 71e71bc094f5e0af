"""Why nothing fits, in one sentence, and what would make it fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edge_trgl.runtime.costing import Candidate, boundary_bytes
from edge_trgl.runtime.demand import Demand, Measurements
from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.ladder import NARROW, ladder, least_disk, least_memory
from edge_trgl.runtime.memory import MIB


def of_memory(least: Candidate, budget_mb: float, measured: Measurements) -> DoesNotFitError:
    """Of a budget that not even `least` fits."""
    return DoesNotFitError(_memory_text(least, budget_mb), hint=_less_memory(least, measured))


def of_disk(candidates: Sequence[Candidate], disk_mb: float) -> DoesNotFitError:
    """Of a disk on which none of `candidates` finds the room that it needs."""
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


def _less_memory(least: Candidate, measured: Measurements) -> str:
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
    return least_memory(ladder(demand, measured)).peak_mb


def _less_disk(least: Candidate, disk_mb: float) -> str:
    """Changes that make it need less, each with what it needs then."""
    missing_mb = math.ceil(least.least_disk_mb - disk_mb)
    ways = [f"Free {missing_mb} MiB, or give --disk-mb {math.ceil(least.least_disk_mb)} where they are free"]
    for text, demand in _smaller(least.demand):
        need_mb = least_disk(ladder(demand, {})).least_disk_mb
        if need_mb < least.least_disk_mb:
            ways.append(f"{text} (needs {math.ceil(need_mb)} MiB)")
    return f"{'; or '.join(ways)}."


def _smaller(demand: Demand) -> Iterator[tuple[str, Demand]]:
    """What may be asked for instead, and the demand that it makes."""
    if demand.copies > 1:
        yield "--views 1", replace(demand, copies=1)
    for name in NARROW:
        if name not in demand.allowed and any(form.lossy == (name,) for form in demand.forms):
            allowed = (*demand.allowed, name)
            yield f"--allow {name}, which changes results", replace(demand, allowed=allowed)
    if demand.kept or any(form.order == "cache" for form in demand.forms):
        forms = tuple(replace(form, order="stream") if form.order == "cache" else form for form in demand.forms)
        one_by_one = demand.forms[0].order == "cache"
        streamed = replace(demand, forms=forms, kept=False, one_by_one=one_by_one, copies=1)
        yield "--cache none, which passes the frozen modules anew in every epoch", streamed
    if demand.chunk is not None and demand.chunk > 1:
        yield "a shorter --chunk", replace(demand, chunk=1)
