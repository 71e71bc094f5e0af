"""Folders of image files: sizes, colours, orientation, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edge_trgl.data.prepare import prepare
from edge_trgl.data.sources import load
from edge_trgl.data.sources.image_file import decode
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


def test_differing_sizes_need_the_option(tmp_path):
    _two_classes(tmp_path, np.zeros((4, 4), np.uint8), np.zeros((4, 6), np.uint8))
    hint = _refused(tmp_path, r"b/1.png has 6×4 pixels and .*a/1.png has 4×4")
    assert "--image-size" in hint
    source = load(str(tmp_path), image_size=4)
    assert source.shape == (4, 4, 1)
    assert _pixels(source).shape == (2, 4, 4, 1)


def test_resizing_keeps_the_proportions_and_the_middle(tmp_path):
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    _two_classes(tmp_path, wide, wide)
    assert (_pixels(load(str(tmp_path), image_size=4)) == 200).all()


def test_grey_stays_grey_unless_one_image_has_colour(tmp_path):
    _two_classes(tmp_path, np.full((2, 2), 7, np.uint8), np.full((2, 2), 9, np.uint8))
    assert load(str(tmp_path)).shape == (2, 2, 1)
    assert _pixels(load(str(tmp_path)))[:, 0, 0].tolist() == [[7], [9]]
    _save(tmp_path / "b" / "2.png", np.full((2, 2, 3), (1, 2, 3), np.uint8))
    source = load(str(tmp_path))
    assert source.shape == (2, 2, 3)
    assert _pixels(source)[:, 0, 0].tolist() == [[7, 7, 7], [9, 9, 9], [1, 2, 3]]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    _save(tmp_path / "deep.png", np.array([[0, 256, 32768, 65535]], np.uint16))
    assert decode(str(tmp_path / "deep.png"), size=None, channels=1)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_become_rgb(tmp_path, mode):
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / "image.tiff")
    pixels = decode(str(tmp_path / "image.tiff"), size=None, channels=3)
    assert pixels.shape == (2, 3, 3)
    assert (pixels == 255).all()


def test_floating_point_images_are_refused(tmp_path):
    _save(tmp_path / "image.tiff", np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="its pixels are floating-point numbers"):
        decode(str(tmp_path / "image.tiff"), size=None, channels=1)


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.array([[10, 20, 30]], np.uint8)
    for name in ("a", "b"):
        _save(tmp_path / name / "1.png", pixels, exif=exif)
    source = load(str(tmp_path))
    assert source.shape == (3, 1, 1)
    assert _pixels(source)[0, :, 0, 0].tolist() == [10, 20, 30]


def test_a_file_that_is_no_image_is_named(tmp_path):
    _two_classes(tmp_path, np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    (tmp_path / "a" / "notes.png").write_text("hello")
    assert _refused(tmp_path, "a/notes.png cannot be read as an image")


def test_a_corrupt_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    _two_classes(tmp_path / "set", noise, noise)
    path = tmp_path / "set" / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match=r"b/1\.png cannot be read as an image"):
        prepare(str(tmp_path / "set"), tmp_path / "data", seed=0, validation=0)


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


def test_no_training_folder(tmp_path):
    _save(tmp_path / "test" / "a" / "1.png", np.zeros((2, 2), np.uint8))
    assert _refused(tmp_path, "has test but no train folder")


def test_an_empty_training_folder(tmp_path):
    (tmp_path / "train").mkdir()
    assert _refused(tmp_path, "an image has 0 bytes|training images of 0 classes")
