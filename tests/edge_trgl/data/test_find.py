"""Paths that are not a data set, and options that do not apply."""

from __future__ import annotations

import pytest

from edge_trgl.data.sources import load
from edge_trgl.runtime.errors import InputError, UsageError


def test_a_missing_set(tmp_path):
    with pytest.raises(InputError, match=r"there is no data set .*nowhere"):
        load(str(tmp_path / "nowhere"))


def test_another_file(tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"is not a directory, nor a \.npz, \.csv or \.toml file") as caught:
        load(str(tmp_path / "set.tar.gz"))
    assert "Unpack" in caught.value.hint


def test_an_unknown_directory_lists_the_layouts(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="is not a data set of a known format") as caught:
        load(str(tmp_path))
    for name in ("train-images-idx3-ubyte", "data_batch_1 ", "train.bin", "train_X.bin", "train/CLASS", ".csv"):
        assert name in caught.value.hint


def test_a_size_for_images_that_have_one(tmp_path):
    with pytest.raises(UsageError, match="--image-size 32 does not apply to sample"):
        load("sample", image_size=32)
    assert load("sample", image_size=28).shape == (28, 28, 1)


def test_a_size_of_nothing():
    with pytest.raises(UsageError, match="--image-size is 0"):
        load("sample", image_size=0)
