"""Errors in CIFAR files are reported in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.data.prepare import prepare
from edge_trgl.data.sources import load
from edge_trgl.runtime.errors import InputError

SHAPE = (32, 32, 3)


@pytest.fixture
def python(tmp_path, sets):
    sets.cifar10(tmp_path, sets.labelled(50, SHAPE, 10), sets.labelled(10, SHAPE, 10))
    return tmp_path


@pytest.fixture
def binary(tmp_path, sets):
    sets.cifar10_binary(tmp_path, sets.labelled(50, SHAPE, 10), sets.labelled(10, SHAPE, 10))
    return tmp_path


def _refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare(str(folder), folder / "data", seed=0)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_missing_batch_is_named(python, name):
    (python / name).unlink()
    _refused(python, f"{name} is missing")


@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
def test_a_missing_binary_batch_is_named(binary, name):
    (binary / name).unlink()
    _refused(binary, f"{name} is missing")


def test_a_cut_binary_batch(binary):
    path = binary / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    _refused(binary, "data_batch_2.bin has 30729 bytes, which is not a whole number of 3073-byte records")


def test_an_empty_binary_batch(binary):
    (binary / "test_batch.bin").write_bytes(b"")
    _refused(binary, "test_batch.bin has 0 bytes")


def test_a_binary_label_out_of_range(binary):
    path = binary / "data_batch_2.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    _refused(binary, "data_batch_2.bin holds the label 10; labels run from 0 to 9")


def test_binary_class_names_of_another_number(binary):
    (binary / "batches.meta.txt").write_text("cat\ndog\n")
    _refused(binary, "batches.meta.txt holds 2 names for 10 classes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"labels": [0, 10], b"data": np.zeros((2, 3072), np.uint8)}, "holds the label 10"),
        ({b"labels": [0, -1], b"data": np.zeros((2, 3072), np.uint8)}, "holds the label -1"),
        ({b"labels": [0], b"data": np.zeros((2, 3072), np.uint8)}, "has 1 labels, but its images"),
        ({b"labels": [0, 1], b"data": np.zeros((2, 3000), np.uint8)}, "has 2 labels, but its images"),
        ({b"labels": [0, 1], b"data": bytes(6144)}, "has 2 labels, but its images"),
        ({b"labels": [0, 1]}, "has 2 labels, but its images"),
        ({b"labels": [0, "1"], b"data": np.zeros((2, 3072), np.uint8)}, "does not hold a list of labels"),
        ({b"labels": 5, b"data": np.zeros((2, 3072), np.uint8)}, "does not hold a list of labels"),
        ({b"labels": [2**40, 1], b"data": np.zeros((2, 3072), np.uint8)}, "does not hold a list of labels"),
        ({b"labels": [0, 1], b"data": np.zeros((2, 3072), np.int32)}, "an array of 'i4'"),
        ({b"labels": [0, 1], b"data": np.zeros((3072, 2), np.uint8).T}, "row by row"),
        ([1, 2], "does not hold a dictionary"),
    ],
)
def test_a_batch_with_other_content(python, sets, content, message):
    sets.pickle(python / "data_batch_1", content)
    _refused(python, f"data_batch_1.*{message}")


@pytest.mark.parametrize("names", [[b"one"], None, ["class"] * 10])
def test_other_class_names(python, sets, names):
    sets.pickle(python / "batches.meta", {b"label_names": names})
    _refused(python, "batches.meta does not hold 10 class names")


def test_a_cut_pickle(python):
    path = python / "data_batch_4"
    path.write_bytes(path.read_bytes()[:2000])
    _refused(python, "data_batch_4 is not a CIFAR pickle")


def test_a_cut_pickle_with_a_long_array(python, sets):
    path = python / "data_batch_4"
    sets.pickle(path, {b"labels": [0] * 100, b"data": np.zeros((100, 3072), np.uint8)})
    path.write_bytes(path.read_bytes()[:-2000])
    _refused(python, "data_batch_4 is not a CIFAR pickle: it is cut short")


def test_two_sets_under_one_folder(tmp_path, sets):
    for name in ("cifar-10-batches-py", "cifar-10-batches-bin"):
        (tmp_path / name).mkdir()
    train = sets.labelled(50, SHAPE, 10)
    sets.cifar10(tmp_path / "cifar-10-batches-py", train, train)
    sets.cifar10_binary(tmp_path / "cifar-10-batches-bin", train, train)
    with pytest.raises(InputError, match="holds 2 data sets") as caught:
        load(str(tmp_path))
    assert "cifar-10-batches-bin" in caught.value.hint
