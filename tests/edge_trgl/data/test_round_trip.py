"""A set that is written, prepared and read has the same images and labels, in every format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.data.prepare import prepare


def _pairs(images, labels):
    """Images with their labels, sorted, so that two sets can be compared."""
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def _prepared(folder, *splits):
    info = open_dataset(folder)
    images, labels = [], []
    for split in splits:
        reader = RecordReader(folder, split, info)
        images.append(reader.read(np.arange(len(reader))).copy())
        labels.append(reader.labels)
        reader.close()
    return np.concatenate(images), np.concatenate(labels)


def _check(spec, folder, train, test):
    """Training and validation images together, which are the training images of the source."""
    prepare(str(spec), folder, seed=1)
    assert _pairs(*_prepared(folder, "train", "val")) == _pairs(*train)
    images, labels = _prepared(folder, "test")
    assert np.array_equal(images, test[0])
    assert np.array_equal(labels, test[1])


# 1.2 MB of training images: more than one batch of records, and arrays above and below the pickle reader's span.
CIFAR = (32, 32, 3)


@pytest.mark.parametrize("options", [{}, {"gzipped": True}, {"dotted": True}, {"dotted": True, "gzipped": True}])
def test_idx(tmp_path, sets, options):
    train, test = sets.labelled(60, (7, 5, 1), 3), sets.labelled(9, (7, 5, 1), 3, seed=1)
    (tmp_path / "set").mkdir()
    sets.idx(tmp_path / "set", train, test, **options)
    _check(tmp_path / "set", tmp_path / "data", train, test)


@pytest.mark.parametrize("where", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_cifar10(tmp_path, sets, where, protocol):
    train, test = sets.labelled(600, CIFAR, 10), sets.labelled(20, CIFAR, 10, seed=1)
    folder = tmp_path / "set" / where
    folder.mkdir(parents=True)
    sets.cifar10(folder, train, test, protocol=protocol)
    _check(tmp_path / "set", tmp_path / "data", train, test)
    assert open_dataset(tmp_path / "data").class_names[3] == "class 3"


@pytest.mark.parametrize("where", ["", "cifar-100-python"])
def test_cifar100(tmp_path, sets, where):
    train, test = sets.labelled(200, CIFAR, 100), sets.labelled(20, CIFAR, 100, seed=1)
    folder = tmp_path / "set" / where
    folder.mkdir(parents=True)
    sets.cifar100(folder, train, test)
    _check(tmp_path / "set", tmp_path / "data", train, test)
    assert open_dataset(tmp_path / "data").class_names[99] == "fine 99"


@pytest.mark.parametrize("where", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path, sets, where):
    train, test = sets.labelled(600, CIFAR, 10), sets.labelled(20, CIFAR, 10, seed=1)
    folder = tmp_path / "set" / where
    folder.mkdir(parents=True)
    sets.cifar10_binary(folder, train, test)
    _check(tmp_path / "set", tmp_path / "data", train, test)


@pytest.mark.parametrize("where", ["", "cifar-100-binary"])
def test_cifar100_binary(tmp_path, sets, where):
    train, test = sets.labelled(200, CIFAR, 100), sets.labelled(20, CIFAR, 100, seed=1)
    folder = tmp_path / "set" / where
    folder.mkdir(parents=True)
    sets.cifar100_binary(folder, train, test)
    (folder / "fine_label_names.txt").write_text("".join(f"name{number}\n" for number in range(100)))
    _check(tmp_path / "set", tmp_path / "data", train, test)
    assert open_dataset(tmp_path / "data").class_names[42] == "name42"


@pytest.mark.parametrize("where", ["", "stl10_binary"])
def test_stl10(tmp_path, sets, where):
    train, test = sets.labelled(60, (96, 96, 3), 10), sets.labelled(10, (96, 96, 3), 10, seed=1)
    folder = tmp_path / "set" / where
    folder.mkdir(parents=True)
    sets.stl10(folder, train, test)
    _check(tmp_path / "set", tmp_path / "data", train, test)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_image_folder_with_splits(tmp_path, sets, channels, suffix):
    train, test = sets.labelled(20, (6, 9, channels), 2), sets.labelled(4, (6, 9, channels), 2, seed=1)
    sets.image_folder(tmp_path / "set", {"train": train, "test": test}, suffix=suffix)
    prepare(str(tmp_path / "set"), tmp_path / "data", seed=1)
    assert open_dataset(tmp_path / "data").shape == (6, 9, channels)
    assert _pairs(*_prepared(tmp_path / "data", "train", "val")) == _pairs(*train)
    assert _pairs(*_prepared(tmp_path / "data", "test")) == _pairs(*test)


def test_image_folder_with_a_validation_split_keeps_it(tmp_path, sets):
    splits = {name: sets.labelled(6, (4, 4, 3), 2, seed=n) for n, name in enumerate(("train", "val", "test"))}
    sets.image_folder(tmp_path / "set", splits)
    prepare(str(tmp_path / "set"), tmp_path / "data", seed=1)
    for name, expected in splits.items():
        assert _pairs(*_prepared(tmp_path / "data", name)) == _pairs(*expected)


def test_image_folder_without_splits_is_drawn_from(tmp_path, sets):
    everything = sets.labelled(40, (4, 4, 3), 2)
    sets.image_folder(tmp_path / "set", {"": everything})
    info = prepare(str(tmp_path / "set"), tmp_path / "data", seed=1)
    assert [info.splits[name].num_images for name in ("train", "val", "test")] == [32, 4, 4]
    assert _pairs(*_prepared(tmp_path / "data", "train", "val", "test")) == _pairs(*everything)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("axes", ["NHW", "NHWC", "NCHW"])
def test_npz(tmp_path, sets, dtype, axes):
    channels = 1 if axes == "NHW" else 3
    train = sets.labelled(30, (5, 6, channels), 3, dtype=dtype)
    test = sets.labelled(6, (5, 6, channels), 3, seed=1, dtype=dtype)
    stored = {
        "NHW": lambda x: x[..., 0],
        "NHWC": lambda x: x,
        "NCHW": lambda x: x.transpose(0, 3, 1, 2).copy(),
    }[axes]
    # The axes may be left out where the shape is unambiguous.
    said = {"axes": axes} if axes == "NHW" and dtype == np.float32 else {}
    sets.npz(tmp_path / "set.npz", (stored(train[0]), train[1]), (stored(test[0]), test[1]), **said)
    _check(tmp_path / "set.npz", tmp_path / "data", train, test)
    assert open_dataset(tmp_path / "data").dtype == np.dtype(dtype).name


def test_windows(tmp_path, sets):
    train = sets.labelled(30, (20, 4), 3, dtype=np.float32)
    test = sets.labelled(6, (20, 4), 3, seed=1, dtype=np.float32)
    stored = [(x.transpose(0, 2, 1).copy(), y) for x, y in (train, test)]
    sets.npz(tmp_path / "set.npz", *stored, axes="NCL")
    _check(tmp_path / "set.npz", tmp_path / "data", train, test)
    info = open_dataset(tmp_path / "data")
    assert (info.shape, info.input_shape, info.record_bytes) == ((20, 4), (4, 20), 320)
    np.testing.assert_allclose(info.mean, _prepared(tmp_path / "data", "train")[0].mean((0, 1)), rtol=1e-4)


def test_npz_of_several_blocks_big_endian_and_labels_in_a_column(tmp_path, sets):
    images, labels = sets.labelled(40, (96, 96, 3), 4, dtype=np.float32)
    np.savez(tmp_path / "set.npz", x_train=images.astype(">f4"), y_train=labels.astype(np.uint8)[:, None])
    prepare(str(tmp_path / "set.npz"), tmp_path / "data", seed=1)
    assert _pairs(*_prepared(tmp_path / "data", "train", "val", "test")) == _pairs(images, labels)


@settings(max_examples=25)
@given(
    st.integers(4, 40),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(2, 4),
    st.floats(0, 0.5),
    st.integers(0, 9),
)
def test_no_image_is_lost_or_doubled(tmp_path_factory, num_images, height, width, num_classes, validation, seed):
    tmp_path = tmp_path_factory.mktemp("set")
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (num_images, height, width), np.uint8)
    labels = np.arange(num_images) % num_classes
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images[:1], y_test=labels[:1])
    held = round(num_images * validation) or (validation > 0)
    if num_images - held < num_classes:
        return
    prepare(str(tmp_path / "set.npz"), tmp_path / "data", seed=seed, validation=validation)
    assert _pairs(*_prepared(tmp_path / "data", "train", "val")) == _pairs(images, labels)
