"""Errors in idx files are reported in one sentence."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from edge_trgl.data.prepare import prepare
from edge_trgl.data.sources import load
from edge_trgl.runtime.errors import InputError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def folder(tmp_path, sets):
    sets.idx(tmp_path, sets.labelled(20, (4, 4, 1), 2), sets.labelled(4, (4, 4, 1), 2))
    return tmp_path


def _refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare(str(folder), folder / "data", seed=0)
    assert caught.value.hint
    assert not (folder / "data" / "dataset.json").exists()


@pytest.mark.parametrize("name", [IMAGES, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    _refused(folder, f"{name} is missing")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_another_magic_number(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[2] = 0x0D
    (folder / name).write_bytes(content)
    _refused(folder, f"{name} does not begin with the idx magic number")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_cut_file(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    _refused(folder, f"{name} is cut short: it ends in record")


@pytest.mark.parametrize(("name", "length"), [(IMAGES, 12), (LABELS, 6)])
def test_a_cut_header(folder, name, length):
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    _refused(folder, f"{name} is cut short in its header")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_file_that_goes_on(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
    _refused(folder, f"{name} goes on after its 20 records")


def test_fewer_labels_than_images(folder):
    (folder / LABELS).write_bytes(struct.pack(">II", 0x0801, 3) + b"\0\1\0")
    _refused(folder, f"{IMAGES} holds 20 images, but there are 3 labels")


def test_an_implausible_image_size(folder):
    (folder / IMAGES).write_bytes(struct.pack(">IIII", 0x0803, 20, 2**31, 2**31))
    _refused(folder, "one sample has 4611686018427387904 bytes")


def test_training_and_test_images_of_different_sizes(folder, sets):
    (folder / "other").mkdir()
    sets.idx(folder / "other", *[sets.labelled(4, (5, 4, 1), 2)] * 2)
    (folder / "other" / "t10k-images-idx3-ubyte").replace(folder / "t10k-images-idx3-ubyte")
    _refused(folder, r"training images are \(4, 4\) and test images \(5, 4\)")


def test_a_damaged_gzip(folder):
    packed = bytearray(gzip.compress((folder / IMAGES).read_bytes()))
    (folder / IMAGES).unlink()
    packed[len(packed) // 2] ^= 0xFF
    (folder / f"{IMAGES}.gz").write_bytes(packed)
    _refused(folder, f"{IMAGES}.gz cannot be read")


def test_a_cut_gzip(folder):
    packed = gzip.compress((folder / LABELS).read_bytes())
    (folder / LABELS).unlink()
    (folder / f"{LABELS}.gz").write_bytes(packed[:-9])
    _refused(folder, f"{LABELS}.gz cannot be read: Compressed file ended")


def test_a_test_label_that_training_lacks(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x0801, 4) + b"\0\1\1\7")
    _refused(folder, "the test split holds the label 7, which is not a class of the training split")


def test_one_class_is_not_enough(folder):
    for prefix, count in (("train", 20), ("t10k", 4)):
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x0801, count) + bytes(count))
    _refused(folder, "training images of 1 class")


def test_labels_with_gaps_are_numbered_anew(folder, sets):
    images, labels = sets.labelled(20, (4, 4, 1), 2)
    sets.idx(folder, (images, labels * 5 + 1), (images, labels * 5 + 1))
    source = load(str(folder))
    assert source.class_names == ("1", "6")
    assert np.array_equal(source.splits["train"].labels, labels)
