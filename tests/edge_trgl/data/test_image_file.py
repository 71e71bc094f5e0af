"""Single image files: what their headers say, and their pixels at the size that is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edge_trgl.data.sources.image_file import decode, read_header
from edge_trgl.runtime.errors import InputError


def _photo(height, width):
    """A smooth picture that differs in every corner."""
    rows, columns = np.linspace(0, 200, height)[:, None], np.linspace(0, 50, width)
    return Image.fromarray(
        np.stack([rows + columns, rows + 0 * columns, 250 - rows - columns], -1).astype(np.uint8)
    )


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert decode(str(tmp_path / "deep.png"), size=None, channels=1)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_become_rgb(tmp_path, mode):
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(tmp_path / "image.tiff")
    pixels = decode(str(tmp_path / "image.tiff"), size=None, channels=3)
    assert pixels.shape == (2, 3, 3)
    assert (pixels == 255).all()


def test_floating_point_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "image.tiff")
    with pytest.raises(InputError, match="its pixels are floating-point numbers"):
        decode(str(tmp_path / "image.tiff"), size=None, channels=1)


WIDE = np.zeros((4, 12), np.uint8)
WIDE[:, 4:8] = 200


@pytest.mark.parametrize(
    ("resize", "rows"),
    [
        ("crop", [[200] * 4] * 4),
        ("squash", [[0, 160, 160, 0]] * 4),  # each pixel is an average of more than three
        ("pad", [[0] * 4, [0] * 4, [0, 160, 160, 0], [0] * 4]),
    ],
)
def test_three_ways_to_a_square(tmp_path, resize, rows):
    Image.fromarray(WIDE).save(tmp_path / "wide.png")
    pixels = decode(str(tmp_path / "wide.png"), size=(4, 4), channels=1, resize=resize)[..., 0].astype(int)
    if resize == "crop":
        assert pixels.tolist() == rows
    else:
        assert (pixels[:, [0, 3]] < 60).all()
        assert (pixels.max(axis=1) > 100).tolist() == [max(row) > 100 for row in rows]


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_reduced_photo_looks_like_the_whole_one(tmp_path, monkeypatch, resize, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    _photo(900, 1200).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    path = str(tmp_path / "photo.jpg")
    sizes = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: sizes.append(image.size) or load(image))
    reduced = decode(path, size=(96, 96), channels=3, resize=resize)
    assert (300, 225) in sizes  # decoded at a quarter: an eighth would be less than twice what is wanted
    monkeypatch.setattr(Image.Image, "draft", lambda image, mode, size: None)
    whole = decode(path, size=(96, 96), channels=3, resize=resize)
    assert np.abs(reduced.astype(int) - whole).mean() < 2
    header = read_header(path)
    assert (header.height, header.width) == ((1200, 900) if orientation > 4 else (900, 1200))


def test_an_image_of_the_wanted_size_is_not_touched(tmp_path):
    _photo(40, 60).save(tmp_path / "photo.jpg")
    wanted = np.asarray(Image.open(tmp_path / "photo.jpg"))
    for resize in ("crop", "squash", "pad"):
        assert (decode(str(tmp_path / "photo.jpg"), size=(40, 60), channels=3, resize=resize) == wanted).all()


def test_a_damaged_orientation_says_nothing_of_the_pixels(tmp_path):
    _photo(4, 6).save(tmp_path / "photo.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    header = read_header(str(tmp_path / "photo.jpg"))
    assert (header.height, header.width) == (4, 6)
    assert decode(str(tmp_path / "photo.jpg"), size=None, channels=3).shape == (4, 6, 3)


def test_reading_the_header_of_a_png_decodes_nothing(tmp_path, monkeypatch):
    _photo(4, 6).save(tmp_path / "photo.png")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    assert not read_header(str(tmp_path / "photo.png")).grey
