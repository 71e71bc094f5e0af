"""Whole groups are held out, and every class keeps a group to train on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data.groups import held_groups
from edge_trgl.data.sources import Groups, Source
from edge_trgl.data.sources.source import StreamedSplit
from edge_trgl.data.splits import draw_splits
from edge_trgl.runtime.errors import InputError, UsageError


@given(
    samples=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.6),
    key=st.integers(0, 2**32),
)
def test_groups_stay_whole_and_classes_remain(samples, fraction, key):
    groups, labels = np.array(samples, np.int64).T
    try:
        held = held_groups(groups, labels, fraction, key)
    except InputError:
        for group in np.unique(groups):
            assert set(labels[groups != group]) < set(labels)
        return
    assert held.any()
    assert not set(groups[held]) & set(groups[~held])
    assert set(labels[~held]) == set(labels)
    assert (held_groups(groups, labels, fraction, key) == held).all()


@given(num_groups=st.integers(20, 60), key=st.integers(0, 2**32))
def test_equal_groups_give_the_fraction(num_groups, key):
    groups = np.repeat(np.arange(num_groups), 4)
    labels = np.tile([0, 1, 0, 1], num_groups)
    assert held_groups(groups, labels, 0.1, key).mean() == pytest.approx(0.1, abs=0.6 / num_groups)


@given(per_class=st.integers(4, 8), key=st.integers(0, 2**32))
def test_every_class_is_held_out_where_each_group_has_one(per_class, key):
    groups = np.repeat(np.arange(3 * per_class), 5)
    labels = groups % 3
    assert set(labels[held_groups(groups, labels, 0.1, key)]) == {0, 1, 2}


def test_another_seed_holds_out_another_person():
    groups, labels = np.repeat(np.arange(6), 10), np.tile([0, 1], 30)
    assert len({int(groups[held_groups(groups, labels, 0.1, key)][0]) for key in range(40)}) > 3


def _source(groups, labels):
    def read_all():
        raise AssertionError("drawing splits reads no values")

    return Source(
        format="made up",
        shape=(4, 1),
        dtype="float32",
        class_names=("0", "1"),
        splits={"train": StreamedSplit(labels=labels, read_all=read_all)},
        groups=Groups(of_sample=groups, without="Leave the groups out."),
    )


@pytest.mark.parametrize("num_groups", [3, 4, 11])
@pytest.mark.parametrize("limit", [None, 12])
def test_no_group_is_in_two_splits(num_groups, limit):
    groups, labels = np.repeat(np.arange(num_groups), 10), np.tile([0, 1], num_groups * 5)
    chosen = draw_splits(_source(groups, labels), seed=3, validation=0.1, limit=limit)
    found = [set(groups[chosen[name].samples].tolist()) for name in ("train", "val", "test")]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))


def test_too_few_groups_are_told_with_a_way_out():
    groups, labels = np.repeat(np.arange(2), 10), np.tile([0, 1], 10)
    with pytest.raises(InputError, match="too few groups") as caught:
        draw_splits(_source(groups, labels), seed=3, validation=0.1, limit=None)
    assert caught.value.hint.endswith("Leave the groups out.")


def test_unused_samples_of_the_same_groups_choose_no_depth():
    groups, labels = np.repeat(np.arange(4), 10), np.tile([0, 1], 20)
    with pytest.raises(UsageError, match=r"choose_on is unused"):
        draw_splits(_source(groups, labels), seed=3, validation=0.1, limit=8, choose_on="unused")
