"""Orders are permutations that depend on their key alone; batches are counted as in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data import epoch_order, num_batches, spread, stored_order, windowed_order


@given(st.integers(0, 500), st.integers(), st.integers(0, 1000))
def test_an_order_is_a_permutation(num_samples, seed, epoch):
    order = epoch_order(num_samples, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num_samples))


def test_orders_depend_on_seed_and_epoch_alone():
    assert np.array_equal(epoch_order(100, 3, 7), epoch_order(100, 3, 7))
    assert not np.array_equal(epoch_order(100, 3, 7), epoch_order(100, 3, 8))
    assert not np.array_equal(epoch_order(100, 3, 7), epoch_order(100, 4, 7))


@given(st.integers(1, 500), st.integers(0, 9), st.integers(0, 9), st.integers(1, 40))
def test_a_windowed_order_is_a_permutation(num_samples, seed, epoch, chunk):
    order = windowed_order(num_samples, seed, epoch, chunk)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num_samples))


@given(st.integers(1, 20), st.integers(0, 300))
def test_a_spread_choice_has_images_of_every_class_of_a_sorted_set(num_classes, more):
    count = num_classes + more
    labels = np.arange(num_classes).repeat(50)
    chosen = spread(min(count, len(labels)), len(labels))
    assert chosen.dtype == np.int64
    assert np.all(np.diff(chosen) > 0)
    assert set(labels[chosen]) == set(range(num_classes))
    assert len(spread(0, 10)) == 0


@given(st.integers(1, 80), st.integers(0, 9), st.integers(1, 20))
def test_a_window_holds_sixteen_whole_chunks(num_chunks, epoch, chunk):
    order = windowed_order(num_chunks * chunk, 5, epoch, chunk)
    chunks = np.argsort(stored_order(len(order), 5))[order] // chunk
    window = 16 * chunk
    if num_chunks > 16:
        for start in range(0, len(order), window):
            counts = np.bincount(chunks[start : start + window], minlength=num_chunks)
            assert set(counts.tolist()) <= {0, chunk}


def test_what_is_one_window_is_shuffled_like_images():
    assert np.array_equal(windowed_order(160, 3, 7, 10), epoch_order(160, 3, 7))
    assert not np.array_equal(windowed_order(161, 3, 7, 10), epoch_order(161, 3, 7))


def test_windowed_orders_depend_on_seed_and_epoch_alone():
    assert np.array_equal(windowed_order(1000, 3, 7, 10), windowed_order(1000, 3, 7, 10))
    assert not np.array_equal(windowed_order(1000, 3, 7, 10), windowed_order(1000, 3, 8, 10))
    assert not np.array_equal(windowed_order(1000, 3, 7, 10), windowed_order(1000, 4, 7, 10))


def test_labels_that_were_sorted_are_mixed_in_every_window():
    labels = np.repeat(np.arange(10), 1000)
    order = windowed_order(len(labels), 0, 0, 10)
    shares = [
        np.bincount(labels[order[start : start + 500]], minlength=10) / 500 for start in range(0, 10000, 500)
    ]
    # 500 draws of ten equal classes: 0.1 +- 0.013 (one standard deviation).
    assert np.min(shares) > 0.04
    assert np.max(shares) < 0.17


def test_successors_are_as_if_drawn_from_all():
    """The distance in the file of successive samples, compared with a full shuffle."""
    count, chunk = 100_000, 20  # 313 windows
    place = np.argsort(stored_order(count, 0))
    far = []
    for epoch in range(5):
        rows = place[windowed_order(count, 0, epoch, chunk)]
        far.append(np.abs(np.diff(rows)) / count)
    # Chunks of a window lie anywhere: the mean distance of two uniform draws is 1/3; those of one chunk are near.
    assert abs(np.mean(far) - (15 / 16) / 3) < 0.01


@pytest.mark.parametrize(
    ("num_samples", "drop_last", "expected"),
    [(8, True, 2), (9, True, 2), (9, False, 3), (3, True, 1), (3, False, 1), (0, True, 0), (0, False, 0)],
)
def test_a_short_batch_is_dropped_unless_it_is_all_there_is(num_samples, drop_last, expected):
    assert num_batches(num_samples, 4, drop_last=drop_last) == expected
