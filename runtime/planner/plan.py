"""A plan: how a run is laid out, what that takes, and the steps towards it. Records only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Placement = Literal["memory", "disk"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The choices of a plan.

    `form`: its place in the demand. `recompute`: the name of a level. `placement`: where boundaries are.
    `resident`: number of modules in memory. `prefetch`: the next module and, from disk, the next records are read
    while one is trained. `chunk`: in batches.
    """

    form: int
    recompute: str
    placement: Placement
    resident: int
    prefetch: bool
    chunk: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run is laid out.

    `micro_batch`: samples in one, None for whole batches. `resident_bytes`: the most bytes of modules in memory,
    for a visit of each module. `peaks_mb`: peak of the run's processes in a visit of each module, which includes
    `fixed_mb`, the processes before any module; `floor_mb`: peak of the jobs before training. `disk_mb`: the most
    that the run's folder takes on the disk. `seconds`: what the layout adds to an epoch, roughly. `probed`:
    whether all of it was measured. `lossy`: what is not exact.
    """

    layout: Layout
    micro_batch: int | None
    resident_bytes: tuple[int, ...]
    peaks_mb: tuple[float, ...]
    floor_mb: float
    fixed_mb: float
    disk_mb: float
    seconds: float
    probed: bool
    lossy: tuple[str, ...]

    @property
    def peak_mb(self) -> float:
        """The highest of the run's peaks."""
        return max(*self.peaks_mb, self.floor_mb)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Traffic and time of the whole training.

    `epochs`: passes over the data of the module that has most. `compute_s` and `seconds` are None if works were
    not measured. `wear`: share of the storage's endurance that is written, None if that is unknown.
    """

    epochs: int
    read_mb: float
    written_mb: float
    compute_s: float | None
    seconds: float | None
    wear: float | None


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """The plan with `copies` of every cached boundary; 0: boundaries are computed again in every epoch."""

    copies: int
    traffic: Traffic


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A work to be measured, by the first module of its kind, and its key among the measurements.

    `form`: its place in the demand. `work`: FORWARD or a level of recomputation. `parts`: 2 if a batch is computed
    in micro-batches of `size` samples, else 1.
    """

    form: int
    module: int
    work: str
    size: int
    parts: int
    key: str


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """A step towards a plan.

    `wanted`: the works to measure, within `room_mb` MiB, before there can be a plan; empty once a plan is stored.
    `changed`: how that plan differs from the one before, None if it does not or if it is the first.
    """

    wanted: tuple[Wanted, ...] = ()
    room_mb: float | None = None
    changed: str | None = None
