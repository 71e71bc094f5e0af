"""What each method makes of a histogram."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.export.int8.histogram import Histogram
from edge_trgl.export.int8.ranges import METHODS, range_of


def seen(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


def normal(size=200_000, seed=0):
    return np.random.default_rng(seed).normal(size=size)


def test_all_that_was_seen():
    histogram = seen([-1.0, 2.0], [3.0, -0.5])
    assert range_of(histogram, "minmax", symmetric=False) == (-1.0, 3.0)
    assert range_of(histogram, "minmax", symmetric=True) == (-3.0, 3.0)
    assert range_of(seen([2.0, 3.0]), "minmax", symmetric=False) == (0.0, 3.0)


def test_a_percentile_leaves_rare_values_out():
    values = normal()
    low, high = range_of(seen(values, [100.0]), "percentile", symmetric=False)
    expected = np.quantile(values, [0.00005, 0.99995])
    # A bin is a tenth wide here.
    assert (low, high) == pytest.approx(tuple(expected), abs=0.15)
    mirrored = range_of(seen(values, [100.0]), "percentile", symmetric=True)
    assert mirrored == (-max(-low, high), max(-low, high))


def test_a_percentile_of_few_values_is_all_of_them():
    low, high = range_of(seen(np.linspace(0, 1, 50)), "percentile", symmetric=False)
    assert low == 0
    assert high == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_cuts_an_outlier_off_and_not_the_rest(symmetric):
    values = normal()
    low, high = range_of(seen(values, [60.0]), "entropy", symmetric=symmetric)
    assert 3 < high < 20
    assert low < 0


def test_entropy_keeps_what_is_spread_evenly():
    low, high = range_of(seen(np.linspace(0, 4, 100_001)), "entropy", symmetric=False)
    assert low == 0
    assert high > 3.8


def test_zeros_say_nothing_about_the_range():
    values = np.abs(normal())
    plain = range_of(seen(values), "entropy", symmetric=False)
    assert range_of(seen(values, np.zeros(1_000_000)), "entropy", symmetric=False) == plain


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tensor_that_is_always_zero(method, symmetric):
    assert range_of(seen(np.zeros(5)), method, symmetric=symmetric) == pytest.approx((0, 0), abs=1e-5)
