"""The plots of the report. Each function turns data, which must not be empty, into an SVG string."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.ticker import MaxNLocator, PercentFormatter

from edge_trgl.report import wording
from edge_trgl.report.document import (
    DepthAccuracy,
    EarlyExit,
    IoSample,
    LookPoint,
    LossPoint,
    MemorySample,
    ModuleMemory,
)
from edge_trgl.report.drawing import BUDGET, FIRST, MUTED, SECOND, drawing
from edge_trgl.report.thin import thin_even, thin_memory

MAX_MEMORY_POINTS = 500
MAX_IO_POINTS = 300
MAX_LOSS_POINTS = 4000
MAX_MARKED_POINTS = 30

CurvePoint = tuple[int, int, float]
"""Module, epoch, value."""

# Depths are ordered, so modules are coloured along a ramp whose colours are readable on white and on black.
RAMP = ("#e8843c", "#c2407e", "#5f68e0")
# This run's colour, then those of the runs to compare with.
RUNS = (FIRST, SECOND, "#2a9d8f", "#8a63d2", "#c2407e")
PHASES = {
    "prepare": "#8a63d2",
    "plan": "#2a9d8f",
    "train": "#3b82c4",
    "ascend": "#6fa8d6",
    "backward": "#2f5f8f",
    "evaluate": "#d9a02a",
    "export": "#c2528b",
    "calibrate": "#a86fb8",
    "check": "#7d3c98",
}
OTHER_PHASE = "#8b95a3"


def memory(samples: Sequence[MemorySample], budget_mb: float | None) -> str:
    """Plot the memory of the process tree over time, its peak so far and the budget, with phases shaded."""
    points = thin_memory(samples, MAX_MEMORY_POINTS)
    scale, unit = _time_unit(points[-1].time_s)
    times = [point.time_s / scale for point in points]
    top = max(max(point.rss_mb, point.peak_mb) for point in points)
    with drawing() as picture:
        axes = picture.axes
        _shade(axes, points, times)
        axes.plot(times, [point.peak_mb for point in points], color=SECOND, **_marks(points))
        axes.plot(times, [point.rss_mb for point in points], color=FIRST, **_marks(points))
        if budget_mb is not None:
            axes.axhline(budget_mb, color=BUDGET, linewidth=1.4, linestyle=(0, (5, 3)))
        axes.set_ylim(0, 1.08 * max(top, budget_mb or 0))
        axes.set(xlabel=f"time ({unit})", ylabel="MiB")
        axes.set_xlim(0, times[-1] or 1.0)
        return picture.svg(
            name="memory",
            title="Memory over time",
            description=f"The process tree used {wording.size(top)} at most"
            + (f"; the budget is {wording.size(budget_mb)}." if budget_mb is not None else "."),
        )


def modules(costs: Sequence[ModuleMemory]) -> str:
    """Plot the peak of each module: planned as a wide bar, measured as a narrow bar inside it."""
    depths = [cost.module + 1 for cost in costs]
    measured = [(cost.module + 1, cost.measured_mb) for cost in costs if cost.measured_mb is not None]
    with drawing() as picture:
        axes = picture.axes
        axes.bar(depths, [cost.planned_mb for cost in costs], width=0.8, color=MUTED, alpha=0.35)
        axes.bar([depth for depth, _ in measured], [mb for _, mb in measured], width=0.4, color=FIRST)
        _count_from_one(axes, "module", max(depths))
        axes.set_ylabel("MiB")
        return picture.svg(
            name="modules",
            title="Planned and measured peak of each module",
            description=f"{len(costs)} modules, planned {wording.size(max(c.planned_mb for c in costs))} "
            f"at most; {len(measured)} of them measured.",
        )


def accuracy(depths: Sequence[DepthAccuracy], chosen_depth: int | None, images: str = "validation images") -> str:
    """Plot the accuracy of the head at each depth on validation images, and on test images where scored.

    `images` names the validation images in the description.
    """
    tested = [(entry.depth, entry.test) for entry in depths if entry.test is not None]
    best = max(depths, key=lambda entry: entry.validation)
    with drawing() as picture:
        axes = picture.axes
        if chosen_depth is not None:
            axes.axvline(chosen_depth, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        line = [entry.validation for entry in depths]
        axes.plot([entry.depth for entry in depths], line, color=FIRST, **_marks(depths))
        axes.plot([d for d, _ in tested], [a for _, a in tested], "D", color=SECOND, markersize=5)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol=" %"))
        _count_from_one(axes, "depth", depths[-1].depth)
        return picture.svg(
            name="accuracy",
            title="Accuracy after each depth",
            description=f"Accuracy on {images} is highest at depth {best.depth}: "
            f"{wording.percent(best.validation)}.",
        )


def against(runs: Sequence[Sequence[DepthAccuracy]], *, tested: bool, images: str) -> str:
    """Plot the accuracy at each depth of several runs, in the colours of `RUNS` (figure 2 of the paper).

    `tested` selects test accuracies, which every depth must then have, else validation accuracies. `images` names
    the images in the description.
    """
    with drawing() as picture:
        axes = picture.axes
        for colour, depths in zip(RUNS, runs, strict=False):
            line = [entry.test if tested and entry.test is not None else entry.validation for entry in depths]
            axes.plot([entry.depth for entry in depths], line, color=colour, **_marks(depths))
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol=" %"))
        _count_from_one(axes, "depth", max(depths[-1].depth for depths in runs))
        return picture.svg(
            name="against",
            title="Accuracy after each depth, run by run",
            description=f"Accuracy of {len(runs)} runs on {images}.",
        )


def early_exit(early: EarlyExit) -> str:
    """Plot accuracy against FLOPs, for one threshold shared by all exits and for one threshold per exit."""
    with drawing() as picture:
        axes = picture.axes
        axes.axvline(early.chosen.compute_share, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for colour, marker, balances in ((FIRST, "o", early.common), (SECOND, "D", early.searched)):
            shares = [balance.compute_share for balance in balances]
            accuracies = [balance.accuracy for balance in balances]
            axes.plot(shares, accuracies, color=colour, marker=marker, markersize=4)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol=" %"))
        axes.set_xlabel("FLOPs per image, share of all stages")
        return picture.svg(
            name="early-exit",
            title="Accuracy against computing",
            description=f"The exported thresholds give {wording.percent(early.chosen.accuracy)} for "
            f"{wording.share(early.chosen.compute_share)} of the FLOPs.",
        )


def losses(points: Sequence[LossPoint]) -> str:
    """Plot the mean training loss of each module over its epochs, one line per module."""
    curves = _by_module([(point.module, point.epoch, point.loss) for point in points])
    with drawing() as picture:
        _draw_by_module(picture.axes, curves)
        picture.axes.set_ylabel("loss")
        return picture.svg(
            name="losses",
            title="Training loss of each module",
            description=f"{len(curves)} modules; the last loss of the last one is "
            f"{wording.number(curves[-1][-1][2])}.",
        )


def looks(points: Sequence[LookPoint], images: str = "validation images") -> str:
    """Plot the accuracy of each module's head on validation images over the epochs, one line per module.

    `images` names these images in the description.
    """
    curves = _by_module([(point.module, point.epoch, point.accuracy) for point in points])
    with drawing() as picture:
        _draw_by_module(picture.axes, curves)
        picture.axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol=" %"))
        return picture.svg(
            name="looks",
            title="Accuracy during training",
            description=f"Accuracy of the last of {len(curves)} modules on {images} at the last look: "
            f"{wording.percent(curves[-1][-1][2])}.",
        )


def _by_module(points: Sequence[CurvePoint]) -> list[list[CurvePoint]]:
    """The curve of each module over its epochs, thinned."""
    curves = [list(curve) for _, curve in groupby(sorted(points), key=lambda point: point[0])]
    limit = max(2, MAX_LOSS_POINTS // len(curves))
    return [list(thin_even(curve, limit)) for curve in curves]


def _draw_by_module(axes: Axes, curves: Sequence[Sequence[CurvePoint]]) -> None:
    ramp, last = LinearSegmentedColormap.from_list("depth", RAMP), max(1, curves[-1][0][0])
    for curve in curves:
        colour = to_hex(ramp(curve[0][0] / last))
        epochs, values = [epoch for _, epoch, _ in curve], [value for _, _, value in curve]
        axes.plot(epochs, values, color=colour, linewidth=1.2, **_marks(curve))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def io(samples: Sequence[IoSample]) -> str:
    """Plot the bytes read and written since the run began."""
    points = thin_even(samples, MAX_IO_POINTS)
    scale, unit = _time_unit(points[-1].time_s)
    size_mb, size_unit = (1024.0, "GiB") if max(points[-1].read_mb, points[-1].written_mb) > 4096 else (1.0, "MiB")
    times = [point.time_s / scale for point in points]
    with drawing() as picture:
        axes = picture.axes
        axes.plot(times, [point.read_mb / size_mb for point in points], color=FIRST, **_marks(points))
        axes.plot(times, [point.written_mb / size_mb for point in points], color=SECOND, **_marks(points))
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, times[-1] or 1.0)
        axes.set(xlabel=f"time ({unit})", ylabel=size_unit)
        return picture.svg(
            name="io",
            title="Bytes read and written",
            description=f"{wording.size(points[-1].read_mb)} read and "
            f"{wording.size(points[-1].written_mb)} written in all.",
        )


def phase_colours(samples: Sequence[MemorySample]) -> dict[str, str]:
    """The colour of each phase, in order of appearance."""
    return {sample.phase: PHASES.get(sample.phase, OTHER_PHASE) for sample in samples}


def _shade(axes: Axes, points: Sequence[MemorySample], times: Sequence[float]) -> None:
    starts = [i for i, point in enumerate(points) if i == 0 or point.phase != points[i - 1].phase]
    stretches: dict[str, list[tuple[float, float]]] = {}
    for start, stop in zip(starts, [*starts[1:], len(points) - 1], strict=True):
        stretches.setdefault(points[start].phase, []).append((times[start], times[stop] - times[start]))
    for phase, spans in stretches.items():
        colour = PHASES.get(phase, OTHER_PHASE)
        axes.broken_barh(
            spans, (0, 1), transform=axes.get_xaxis_transform(), color=colour, alpha=0.16, linewidth=0
        )


def _marks(points: Sequence[object]) -> dict[str, Any]:
    """Markers for lines with few points; a single point would be invisible without one."""
    return {"marker": "o", "markersize": 4} if len(points) <= MAX_MARKED_POINTS else {}


def _count_from_one(axes: Axes, label: str, last: int) -> None:
    axes.set_xlabel(label)
    axes.set_xlim(0.4, last + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))


def _time_unit(last_s: float) -> tuple[float, str]:
    if last_s >= 2 * 3600:
        return 3600.0, "h"
    return (60.0, "min") if last_s >= 120 else (1.0, "s")
