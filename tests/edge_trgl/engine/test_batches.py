"""Batches: which samples, which labels, which pixels, and what a batch depends on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_trgl.data import Augment, stored_order, windowed_order
from edge_trgl.data.prepare import prepare
from edge_trgl.engine.batches import Feed
from edge_trgl.engine.visits import Span

NUM_TRAIN, NUM_TEST, BATCH = 22, 7, 5
SHAPE = (6, 7, 3)


@pytest.fixture(scope="module", params=["uint8", "float32"])
def prepared(tmp_path_factory, request):
    """A set in which every image is as its label says: (folder, info, images, labels) of training."""
    folder = tmp_path_factory.mktemp("feed")
    generator = np.random.default_rng(0)
    images = (generator.random((NUM_TRAIN + NUM_TEST, *SHAPE)) * 200).astype(request.param)
    labels = np.arange(len(images)) % 3
    np.savez(
        folder / "set.npz",
        x_train=images[:NUM_TRAIN],
        y_train=labels[:NUM_TRAIN],
        x_test=images[NUM_TRAIN:],
        y_test=labels[NUM_TRAIN:],
    )
    info = prepare(str(folder / "set.npz"), folder / "data", seed=0, validation=0)
    return folder / "data", info, images[:NUM_TRAIN], labels[:NUM_TRAIN]


@pytest.fixture
def feed(prepared):
    """A function that makes a feed of a split."""
    made = []

    def make(*, split="train", seed=3, crop_padding=2, flip=True):
        augment = Augment(crop_padding, flip)
        options = {"batch_size": BATCH, "seed": seed, "device": "cpu"}
        made.append(Feed(prepared[0], prepared[1], split, augment=augment, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _span(epoch=0, *, shuffled=True, augmented=False, split="train"):
    return Span(split, epoch, 0, 4, shuffled, augmented)


def _images(feed, span, batch):
    return feed.images(span, batch, feed.samples(span, batch))


def test_batches_of_an_epoch_are_a_shuffle(feed):
    made, span = feed(), _span()
    batches = [made.samples(span, batch) for batch in range(5)]
    assert [len(samples) for samples in batches] == [5, 5, 5, 5, 2]
    order = np.concatenate(batches)
    assert sorted(order) == list(range(NUM_TRAIN))
    assert list(order) != sorted(order)
    assert len(made) == NUM_TRAIN


def test_the_order_is_keyed_by_seed_and_epoch_alone(feed):
    first, other_seed = feed(), feed(seed=4)
    in_order = {(epoch, batch): first.samples(_span(epoch), batch) for epoch in range(3) for batch in range(4)}
    again = feed()
    for (epoch, batch), samples in reversed(in_order.items()):
        assert np.array_equal(again.samples(_span(epoch), batch), samples)
    assert not np.array_equal(in_order[0, 0], in_order[1, 0])
    assert not np.array_equal(in_order[0, 0], other_seed.samples(_span(), 0))


def test_without_shuffling_samples_come_in_the_order_they_are_kept_in(feed):
    made, span = feed(), _span(shuffled=False)
    kept = np.concatenate([made.samples(span, batch) for batch in range(5)])
    assert kept.tolist() == stored_order(NUM_TRAIN, seed=3).tolist()
    test, span = feed(split="test"), _span(shuffled=False, split="test")
    assert [test.samples(span, batch).tolist() for batch in range(2)] == [[0, 1, 2, 3, 4], [5, 6]]


def test_a_cached_boundary_decides_how_far_samples_are_shuffled(prepared):
    augment = Augment(crop_padding=0, flip=False)
    options = {"augment": augment, "batch_size": BATCH, "seed": 3, "device": "cpu", "chunk_of": {2: 1}.get}
    made = Feed(prepared[0], prepared[1], "train", **options)
    span = replace(_span(4), source=2)
    order = np.concatenate([made.samples(span, batch) for batch in range(5)])
    assert order.tolist() == windowed_order(NUM_TRAIN, 3, 4, 1).tolist()
    assert order.tolist() != np.concatenate([made.samples(_span(4), batch) for batch in range(5)]).tolist()
    assert made.upcoming(span, 1, 7).tolist() == order[10:17].tolist()
    assert made.upcoming(span, 3, 7).tolist() == order[20:].tolist()
    made.close()


def test_labels_go_with_their_images(feed, prepared):
    _, _, images, labels = prepared
    made, span = feed(), _span(2)
    for batch in range(4):
        samples = made.samples(span, batch)
        found = made.labels(samples)
        assert found.dtype == torch.int64
        assert found.tolist() == labels[samples].tolist()
        assert np.array_equal(made.pixels(samples).numpy(), images[samples].transpose(0, 3, 1, 2))


def test_images_are_normalised_over_the_training_split(feed, prepared):
    _, _, images, _ = prepared
    scaled = images / 255 if images.dtype == np.uint8 else images
    mean, std = scaled.mean((0, 1, 2), dtype=np.float64), scaled.std((0, 1, 2), dtype=np.float64)
    made, span = feed(), _span()
    for batch in range(2):
        samples = made.samples(span, batch)
        found = made.images(span, batch, samples)
        expected = ((scaled[samples] - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert found.dtype == torch.float32
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_not_written_over_by_the_next(feed):
    made, span = feed(), _span()
    first = _images(made, span, 0)
    kept = first.clone()
    pixels = made.pixels(made.samples(span, 0))
    kept_pixels = pixels.clone()
    _images(made, span, 1)
    assert torch.equal(first, kept)
    assert torch.equal(pixels, kept_pixels)


def test_augmentation_is_keyed_by_seed_epoch_batch_and_order(feed):
    made, again, other_seed = feed(), feed(), feed(seed=4)
    span, samples = _span(augmented=True), np.arange(BATCH)
    first = made.images(span, 0, samples)
    made.images(_span(5, augmented=True), 3, samples)
    assert torch.equal(made.images(span, 0, samples), first)
    assert torch.equal(again.images(span, 0, samples), first)
    others = [
        made.images(_span(augmented=False), 0, samples),
        made.images(_span(1, augmented=True), 0, samples),
        made.images(span, 1, samples),
        made.images(_span(augmented=True, shuffled=False), 0, samples),
        other_seed.images(span, 0, samples),
    ]
    assert not any(torch.equal(first, other) for other in others)


def test_images_of_a_pass_in_order_can_be_had_in_any_order(feed):
    """Each as in its own batch of that pass, the short last one too."""
    made, span = feed(), _span(4, shuffled=False, augmented=True)
    passed = torch.cat([made.unnormalised(span, batch, made.samples(span, batch)) for batch in range(5)])
    places = np.array([21, 0, 7, 7, 20, 13])
    samples = stored_order(NUM_TRAIN, seed=3)[places]
    assert torch.equal(made.unnormalised(span, 99, samples), passed[torch.from_numpy(places)])


def test_unnormalised_images_are_those_that_are_normalised(feed, prepared):
    info = prepared[1]
    made, span, samples = feed(), _span(augmented=True), np.arange(BATCH)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    found = made.unnormalised(span, 0, samples)
    assert torch.equal((found - mean) / std, made.images(span, 0, samples))
    assert found.min() >= 0
    assert (found.max() <= 1) == (info.dtype == "uint8")


def test_augmented_images_are_shifted_and_mirrored_copies(feed, prepared):
    """One padded pixel, no flip: every image is one of nine crops; the padding is black before normalising."""
    _, info, images, _ = prepared
    made, samples = feed(crop_padding=1, flip=False), np.arange(BATCH)
    found = made.images(_span(augmented=True), 0, samples)
    scale = 255 if images.dtype == np.uint8 else 1
    stored = found.permute(0, 2, 3, 1).double() * torch.tensor(info.std) + torch.tensor(info.mean)
    stored = (stored * scale).numpy()
    padded = np.pad(images[:BATCH].astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width, _ = SHAPE
    for image, source in zip(stored, padded, strict=True):
        crops = [source[top : top + height, left : left + width] for top in range(3) for left in range(3)]
        assert sum(np.allclose(image, crop, atol=0.05) for crop in crops) == 1


def test_windows_are_normalised_and_contiguous(tmp_path):
    generator = np.random.default_rng(0)
    windows = generator.normal(3, [[1.0], [5.0]], (NUM_TRAIN, 2, 30)).astype(np.float32)
    np.savez(tmp_path / "set.npz", x_train=windows, y_train=np.arange(NUM_TRAIN) % 3, axes="NCL")
    info = prepare(str(tmp_path / "set.npz"), tmp_path / "data", seed=0, validation=0)
    options = {"augment": Augment(0, flip=False), "batch_size": BATCH, "seed": 0, "device": "cpu"}
    made, samples = Feed(tmp_path / "data", info, "train", **options), np.array([3, 0, 7])
    stored, found = made.pixels(samples), made.images(_span(augmented=True), 0, samples)
    mean, std = (torch.tensor(values)[:, None] for values in (info.mean, info.std))
    assert torch.equal(found, stored.sub(mean).div(std))
    assert found.shape == (3, 2, 30)
    assert found.is_contiguous()
    assert all(any(np.array_equal(window, other) for other in windows) for window in stored.numpy())
    made.close()


def test_boundaries_go_where_the_modules_are(feed):
    values = torch.randn(3, 4)
    assert torch.equal(feed().to_device(values), values)
