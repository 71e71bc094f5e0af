"""Scales, zero points and roundings against what a hand computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.export.int8.integers import as_int8, as_int32, channel_scales, step_of


def test_all_of_uint8():
    step = step_of(-1.0, 4.1, symmetric=False)
    assert step.scale == pytest.approx(0.02)
    assert (step.zero, step.zero.dtype) == (50, np.uint8)
    assert step_of(0.0, 2.55, symmetric=False).zero == 0
    assert step_of(-2.55, 0.0, symmetric=False).zero == 255


def test_int8_about_zero():
    step = step_of(-2.54, 1.0, symmetric=True)
    assert step.scale == pytest.approx(0.02)
    assert (step.zero, step.zero.dtype) == (0, np.int8)


@pytest.mark.parametrize("symmetric", [False, True])
def test_no_range_at_all(symmetric):
    assert step_of(0.0, 0.0, symmetric=symmetric).scale == 1


@given(st.floats(-1e3, 0), st.floats(0, 1e3))
def test_zero_is_exact_and_the_ends_are_within_a_step(low, high):
    step = step_of(low, high, symmetric=False)
    ends = (np.array([0, 255]) - int(step.zero)) * float(step.scale)
    assert ends[0] <= 0 <= ends[1]
    if high - low > 1e-6:
        np.testing.assert_allclose(ends, [low, high], rtol=0, atol=0.51 * float(step.scale))


def test_a_scale_for_each_channel():
    weights = np.array([[[1.0, -2.54]], [[0.5, 0.25]], [[0.0, 0.0]]], np.float32)
    scales = channel_scales(weights, 0)
    np.testing.assert_allclose(scales, [0.02, 0.5 / 127, 1.0], rtol=1e-6)
    assert as_int8(weights, scales, 0).tolist() == [[[50, -127]], [[127, 64]], [[0, 0]]]
    np.testing.assert_allclose(channel_scales(weights[:, 0].T, 1), scales)
    np.testing.assert_allclose(
        channel_scales(weights, 0, np.array([0.1, 0, 3e-9])), [0.1, 0.5 / 127, 3e-9], rtol=1e-6
    )


def test_what_is_beyond_the_largest_step_is_cut_off():
    weights = np.array([[10.0, -10.0, 0.3]], np.float32)
    assert as_int8(weights, np.array([0.05], np.float32), 0).tolist() == [[127, -127, 6]]


def test_the_weights_themselves_stay():
    weights = np.array([[1.0, 0.3]], np.float32)
    as_int8(weights, channel_scales(weights, 0), 0)
    assert weights.tolist() == [[1.0, np.float32(0.3)]]


def test_a_bias_in_steps_of_the_products():
    found = as_int32(np.array([0.5, -0.25], np.float32), np.array([0.001, 0.0001], np.float32))
    assert (found.tolist(), found.dtype) == ([500, -2500], np.int32)
