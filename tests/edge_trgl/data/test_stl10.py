"""Errors in STL-10 files are reported in one sentence."""

from __future__ import annotations

import pytest

from edge_trgl.data.sources import load
from edge_trgl.runtime.errors import InputError


@pytest.fixture
def folder(tmp_path, sets):
    sets.stl10(tmp_path, sets.labelled(20, (96, 96, 3), 10), sets.labelled(10, (96, 96, 3), 10))
    return tmp_path


def _refused(folder, message):
    with pytest.raises(InputError, match=message) as caught:
        load(str(folder))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["train_y.bin", "test_X.bin", "test_y.bin"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    _refused(folder, f"{name} is missing")


def test_a_cut_file(folder):
    (folder / "train_X.bin").write_bytes((folder / "train_X.bin").read_bytes()[:-1])
    _refused(folder, "train_X.bin has 552959 bytes, which is not a whole number of 27648-byte records")


def test_fewer_labels_than_images(folder):
    (folder / "test_y.bin").write_bytes(b"\1\2\3")
    _refused(folder, "test_X.bin holds 10 images, but there are 3 labels")


@pytest.mark.parametrize("label", [0, 11])
def test_labels_count_from_1_to_10(folder, label):
    (folder / "test_y.bin").write_bytes(bytes([label] + [1] * 9))
    _refused(folder, rf"test_y.bin \(counted from 1 there\) holds the label {label - 1}")


def test_class_names_are_read_where_they_are(folder):
    assert load(str(folder)).class_names[9] == "9"
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (folder / "class_names.txt").write_text("\n".join(names))
    assert load(str(folder)).class_names == tuple(names)
