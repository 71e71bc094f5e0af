"""How often a tensor takes which values, counted a batch at a time; nothing of a batch is kept."""

from __future__ import annotations

import numpy as np

from edge_trgl.export.arrays import Array

NUM_BINS = 2048

SMALLEST = 1e-6
"""The first width: that of a tensor that has been 0 so far."""


class Histogram:
    """`NUM_BINS` counts of equal width from `low` to `high`, zero among them.

    A value beyond them doubles the width, to that side, and joins the bins two by two: what was counted stays
    exact. `smallest` and `largest` are the extremes of what was seen, and zero.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(NUM_BINS, np.int64)
        self.low = self.high = 0.0
        self.smallest = self.largest = 0.0

    def add(self, values: Array) -> None:
        """Count finite `values` of any shape.

        Raises:
            ValueError: some are not finite.
        """
        least, most = float(values.min()), float(values.max())
        if not np.isfinite([least, most]).all():
            raise ValueError("values that are not finite")
        self.smallest, self.largest = min(self.smallest, least), max(self.largest, most)
        if self.low == self.high:
            self.low, self.high = self.smallest, max(self.largest, self.smallest + SMALLEST)
        while self.smallest < self.low:
            self.counts = np.concatenate([np.zeros(NUM_BINS // 2, np.int64), _joined(self.counts)])
            self.low -= self.high - self.low
        while self.largest > self.high:
            self.counts = np.concatenate([_joined(self.counts), np.zeros(NUM_BINS // 2, np.int64)])
            self.high += self.high - self.low
        self.counts += np.histogram(values, NUM_BINS, (self.low, self.high))[0]

    def centres(self) -> Array:
        """float64 [NUM_BINS]: the middle of each bin."""
        return self.low + (np.arange(NUM_BINS) + 0.5) * (self.high - self.low) / NUM_BINS


def _joined(counts: Array) -> Array:
    joined: Array = counts.reshape(-1, 2).sum(axis=1)
    return joined
