"""Cuts readings into windows of equal length, none of them across a gap in time or a change of group."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edge_trgl.data.sources.source import batch_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PURITY = 0.5
"""A window has the label of more than this share of its readings; without one it is left out."""
GAP_STEPS = 5.0
"""A step in time of more than this many usual ones is a gap."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Readings that follow each other in one recording.

    Args:
        values: float32 [N, C].
        labels: int64 [N].
        groups: int64 [N].
        times: float64 [N] in any unit; None if they are not known.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    times: NDArray[np.float64] | None

    def usual_step(self) -> float:
        """The median of the steps forward in time; infinite if there are none."""
        steps = np.empty(0) if self.times is None else np.diff(self.times)
        forward = steps[(steps > 0) & (np.diff(self.groups) == 0)] if len(steps) else steps
        return float(np.median(forward)) if len(forward) else np.inf


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of one stretch of readings, all of one group.

    Args:
        values: the readings, float32 [N, C].
        starts: the first reading of each window, int64 [W].
        labels: of each window, int64 [W].
        group: of all of them.
        length: readings in a window.
    """

    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    group: int
    length: int

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Yield the windows as float32 [B, length, C] of about a megabyte."""
        views = sliding_window_view(self.values, self.length, axis=0)
        size = batch_size(self.length * self.values.shape[1] * 4)
        for first in range(0, len(self.starts), size):
            yield views[self.starts[first : first + size]].transpose(0, 2, 1)


@dataclass(kw_only=True)
class Tally:
    """What was noticed while windows were cut.

    Attributes:
        gaps: steps in time that are too large, or go back.
        short: stretches between gaps or changes of group that are shorter than a window.
        mixed: windows without a label of more than half of their readings.
        longest: readings in the longest stretch.
    """

    gaps: int = 0
    short: int = 0
    mixed: int = 0
    longest: int = 0


class Cutter:
    """Cuts one recording, which arrives in parts, into windows.

    Args:
        window: readings in a window.
        stride: readings from the start of a window to that of the next.
        tally: is added to.
    """

    def __init__(self, window: int, stride: int, tally: Tally) -> None:
        self._window, self._stride, self._tally = window, stride, tally
        self._largest_step: float | None = None
        self._last: tuple[int, float] | None = None
        self._kept: Readings | None = None
        self._next_start = 0
        self._stretch = 0

    def feed(self, readings: Readings) -> Iterator[Windows]:
        """Yield the windows that end in this part of the recording."""
        if self._largest_step is None:
            self._largest_step = GAP_STEPS * readings.usual_step()
        new_stretch = self._begins_stretch(readings, self._largest_step)
        edges = sorted({0, *np.flatnonzero(new_stretch).tolist(), len(new_stretch)})
        for start, stop in itertools.pairwise(edges):
            if new_stretch[start]:
                self.end_stretch()
            yield from self._extend(_part(readings, slice(start, stop)))

    def end_stretch(self) -> None:
        """Begin windows anew; to be called at the end of the recording, too."""
        self._tally.short += 0 < self._stretch < self._window
        self._tally.longest = max(self._tally.longest, self._stretch)
        self._kept, self._next_start, self._stretch = None, 0, 0

    def _begins_stretch(self, readings: Readings, largest_step: float) -> NDArray[np.bool_]:
        """Whether each reading cannot be in a window with the one before it, bool [N]."""
        times = np.zeros(len(readings.groups)) if readings.times is None else readings.times
        group, time = self._last or (int(readings.groups[0]), float(times[0]))
        self._last = int(readings.groups[-1]), float(times[-1])
        other_group = np.diff(readings.groups, prepend=group) != 0
        steps = np.diff(times, prepend=time)
        gap = ~other_group & ((steps < 0) | (steps > largest_step))
        self._tally.gaps += int(gap.sum())
        begins: NDArray[np.bool_] = other_group | gap
        return begins

    def _extend(self, part: Readings) -> Iterator[Windows]:
        self._stretch += len(part.labels)
        readings = part if self._kept is None else _joined(self._kept, part)
        starts = np.arange(self._next_start, len(readings.labels) - self._window + 1, self._stride)
        if len(starts):
            yield self._labelled(readings, starts)
        next_start = self._next_start + len(starts) * self._stride
        first_kept = min(next_start, len(readings.labels))
        self._kept = _part(readings, slice(first_kept, None))
        self._next_start = next_start - first_kept

    def _labelled(self, readings: Readings, starts: NDArray[np.int64]) -> Windows:
        kinds, codes = np.unique(readings.labels, return_inverse=True)
        # One running count a label: the readings with that label before each position.
        counts = np.zeros((len(kinds), len(codes) + 1), np.int32)
        counts[codes, np.arange(1, len(codes) + 1)] = 1
        counts = counts.cumsum(axis=1)
        within = counts[:, starts + self._window] - counts[:, starts]
        clear = within.max(axis=0) > PURITY * self._window
        self._tally.mixed += int((~clear).sum())
        return Windows(
            values=readings.values,
            starts=starts[clear],
            labels=kinds[within.argmax(axis=0)][clear],
            group=int(readings.groups[0]),
            length=self._window,
        )


def _part(readings: Readings, where: slice) -> Readings:
    return Readings(
        values=readings.values[where], labels=readings.labels[where], groups=readings.groups[where], times=None
    )


def _joined(first: Readings, second: Readings) -> Readings:
    def join(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(first, name), getattr(second, name)])

    return Readings(values=join("values"), labels=join("labels"), groups=join("groups"), times=None)
