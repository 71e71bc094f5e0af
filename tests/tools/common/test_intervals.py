"""Intervals of means and of ratios."""

from __future__ import annotations

import pytest


def test_the_interval_of_a_mean_is_students(tool):
    mean, half = tool("common.intervals").mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5)


def test_one_value_has_no_interval(tool):
    assert tool("common.intervals").mean_interval([0.5]) == (0.5, None)


def test_the_interval_of_a_ratio_surrounds_it_and_narrows_with_less_noise(tool):
    wide, narrow = (
        tool("common.intervals").median_ratio([((1.04 + step * noise) * 2.0, 2.0) for step in range(-4, 5)])
        for noise in (0.01, 0.001)
    )
    for median, low, high in (wide, narrow):
        assert median == pytest.approx(1.04)
        assert low < median < high
    assert narrow[2] - narrow[1] < wide[2] - wide[1]
