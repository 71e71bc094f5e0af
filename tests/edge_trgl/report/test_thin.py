"""Thinned series are short, in order, and keep what matters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.report.document import MemorySample
from edge_trgl.report.thin import thin_even, thin_memory

mb = st.floats(0, 1e6, allow_nan=False)


@st.composite
def series(draw):
    values = draw(st.lists(st.tuples(mb, mb, st.sampled_from(["plan", "train"])), max_size=200))
    return [
        MemorySample(time_s=float(i), phase=phase, rss_mb=rss, peak_mb=peak)
        for i, (rss, peak, phase) in enumerate(values)
    ]


@given(series(), st.integers(1, 60))
def test_memory_keeps_its_maxima_and_their_moment(samples, limit):
    kept = thin_memory(samples, limit)
    assert len(kept) == min(limit, len(samples))
    assert [s.time_s for s in kept] == sorted({s.time_s for s in kept})
    if samples:
        assert max(s.peak_mb for s in kept) == max(s.peak_mb for s in samples)
        highest = max(kept, key=lambda s: s.rss_mb)
        original = samples[int(highest.time_s)]
        assert highest.rss_mb == original.rss_mb == max(s.rss_mb for s in samples)
        assert highest.phase == original.phase


@given(series())
def test_short_memory_is_left_alone(samples):
    assert thin_memory(samples, 200) == samples


@given(st.integers(0, 500), st.integers(2, 50))
def test_even_points_keep_both_ends_and_their_order(num_points, limit):
    points = list(range(num_points))
    kept = thin_even(points, limit)
    assert len(kept) == min(limit, num_points)
    assert kept == sorted(set(kept))
    if points:
        assert (kept[0], kept[-1]) == (0, num_points - 1)
