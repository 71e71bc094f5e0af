"""The disk space that a layout needs at its worst moment, in bytes.

A commit names files. Their replacements are written beside them, and the old files are removed once the next
commit has named the new ones. So a module has up to two versions, and for a moment three if it is paged between
commits. As soon as a boundary that a commit has named is no longer read, the next commit is due: there are never
more than the boundary that is read, the one that is written, and one that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_trgl.runtime.planner.demand import Demand, Form, ModuleRow
from edge_trgl.runtime.planner.plan import Layout
from edge_trgl.runtime.storage.blocks import in_blocks, module_file
from edge_trgl.runtime.storage.boundary_spec import ENTRY_BYTES

STRETCH = 16
"""The most batches in a visit."""

DATABASE_BYTES = 1 << 18
"""Growth of the database in every run: its journal, and the records of the last commit."""

ROW_BYTES, MAX_SAMPLES = 128, 16_000
"""Bytes of a database row, and the most rows of memory samples, which are taken ever more rarely."""


@dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """Bytes on the disk at the worst moment.

    `stored`: what is there before training, and stays. `boundaries`: the most at once; `spared` of them are
    written only if a commit comes before a chunk has gone through all modules, which can be avoided. `largest`:
    the module that the largest boundary enters, and the bytes of that boundary.
    """

    stored: int
    database: int
    modules: int
    boundaries: int
    spared: int
    largest: tuple[int, int]

    @property
    def total(self) -> int:
        """All bytes."""
        return self.stored + self.database + self.modules + self.boundaries

    @property
    def least(self) -> int:
        """The bytes if commits wait for the end of a chunk."""
        return self.total - self.spared


def disk_need(demand: Demand, layout: Layout) -> DiskNeed:
    """The disk space that training with `layout` needs, evaluation included."""
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
        boundaries=max(kept + rolling, scored, 0 if in_memory else _growing(demand, form)),
        spared=rolling if in_memory and form.order != "cache" else 0,
        largest=(module, size),
    )


Size = Callable[[int], int]
"""Bytes of the boundary that enters a module."""


def _boundaries(demand: Demand, form: Form, layout: Layout) -> tuple[int, int]:
    """Bytes of boundaries that are kept for all of training, and of those that come and go beside them."""
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
    """Peak bytes during a backward pass: inputs up to this module plus two gradients."""
    gradients = [*sizes, 0]
    return max(
        (sum(sizes[: down + 1]) + gradients[down] + gradients[down + 1] for down in range(len(sizes))), default=0
    )


def _pair(size: Size, start: int, stop: int, num_modules: int, *, counted: int = 0) -> int:
    """The most bytes that one of the modules `start` to `stop` (exclusive) reads and writes.

    What enters the module `counted` and those before it is not added: it is counted already, or it is the images.
    """

    def each(module: int) -> int:
        return size(module) if counted < module < num_modules else 0

    return max((each(module) + each(module + 1) for module in range(start, stop)), default=0)


def _boundary_bytes(demand: Demand, form: Form, layout: Layout, module: int) -> int:
    """Bytes of the boundary that enters `module`, at its largest."""
    is_cached = form.order == "cache" or (demand.kept and module <= demand.frozen)
    records = demand.num_samples * demand.copies if is_cached else _streamed(demand, layout)
    return _file(demand, form.rows[module], demand.batch_size if form.order == "rounds" else records)


def _streamed(demand: Demand, layout: Layout) -> int:
    """Number of samples in a chunk."""
    return min(layout.chunk * demand.batch_size, demand.num_samples)


def _scored(demand: Demand, form: Form, layout: Layout) -> int:
    """Bytes of boundaries in an evaluation, which goes through the modules in chunks."""
    records = min(layout.chunk * demand.batch_size, demand.num_scored)
    return _pair(lambda module: _file(demand, form.rows[module], records), 0, len(form.rows), len(form.rows))


def _growing(demand: Demand, form: Form) -> int:
    """Bytes of boundaries while validation samples go through modules, beside what one is trained on."""
    if form.order != "cache" or not demand.num_looked_at or len(form.rows) < 2:
        return 0
    cached = max(_file(demand, row, demand.num_samples * demand.copies) for row in form.rows[1:])
    last = len(form.rows) - 1
    return cached + _pair(lambda module: _file(demand, form.rows[module], demand.growing_at_once), 0, last, last)


def _modules(demand: Demand, form: Form, layout: Layout) -> int:
    sizes = [module_file(row.state, demand.block_bytes) for row in form.rows]
    trained = sizes[demand.frozen :]
    if form.order == "cache" and demand.laps == 1 and not demand.converted:
        # Only the module that was in training at the last commit has a version that is being replaced.
        return sum(sizes) + max(trained)
    paged = layout.resident < len(demand.repeated(form))
    return sum(sizes) + sum(trained) + (max(trained) if paged else 0)


def _file(demand: Demand, row: ModuleRow, records: int) -> int:
    """Bytes of a boundary file with so many records of what enters a module."""
    return in_blocks(records * (row.reads + ENTRY_BYTES), demand.block_bytes)


def _database(demand: Demand, form: Form, layout: Layout) -> int:
    """Growth of the database: a line for each module and epoch, and the memory samples of visits."""
    num_lines = sum(demand.epochs)
    chunk = min(layout.chunk, STRETCH) if form.order != "cache" else STRETCH
    num_visits = num_lines * math.ceil(demand.batches_per_epoch / chunk)
    return DATABASE_BYTES + ROW_BYTES * (num_lines + min(num_visits, MAX_SAMPLES))
