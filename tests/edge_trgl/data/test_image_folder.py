"""Folders of image files: splits and classes, colours, orientation, and what is left out."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from edge_trgl.data import is_prepared, open_dataset
from edge_trgl.data.prepare import prepare
from edge_trgl.data.sources import load
from edge_trgl.runtime.errors import InputError


def _save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)


def _two_classes(folder, first, second):
    _save(folder / "a" / "1.png", first)
    _save(folder / "b" / "1.png", second)


def _pixels(source, split="train"):
    samples = np.arange(len(source.splits[split].labels))
    return np.concatenate(list(source.splits[split].batches(samples)))


def _refused(folder, message, **options):
    with pytest.raises(InputError, match=message) as caught:
        load(str(folder), **options)
    return caught.value.hint


def test_grey_stays_grey_unless_one_image_has_colour(tmp_path):
    _two_classes(tmp_path, np.full((2, 2), 7, np.uint8), np.full((2, 2), 9, np.uint8))
    assert load(str(tmp_path)).shape == (2, 2, 1)
    assert _pixels(load(str(tmp_path)))[:, 0, 0].tolist() == [[7], [9]]
    _save(tmp_path / "b" / "2.png", np.full((2, 2, 3), (1, 2, 3), np.uint8))
    source = load(str(tmp_path))
    assert source.shape == (2, 2, 3)
    assert _pixels(source)[:, 0, 0].tolist() == [[7, 7, 7], [9, 9, 9], [1, 2, 3]]


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.array([[10, 20, 30]], np.uint8)
    for name in ("a", "b"):
        _save(tmp_path / name / "1.png", pixels, exif=exif)
    source = load(str(tmp_path))
    assert source.shape == (3, 1, 1)
    assert _pixels(source)[0, :, 0, 0].tolist() == [10, 20, 30]


def test_hidden_files_are_left_out_and_deeper_folders_are_searched(tmp_path):
    _two_classes(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    (tmp_path / "a" / ".DS_Store").write_text("hello")
    (tmp_path / ".cache").mkdir()
    _save(tmp_path / "a" / "images" / "2.png", np.zeros((2, 2), np.uint8))
    source = load(str(tmp_path))
    assert source.class_names == ("a", "b")
    assert source.splits["train"].labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("split", ["", "train", "test"])
def test_an_empty_class_folder_is_named(tmp_path, split):
    for name in {split, "train"} if split else {""}:
        _two_classes(tmp_path / name, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    (tmp_path / split / "b" / "1.png").unlink()
    assert _refused(tmp_path, f"the class folder .*{split}/b is empty")


def test_a_class_that_training_lacks_is_named(tmp_path):
    _two_classes(tmp_path / "train", np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    _save(tmp_path / "val" / "c" / "1.png", np.zeros((2, 2), np.uint8))
    assert "a, b" in _refused(tmp_path, "val/c is a class that the training images do not have")


def test_one_class_is_not_enough(tmp_path):
    _save(tmp_path / "a" / "1.png", np.zeros((2, 2), np.uint8))
    assert _refused(tmp_path, "training images of 1 class")


def test_a_folder_above_the_set_is_told(tmp_path):
    _two_classes(tmp_path / "set", np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert f"is {tmp_path}/set the set?" in _refused(tmp_path, "training images of 1 class")


def test_no_training_folder(tmp_path):
    _save(tmp_path / "Testing" / "a" / "1.png", np.zeros((2, 2), np.uint8))
    assert _refused(tmp_path, "has Testing but no train folder")


def test_a_training_folder_without_classes(tmp_path):
    _save(tmp_path / "train" / "1.png", np.zeros((2, 2), np.uint8))
    hint = _refused(tmp_path, "holds images without labels: the training images are in no class folders")
    assert hint.endswith(f"edge-trgl pretrain --data {tmp_path}")


def _flat(folder, count=30):
    for number in range(count):
        _save(folder / f"{number:02}.png", np.full((4, 4), number, np.uint8))


def test_images_without_labels_are_read_where_none_are_needed(tmp_path):
    _flat(tmp_path)
    (tmp_path / "list.txt").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "01.png").read_bytes()[:20])
    source = load(str(tmp_path), labels=False)
    assert source.class_names == ("unlabelled",)
    assert _pixels(source)[:, 0, 0, 0].tolist() == list(range(30))
    assert (dict(source.no_images), [file.file for file in source.unreadable]) == ({".txt": 1}, ["cut.png"])
    assert _refused(tmp_path, "holds images without labels")


def test_splits_of_images_without_labels(tmp_path):
    _flat(tmp_path / "train")
    _flat(tmp_path / "test" / "camera 1", 3)
    source = load(str(tmp_path), labels=False)
    assert {name: len(split.labels) for name, split in source.splits.items()} == {"train": 30, "test": 3}
    info = prepare(str(tmp_path), tmp_path / "prepared", seed=0, labels=False)
    assert {name: split.num_images for name, split in info.splits.items()} == {"train": 27, "val": 3, "test": 3}


def test_labels_that_are_not_needed_are_kept_all_the_same(tmp_path):
    _two_classes(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert load(str(tmp_path), labels=False).class_names == ("a", "b")


def test_a_folder_without_an_image(tmp_path):
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(InputError, match="is not a data set of a known format"):
        load(str(tmp_path), labels=False)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALIDATION", "Testing"),
        ("TRAIN", "Valid", "Test"),
        ("train", "dev", "TEST"),
    ],
)
def test_splits_go_by_several_names(tmp_path, train, val, test):
    for number, name in enumerate((train, val, test), 1):
        _two_classes(tmp_path / name, np.full((2, 2), number, np.uint8), np.full((2, 2), number, np.uint8))
    source = load(str(tmp_path))
    assert source.class_names == ("a", "b")
    assert [_pixels(source, split).max() for split in ("train", "val", "test")] == [1, 2, 3]


def test_two_folders_for_one_split_are_refused(tmp_path):
    for name in ("train", "val", "Valid"):
        _two_classes(tmp_path / name, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    assert _refused(tmp_path, "has both Valid and val for one split")


@pytest.mark.parametrize("place", ["train/Test/a", "train/a/test"])
def test_a_split_is_no_class(tmp_path, place):
    _two_classes(tmp_path / "train", np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    _save(tmp_path / place / "2.png", np.zeros((2, 2), np.uint8))
    assert "train/CLASS" in _refused(tmp_path, "which is the name of a split and not of a class")


def test_splits_below_classes_are_refused(tmp_path):
    for name in ("a/train", "a/test", "b/train", "b/test"):
        _save(tmp_path / name / "1.png", np.zeros((2, 2), np.uint8))
    assert _refused(tmp_path, "a has the folder test, which is the name of a split")


def test_a_folder_beside_the_splits_is_told(tmp_path):
    _two_classes(tmp_path / "train", np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    (tmp_path / "unlabelled").mkdir()
    assert load(str(tmp_path)).notices == ("the folder unlabelled stands beside train and is not used",)


def _noise(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_other_files_beside_the_images_are_left_out_and_counted(tmp_path):
    _two_classes(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    for name in ("labels.csv", "notes.TXT", "more.txt", "Thumbs.db", "README"):
        (tmp_path / "a" / name).write_text("file,label\n1.png,a\n")
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "a" / "1.png").write_text("resources")
    for strict in (False, True):
        source = load(str(tmp_path), strict=strict)
        assert source.class_names == ("a", "b")
        assert source.splits["train"].labels.tolist() == [0, 1]
        assert source.no_images == {".csv": 1, ".txt": 2, ".db": 1, "": 1}
        assert source.unreadable == ()


BAD_HEADERS = {
    "notes.png": (lambda path: path.write_text("hello"), "its beginning is not that of an image"),
    "empty.jpg": (lambda path: path.touch(), "it is empty"),
    "phone.HEIC": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)), "HEIC is not supported"),
    "pipe.jpg": (os.mkfifo, "it is not a file"),
    "gone.jpg": (lambda path: path.symlink_to("nowhere"), "it is not a file"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_an_image_that_cannot_be_opened_is_left_out_and_listed(tmp_path, name):
    _two_classes(tmp_path, _noise(), _noise())
    make, reason = BAD_HEADERS[name]
    make(tmp_path / "b" / name)
    source = load(str(tmp_path))
    assert source.splits["train"].labels.tolist() == [0, 1]
    ((file),) = source.unreadable
    assert file.file == f"b/{name}"
    assert reason in file.reason
    assert _refused(tmp_path, f"b/{name} cannot be read as an image: {reason}", strict=True)


def _cut_short(path, form="JPEG"):
    _save(path, _noise(side=64), format=form)
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_damage_in_the_pixels_leaves_the_image_out(tmp_path, form):
    _two_classes(tmp_path / "set", _noise(side=64), _noise(side=64))
    for number in range(2, 8):
        _save(tmp_path / "set" / "a" / f"{number}.png", _noise(number, 64))
    for number in (3, 5):
        _cut_short(tmp_path / "set" / "a" / f"{number}.png", form)
    info = prepare(str(tmp_path / "set"), tmp_path / "data", seed=0, validation=0.2)
    assert sum(split.num_images for split in info.splits.values()) == 6
    assert open_dataset(tmp_path / "data") == info
    assert [file.file for file in info.summary.unreadable] == ["a/3.png", "a/5.png"]
    stored = np.concatenate([np.fromfile(path, np.uint8) for path in (tmp_path / "data").glob("*.images")])
    sums = stored.reshape(6, -1).sum(axis=1, dtype=int)
    assert sorted(sums) == sorted(_noise(seed, 64).sum(dtype=int) for seed in (0, 0, 2, 4, 6, 7))
    assert prepare(str(tmp_path / "set"), tmp_path / "again", seed=0, validation=0.2) == info
    with pytest.raises(InputError, match=r"a/[35]\.png cannot be read as an image"):
        prepare(str(tmp_path / "set"), tmp_path / "data", seed=0, validation=0.2, strict=True)


def test_a_class_whose_images_are_all_damaged_is_named(tmp_path):
    _two_classes(tmp_path / "set", _noise(), _noise())
    for number in (1, 2):
        _save(tmp_path / "set" / "a" / f"{number}.png", _noise())
        _cut_short(tmp_path / "set" / "b" / f"{number}.png")
    with pytest.raises(InputError, match="the training images of the class b cannot be read"):
        prepare(str(tmp_path / "set"), tmp_path / "data", seed=0, validation=0)
    assert not is_prepared(tmp_path / "data")


def test_a_class_without_an_image_that_opens_is_named(tmp_path):
    _two_classes(tmp_path, _noise(), _noise())
    (tmp_path / "b" / "1.png").rename(tmp_path / "b" / "1.heic")
    (tmp_path / "b" / "1.heic").write_bytes(bytes(50))
    assert _refused(tmp_path, "class folder .*/b holds no image that can be read; 1.heic: HEIC is not supported")
    (tmp_path / "b" / "1.heic").rename(tmp_path / "b" / "1.csv")
    assert _refused(tmp_path, "class folder .*/b holds no images")
