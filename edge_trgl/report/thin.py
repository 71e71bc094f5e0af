"""Reduce long series to few enough points to draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from edge_trgl.report.document import MemorySample

T = TypeVar("T")


def thin_memory(samples: Sequence[MemorySample], limit: int) -> list[MemorySample]:
    """Reduce to at most `limit` samples, each with the maxima of the stretch it stands for: no peak is lost.

    Time and phase are those of the stretch's sample with the largest `rss_mb`.
    """
    return [_highest(stretch) for stretch in _stretches(samples, limit)]


def thin_even(points: Sequence[T], limit: int) -> list[T]:
    """Reduce to at most `limit` evenly spaced points, 2 or more, the first and last included."""
    if len(points) <= limit:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (limit - 1))] for i in range(limit)]


def _highest(stretch: Sequence[MemorySample]) -> MemorySample:
    highest = max(stretch, key=lambda sample: sample.rss_mb)
    return MemorySample(
        time_s=highest.time_s,
        phase=highest.phase,
        rss_mb=highest.rss_mb,
        peak_mb=max(sample.peak_mb for sample in stretch),
    )


def _stretches(samples: Sequence[T], limit: int) -> Iterator[Sequence[T]]:
    num_stretches = min(limit, len(samples))
    for i in range(num_stretches):
        start, stop = i * len(samples) // num_stretches, (i + 1) * len(samples) // num_stretches
        yield samples[start:stop]
