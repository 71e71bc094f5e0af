"""Every layout that a demand allows: what stays in memory, where boundaries are, how long a chunk is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from edge_trgl.runtime.planner.demand import Demand, Form
from edge_trgl.runtime.planner.plan import Layout, Placement

MEMORY_CHUNK = 32
"""The longest chunk, in batches, with boundaries in memory: longer ones save only a few module loads."""

DISK_CHUNK = 256
"""The longest chunk, in batches, with boundaries on disk: beyond it, loading modules costs hardly anything."""

WORTH = 0.99
"""A level of recomputation is offered only if it reduces the bytes of some step to this share or less."""


def layouts(demand: Demand, number: int, lengths: Sequence[int] | None = None) -> Iterator[Layout]:
    """The layouts of form `number`; of equals, the one that keeps more in memory comes first.

    `lengths`: the allowed lengths of chunks, in batches; None allows every length.
    """
    form = demand.forms[number]
    levels = _levels(demand, form)
    placements: tuple[Placement, ...] = ("memory",) if "disk" in demand.without else ("memory", "disk")
    for level, placement, resident, prefetch in itertools.product(
        levels, placements, _residents(demand, form), (True, False)
    ):
        if prefetch and not demand.prefetch:
            continue
        for chunk in _chunks(demand, form, placement, resident) if lengths is None else lengths:
            if _keeps_others(demand, resident) and not demand.reads_again(form, chunk):
                continue
            layout = Layout(
                form=number,
                recompute=level,
                placement=placement,
                resident=resident,
                prefetch=prefetch,
                chunk=chunk,
            )
            if not prefetch or reads_modules_ahead(demand, layout) or reads_batches_ahead(demand, layout):
                yield layout


def reads_modules_ahead(demand: Demand, layout: Layout) -> bool:
    """Whether the next module is read while one is trained."""
    form = demand.forms[layout.form]
    paged = layout.resident < len(demand.repeated(form))
    return layout.prefetch and paged and demand.reads_again(form, layout.chunk)


def reads_batches_ahead(demand: Demand, layout: Layout) -> bool:
    """Whether the next records are read from disk while some are trained on; in rounds they do not exist yet."""
    form = demand.forms[layout.form]
    return layout.prefetch and layout.placement == "disk" and form.order != "rounds" and len(form.rows) > 1


def _levels(demand: Demand, form: Form) -> list[str]:
    """The levels of recomputation that save memory, each more than the one before."""
    first, *others = demand.levels
    found = [first]
    for level in others if "recompute" not in demand.without else ():
        if any(row.works[level] < WORTH * row.works[found[-1]] for row in form.rows):
            found.append(level)
    return found


def _residents(demand: Demand, form: Form) -> Sequence[int]:
    if "paging" in demand.without:
        return (len(form.rows),)
    if demand.resident is not None:
        return (min(demand.resident, len(form.rows)),)
    # With cached boundaries one module is trained at a time: keeping others buys nothing.
    return (1,) if form.order == "cache" else range(len(demand.repeated(form)), 0, -1)


def _keeps_others(demand: Demand, resident: int) -> bool:
    """Whether the planner itself chose to keep modules beside the one in use."""
    return resident > 1 and demand.resident is None and "paging" not in demand.without


def _chunks(demand: Demand, form: Form, placement: Placement, resident: int) -> Iterator[int]:
    """Chunks in batches, longest first: a longer one loads modules less often."""
    if form.order != "stream":
        yield 1
        return
    if demand.chunk is not None:
        yield min(demand.chunk, demand.batches_per_epoch)
        return
    if resident >= len(demand.repeated(form)):
        yield 1
        return
    length = min(MEMORY_CHUNK if placement == "memory" else DISK_CHUNK, demand.batches_per_epoch)
    while length > 1:
        yield length
        length //= 2
    yield 1
