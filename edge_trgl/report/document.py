"""What a report says, as plain data: no tensors, no database, nothing to draw with.

Megabytes are MiB, times are seconds since the run began, accuracies are fractions, modules count from 0
and depths from 1 (module k ends at depth k + 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_trgl.run.export_record import Balance
from edge_trgl.run.exported_files import ExportedFile

MAX_AGAINST = 4
"""Runs that one is compared with: more lines than that are not told apart."""


@dataclass(frozen=True, kw_only=True)
class MemorySample:
    """Memory of the process tree at one moment of `phase`: now, and at most so far."""

    time_s: float
    phase: str
    rss_mb: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class ModuleMemory:
    """One module's peak as planned and, once it was trained, as measured; `head`: its name, None without one."""

    module: int
    name: str
    head: str | None
    params: int
    planned_mb: float
    measured_mb: float | None


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    """Means over one epoch of a module's training; `transport` is its transport cost W."""

    module: int
    epoch: int
    loss: float
    accuracy: float
    transport: float


@dataclass(frozen=True, kw_only=True)
class DepthAccuracy:
    """Accuracy of the head at one depth; `test` only where the test set was scored."""

    depth: int
    validation: float
    test: float | None


@dataclass(frozen=True, kw_only=True)
class OtherRun:
    """A run that this one is compared with: its folder as it was named, its resolved configuration."""

    name: str
    config: Mapping[str, Any]
    accuracy: tuple[DepthAccuracy, ...]


@dataclass(frozen=True, kw_only=True)
class EarlyExit:
    """What leaving early costs and spares, counted on the `num_images` that a depth is chosen on.

    `common`: for one threshold of all exits, from low to high; `searched`: for a threshold an exit, by what may be
    lost. `chosen`: with the thresholds that were exported; `test`: the same on test images, None without any.
    """

    num_images: int
    common: tuple[Balance, ...]
    searched: tuple[Balance, ...]
    chosen: Balance
    test: Balance | None


@dataclass(frozen=True, kw_only=True)
class IoSample:
    """Bytes read and written since the run began."""

    time_s: float
    read_mb: float
    written_mb: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to the run: a restart, a new plan, a warning. `time_s`: since 1970, UTC."""

    time_s: float
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report. `summary` is the document of summary.json, `config` the resolved configuration.

    Every tuple may be empty, and the numbers of `summary` that an unfinished run lacks are None. `influences`: of
    the transport term, by module, where it was gauged (see `influence`). `against`: runs to compare accuracies
    with. `early_exit`: None where it was not exported.
    """

    name: str
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    memory: tuple[MemorySample, ...]
    modules: tuple[ModuleMemory, ...]
    losses: tuple[LossPoint, ...]
    influences: Mapping[int, float]
    accuracy: tuple[DepthAccuracy, ...]
    against: tuple[OtherRun, ...]
    early_exit: EarlyExit | None
    io: tuple[IoSample, ...]
    events: tuple[Event, ...]
    exported: tuple[ExportedFile, ...]
