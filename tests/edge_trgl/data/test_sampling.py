"""Orders are keyed permutations; batches are counted as training needs them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data import epoch_order, num_batches


@given(st.integers(0, 500), st.integers(), st.integers(0, 1000))
def test_an_order_is_a_permutation(num_samples, seed, epoch):
    order = epoch_order(num_samples, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num_samples))


def test_orders_depend_on_seed_and_epoch_alone():
    assert np.array_equal(epoch_order(100, 3, 7), epoch_order(100, 3, 7))
    assert not np.array_equal(epoch_order(100, 3, 7), epoch_order(100, 3, 8))
    assert not np.array_equal(epoch_order(100, 3, 7), epoch_order(100, 4, 7))


@pytest.mark.parametrize(
    ("num_samples", "drop_last", "expected"),
    [(8, True, 2), (9, True, 2), (9, False, 3), (3, True, 1), (3, False, 1), (0, True, 0), (0, False, 0)],
)
def test_a_short_batch_is_dropped_unless_it_is_all_there_is(num_samples, drop_last, expected):
    assert num_batches(num_samples, 4, drop_last=drop_last) == expected
