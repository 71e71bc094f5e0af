"""A plan: how a run is laid out, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Placement = Literal["memory", "disk"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The choices of a plan.

    `form`: its place in the demand. `recompute`: the name of a level. `placement`: where boundaries are.
    `resident`: number of modules in memory. `prefetch`: the next module and, from disk, the next batch are read
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
