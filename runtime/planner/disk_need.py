"""What a layout takes on the disk at its worst moment, in bytes.

A commit names files; what replaces them is written beside them, and they go when the next commit has named that.
So a module has up to two versions, three for a moment where it is paged between commits. A boundary that is read
no more and that a commit has named makes the next commit fall due at once: never more than the boundary that is
read and the one that is written are there, and one that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_trgl.runtime.planner.demand import Demand, Form, ModuleRow
from edge_trgl.runtime.planner.plan import Layout
from edge_trgl.runtime.storage.boundary_spec import ENTRY_BYTES
from edge_trgl.runtime.storage.disk_space import in_blocks, module_file

STRETCH = 16
"""Batches of a visit at most."""

DATABASE_BYTES = 1 << 18
"""What the database grows by whatever the run: its journal, the records of the last commit."""

ROW_BYTES, MAX_SAMPLES = 128, 16_000
"""A row of the database, and the most rows of what was used and when (they come ever more rarely)."""


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """Bytes on the disk at the worst moment.

    `stored`: what is there before training, and stays. `boundaries`: at most at once; of these, `spared` are
    written only where a commit falls before a chunk has gone through all modules, which it need not. `largest`:
    the module that the largest boundary enters, and that boundary's bytes.
    """

    stored: int
    database: int
    modules: int
    boundaries: int
    spared: int
    largest: tuple[int, int]

    @property
    def total(self) -> int:
        """All of it."""
        return self.stored + self.database + self.modules + self.boundaries

    @property
    def least(self) -> int:
        """The same, where commits wait for the end of a chunk."""
        return self.total - self.spared


def disk_need(demand: Demand, layout: Layout) -> DiskNeed:
    """What training by `layout` takes, its evaluation included."""
    form = demand.forms[layout.form]
    kept, rolling = _boundaries(demand, form, layout)
    in_memory = layout.placement == "memory"
    scored = 0 if in_memory else _scored(demand, form, layout)
    sizes = [(_boundary_bytes(demand, form, layout, module), module) for module in range(1, len(form.rows))]
    size, module = max(sizes, default=(0, 0))
    return DiskNeed(
        stored=demand.stored_bytes,
        database=_database(demand, form, layout),
        modules=_modules(demand, form, layout),
        boundaries=max(kept + rolling, scored),
        spared=rolling if in_memory and form.order != "cache" else 0,
        largest=(module, size),
    )


Size = Callable[[int], int]
"""Bytes of the boundary that enters a module."""


def _boundaries(demand: Demand, form: Form, layout: Layout) -> tuple[int, int]:
    """Bytes of what is kept for all of training, and of what comes and goes beside it."""
    num_modules = len(form.rows)
    if form.order == "rounds":
        return 0, _round([_file(demand, row, demand.batch_size) for row in form.rows[1:]])

    def cached(module: int) -> int:
        return _file(demand, form.rows[module], demand.num_samples * demand.copies)

    def streamed(module: int) -> int:
        return _file(demand, form.rows[module], _streamed(demand, layout))

    first = demand.frozen if demand.kept else 0
    before = _pair(cached, 0, first, num_modules)
    if form.order == "cache" and demand.laps == 1:
        return 0, max(before, _pair(cached, first, num_modules, num_modules))
    size = cached if form.order == "cache" else streamed
    kept = cached(first) if first else 0
    return kept, max(before - kept, _pair(size, first, num_modules, num_modules, counted=first))


def _round(sizes: Sequence[int]) -> int:
    """The most at once on a way down: what enters a module and those before it, and the gradients of what enters
    it and the one after it, each as large as that."""
    gradients = [*sizes, 0]
    return max(
        (sum(sizes[: down + 1]) + gradients[down] + gradients[down + 1] for down in range(len(sizes))), default=0
    )


def _pair(size: Size, start: int, stop: int, num_modules: int, *, counted: int = 0) -> int:
    """The most that one of the modules `start` to `stop` reads and writes; what enters `counted` is counted
    already, or are the images."""

    def each(module: int) -> int:
        return size(module) if counted < module < num_modules else 0

    return max((each(module) + each(module + 1) for module in range(start, stop)), default=0)


def _boundary_bytes(demand: Demand, form: Form, layout: Layout, module: int) -> int:
    """Of the boundary that enters `module`, as large as it comes."""
    is_cached = form.order == "cache" or (demand.kept and module <= demand.frozen)
    records = demand.num_samples * demand.copies if is_cached else _streamed(demand, layout)
    return _file(demand, form.rows[module], demand.batch_size if form.order == "rounds" else records)


def _streamed(demand: Demand, layout: Layout) -> int:
    """Samples of a chunk."""
    return min(layout.chunk * demand.batch_size, demand.num_samples)


def _scored(demand: Demand, form: Form, layout: Layout) -> int:
    """Of an evaluation, which goes through the modules in chunks."""
    records = min(layout.chunk * demand.batch_size, demand.num_scored)
    return _pair(lambda module: _file(demand, form.rows[module], records), 0, len(form.rows), len(form.rows))


def _modules(demand: Demand, form: Form, layout: Layout) -> int:
    sizes = [module_file(row.state, demand.block_bytes) for row in form.rows]
    trained = sizes[demand.frozen :]
    if form.order == "cache" and demand.laps == 1 and not demand.converted:
        # Only the module that was trained when the last commit fell has a version that another one replaces.
        return sum(sizes) + max(trained)
    paged = layout.resident < len(demand.repeated(form))
    return sum(sizes) + sum(trained) + (max(trained) if paged else 0)


def _file(demand: Demand, row: ModuleRow, records: int) -> int:
    """Of the boundary that enters a module."""
    return in_blocks(records * (row.reads + ENTRY_BYTES), demand.block_bytes)


def _database(demand: Demand, form: Form, layout: Layout) -> int:
    """What it grows by: a line for each module and epoch, and what was used, visit by visit."""
    num_lines = sum(demand.epochs)
    chunk = min(layout.chunk, STRETCH) if form.order != "cache" else STRETCH
    num_visits = num_lines * math.ceil(demand.batches_per_epoch / chunk)
    return DATABASE_BYTES + ROW_BYTES * (num_lines + min(num_visits, MAX_SAMPLES))
