"""Streaming statistics equal those over all pixels at once, for any batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data.statistics import channel_statistics


def _gather(images, sizes):
    statistics = channel_statistics(images.dtype.name, images.shape[3])
    for batch in np.split(images, np.cumsum(sizes)[:-1]):
        statistics.add(batch)
    return statistics


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([1, 3]))
def test_bytes(sizes, channels):
    images = np.random.default_rng(0).integers(0, 256, (sum(sizes), 4, 5, channels), np.uint8)
    statistics = _gather(images, sizes)
    scaled = images.astype(np.float64) / 255
    assert statistics.mean() == pytest.approx(scaled.mean(axis=(0, 1, 2)), rel=1e-12)
    assert statistics.std() == pytest.approx(scaled.std(axis=(0, 1, 2)), rel=1e-12)
    assert statistics.mean() == _gather(images, [sum(sizes)]).mean()
    assert statistics.std() == _gather(images, [sum(sizes)]).std()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([0.0, 1e4]))
def test_floats_even_far_from_zero(sizes, offset):
    images = np.random.default_rng(0).normal(offset, 1, (sum(sizes), 4, 5, 3)).astype(np.float32)
    statistics = _gather(images, sizes)
    exact = images.astype(np.float64)
    assert statistics.mean() == pytest.approx(exact.mean(axis=(0, 1, 2)), rel=1e-9, abs=1e-9)
    assert statistics.std() == pytest.approx(exact.std(axis=(0, 1, 2)), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_equal_pixels_have_a_harmless_deviation(dtype):
    images = np.full((4, 2, 2, 2), 255, dtype)
    images[..., 1] = 0
    statistics = _gather(images, [4])
    assert statistics.std() == (1.0, 1.0)
    assert statistics.mean() == ((1.0, 0.0) if dtype == np.uint8 else (255.0, 0.0))
