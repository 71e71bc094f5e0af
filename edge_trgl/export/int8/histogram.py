"""A histogram of a tensor's values, updated a batch at a time; no values are kept."""

from __future__ import annotations

import numpy as np

from edge_trgl.export.arrays import Array

NUM_BINS = 2048

SMALLEST = 1e-6
"""The initial width of the range, if all values so far are 0."""


class Histogram:
    """Counts values in `NUM_BINS` bins of equal width from `low` to `high`, a range that includes zero.

    A value outside the range doubles the range towards that side and merges the bins in pairs, so that all counts
    stay exact. `smallest` and `largest` are the extremes of zero and all values so far.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(NUM_BINS, np.int64)
        self.low = self.high = 0.0
        self.smallest = self.largest = 0.0

    def add(self, values: Array) -> None:
        """Count `values`, floats of any shape.

        Raises:
            ValueError: a value is not finite.
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
        """The centre of each bin, float64 [NUM_BINS]."""
        return self.low + (np.arange(NUM_BINS) + 0.5) * (self.high - self.low) / NUM_BINS


def _joined(counts: Array) -> Array:
    joined: Array = counts.reshape(-1, 2).sum(axis=1)
    return joined
