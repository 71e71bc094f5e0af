"""The labelled images of STL-10, in its binary edition."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources.source import Source, StreamedSplit, check_range, numbered_classes
from edge_trgl.data.sources.streams import count_records, open_stream, read_names, read_records
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAMES = "train_X.bin, train_y.bin, test_X.bin, test_y.bin (STL-10), or the folder above"
_SIDE, _NUM_CLASSES = 96, 10
_RECORD_BYTES = 3 * _SIDE * _SIDE


def detect(folder: Path) -> list[Path]:
    """Return the folders that hold such files: `folder`, or `stl10_binary` inside it."""
    return [path for path in (folder, folder / "stl10_binary") if (path / "train_X.bin").is_file()]


def load(folder: Path) -> Source:
    """Read the labels and count the images.

    Raises:
        InputError: a file is missing, cut short, or does not match the others.
    """
    return Source(
        format="STL-10",
        shape=(_SIDE, _SIDE, 3),
        dtype="uint8",
        class_names=read_names(folder / "class_names.txt", _NUM_CLASSES) or numbered_classes(_NUM_CLASSES),
        splits={name: _split(folder, name) for name in ("train", "test")},
    )


def _split(folder: Path, name: str) -> StreamedSplit:
    images, labels = folder / f"{name}_X.bin", _labels(folder / f"{name}_y.bin")
    num_images = count_records(images, _RECORD_BYTES)
    if num_images != len(labels):
        raise InputError(
            f"{images} holds {num_images} images, but there are {len(labels)} labels for them",
            hint="The two files must come from the same set.",
        )
    return StreamedSplit(labels=labels, read_all=partial(_read_images, images, num_images))


def _labels(path: Path) -> NDArray[np.int64]:
    num_labels = count_records(path, 1)
    with open_stream(path) as stream:
        columns = [records[:, 0] for records in read_records(path, stream, num_labels, 1)]
    labels = np.concatenate(columns).astype(np.int64) - 1
    check_range(f"{path} (counted from 1 there)", labels, _NUM_CLASSES)
    return labels


def _read_images(path: Path, num_images: int) -> Iterator[NDArray[np.uint8]]:
    with open_stream(path) as stream:
        for records in read_records(path, stream, num_images, _RECORD_BYTES):
            # The file holds each channel column by column.
            yield records.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 3, 2, 1)
