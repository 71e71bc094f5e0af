"""Costs in, plan out: what stays in memory, where boundaries live, how long a chunk is, what is computed again.

Exact plans are tried first, the fastest first; the first plan that fits is taken. Works that were not measured
yet are taken as estimated, and asked for when the plan in question rests on them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from edge_trgl.runtime.demand import FORWARD, Demand, Form, Measurements, ModuleRow, work_key
from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.memory import MIB

Placement = Literal["memory", "disk"]

MEMORY_CHUNK = 32
"""The longest chunk, in batches, of boundaries in memory: longer ones save no more than a few module loads."""

DISK_CHUNK = 256
"""The longest chunk on disk: beyond it, loading modules costs next to nothing."""

OPTIMISM = 0.1
"""By how much of its work an estimate may be too high: within it, measuring decides."""

OPTIMISM_FIXED = 0.04
"""The same of the process before its first module."""

WORTH = 0.99
"""What is computed again must bring the bytes of some step down to this share."""

STEP_DOWN = 0.1
"""A step down the ladder gives back this share of what the plan can give back, where it can."""

_COMPUTE_BYTES_PER_S = 2e9
"""A step's tensors over its time, and so over what computing its forward again adds three times: two x86 cores."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The choices of a plan: `form` by its place in the demand, `recompute` by the name of its level."""

    form: int
    recompute: str
    placement: Placement
    resident: int
    prefetch: bool
    chunk: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run is laid out.

    `resident_bytes`: of modules in memory at most, for a visit of each module. `peaks_mb`: of the run's processes
    in a visit of each module; `fixed_mb`: of that, before any module; `floor_mb`: in the jobs before training.
    `seconds`: what the layout adds to an epoch, roughly; `probed`: all of it measured; `lossy`: what is not exact.
    """

    layout: Layout
    micro_batch: int | None
    resident_bytes: tuple[int, ...]
    peaks_mb: tuple[float, ...]
    floor_mb: float
    fixed_mb: float
    seconds: float
    probed: bool
    lossy: tuple[str, ...]

    @property
    def peak_mb(self) -> float:
        """The highest of the run's peaks."""
        return max(*self.peaks_mb, self.floor_mb)

    def document(self) -> dict[str, Any]:
        """As plain values, for the database and for `--json`."""
        return {**asdict(self), "peak_mb": self.peak_mb}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Plan:
        """The plan of which `document` made this."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
            if name != "peak_mb"
        }
        values["layout"] = Layout(**document["layout"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A work that the plan waits for: the first module of its kind, and its key among the measurements.

    `parts`: 2 where it stands for a batch in parts of `size` samples, else 1.
    """

    form: int
    module: int
    work: str
    size: int
    parts: int
    key: str


@dataclass(frozen=True)
class Candidate:
    """A layout with what it takes; `slack_mb`: by how much its estimates may be too high.

    `bases_mb`: of a visit of each module, less the modules in memory; `openings_mb`: while a module is made for
    its first visit, no other being in memory.
    """

    demand: Demand
    layout: Layout
    bases_mb: tuple[float, ...]
    openings_mb: tuple[float, ...]
    residents: tuple[int, ...]
    slack_mb: float
    fixed_mb: float
    seconds: float

    @property
    def form(self) -> Form:
        """What it computes."""
        return self.demand.forms[self.layout.form]

    @property
    def peaks_mb(self) -> tuple[float, ...]:
        """Of a visit of each module."""
        parts = zip(self.bases_mb, self.residents, self.openings_mb, strict=True)
        return tuple(max(base + resident / MIB, opening) for base, resident, opening in parts)

    @property
    def peak_mb(self) -> float:
        """The highest of them, and of the jobs before training."""
        return max(*self.peaks_mb, self.demand.floor_mb)

    @property
    def hoped_mb(self) -> float:
        """The same, if the estimates turn out too high."""
        return max(max(self.peaks_mb) - self.slack_mb, self.demand.floor_mb)

    def plan(self) -> Plan:
        """The plan that it makes."""
        return Plan(
            layout=self.layout,
            micro_batch=self.form.size if "micro-batch" in self.form.lossy else None,
            resident_bytes=self.residents,
            peaks_mb=self.peaks_mb,
            floor_mb=self.demand.floor_mb,
            fixed_mb=self.fixed_mb,
            seconds=self.seconds,
            probed=self.slack_mb == 0,
            lossy=self.form.lossy,
        )


def choose(
    demand: Demand, budget_mb: float, measured: Measurements, *, probing: bool, like: Plan | None = None
) -> Plan | list[Wanted]:
    """The fastest plan that fits, or the works to measure before it can be told.

    Without `probing`, estimates are taken as they are. `like`: the plan of a run that has begun, whose form and
    chunk must stay.

    Raises:
        DoesNotFitError: none does; names the smallest budget that would do and the module in the way.
        UsageError: more resident modules are asked for than there are.
    """
    _check_resident(demand)
    for candidate in ladder(demand, measured, like):
        if (candidate.hoped_mb if probing else candidate.peak_mb) <= budget_mb:
            return (probing and wanted(candidate, measured)) or candidate.plan()
    # What was refused under this budget has its estimate only.
    accepted = {key: found for key, found in measured.items() if not found.refused}
    candidates = ladder(demand, accepted, like)
    # Nothing is measured that has no room even in the jobs before training.
    if probing and demand.floor_mb <= budget_mb:
        waited_for = wanted(_least(candidates, probing=True), measured)
        if waited_for:
            return waited_for
    least = _least(candidates, probing=False)
    raise DoesNotFitError(_refusal(least, budget_mb), hint=_ways_out(least, accepted))


def smallest(demand: Demand, measured: Measurements, *, probing: bool) -> Plan | list[Wanted]:
    """The plan of the smallest peak, or the works to measure before it can be told."""
    _check_resident(demand)
    least = _least(ladder(demand, measured, None), probing=probing)
    return (probing and wanted(least, measured)) or least.plan()


def worth_measuring_mb(demand: Demand, measured: Measurements) -> float:
    """Looking for the smallest peak, what takes more than this is of no interest."""
    return (1 + OPTIMISM) * _least(ladder(demand, measured, None), probing=False).peak_mb


def lower(demand: Demand, plan: Plan, measured: Measurements) -> Plan | None:
    """One step down the ladder: the fastest plan that takes clearly less than `plan` and computes the same.

    None: there is nothing below it.
    """
    step_mb = STEP_DOWN * (plan.peak_mb - plan.fixed_mb)
    below = [one for one in ladder(demand, measured, plan) if one.peak_mb < plan.peak_mb - 1]
    clearly = (one for one in below if one.peak_mb <= plan.peak_mb - step_mb)
    found = next(clearly, None) or min(below, key=lambda one: one.peak_mb, default=None)
    return found.plan() if found else None


def ladder(demand: Demand, measured: Measurements, like: Plan | None) -> list[Candidate]:
    """Every plan that is allowed: exact ones first, then the fastest; among equals, what keeps more in memory."""
    found: list[Candidate] = []
    costing = Costing(demand, measured)
    for number, form in enumerate(demand.forms):
        allowed = set(form.lossy) <= set(demand.allowed)
        if (like.layout.form == number) if like else allowed:
            layouts = [one for one in _layouts(demand, number) if like is None or one.chunk == like.layout.chunk]
            found += [costing.candidate(layout) for layout in layouts]
    return sorted(found, key=lambda one: (len(one.form.lossy), -one.form.size, one.seconds))


def wanted(candidate: Candidate, measured: Measurements) -> list[Wanted]:
    """The works of `candidate` that were not measured, one of each kind, the heaviest first.

    What a process rests at grows with what it has done: the peak of the plan is measured in a clean one.
    """
    found: dict[str, Wanted] = {}
    for module, row in enumerate(candidate.form.rows):
        for work in (candidate.layout.recompute, FORWARD):
            key = work_key(row.kind, work, candidate.form.size)
            if key not in measured and key not in found:
                found[key] = Wanted(
                    form=candidate.layout.form,
                    module=module,
                    work=work,
                    size=candidate.form.size,
                    parts=2 if "micro-batch" in candidate.form.lossy else 1,
                    key=key,
                )
    rows = candidate.form.rows
    return sorted(found.values(), key=lambda one: -rows[one.module].works[one.work])


class Costing:
    """What layouts of a demand take, measured where it was measured."""

    def __init__(self, demand: Demand, measured: Measurements) -> None:
        self._demand = demand
        self._measured = measured
        # Neither depends on all of a layout: with fifty modules there are thousands of layouts.
        self._bases = functools.cache(self._find_bases)
        self._residents = functools.cache(self._find_residents)

    def candidate(self, layout: Layout) -> Candidate:
        """`layout` with what it takes."""
        bases_mb, openings_mb, slack_mb, fixed_mb = self._bases(replace(layout, resident=0, prefetch=False))
        return Candidate(
            demand=self._demand,
            layout=layout,
            bases_mb=bases_mb,
            openings_mb=openings_mb,
            residents=self._residents(layout.form, layout.resident + layout.prefetch),
            slack_mb=slack_mb,
            fixed_mb=fixed_mb,
            seconds=_extra_seconds(self._demand, self._demand.forms[layout.form], layout),
        )

    def _find_bases(self, layout: Layout) -> tuple[tuple[float, ...], tuple[float, ...], float, float]:
        """As in a candidate: bases, openings, slack, fixed."""
        demand, form = self._demand, self._demand.forms[layout.form]
        visits = [_visit(demand, form, module, layout, self._measured) for module in range(len(form.rows))]
        heaviest = max(visits, key=lambda visit: visit.base_mb)
        openings = [
            visit.fixed_mb + self._opening(row, layout.recompute, form.size)
            for row, visit in zip(form.rows, visits, strict=True)
        ]
        slack_mb = max(visit.slack_mb for visit in visits)
        return tuple(visit.base_mb for visit in visits), tuple(openings), slack_mb, heaviest.fixed_mb

    def _opening(self, row: ModuleRow, work: str, size: int) -> float:
        found = self._measured.get(work_key(row.kind, work, size))
        return row.opening / MIB if found is None or found.refused else found.opening_mb

    def _find_residents(self, number: int, count: int) -> tuple[int, ...]:
        """Bytes of modules in memory in a visit of each: itself and the largest others that there is room for."""
        rows = self._demand.forms[number].rows
        states = sorted((row.state for row in rows), reverse=True)[:count]
        # One of the largest is among them already; any other takes the place of the least of those.
        return tuple(sum(states) if row.state >= states[-1] else sum(states[:-1]) + row.state for row in rows)


class _Visit(NamedTuple):
    """MiB of a visit, all but the modules in memory; of that, what is there before any module; how much of it all
    may be too high."""

    base_mb: float
    fixed_mb: float
    slack_mb: float


def _visit(demand: Demand, form: Form, module: int, layout: Layout, measured: Measurements) -> _Visit:
    """The more of training and of a forward pass."""
    return max(_work(demand, form, module, layout, measured, work) for work in (layout.recompute, FORWARD))


def _work(demand: Demand, form: Form, module: int, layout: Layout, measured: Measurements, work: str) -> _Visit:
    row = form.rows[module]
    found = measured.get(work_key(row.kind, work, form.size))
    buffers = boundary_bytes(demand, form, module, layout, trains=work != FORWARD) / MIB
    if found is None:
        work_mb = row.works[work] * (1 + demand.workspace) / MIB
        slack_mb = OPTIMISM * work_mb + OPTIMISM_FIXED * demand.fixed_mb
        return _Visit(demand.fixed_mb + work_mb + buffers, demand.fixed_mb, slack_mb)
    fixed_mb = found.fixed_mb + demand.others_mb + demand.held_bytes / MIB
    work_mb = float("inf") if found.refused else found.work_mb
    return _Visit(fixed_mb + work_mb + buffers, fixed_mb, 0.0)


def boundary_bytes(demand: Demand, form: Form, module: int, layout: Layout, *, trains: bool) -> float:
    """The input batch, and boundaries in memory: the one read and the one written; in rounds, those of all."""
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
        return batch
    if form.order == "stream":  # in order: the batch is a view of the boundary
        held = min(layout.chunk * batch_size, demand.num_samples)
        return max(reads * held, batch) + row.writes * held
    cached = demand.num_samples * demand.copies
    return batch + cached * (reads + (0 if trains else row.writes))


def _layouts(demand: Demand, number: int) -> Iterator[Layout]:
    form = demand.forms[number]
    levels = _levels(demand, form)
    placements: tuple[Placement, ...] = ("memory",) if "disk" in demand.without else ("memory", "disk")
    for level, placement, resident, prefetch in itertools.product(
        levels, placements, _residents(demand, form), (True, False)
    ):
        if prefetch and not (demand.prefetch and resident < len(form.rows)):
            continue
        for chunk in _chunks(demand, form, placement, resident):
            yield Layout(
                form=number,
                recompute=level,
                placement=placement,
                resident=resident,
                prefetch=prefetch,
                chunk=chunk,
            )


def _levels(demand: Demand, form: Form) -> list[str]:
    """The levels of recomputation that give something back, each by more than the one before."""
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
    return (1,) if form.order == "cache" else range(len(form.rows), 0, -1)


def _chunks(demand: Demand, form: Form, placement: Placement, resident: int) -> Iterator[int]:
    """Chunks in batches, longest first: a longer one loads modules less often."""
    if form.order != "stream":
        yield 1
        return
    if demand.chunk is not None:
        yield min(demand.chunk, demand.batches_per_epoch)
        return
    if resident == len(form.rows):
        yield 1
        return
    length = min(MEMORY_CHUNK if placement == "memory" else DISK_CHUNK, demand.batches_per_epoch)
    while length > 1:
        yield length
        length //= 2
    yield 1


def loads_per_round(num_modules: int, layout: Layout, form: Form) -> float:
    """Modules read for a chunk of batches that goes through all of them (up and down again, in rounds)."""
    if layout.resident == num_modules:
        return 0.0
    # The one whose next use is farthest makes room: R of K in memory save R - 1 loads, on each way.
    ways = 2 if form.order == "rounds" else 1
    return float(ways * (num_modules - layout.resident) + (1 if ways == 1 else 0))


def _extra_seconds(demand: Demand, form: Form, layout: Layout) -> float:
    """What a layout adds to an epoch, by rough speeds: it only has to put layouts in order."""
    rows, speed = form.rows, 2e6 / (1 / demand.read_mbs + 1 / demand.write_mbs)
    moved = 0.0
    if form.order != "cache":
        rounds = demand.batches_per_epoch / layout.chunk
        mean_state = sum(row.state for row in rows) / len(rows)
        moved = rounds * loads_per_round(len(rows), layout, form) * mean_state * 2
    if layout.prefetch:
        moved /= 2  # reading is hidden behind the visit before
    if layout.placement == "disk":
        times = 2 if form.order == "rounds" else 1
        each = sum(row.writes for row in rows) + sum(row.reads for row in rows[1:])
        moved += times * each * demand.num_samples
    return moved / speed + _again(demand, form, layout) / _COMPUTE_BYTES_PER_S


def _again(demand: Demand, form: Form, layout: Layout) -> float:
    """Bytes of what is computed again in an epoch."""
    share = demand.levels[layout.recompute]
    if form.order == "rounds":
        share += 1  # the way down begins with a forward of its own
    step = sum(row.works[next(iter(demand.levels))] for row in form.rows)
    return share * step * demand.batches_per_epoch


def _check_resident(demand: Demand) -> None:
    most = max(len(form.rows) for form in demand.forms)
    if demand.resident is not None and demand.resident > most:
        raise UsageError(
            f"--resident {demand.resident}: the net has {most} modules",
            hint="Ask for fewer, or leave it at auto.",
        )


def _least(candidates: Sequence[Candidate], *, probing: bool) -> Candidate:
    """The candidate of the smallest peak, as it may turn out to be."""
    return min(candidates, key=lambda one: one.hoped_mb if probing else one.peak_mb)


def _refusal(least: Candidate, budget_mb: float) -> str:
    if least.peak_mb > max(least.peaks_mb):
        return (
            f"this does not fit {budget_mb:.0f} MiB: reading the images and counting what the modules take needed "
            f"{ceil(least.peak_mb)} MiB already"
        )
    module = least.peaks_mb.index(least.peak_mb)
    row, form, layout = least.form.rows[module], least.form, least.layout
    buffers = boundary_bytes(least.demand, form, module, layout, trains=True)
    work = least.peak_mb - least.fixed_mb - (least.residents[module] + buffers) / MIB
    return (
        f"this does not fit {budget_mb:.0f} MiB: the smallest budget that would do is {ceil(least.peak_mb)} MiB, "
        f"{least.fixed_mb:.0f} of it before any module; module {module} is in the way, with "
        f"{row.weights / MIB:.1f} MiB of weights, {row.momentum / MIB:.1f} of momentum, {work:.1f} for a step and "
        f"{buffers / MIB:.1f} of boundaries"
    )


def _ways_out(least: Candidate, measured: Measurements) -> str:
    """Changes that would make it fit, each with its peak."""
    demand = least.demand
    ways = [f"Give --budget-mb {ceil(least.peak_mb)}"]
    for form in (form for form in demand.forms if form.lossy == ("micro-batch",)):
        smaller = demand.at_batch_size(form.size, form)
        ways.append(f"--batch-size {form.size} (peak {ceil(_peak_of(smaller, measured))} MiB)")
        if "micro-batch" not in demand.allowed:
            allowing = replace(demand, allowed=form.lossy, forms=(form,))
            ways.append(
                f"--allow micro-batch (in parts of {form.size}: peak {ceil(_peak_of(allowing, measured))} MiB; "
                "changes results)"
            )
        break
    if demand.without:
        ways.append(f"leave out --without {', '.join(demand.without)}")
    return f"{'; or '.join(ways)}."


def _peak_of(demand: Demand, measured: Measurements) -> float:
    return _least(ladder(demand, measured, None), probing=False).peak_mb


def ceil(value: float) -> int:
    """The next whole MiB."""
    return -int(-value // 1)
