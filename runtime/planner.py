"""Costs in, plan out: what stays in memory, where boundaries live, how long a chunk is.

Exact plans are tried first, the fastest first; the first plan that fits is taken. All sizes
are bytes in the tables that come in, MiB in the plan that goes out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.memory import MIB

Placement = Literal["memory", "disk"]

MEMORY_CHUNK = 32
"""The longest chunk, in batches, of boundaries in memory: longer ones save no more than a few module loads."""

DISK_CHUNK = 256
"""The longest chunk on disk: beyond it, loading modules costs next to nothing."""

_DISK_BYTES_PER_S = 200e6
_RECOMPUTE_BYTES_PER_S = 2e9
"""A step's tensors over the time that computing its forward again adds, measured on two x86 cores."""


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """One module's bytes. `state`: all that is paged; `step`, `recomputed_step` and `forward`: tensors at most,
    above the state, for one (micro-)batch; `reads` and `writes`: one sample of its input and output boundary."""

    state: int
    step: int
    recomputed_step: int
    forward: int
    reads: int
    writes: int


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The job in plain numbers.

    `fixed_mb`: the process before its first module. `workspace`: bytes that the device's kernels take inside
    a step, as a share of the step. `streams`: parallel order, boundaries of a chunk; else cached boundaries of
    `cached_samples` samples (all copies). `micro_rows`: the module tables at smaller micro-batches, if allowed.
    """

    rows: tuple[ModuleRow, ...]
    batch_size: int
    batches_per_epoch: int
    num_samples: int
    fixed_mb: float
    workspace: float
    streams: bool
    cached_samples: int
    micro_rows: tuple[tuple[int, tuple[ModuleRow, ...]], ...] = ()
    chunk: int | None = None
    resident: int | None = None
    prefetch: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run is laid out.

    `peaks_mb`: of the process in a visit of each module; `seconds`: what the layout adds to an epoch, roughly;
    `lossy`: what is not exact.
    """

    resident: int
    resident_bytes: int
    prefetch: bool
    chunk: int
    placement: Placement
    recompute: bool
    micro_batch: int | None
    peaks_mb: tuple[float, ...]
    fixed_mb: float
    seconds: float
    lossy: tuple[str, ...]

    @property
    def peak_mb(self) -> float:
        """The highest of the modules' peaks."""
        return max(self.peaks_mb)

    def document(self) -> dict[str, Any]:
        """As plain values, for the database and for `--json`."""
        return {**asdict(self), "peak_mb": self.peak_mb}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Plan:
        """The plan of which `document` made this."""
        values = {name: value for name, value in document.items() if name != "peak_mb"}
        return cls(**{**values, "peaks_mb": tuple(values["peaks_mb"]), "lossy": tuple(values["lossy"])})


def make_plan(demand: Demand, budget_mb: float) -> Plan:
    """The fastest plan that fits.

    Raises:
        DoesNotFitError: none does; names the smallest budget that would do and the module in the way.
        UsageError: more resident modules are asked for than there are.
    """
    if demand.resident is not None and demand.resident > len(demand.rows):
        raise UsageError(
            f"--resident {demand.resident}: the net has {len(demand.rows)} modules",
            hint="Ask for fewer, or leave it at auto.",
        )
    best: Plan | None = None
    for plan in _ladder(demand):
        if plan.peak_mb <= budget_mb:
            return plan
        if best is None or plan.peak_mb < best.peak_mb:
            best = plan
    assert best is not None
    raise DoesNotFitError(_refusal(best, budget_mb), hint=_ways_out(best))


def _refusal(best: Plan, budget_mb: float) -> str:
    module = best.peaks_mb.index(best.peak_mb)
    return (
        f"this does not fit {budget_mb:.0f} MiB: the smallest budget that would do is {_ceil(best.peak_mb)} MiB, "
        f"{best.fixed_mb:.0f} of it before any module; module {module} is in the way"
    )


def _ways_out(best: Plan) -> str:
    text = f"Give --budget-mb {_ceil(best.peak_mb)}, a smaller --batch-size, or a narrower net (--width)."
    return text if best.micro_batch else text + " --allow micro-batch trades exactness for memory."


def _ceil(value: float) -> int:
    return -int(-value // 1)


def _ladder(demand: Demand) -> Iterator[Plan]:
    """Every plan: exact ones first, then fastest first; among equals, what keeps more in memory."""
    for micro_batch, rows in ((None, demand.rows), *demand.micro_rows):
        plans = [_plan(demand, rows, layout, micro_batch) for layout in _layouts(demand)]
        yield from sorted(plans, key=lambda plan: plan.seconds)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    recompute: bool
    placement: Placement
    resident: int
    prefetch: bool
    chunk: int


def _layouts(demand: Demand) -> Iterator[_Layout]:
    placements: tuple[Placement, ...] = ("memory", "disk")
    dimensions = itertools.product((False, True), placements, _residents(demand), (True, False))
    for recompute, placement, resident, prefetch in dimensions:
        if prefetch and not (demand.prefetch and resident < len(demand.rows)):
            continue
        for chunk in _chunks(demand, placement, resident):
            yield _Layout(
                recompute=recompute, placement=placement, resident=resident, prefetch=prefetch, chunk=chunk
            )


def _residents(demand: Demand) -> Sequence[int]:
    if demand.resident is not None:
        return (demand.resident,)
    # Outside of parallel training one module is trained at a time: keeping others buys nothing.
    return range(len(demand.rows), 0, -1) if demand.streams else (1,)


def _chunks(demand: Demand, placement: Placement, resident: int) -> Iterator[int]:
    """Chunks in batches, longest first: a longer one loads modules less often."""
    if demand.chunk is not None:
        yield min(demand.chunk, demand.batches_per_epoch)
        return
    if resident == len(demand.rows) or not demand.streams:
        yield 1
        return
    length = min(MEMORY_CHUNK if placement == "memory" else DISK_CHUNK, demand.batches_per_epoch)
    while length > 1:
        yield length
        length //= 2
    yield 1


def _plan(demand: Demand, rows: tuple[ModuleRow, ...], layout: _Layout, micro_batch: int | None) -> Plan:
    states = sorted((row.state for row in rows), reverse=True)
    resident_bytes = sum(states[: layout.resident + layout.prefetch])
    peaks = tuple(
        demand.fixed_mb + resident_bytes / MIB + _visit_bytes(demand, row, layout, stored=module > 0) / MIB
        for module, row in enumerate(rows)
    )
    return Plan(
        resident=layout.resident,
        resident_bytes=resident_bytes,
        prefetch=layout.prefetch,
        chunk=layout.chunk,
        placement=layout.placement,
        recompute=layout.recompute,
        micro_batch=micro_batch,
        peaks_mb=peaks,
        fixed_mb=demand.fixed_mb,
        seconds=_extra_seconds(demand, rows, layout),
        lossy=("micro-batch",) if micro_batch else (),
    )


def _extra_seconds(demand: Demand, rows: tuple[ModuleRow, ...], layout: _Layout) -> float:
    """What a layout adds to an epoch, by rough speeds: it only has to put layouts in order."""
    num_chunks = demand.batches_per_epoch / layout.chunk
    # Visits go round the modules; keeping the one that is needed soonest, R of K in memory save R - 1 loads.
    loads = 0 if layout.resident == len(rows) else len(rows) - layout.resident + 1
    mean_state = sum(row.state for row in rows) / len(rows)
    moved = num_chunks * loads * mean_state * 2 if demand.streams else 0.0
    if layout.prefetch:
        moved /= 2  # reading is hidden behind the visit before
    if layout.placement == "disk":
        moved += (sum(row.writes for row in rows) + sum(row.reads for row in rows[1:])) * demand.num_samples
    again = sum(row.step for row in rows) * demand.batches_per_epoch if layout.recompute else 0
    return moved / _DISK_BYTES_PER_S + again / _RECOMPUTE_BYTES_PER_S


def _visit_bytes(demand: Demand, row: ModuleRow, layout: _Layout, *, stored: bool) -> float:
    """The more of training and of a forward pass; `stored`: the module reads a boundary, and not images."""
    step = row.recomputed_step if layout.recompute else row.step
    return max(
        step * (1 + demand.workspace) + _boundary_bytes(demand, row, layout, trains=True, stored=stored),
        row.forward * (1 + demand.workspace) + _boundary_bytes(demand, row, layout, trains=False, stored=stored),
    )


def _boundary_bytes(demand: Demand, row: ModuleRow, layout: _Layout, *, trains: bool, stored: bool) -> float:
    """The input batch, and boundaries in memory: the one read and the one written."""
    batch = row.reads * demand.batch_size
    if layout.placement == "disk":
        return batch
    reads = row.reads if stored else 0
    if demand.streams:  # in order: the batch is a view of the boundary
        held = min(layout.chunk * demand.batch_size, demand.num_samples)
        return max(reads * held, batch) + row.writes * held
    return batch + demand.cached_samples * (reads + (0 if trains else row.writes))
