"""Every augmented image is a shifted crop of its own original, mirrored or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data import Augment
from edge_trgl.runtime.errors import UsageError


def _augmented(augment, images, key):
    return augment.apply(images, augment.draws(len(images), key))


def _crops(image, padding, *, flip):
    """All images that augmentation can return."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    steps = range(2 * padding + 1)
    crops = [padded[top : top + height, left : left + width] for top in steps for left in steps]
    return crops + [crop[:, ::-1] for crop in crops] if flip else crops


@given(
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.sampled_from([np.uint8, np.float32]),
)
def test_each_output_is_a_crop_of_its_image(shape, padding, flip, key, dtype):
    images = np.random.default_rng(0).integers(1, 255, shape).astype(dtype)
    before = images.copy()
    augmented = _augmented(Augment(padding, flip), images, key)
    assert augmented.dtype == dtype
    assert np.array_equal(images, before)
    for image, output in zip(images, augmented, strict=True):
        assert any(np.array_equal(output, crop) for crop in _crops(image, padding, flip=flip))


def test_equal_keys_give_equal_results_and_others_do_not():
    images = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3), np.uint8)
    augment = Augment(2, True)
    assert np.array_equal(_augmented(augment, images, 5), _augmented(augment, images, 5))
    assert not np.array_equal(_augmented(augment, images, 5), _augmented(augment, images, 6))


def test_all_shifts_and_both_sides_occur_evenly():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    outputs = _augmented(Augment(1, True), np.repeat(image, 9000, axis=0), 11)
    found, counts = np.unique(outputs.reshape(9000, -1), axis=0, return_counts=True)
    assert len(found) == 18
    assert 400 < counts.min() <= counts.max() < 600


def test_images_of_one_batch_are_drawn_apart():
    images = np.broadcast_to(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), (32, 8, 8, 1))
    assert len(np.unique(_augmented(Augment(4, False), images, 0).reshape(32, -1), axis=0)) > 10


def test_any_images_may_be_augmented_as_they_were_in_their_batch():
    images = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3), np.uint8)
    augment, chosen = Augment(2, True), np.array([40, 3, 3, 63])
    some = augment.apply(images[chosen], augment.draws(64, 5)[chosen])
    assert np.array_equal(some, _augmented(augment, images, 5)[chosen])


def test_nothing_to_do_gives_back_the_input():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    assert _augmented(Augment(0, False), images, 1) is images


def test_negative_padding_is_refused():
    with pytest.raises(UsageError, match=r"data\.crop_padding is -1"):
        Augment(-1, True)
