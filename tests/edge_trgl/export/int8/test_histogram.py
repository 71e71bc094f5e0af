"""Counts that stay exact while the range grows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.export.int8.histogram import NUM_BINS, Histogram

BATCHES = st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9), min_size=1, max_size=6)


@given(BATCHES)
def test_every_value_is_in_its_bin(batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    values = np.sort(np.concatenate([np.asarray(batch, np.float32) for batch in batches]).astype(np.float64))
    assert histogram.counts.sum() == len(values)
    assert (histogram.smallest, histogram.largest) == (min(values[0], 0), max(values[-1], 0))
    assert histogram.low <= histogram.smallest <= histogram.largest <= histogram.high
    counted = np.repeat(histogram.centres(), histogram.counts)
    width = (histogram.high - histogram.low) / NUM_BINS
    np.testing.assert_allclose(counted, values, rtol=0, atol=0.51 * width + 1e-9)


def test_joining_is_exact():
    """The range grows by either side; the first batch has a value at its end, which stays in the bin below."""
    histogram = Histogram()
    values = np.append(np.arange(1000) / 1000, 1.0)
    histogram.add(values)
    histogram.add(np.asarray([-0.9]))
    histogram.add(np.asarray([2.9]))
    assert (histogram.low, histogram.high) == (-1.0, 3.0)
    expected, _ = np.histogram([*values[:-1], 1.0 - 1e-9, -0.9, 2.9], NUM_BINS, (-1, 3))
    np.testing.assert_array_equal(histogram.counts, expected)


def test_what_is_not_finite_is_refused():
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="not finite"):
            Histogram().add(np.asarray([1.0, value]))


def test_a_tensor_that_is_always_zero():
    histogram = Histogram()
    histogram.add(np.zeros(7))
    histogram.add(np.zeros(3))
    assert histogram.counts.sum() == 10
    assert (histogram.smallest, histogram.largest) == (0, 0)
