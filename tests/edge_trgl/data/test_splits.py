"""Splits are stratified, balanced and seeded, and leave every class a training image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data.sources import Source
from edge_trgl.data.sources.source import StreamedSplit
from edge_trgl.data.splits import draw_splits
from edge_trgl.runtime.errors import InputError, UsageError


def _source(*sizes, test=True):
    """A source with `sizes[label]` training images of each class, shuffled."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)
    split = StreamedSplit(labels=labels, read_all=lambda: iter(()))
    splits = {"train": split, "test": split} if test else {"train": split}
    names = tuple(map(str, range(len(sizes))))
    return Source(format="made up", shape=(1, 1, 1), dtype="uint8", class_names=names, splits=splits)


def _draw(source, *, seed=0, validation=0.1, limit=None, **choice):
    return draw_splits(source, seed=seed, validation=validation, limit=limit, **choice)


def _counts(draw, num_classes):
    return np.bincount(draw.labels, minlength=num_classes).tolist()


def test_validation_takes_its_share_of_each_class():
    draws = _draw(_source(100, 200, 50))
    assert _counts(draws["val"], 3) == [10, 20, 5]
    assert _counts(draws["train"], 3) == [90, 180, 45]
    assert len(draws["test"].samples) == 350


@pytest.mark.parametrize(("empty", "choice"), [("val", {}), ("test", {}), ("test", {"choose_on": "half-test"})])
def test_an_empty_set_is_a_missing_one(empty, choice):
    source = _source(100, 100)
    nothing = StreamedSplit(labels=np.zeros(0, np.int64), read_all=lambda: iter(()))
    draws = _draw(replace(source, splits={**source.splits, empty: nothing}), **choice)
    assert all(len(draws[name].samples) for name in ("train", "val", "test"))


def test_a_missing_test_set_is_drawn_too():
    draws = _draw(_source(100, 100, test=False), validation=0.5)
    assert _counts(draws["test"], 2) == [10, 10]
    assert _counts(draws["val"], 2) == [45, 45]
    everything = np.concatenate([draw.samples for draw in draws.values()])
    assert sorted(everything.tolist()) == list(range(200))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.floats(0, 0.6), st.integers(0, 5))
def test_splits_are_disjoint_ascending_and_keep_every_class(sizes, validation, seed):
    source = _source(*sizes)
    held = max(1, round(validation * sum(sizes))) if validation else 0
    if sum(sizes) - len(sizes) < held:
        with pytest.raises(InputError, match="without a training sample"):
            _draw(source, seed=seed, validation=validation)
        return
    draws = _draw(source, seed=seed, validation=validation)
    train, val = draws["train"], draws["val"]
    assert len(val.samples) == held
    assert sorted([*train.samples, *val.samples]) == list(range(sum(sizes)))
    assert all(np.all(np.diff(draw.samples) > 0) for draw in draws.values())
    assert min(_counts(train, len(sizes))) >= 1


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.data())
def test_a_limit_is_balanced_and_nested(sizes, data):
    limit = data.draw(st.integers(len(sizes), sum(sizes)))
    source = _source(*sizes)
    draw = _draw(source, validation=0, limit=limit)["train"]
    counts = _counts(draw, len(sizes))
    assert sum(counts) == limit
    for count, size in zip(counts, sizes, strict=True):
        assert count == size or count >= max(counts) - 1
    smaller = _draw(source, validation=0, limit=max(len(sizes), limit - 1))["train"]
    assert set(smaller.samples) <= set(draw.samples)


def test_the_limit_comes_before_validation():
    draws = _draw(_source(100, 100), limit=40, validation=0.25)
    assert _counts(draws["train"], 2) == [15, 15]
    assert _counts(draws["val"], 2) == [5, 5]


def test_draws_depend_on_the_seed_and_not_on_each_other():
    source = _source(100, 100, test=False)
    first, again, other = _draw(source, seed=1), _draw(source, seed=1), _draw(source, seed=2)
    assert np.array_equal(first["val"].samples, again["val"].samples)
    assert not np.array_equal(first["val"].samples, other["val"].samples)
    assert np.array_equal(first["test"].samples, _draw(source, seed=1, validation=0.3)["test"].samples)


@pytest.mark.parametrize("limit", [1, 201])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(UsageError, match=f"limit is {limit}; it must be from 2, .* to 200"):
        _draw(_source(100, 100), limit=limit)


def test_the_depth_may_be_chosen_on_what_a_limit_leaves_over():
    source = _source(100, 200)
    draws = _draw(source, limit=60, validation=0.25, choose_on="unused")
    train, val = draws["train"].samples, draws["val"].samples
    assert np.array_equal(train, _draw(source, limit=60, validation=0)["train"].samples)
    assert _counts(draws["val"], 2) == [18, 42]
    assert not set(train) & set(val)
    assert np.all(np.diff(val) > 0)
    other = _draw(source, seed=1, limit=60, validation=0.25, choose_on="unused")["val"].samples
    assert not np.array_equal(val, other)


def test_one_image_left_over_is_enough_and_none_is_not():
    draws = _draw(_source(3, 3), limit=5, choose_on="unused")
    assert sorted([*draws["train"].samples, *draws["val"].samples]) == list(range(6))
    for limit in (6, None):
        with pytest.raises(UsageError, match="no training sample is left over"):
            _draw(_source(3, 3), limit=limit, choose_on="unused")


@pytest.mark.parametrize(("num_test", "half"), [(1, 1), (4, 2), (5, 3)])
def test_choosing_on_half_of_the_test_images_trains_on_all_the_others(num_test, half):
    source = _source(5, 5)
    test = StreamedSplit(labels=np.zeros(num_test, np.int64), read_all=lambda: iter(()))
    draws = _draw(replace(source, splits={**source.splits, "test": test}), choose_on="half-test")
    assert draws["val"].samples.tolist() == list(range(0, num_test, 2))
    assert len(draws["val"].samples) == half
    assert draws["val"].split is draws["test"].split is test
    assert len(draws["test"].samples) == num_test
    assert len(draws["train"].samples) == 10


@pytest.mark.parametrize("choice", ["unused", "half-test"])
def test_a_choice_goes_before_the_sets_own_validation_images(choice):
    source = _source(5, 5)
    own = StreamedSplit(labels=np.zeros(7, np.int64), read_all=lambda: iter(()))
    source = replace(source, splits={**source.splits, "val": own})
    assert _draw(source, limit=4)["val"].split is own
    assert _draw(source, limit=4, choose_on=choice)["val"].split is not own
