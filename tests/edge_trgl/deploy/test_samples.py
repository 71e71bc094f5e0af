"""Files as samples: the same pixels as in training, and one sentence for each file that gives none."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_trgl.data.sources import image_folder
from edge_trgl.deploy.samples import Sample, Unreadable, read_samples


def picture(height=20, width=30, seed=0):
    """Smooth, so that JPEG keeps it."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def read(*paths, shape=(3, 8, 8), **options):
    return list(read_samples(paths, shape, **options))


def sixteen_bit(path):
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    Image.fromarray(values).save(path)


KINDS = {
    "jpeg.jpg": lambda path: picture().save(path),
    "colours.png": lambda path: picture().save(path),
    "grey.png": lambda path: picture().convert("L").save(path),
    "black and white.png": lambda path: picture().convert("1").save(path),
    "cmyk.jpg": lambda path: picture().convert("CMYK").save(path),
    "palette.gif": lambda path: picture().convert("P").save(path),
    "palette.png": lambda path: picture().quantize(16).save(path),
    "transparent.png": lambda path: picture().convert("RGBA").save(path),
    "grey and transparent.png": lambda path: picture().convert("LA").save(path),
    "sixteen bit.png": sixteen_bit,
    "small.bmp": lambda path: picture(3, 5).save(path),
    "one pixel.png": lambda path: picture(1, 1).save(path),
    "web.webp": lambda path: picture().save(path),
    "no ending": lambda path: picture().save(path, format="PNG"),
}


GREY = [kind for kind in KINDS if kind.split()[0] in ("grey.png", "black", "grey", "sixteen")]


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize(("kind", "channels"), [*((kind, 3) for kind in KINDS), *((kind, 1) for kind in GREY)])
def test_images_are_turned_into_what_training_sees(tmp_path, kind, channels, resize):
    KINDS[kind](tmp_path / kind)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
    KINDS[kind](tmp_path / "set" / "a" / kind)
    # A set has three channels where one of its images has colours.
    picture().convert("L" if channels == 1 else "RGB").save(tmp_path / "set" / "b" / "other.png")
    source = image_folder.load(tmp_path / "set", image_size=8, resize=resize)
    assert source.shape == (8, 8, channels)
    (trained,) = source.splits["train"].batches(np.array([0]))
    (sample,) = read(tmp_path / kind, shape=(channels, 8, 8), resize=resize)
    assert sample.values.dtype == np.float32
    np.testing.assert_array_equal(sample.values, trained[0].transpose(2, 0, 1))


def test_a_network_for_values_of_another_unit_takes_no_pixels(tmp_path):
    picture().save(tmp_path / "a.png")
    np.savez(tmp_path / "b.npz", x=np.full((2, 8, 8, 3), 0.5, np.float32))
    refused, *found = read(tmp_path / "a.png", tmp_path / "b.npz", pixels=False)
    assert isinstance(refused, Unreadable)
    assert "a.png has pixels; this network takes values in the units of its training data" in refused.reason
    assert [sample.values.max() for sample in found] == [0.5, 0.5]


def test_an_image_of_the_right_size_is_left_as_it_is(tmp_path):
    picture(6, 9).save(tmp_path / "image.png")
    (sample,) = read(tmp_path / "image.png", shape=(3, 6, 9))
    np.testing.assert_array_equal(sample.values, np.asarray(picture(6, 9)).transpose(2, 0, 1))


def test_what_is_too_long_is_cut_on_both_sides(tmp_path):
    stripes = np.zeros((10, 40, 3), np.uint8)
    stripes[:, 7:33] = 200  # and what the filter reaches beside the middle half
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    (sample,) = read(tmp_path / "wide.png", shape=(3, 5, 10))
    assert (sample.values == 200).all()


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture(20, 30).save(tmp_path / "turned.png", exif=exif)
    (sample,) = read(tmp_path / "turned.png", shape=(3, 30, 20))
    upright = np.asarray(picture(20, 30).transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(sample.values, upright.transpose(2, 0, 1))


def truncated(path):
    picture(200, 300).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-800])


def unknown_coding(path):
    """Pillow's reader of this format raises a RuntimeError."""
    picture().convert("P").save(path)
    content = bytearray(path.read_bytes())
    content[4:8] = (77).to_bytes(4, "little")
    path.write_bytes(content)


BAD = {
    "text renamed.png": (lambda path: path.write_text("no image"), "cannot be read as an image"),
    "cut.jpg": (truncated, "truncated"),
    "empty.png": (lambda path: path.touch(), "is empty"),
    "coding.blp": (unknown_coding, "Unknown BLP compression 77"),
    "pipe.png": (os.mkfifo, "is not a file"),
    "nowhere.png": (lambda path: path.symlink_to("gone"), "there is no file"),
    "floating.tiff": (lambda path: Image.fromarray(np.ones((4, 4), np.float32)).save(path), "floating-point"),
    "program.jpg": (lambda path: path.write_bytes(b"\x7fELF" + bytes(500)), "cannot be read as an image"),
    "pipe.npz": (os.mkfifo, "is not a file"),
    "no archive.npz": (lambda path: path.write_text("no archive"), "cannot be read"),
}


def test_bad_files_among_good_ones(tmp_path):
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    for name in ("a.png", "m.png", "z.png"):
        picture().save(tmp_path / name)
    found = {Path(one.file).name: one for one in read(tmp_path)}
    assert {name for name, one in found.items() if isinstance(one, Sample)} == {"a.png", "m.png", "z.png"}
    assert list(found) == sorted(found)
    for name, (_, text) in BAD.items():
        assert isinstance(found[name], Unreadable)
        assert text in found[name].reason
        assert name in found[name].reason


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "image"


@given(data=st.data())
def test_whatever_was_damaged_is_an_image_or_a_sentence(scratch, data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "BLP"]))
    stream = io.BytesIO()
    turned = Image.Exif()
    turned[274] = 6
    picture().convert("P" if form in ("GIF", "BLP") else "RGB").save(stream, format=form, exif=turned)
    content = bytearray(stream.getvalue())
    # Headers are short and stand at the beginning, but for TIFF's.
    places = st.one_of(st.integers(0, 63), st.integers(-300, -1), st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=9)):
        content[place] = value
    scratch.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    (found,) = read(scratch)
    if isinstance(found, Sample):
        assert found.values.shape == (3, 8, 8)
    else:
        assert found.reason.startswith(str(scratch))


def test_what_pillow_thinks_of_metadata_is_no_line_of_ours(tmp_path, monkeypatch, recwarn):
    def eight_bit(image):
        warnings.warn("corrupt EXIF data", UserWarning, stacklevel=1)
        return image

    picture().save(tmp_path / "a.jpg")
    monkeypatch.setattr("edge_trgl.data.sources.image_file._eight_bit", eight_bit)
    assert isinstance(read(tmp_path)[0], Sample)
    assert not recwarn.list


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    picture().save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    assert "ermission" in read(tmp_path)[0].reason


@pytest.mark.parametrize("limit", [400, 200])
def test_a_bomb(tmp_path, monkeypatch, limit):
    """600 pixels: more than the limit, which Pillow only warns of, and more than twice as many."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    picture().save(tmp_path / "bomb.png")
    (found,) = read(tmp_path)
    assert isinstance(found, Unreadable)
    assert "600 pixels" in found.reason
    assert "bomb.png" in found.reason


def test_an_image_that_memory_has_no_room_for(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise MemoryError

    picture().save(tmp_path / "large.png")
    monkeypatch.setattr("edge_trgl.data.sources.image_file.decode", refuse)
    assert "not enough memory" in read(tmp_path)[0].reason


def test_folders_in_folders_and_hidden_files(tmp_path):
    for name in ("b/2.png", "b/c/1.png", "a.png", ".hidden.png", ".git/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    names = [Path(one.file).relative_to(tmp_path).as_posix() for one in read(tmp_path)]
    assert names == ["a.png", "b/2.png", "b/c/1.png"]


def test_an_empty_folder_is_told(tmp_path):
    (found,) = read(tmp_path)
    assert found.reason == f"{tmp_path} holds no files"


@pytest.mark.parametrize(
    ("axes", "shape"), [("NCL", (5, 6, 30)), ("NLC", (5, 30, 6)), (None, None)], ids=["NCL", "NLC", "none"]
)
def test_windows(tmp_path, axes, shape):
    windows = np.random.default_rng(0).normal(size=(5, 6, 30)).astype(np.float32)
    if axes is None:
        windows = windows[:, :1]
        np.savez(tmp_path / "w.npz", x=windows[:, 0])
    else:
        stored = windows if axes == "NCL" else windows.transpose(0, 2, 1)
        assert stored.shape == shape
        np.savez(tmp_path / "w.npz", x=np.ascontiguousarray(stored), axes=axes)
    found = read(tmp_path / "w.npz", shape=windows.shape[1:])
    assert [one.index for one in found] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.stack([one.values for one in found]), windows)


def test_the_test_set_of_an_archive_for_training(tmp_path):
    arrays = {"x_train": np.zeros((4, 8, 8, 3), np.uint8), "x_test": np.full((2, 8, 8, 3), 7, np.uint8)}
    np.savez(tmp_path / "set.npz", **arrays)
    found = read(tmp_path / "set.npz")
    assert [one.values.tolist() for one in found] == [np.full((3, 8, 8), 7.0).tolist()] * 2


ARCHIVES = {
    "another length": ({"x": np.zeros((2, 40), np.float32)}, "holds samples of 40 × 1"),
    "no array": ({"y": np.zeros((2, 30), np.float32)}, "no array x_test"),
    "truth values": ({"x": np.zeros((2, 30), bool)}, "bool"),
    "no number": ({"x": np.full((2, 30), np.nan, np.float32)}, "not finite"),
    "no sample": ({"x": np.zeros((0, 30), np.float32)}, "holds no samples"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_with(tmp_path, case):
    arrays, text = ARCHIVES[case]
    np.savez(tmp_path / "w.npz", **arrays)
    (found,) = read(tmp_path / "w.npz", shape=(1, 30))
    assert text in found.reason


def _table(path, header="time,x,y,activity", num_rows=10):
    path.write_text("\n".join([header, *(f"{row},{row}.5,{-row},walk" for row in range(num_rows))]))


def test_windows_of_a_csv_file(tmp_path):
    _table(tmp_path / "new.csv")
    found = read(tmp_path / "new.csv", shape=(2, 4))
    assert [one.index for one in found] == [0, 1, 2, 3]
    for index, one in enumerate(found):
        rows = 2 * index + np.arange(4)
        assert one.values.tolist() == [(rows + 0.5).tolist(), (-rows).tolist()]


def test_a_description_beside_a_csv_file_is_obeyed_and_is_no_sample(tmp_path):
    _table(tmp_path / "new.csv", header="when,b,a,what")
    (tmp_path / "readings.toml").write_text('time = "when"\nchannels = ["a", "b"]\nwindow = 9\nstride = 6\n')
    found = read(tmp_path, shape=(2, 4))
    assert [one.values[:, 0].tolist() for one in found] == [[0.0, 0.5], [-6.0, 6.5]]


@pytest.mark.parametrize(
    ("shape", "header", "text"),
    [
        ((3, 4), "time,x,y,activity", "has 2 channels (x, y); the network takes 3"),
        ((2, 40), "time,x,y,activity", "holds no samples"),
        ((3, 8, 8), "time,x,y,activity", "this network takes images"),
        ((2, 4), "time,x,y", "has 4 cells; its header names 3"),
    ],
)
def test_a_csv_file_that_cannot_be_read(tmp_path, shape, header, text):
    _table(tmp_path / "new.csv", header)
    (found,) = read(tmp_path / "new.csv", shape=shape)
    assert text in found.reason


def test_an_archive_that_ends_early_gives_what_came_before(tmp_path):
    """Stored as it is, the first megabytes of a cut array are still good."""
    windows = np.ones((5000, 300), np.float32)
    np.savez(tmp_path / "w.npz", x=windows)
    content = bytearray((tmp_path / "w.npz").read_bytes())
    content[-50_000] ^= 0xFF  # the archive's checksum covers it
    (tmp_path / "w.npz").write_bytes(content)
    *good, last = read(tmp_path / "w.npz", shape=(1, 300))
    assert good
    assert all(isinstance(one, Sample) for one in good)
    assert isinstance(last, Unreadable)


@pytest.mark.parametrize("shape", [(6, 30), (2, 8, 8)])
def test_an_image_for_a_network_that_takes_none(tmp_path, shape):
    picture().save(tmp_path / "image.png")
    (found,) = read(tmp_path / "image.png", shape=shape)
    assert " × ".join(map(str, shape)) in found.reason
