"""The contents of a report as plain data, without tensors, database or plotting.

Sizes in `_mb` are MiB, times are seconds since the run began, accuracies are fractions. Modules count from 0 and
depths from 1: module k ends at depth k + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_trgl.run.data_summary import Augmentation, DataSummary
from edge_trgl.run.export_record import Balance
from edge_trgl.run.exported_files import ExportedFile

MAX_AGAINST = 4
"""The largest number of runs to compare with; more lines would be hard to tell apart in the plot."""


@dataclass(frozen=True, kw_only=True)
class MemorySample:
    """Memory of the process tree at one moment of `phase`: current and peak so far."""

    time_s: float
    phase: str
    rss_mb: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class ModuleMemory:
    """One module's planned peak, and its measured peak once it was trained; `head` is None if it has none."""

    module: int
    name: str
    head: str | None
    params: int
    planned_mb: float
    measured_mb: float | None


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    """Means over one epoch of a module's training; `transport` is the transport cost W."""

    module: int
    epoch: int
    loss: float
    accuracy: float
    transport: float


@dataclass(frozen=True, kw_only=True)
class DepthAccuracy:
    """Accuracy of the head at one depth; `test` is None if the test set was not scored."""

    depth: int
    validation: float
    test: float | None


@dataclass(frozen=True, kw_only=True)
class LookPoint:
    """Accuracy of a module's head on validation images after an epoch of training."""

    module: int
    epoch: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class OtherRun:
    """A run to compare with: its folder as given by the user, its resolved configuration and its accuracies."""

    name: str
    config: Mapping[str, Any]
    accuracy: tuple[DepthAccuracy, ...]


@dataclass(frozen=True, kw_only=True)
class EarlyExit:
    """Accuracy and FLOPs of early exit, measured on the `num_images` images on which the depth is chosen.

    Args:
        num_images: number of these images.
        common: for one threshold shared by all exits, in ascending order.
        searched: for one threshold per exit, by the accuracy that may be lost.
        chosen: for the exported thresholds.
        test: for the exported thresholds on test images; None if there are none.
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
class Data:
    """What was found in the data, and what training does to them.

    `normalised`: with what else than the statistics of the training images, in a sentence; empty for those.
    """

    summary: DataSummary
    augmentation: Augmentation
    normalised: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report. Any tuple may be empty, and numbers that an unfinished run lacks are None in `summary`.

    Args:
        name: the run's name.
        summary: the document of summary.json.
        config: the resolved configuration.
        influences: the transport term's gradient as a share of the rest, by module, for those in which it was
            measured (see `edge_trgl.run.transport_share`).
        looks: accuracies that were measured during training.
        against: runs to compare accuracies with.
        early_exit: None if the network was not exported in stages.
        data: None before the data were read.
    """

    name: str
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    memory: tuple[MemorySample, ...]
    modules: tuple[ModuleMemory, ...]
    losses: tuple[LossPoint, ...]
    looks: tuple[LookPoint, ...]
    influences: Mapping[int, float]
    accuracy: tuple[DepthAccuracy, ...]
    against: tuple[OtherRun, ...]
    early_exit: EarlyExit | None
    io: tuple[IoSample, ...]
    events: tuple[Event, ...]
    exported: tuple[ExportedFile, ...]
    data: Data | None = None
