"""What a layout takes: MiB in each visit, and seconds, precise enough to put layouts in order."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

from edge_trgl.runtime.planner.calibrated import COMPUTE_BYTES_PER_S, OPTIMISM, OPTIMISM_FIXED
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, Measurements, ModuleRow, work_key
from edge_trgl.runtime.planner.disk_need import DiskNeed, disk_need
from edge_trgl.runtime.planner.layouts import reads_batches_ahead, reads_modules_ahead
from edge_trgl.runtime.planner.plan import Layout, Plan
from edge_trgl.runtime.storage.boundary_spec import ENTRY_BYTES, chunk_records, is_large, window_records
from edge_trgl.runtime.units import MIB


@dataclass(frozen=True)
class Candidate:
    """A layout with what it takes.

    `bases_mb`: peak of a visit of each module, without the modules in memory (`residents`, bytes). `openings_mb`:
    peak while a module is made for its first visit, with no other in memory. `disk`: what it needs there.
    `slack_mb`: by how much its estimates may be too high. `fixed_mb`: the process before any module. `seconds`:
    what the layout adds to an epoch, roughly.
    """

    demand: Demand
    layout: Layout
    bases_mb: tuple[float, ...]
    openings_mb: tuple[float, ...]
    residents: tuple[int, ...]
    disk: DiskNeed
    slack_mb: float
    fixed_mb: float
    seconds: float

    @property
    def form(self) -> Form:
        """The form that it lays out."""
        return self.demand.forms[self.layout.form]

    @property
    def peaks_mb(self) -> tuple[float, ...]:
        """Peak of a visit of each module."""
        parts = zip(self.bases_mb, self.residents, self.openings_mb, strict=True)
        return tuple(max(base + resident / MIB, opening) for base, resident, opening in parts)

    @property
    def peak_mb(self) -> float:
        """The highest of these peaks and that of the jobs before training."""
        return max(*self.peaks_mb, self.demand.floor_mb)

    @property
    def hoped_mb(self) -> float:
        """The same, should the estimates turn out too high."""
        return max(max(self.peaks_mb) - self.slack_mb, self.demand.floor_mb)

    @property
    def least_disk_mb(self) -> float:
        """MiB of disk space that it needs at least."""
        return self.disk.least / MIB

    def plan(self, disk_mb: float) -> Plan:
        """The plan of this candidate for a run that may take `disk_mb` MiB of the disk."""
        return Plan(
            layout=self.layout,
            micro_batch=self.form.size if "micro-batch" in self.form.lossy else None,
            resident_bytes=self.residents,
            peaks_mb=self.peaks_mb,
            floor_mb=self.demand.floor_mb,
            fixed_mb=self.fixed_mb,
            disk_mb=(self.disk.total if self.disk.total <= disk_mb * MIB else self.disk.least) / MIB,
            seconds=self.seconds,
            probed=self.slack_mb == 0,
            lossy=self.form.lossy,
        )


class Costing:
    """Computes what layouts of a demand take, from measurements where there are any, else from estimates."""

    def __init__(self, demand: Demand, measured: Measurements) -> None:
        self._demand = demand
        self._measured = measured
        # Each depends on a part of a layout only, and with fifty modules there are thousands of layouts.
        self._bases = functools.cache(self._find_bases)
        self._residents = functools.cache(self._find_residents)
        self._disk = functools.cache(functools.partial(disk_need, demand))

    def candidate(self, layout: Layout) -> Candidate:
        """The layout with what it takes."""
        ahead = reads_batches_ahead(self._demand, layout)
        bases_mb, openings_mb, slack_mb, fixed_mb = self._bases(replace(layout, resident=0, prefetch=ahead))
        return Candidate(
            demand=self._demand,
            layout=layout,
            bases_mb=bases_mb,
            openings_mb=openings_mb,
            residents=self._residents(layout.form, layout.resident + reads_modules_ahead(self._demand, layout)),
            disk=self._disk(replace(layout, recompute="", prefetch=False)),
            slack_mb=slack_mb,
            fixed_mb=fixed_mb,
            seconds=_extra_seconds(self._demand, self._demand.forms[layout.form], layout),
        )

    def _find_bases(self, layout: Layout) -> tuple[tuple[float, ...], tuple[float, ...], float, float]:
        """Bases, openings, slack and fixed MiB, as in `Candidate`."""
        demand, form = self._demand, self._demand.forms[layout.form]
        visits = [_visit(demand, form, module, layout, self._measured) for module in range(len(form.rows))]
        heaviest = max(visits, key=lambda visit: visit.base_mb)
        openings = [
            visit.fixed_mb + self._opening(row, demand.works_of(module, layout.recompute)[0], form.size)
            for module, (row, visit) in enumerate(zip(form.rows, visits, strict=True))
        ]
        slack_mb = max(visit.slack_mb for visit in visits)
        return tuple(visit.base_mb for visit in visits), tuple(openings), slack_mb, heaviest.fixed_mb

    def _opening(self, row: ModuleRow, work: str, size: int) -> float:
        found = self._measured.get(work_key(row.kind, work, size))
        return row.opening / MIB if found is None or found.refused else found.opening_mb

    def _find_residents(self, number: int, count: int) -> tuple[int, ...]:
        """Bytes of modules in memory during a visit of each: itself, and the largest others up to `count` in
        all."""
        rows = self._demand.forms[number].rows
        states = sorted((row.state for row in rows), reverse=True)[:count]
        # A module among the largest is counted already; any other replaces the smallest of them.
        return tuple(sum(states) if row.state >= states[-1] else sum(states[:-1]) + row.state for row in rows)


class _Visit(NamedTuple):
    """MiB of a visit without the modules in memory; of these, the process before any module; how much of the visit
    may be overestimated."""

    base_mb: float
    fixed_mb: float
    slack_mb: float


def _visit(demand: Demand, form: Form, module: int, layout: Layout, measured: Measurements) -> _Visit:
    """The larger of the training peak and the forward peak."""
    works = demand.works_of(module, layout.recompute)
    return max(_work(demand, form, module, layout, measured, work) for work in works)


def _work(demand: Demand, form: Form, module: int, layout: Layout, measured: Measurements, work: str) -> _Visit:
    row = form.rows[module]
    found = measured.get(work_key(row.kind, work, form.size))
    buffers = boundary_bytes(demand, form, module, layout, trains=work != FORWARD) / MIB
    held_mb = demand.held_bytes / MIB
    if found is None:
        work_mb, fixed_mb = row.works[work] * (1 + demand.workspace) / MIB, demand.fixed_mb + held_mb
        slack_mb = OPTIMISM * work_mb + OPTIMISM_FIXED * demand.fixed_mb
        return _Visit(fixed_mb + work_mb + buffers, fixed_mb, slack_mb)
    fixed_mb = found.fixed_mb + demand.others_mb + held_mb
    work_mb = float("inf") if found.refused else found.work_mb
    return _Visit(fixed_mb + work_mb + buffers, fixed_mb, 0.0)


def boundary_bytes(demand: Demand, form: Form, module: int, layout: Layout, *, trains: bool) -> float:
    """Bytes of the input batch and of the boundaries in memory: the one read, the one written, and one that is
    kept; in rounds, those of all modules."""
    widened = form.rows[module].widened * demand.batch_size
    return widened + _stored_bytes(demand, form, module, layout, trains=trains)


def _stored_bytes(demand: Demand, form: Form, module: int, layout: Layout, *, trains: bool) -> float:
    """The same without the wider copy of an input that is stored in fewer bits."""
    stored = _passed_bytes(demand, form, module, layout, trains=trains)
    grows = form.order == "cache" and not trains and demand.scorings(form, module)
    return max(stored, _growing_bytes(demand, form, module, layout)) if grows else stored


def _growing_bytes(demand: Demand, form: Form, module: int, layout: Layout) -> float:
    """Bytes while validation samples go through a module between two that are trained.

    The boundary that the last of these reads stays, or the window into it.
    """
    row, cached = form.rows[module], demand.num_samples * demand.copies
    batch, above = row.reads * demand.batch_size, range(max(module, 1), len(form.rows))
    if layout.placement == "disk":
        return batch + max(_window_bytes(demand, form, other, layout) for other in above)
    reads = row.reads if module > 0 else 0
    kept = max(form.rows[other].reads for other in above) * cached
    return batch + kept + demand.growing_at_once * (reads + row.writes) + _kept_bytes(demand, form, module)


def _passed_bytes(demand: Demand, form: Form, module: int, layout: Layout, *, trains: bool) -> float:
    """The same while training samples go through the module."""
    row, batch_size = form.rows[module], demand.batch_size
    batch = row.reads * batch_size
    in_memory = layout.placement == "memory"
    reads = row.reads if module > 0 else 0  # images are never a boundary
    if form.order == "rounds":
        if not in_memory:
            return batch + row.writes * batch_size
        kept = sum(other.reads for other in form.rows[1:]) * batch_size
        return max(kept, batch) + (reads + row.writes) * batch_size
    if not in_memory:
        return batch + (_window_bytes(demand, form, module, layout) if module > 0 else 0)
    cached = demand.num_samples * demand.copies
    passed_once = demand.kept and module < demand.frozen
    if form.order == "stream" and not passed_once:
        held = min(layout.chunk * batch_size, demand.num_samples)
        if demand.kept and module == demand.frozen:
            return batch + cached * reads + row.writes * held
        # Read in order, the batch is a view of the boundary.
        return max(reads * held, batch) + row.writes * held + _kept_bytes(demand, form, module)
    return batch + cached * (reads + (0 if trains else row.writes)) + _kept_bytes(demand, form, module)


def _window_bytes(demand: Demand, form: Form, module: int, layout: Layout) -> int:
    """Bytes of the records that are read ahead from a large file; a small one is left to the page cache."""
    row = form.rows[module]
    in_order = form.order == "stream" and not (demand.kept and module == demand.frozen)
    num_records = demand.num_samples * (1 if in_order else demand.copies)
    if in_order:
        num_records = min(layout.chunk * demand.batch_size, num_records)
    if not reads_batches_ahead(demand, layout) or not is_large(num_records * (row.reads + ENTRY_BYTES)):
        return 0
    chunk = chunk_records(row.widened or row.reads)
    return row.reads * min(num_records, window_records(chunk, demand.batch_size, in_order=in_order))


def _kept_bytes(demand: Demand, form: Form, module: int) -> int:
    """Bytes of the frozen modules' output while modules are trained that do not read it."""
    needed = form.order == "stream" or demand.laps > 1
    if not (demand.kept and module > demand.frozen and needed):
        return 0
    return form.rows[demand.frozen].reads * demand.num_samples * demand.copies


def loads_per_round(num_modules: int, layout: Layout, form: Form) -> float:
    """Number of modules read while a chunk of batches goes through all of them (in rounds: up, and down again)."""
    if layout.resident >= num_modules:
        return 0.0
    # The module whose next use is farthest is dropped: R of K in memory save R - 1 loads on each way.
    ways = 2 if form.order == "rounds" else 1
    return float(ways * (num_modules - layout.resident) + (1 if ways == 1 else 0))


def _extra_seconds(demand: Demand, form: Form, layout: Layout) -> float:
    """Seconds that a layout adds to an epoch, by rough speeds, which only have to put layouts in order."""
    rows, speed = demand.repeated(form), 2e6 / (1 / demand.read_mbs + 1 / demand.write_mbs)
    moved = 0.0
    if form.order != "cache" and demand.reads_again(form, layout.chunk):
        rounds = demand.batches_per_epoch / layout.chunk
        mean_state = sum(row.state for row in rows) / len(rows)
        moved = rounds * loads_per_round(len(rows), layout, form) * mean_state * 2
    if reads_modules_ahead(demand, layout):
        moved /= 2  # reading is hidden behind the visit before
    if layout.placement == "disk":
        times = 2 if form.order == "rounds" else 1
        read = sum(row.reads for row in rows if row is not form.rows[0])
        each = sum(row.writes for row in rows) + (0 if reads_batches_ahead(demand, layout) else read)
        moved += times * each * demand.num_samples
    return moved / speed + _again(demand, form, layout) / COMPUTE_BYTES_PER_S


def _again(demand: Demand, form: Form, layout: Layout) -> float:
    """Bytes of the tensors that are computed again in an epoch."""
    share = demand.levels[layout.recompute]
    if form.order == "rounds":
        share += 1  # the way down begins with a forward of its own
    step = sum(row.works[next(iter(demand.levels))] for row in form.rows[demand.frozen :])
    return share * step * demand.batches_per_epoch
