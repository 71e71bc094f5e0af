"""`edge-trgl data`, and how the summary of a data set reads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edge_trgl.cli.command import cli
from edge_trgl.cli.data_text import data_text
from edge_trgl.config.data import DataConfig
from edge_trgl.run.data_summary import (
    Augmentation,
    ClassCount,
    DataSummary,
    Sizes,
    UnreadableFile,
    augmentation_of,
)
from edge_trgl.runtime.errors import InputError, UsageError
from edge_trgl.runtime.records import document_of, read_record

PHOTOS = DataSummary(
    source="photos",
    format="image folders",
    shape=(224, 224, 3),
    dtype="uint8",
    sizes=Sizes(smallest=(400, 500), median=(1260, 940), largest=(4000, 3000), distinct=5),
    resize="pad",
    size_from="choice",
    classes=(
        ClassCount(name="cat", train=1200, val=13, test=4),
        ClassCount(name="dog", train=800, val=8, test=0),
    ),
    no_images={".csv": 2, "": 1},
    unreadable=tuple(UnreadableFile(file=f"cat/{number}.jpg", reason="it is empty") for number in range(3)),
    notices=("the folder more stands beside train and is not used",),
    decoded=True,
)
PLAIN = Augmentation(crop_padding=0, flip=False)


def test_a_summary_in_ten_lines():
    assert data_text(PHOTOS, Augmentation(crop_padding=14, flip=True), 80).splitlines() == [
        "data photos: 2,025 images of 2 classes: 2,000 train, 21 val, 4 test",
        "  training: cat 1,200, dog 800 (largest / smallest 1.5)",
        "  size: 500x400 to 3000x4000, 5 different, median 940x1260, colour",
        "  each becomes 224x224, padded to a square (chosen; see --image-size, --resize)",
        "  augmented: cropped at random after 14 pixels of padding, mirrored at random",
        "  left out, no images: 2 .csv, 1 without ending",
        "  left out, cannot be read: 3 images",
        "    cat/0.jpg: it is empty",
        "    cat/1.jpg: it is empty",
        "    and 1 more; --json lists all",
        "  notice: the folder more stands beside train and is not used",
    ]


def test_a_clean_set_of_one_size_is_short():
    clean = replace(
        PHOTOS,
        shape=(28, 28, 1),
        sizes=Sizes(smallest=(28, 28), median=(28, 28), largest=(28, 28), distinct=1),
        size_from="files",
        classes=tuple(replace(one, train=50) for one in PHOTOS.classes),
        no_images={},
        unreadable=(),
        notices=(),
    )
    assert data_text(clean, PLAIN, 80).splitlines()[1:] == [
        "  training: cat, dog (50 images each)",
        "  size: 28x28, grey",
        "  augmented: not",
    ]


def test_windows_are_called_windows():
    windows = replace(PHOTOS, shape=(128, 6), size_from="files", unreadable=(), no_images={})
    text = data_text(windows, PLAIN, 80)
    assert "2,025 windows of 2 classes" in text
    assert "  size: 128 steps of 6 channels" in text
    assert "images" not in text


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_much_of_everything_is_abridged(columns):
    crowded = replace(
        PHOTOS,
        classes=tuple(
            ClassCount(name=f"a class of many words {n}", train=n + 1, val=0, test=0) for n in range(1000)
        ),
        unreadable=tuple(UnreadableFile(file="deep/" * 60 + "1.jpg", reason="broken " * 60) for _ in range(500)),
        notices=("something was done to the data that takes some words to say",) * 9,
    )
    lines = data_text(crowded, PLAIN, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) <= (16 if columns >= 80 else 20)
    text = "\n".join(lines)
    assert "more (largest / smallest 1e+03)" in " ".join(text.split())
    assert "and 498 more; --json lists all" in text
    assert "and 7 more; --json lists all" in text


def test_a_summary_survives_json():
    assert read_record(DataSummary, json.loads(json.dumps(document_of(PHOTOS)))) == PHOTOS
    document = PHOTOS.document(PLAIN)
    assert document["images"] == {"train": 2000, "val": 21, "test": 4}
    assert (document["channels"], document["imbalance"]) == (3, 1.5)
    assert document["augmentation"] == {"crop_padding": 0, "flip": False}


def test_what_training_does_to_images():
    assert augmentation_of(DataConfig(flip=True), (96, 64, 3)) == Augmentation(crop_padding=4, flip=True)
    assert augmentation_of(DataConfig(flip=True, augment=False), (96, 64, 3)) == PLAIN
    assert augmentation_of(DataConfig(flip=True), (96, 3)) == PLAIN


@pytest.fixture
def photos(tmp_path):
    for name, side in (("cat", 40), ("dog", 60)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(np.full((side, side, 3), number, np.uint8)).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    (tmp_path / "photos" / "cat" / "bad.jpg").touch()
    return tmp_path / "photos"


def test_data_prints_a_summary_and_writes_nothing(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    result = CliRunner().invoke(cli, ["data", "photos", "--resize", "crop"], standalone_mode=False)
    assert result.exception is None
    assert "data photos: 20 images of 2 classes: 16 train, 2 val, 2 test" in result.output
    assert "each becomes 48x48, cut to a square" in result.output
    assert "cat/bad.jpg: it is empty" in result.output
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_data_as_json(photos):
    result = CliRunner().invoke(cli, ["data", str(photos), "--json", "--image-size", "32"], standalone_mode=False)
    document = json.loads(result.output)
    assert document["shape"] == [32, 32, 3]
    assert document["size_from"] == "option"
    assert document["resize"] == "squash"
    assert document["classes"][1]["name"] == "dog"
    assert not document["decoded"]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (["--strict"], InputError, "bad.jpg cannot be read as an image: it is empty"),
        (["--resize", "stretch"], UsageError, "data.resize must be crop, squash, pad or none"),
        (["--image-size", "0"], UsageError, "data.image_size must be a whole number of at least 1"),
    ],
)
def test_data_refuses_in_a_sentence(photos, options, kind, text):
    result = CliRunner().invoke(cli, ["data", str(photos), *options], standalone_mode=False)
    assert isinstance(result.exception, kind)
    assert text in result.exception.message
