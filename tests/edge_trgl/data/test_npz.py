"""Errors in .npz archives are reported in one sentence."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest

from edge_trgl.data.prepare import prepare
from edge_trgl.data.sources import load
from edge_trgl.runtime.errors import InputError

X, Y = np.zeros((8, 5, 6), np.uint8), np.arange(8) % 2


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.npz"


def _refused(path, message, **arrays):
    if arrays:
        np.savez(path, **{"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, **arrays})
    with pytest.raises(InputError, match=message) as caught:
        prepare(str(path), path.parent / "data", seed=0)
    assert caught.value.hint


@pytest.mark.parametrize("shape", [(8, 3, 6, 3), (8, 1, 6, 3), (8, 5, 6, 2), (8, 5, 6, 4), (8,), (8, 1, 1, 1, 1)])
def test_axes_that_cannot_be_told_apart(path, shape):
    _refused(path, "x_train in .*: its axes are ambiguous", x_train=np.zeros(shape, np.uint8))


def test_windows_of_several_channels_are_not_taken_for_images(path):
    _refused(path, "its axes are ambiguous", x_train=np.zeros((8, 9, 128), np.float32))


@pytest.mark.parametrize("axes", ["NLH", "", "N" * 100, 3, np.array(["NHW"]), b"NHW"])
def test_axes_that_are_none(path, axes):
    _refused(path, "it must be one of NHW, NHWC, NCHW, NL, NLC, NCL", axes=axes)


@pytest.mark.parametrize("axes", ["NL", "NCHW"])
def test_axes_of_another_number(path, axes):
    _refused(path, rf"x_train in .* has the shape \(8, 5, 6\), but the axes {axes}", axes=axes)


@pytest.mark.parametrize(
    ("axes", "stored", "shape"),
    [
        ("NHWC", (8, 5, 6, 2), (5, 6, 2)),
        ("NCHW", (8, 3, 6, 3), (6, 3, 3)),
        ("NCL", (8, 9, 20), (20, 9)),
        ("NLC", (8, 9, 20), (9, 20)),
        ("NL", (8, 20), (20, 1)),
        (None, (8, 20), (20, 1)),
    ],
)
def test_axes_say_what_the_shape_does_not(path, axes, stored, shape):
    x = np.random.default_rng(0).normal(size=stored).astype(np.float32)
    said = {} if axes is None else {"axes": axes}
    np.savez(path, x_train=x, y_train=Y, **said)
    source = load(str(path))
    assert source.shape == shape
    (records,) = source.splits["train"].batches(np.arange(8))
    assert records.shape == (8, *shape)
    assert np.array_equal(records, np.moveaxis(x, 1, -1) if axes in ("NCHW", "NCL") else x.reshape(records.shape))


@pytest.mark.parametrize("dtype", [bool, "U3", complex])
def test_samples_that_are_no_numbers(path, dtype):
    _refused(path, "images and windows are numbers", x_train=X.astype(dtype))


@pytest.mark.parametrize("dtype", [np.int32, np.uint16])
def test_images_of_other_whole_numbers(path, dtype):
    _refused(path, "images are uint8, from 0 to 255, or floating point", x_train=X.astype(dtype), axes="NHW")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4", np.int16, np.int64])
def test_windows_of_other_numbers_are_read_as_float32(path, dtype):
    x = np.random.default_rng(0).integers(-1000, 1000, (8, 9, 20)).astype(dtype)
    np.savez(path, x_train=x, y_train=Y, x_test=x.astype(np.float32), y_test=Y, axes="NCL")
    source = load(str(path))
    (records,) = source.splits["train"].batches(np.arange(8))
    assert records.dtype == source.dtype == "float32"
    assert np.array_equal(records, np.moveaxis(x, 1, -1))
    # Big-endian float32 loses nothing.
    assert source.notices == (() if dtype == ">f4" else (f"x_train is {np.dtype(dtype)} and is read as float32",))


def test_images_of_double_precision_are_read_as_float32(path):
    np.savez(path, x_train=X + 0.5, y_train=Y, axes="NHW")
    assert load(str(path)).dtype == "float32"


def test_a_value_too_large_for_float32(path):
    arrays = {"x_train": np.full((8, 5, 6), 1e39), "x_test": np.zeros((8, 5, 6)), "axes": "NHW"}
    _refused(path, "x_train in .* holds a value that is not finite", **arrays)


def test_objects_are_not_unpickled(path):
    _refused(path, "images and windows are numbers", x_train=np.array([{}], object))
    _refused(path, "labels are whole numbers or text", y_train=np.array([{}] * 8, object))


@pytest.mark.parametrize(
    ("labels", "message", "hint"),
    [
        (Y + 0.25, "holds labels that are no whole numbers", "predicting a number .regression. is not supported"),
        (Y + np.nan, "holds labels that are no whole numbers", "regression"),
        (np.eye(2)[Y], r"shape \(8, 2\), not one label for each", "predicting several labels is not supported"),
        (np.int64(3), "labels are whole numbers or text", "Save one class"),
        (np.array([*"abababa", "a;b"]), "'a;b', which reads as several labels", "several labels is not supported"),
        (np.array([*"abababab"]), "y_train .* is text; other labels are numbers", "the same way"),
    ],
)
def test_labels_that_are_not_one_class_each(path, labels, message, hint):
    arrays = {"x_train": X, "y_train": labels}
    if message.startswith("y_train"):
        arrays |= {"x_test": X, "y_test": Y}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load(str(path))
    assert re.search(hint, caught.value.hint)


def test_labels_of_text_keep_their_names(path):
    names = np.array(["walk", "run"])
    np.savez(path, x_train=X, y_train=names[Y], x_test=X, y_test=names[1 - Y])
    source = load(str(path))
    assert source.class_names == ("run", "walk")
    assert source.splits["train"].labels.tolist() == (1 - Y).tolist()
    assert source.splits["test"].labels.tolist() == Y.tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_class_names_beside_numbers(path, dtype):
    np.savez(path, x_train=X, y_train=(2 * Y).astype(dtype), class_names=["run", "sit", "walk"])
    source = load(str(path))
    assert source.class_names == ("run", "walk")
    assert source.splits["train"].labels.tolist() == Y.tolist()
    assert len(source.notices) == (dtype == np.float64)


@pytest.mark.parametrize(("names", "message"), [(["run"], "only 1 class_names"), ([1, 2], "class names are text")])
def test_class_names_that_name_no_class(path, names, message):
    _refused(path, message, class_names=names)


@pytest.mark.parametrize("people", [[5, 5, 5, 6, 6, 6, 7, 7], [*"aaabbbcc"]])
def test_groups_of_training_samples(path, people):
    np.savez(path, x_train=X, y_train=Y, g_train=people)
    assert load(str(path)).groups.of_sample.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("people", "message"), [([1, 2], "holds 2 groups for 8"), (Y + 0.5, "groups are whole numbers or text")]
)
def test_groups_that_are_none(path, people, message):
    _refused(path, message, g_train=people)


def test_a_negative_label(path):
    _refused(path, "the train split holds the label -1, which is negative", y_train=Y - 1)


def test_a_test_label_that_training_lacks(path):
    _refused(path, "the test split holds the label 2", y_test=Y + 1)


def test_another_number_of_labels(path):
    _refused(path, "x_test in .* holds 8 samples, but y_test has 7 labels", y_test=Y[:7])


@pytest.mark.parametrize("other", [X[:, :4], X.astype(np.float32)])
def test_splits_that_differ(path, other):
    _refused(path, "the splits differ", x_test=other, axes="NHW")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite(path, value):
    images = X.astype(np.float32)
    images[7, 4, 5] = value
    arrays = {"x_train": images, "x_test": X.astype(np.float32), "axes": "NHW"}
    _refused(path, "x_train in .* holds a value that is not finite", **arrays)


def test_column_by_column(path):
    _refused(
        path,
        "x_train in .* is stored column by column",
        x_train=np.asfortranarray(np.zeros((8, 5, 6), np.uint8)),
    )


@pytest.mark.parametrize("name", ["x_train", "y_train", "y_test"])
def test_a_missing_array_is_named(path, name):
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    del arrays[name]
    np.savez(path, **arrays)
    _refused(path, f"has no array {name}")


def test_a_file_that_is_no_archive(path):
    path.write_bytes(b"not a zip file at all")
    _refused(path, "cannot be read: File is not a zip file")


def test_a_damaged_member(path):
    np.savez(path, x_train=np.random.default_rng(0).integers(0, 256, (8, 50, 60), np.uint8), y_train=Y)
    content = bytearray(path.read_bytes())
    content[5000] ^= 0xFF
    path.write_bytes(content)
    _refused(path, "cannot be read: Bad CRC-32")


def test_a_member_that_is_no_array(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", b"hello, world")
    _refused(path, "x_train in .* is not a plain array")


def test_a_member_that_is_cut_short(path, tmp_path):
    np.save(tmp_path / "x.npy", X)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", (tmp_path / "x.npy").read_bytes()[:-1])
        archive.writestr("y_train.npy", _npy(tmp_path, Y))
    _refused(path, "set.npz is cut short: it ends in record 7 of 8")


def test_validation_arrays_are_used(path):
    np.savez(path, x_train=X, y_train=Y, x_val=X[:3], y_val=Y[:3], x_test=X[:2], y_test=Y[:2])
    assert {name: len(split.labels) for name, split in load(str(path)).splits.items()} == {
        "train": 8,
        "val": 3,
        "test": 2,
    }


def _npy(folder, values):
    np.save(folder / "values.npy", values)
    return (folder / "values.npy").read_bytes()


def test_an_encrypted_archive(path):
    np.savez(path, x_train=X, y_train=Y)
    content = bytearray(path.read_bytes())
    # Bit 0 of the flags, in the header of each member and in the directory.
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    _refused(path, "is encrypted")
