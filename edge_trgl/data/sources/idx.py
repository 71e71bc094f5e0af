"""The idx files of MNIST, Fashion-MNIST, KMNIST, EMNIST and similar sets, raw or gzipped."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources.source import Source, StreamedSplit, check_image_bytes, renumber
from edge_trgl.data.sources.streams import GET_AGAIN, open_stream, read_all_records
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAMES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-… (MNIST family; raw or .gz)"
_IMAGES_MAGIC, _LABELS_MAGIC = 0x0803, 0x0801
_PREFIXES = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def detect(folder: Path) -> list[Path]:
    """Return `folder` if at least one file in it has a name of this format."""
    names = ((prefix, kind) for prefix in _PREFIXES.values() for kind in _KINDS)
    return [folder] if any(_path(folder, *name).is_file() for name in names) else []


def load(folder: Path) -> Source:
    """Read the labels and the headers of the four files.

    Raises:
        InputError: a file is missing, damaged or does not match the others.
    """
    labels = {split: _labels(_path(folder, prefix, _KINDS[1])) for split, prefix in _PREFIXES.items()}
    paths = {split: _path(folder, prefix, _KINDS[0]) for split, prefix in _PREFIXES.items()}
    shapes = {split: _image_shape(paths[split], len(labels[split])) for split in paths}
    if shapes["train"] != shapes["test"]:
        raise InputError(
            f"{folder}: training images are {shapes['train']} and test images {shapes['test']} pixels",
            hint="Both must come from the same set.",
        )
    class_names, numbered = renumber(folder, labels)
    splits = {
        split: StreamedSplit(labels=numbered[split], read_all=partial(_read_images, path, shapes[split]))
        for split, path in paths.items()
    }
    return Source(
        format="idx files", shape=(*shapes["train"], 1), dtype="uint8", class_names=class_names, splits=splits
    )


def _path(folder: Path, prefix: str, kind: str) -> Path:
    """Return the file under whichever of the four spellings exists; the plain one if none does."""
    name = f"{prefix}-{kind}"
    dotted = name.replace("-idx", ".idx")
    candidates = [folder / f"{stem}{suffix}" for stem in (name, dotted) for suffix in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _header(path: Path, content: bytes, magic: int) -> tuple[int, ...]:
    """Return the sizes that a header of `4 + 4 * rank` bytes gives; `magic` is what it must begin with."""
    if len(content) < 4 or int.from_bytes(content[:4], "big") != magic:
        raise InputError(
            f"{path} does not begin with the idx magic number {magic:#010x}",
            hint="It must hold unsigned bytes in the idx format; download or copy the file again.",
        )
    rank = magic & 0xFF
    if len(content) < 4 + 4 * rank:
        raise InputError(f"{path} is cut short in its header", hint=GET_AGAIN)
    return struct.unpack(f">{rank}I", content[4:])


def _labels(path: Path) -> NDArray[np.int64]:
    with open_stream(path) as stream:
        (num_labels,) = _header(path, stream.read(8), _LABELS_MAGIC)
        columns = [records[:, 0] for records in read_all_records(path, stream, num_labels, 1)]
    return np.concatenate([np.empty(0, np.uint8), *columns]).astype(np.int64)


def _image_shape(path: Path, num_labels: int) -> tuple[int, int]:
    with open_stream(path) as stream:
        num_images, height, width = _header(path, stream.read(16), _IMAGES_MAGIC)
    check_image_bytes(path, height * width)
    if num_images != num_labels:
        raise InputError(
            f"{path} holds {num_images} images, but there are {num_labels} labels for them",
            hint="The two files must come from the same set.",
        )
    return height, width


def _read_images(path: Path, shape: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    height, width = shape
    with open_stream(path) as stream:
        num_images, *_ = _header(path, stream.read(16), _IMAGES_MAGIC)
        for records in read_all_records(path, stream, num_images, height * width):
            yield records.reshape(-1, height, width, 1)
