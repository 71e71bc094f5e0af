"""Choose the range of values that a quantised tensor covers, from its histogram, by one of three methods.

`minmax` covers all values seen. `percentile` cuts off a small share of them. `entropy` takes the range whose
quantised distribution is closest to the full one by Kullback-Leibler divergence (S. Migacz, 8-bit Inference with
TensorRT, 2017), extended to ranges that are not symmetric.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edge_trgl.export.arrays import Array
from edge_trgl.export.int8.histogram import NUM_BINS, Histogram

Method = Literal["minmax", "percentile", "entropy"]

METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")
"""All methods, in order of preference."""

PERCENTILE = 99.99
"""Percentage of the values to cover; half of the rest is cut off at each end."""

NUM_LEVELS = 255
NUM_CANDIDATES = 112
"""Ranges that `entropy` tries, from one with a quantisation level per bin to the full range."""


def range_of(seen: Histogram, method: Method, *, symmetric: bool) -> tuple[float, float]:
    """Choose the smallest and largest value to cover, low <= 0 <= high; low is -high if `symmetric`."""
    if method == "minmax":
        return _mirrored(seen.smallest, seen.largest, symmetric=symmetric)
    if method == "percentile":
        return _mirrored(*_percentile(seen), symmetric=symmetric)
    return _entropy(seen, *_mirrored(seen.smallest, seen.largest, symmetric=symmetric))


def _mirrored(low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    most = max(-low, high)
    return (-most, most) if symmetric else (low, high)


def _percentile(seen: Histogram) -> tuple[float, float]:
    shares = np.cumsum(seen.counts) / max(seen.counts.sum(), 1)
    cut = (100 - PERCENTILE) / 200
    width = (seen.high - seen.low) / NUM_BINS
    low = seen.low + width * np.searchsorted(shares, cut, side="right")
    high = seen.low + width * (np.searchsorted(shares, 1 - cut) + 1)
    return min(max(low, seen.smallest), 0.0), max(min(high, seen.largest), 0.0)


def _entropy(seen: Histogram, low: float, high: float) -> tuple[float, float]:
    centres, counts = seen.centres(), _without_zeros(seen)
    shares = np.linspace(NUM_LEVELS / NUM_BINS, 1, NUM_CANDIDATES)
    most = max(-low, high)
    candidates = [(max(low, -share * most), min(high, share * most)) for share in shares.tolist()]
    lost = [_divergence(centres, counts, *candidate) for candidate in candidates]
    return candidates[int(np.argmin(lost))]


def _without_zeros(seen: Histogram) -> Array:
    """The counts, with that of the bin at zero replaced by its larger neighbour's.

    ReLUs produce many zeros, which are exact in any range and would otherwise dominate the divergence.
    """
    zero = int(np.abs(seen.centres()).argmin())
    counts: Array = seen.counts.copy()
    counts[zero] = max(seen.counts[max(zero - 1, 0)] * (zero > 0), seen.counts[min(zero + 1, NUM_BINS - 1)])
    return counts


def _divergence(centres: Array, counts: Array, low: float, high: float) -> float:
    """The Kullback-Leibler divergence between the clipped histogram and its quantised version.

    Counts outside the range are added to the outermost bins inside it.
    """
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    if not len(inside) or not counts[inside].any():
        return float("inf")
    first, last = int(inside[0]), int(inside[-1])
    kept = counts[first : last + 1]
    whole = kept.astype(np.float64)
    whole[0] += counts[:first].sum()
    whole[-1] += counts[last + 1 :].sum()
    step = max(high - low, np.finfo(np.float64).tiny) / NUM_LEVELS
    levels = np.clip((centres[first : last + 1] - low) // step, 0, NUM_LEVELS - 1).astype(np.int64)
    seen = whole > 0
    totals = np.bincount(levels, kept, NUM_LEVELS)
    sharers = np.maximum(np.bincount(levels, seen, NUM_LEVELS), 1)
    told = (totals / sharers)[levels[seen]]
    expected = whole[seen] / whole.sum()
    # A level that held no value before the clipping would give a probability of 0.
    told = np.maximum(told / told.sum(), 1e-9)
    return float((expected * np.log(expected / told)).sum())
