"""The binary editions of CIFAR-10 and CIFAR-100: for each image its labels, then its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources.source import Source, StreamedSplit, check_range, numbered_classes
from edge_trgl.data.sources.streams import count_records, open_stream, read_names, read_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAMES = (
    "data_batch_1.bin …, test_batch.bin (CIFAR-10) or train.bin, test.bin (CIFAR-100), or the folder above"
)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class _Edition:
    """How one of the two sets is published; `folder` and `files` are the names in its archive."""

    folder: str
    format: str
    files: dict[str, tuple[str, ...]]
    num_label_bytes: int
    names: str
    num_classes: int

    @property
    def record_bytes(self) -> int:
        return self.num_label_bytes + _PIXELS

    def is_in(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in self.files["train"])


_EDITIONS = (
    _Edition(
        folder="cifar-10-batches-bin",
        format="CIFAR-10 (binary)",
        files={
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        num_label_bytes=1,
        names="batches.meta.txt",
        num_classes=10,
    ),
    _Edition(
        folder="cifar-100-binary",
        format="CIFAR-100 (binary)",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        num_label_bytes=2,
        names="fine_label_names.txt",
        num_classes=100,
    ),
)


def detect(folder: Path) -> list[Path]:
    """Return the folders that hold such files: `folder`, or some inside it."""
    candidates = [(edition, path) for edition in _EDITIONS for path in (folder, folder / edition.folder)]
    return [path for edition, path in candidates if edition.is_in(path)]


def load(folder: Path) -> Source:
    """Read the labels; those of CIFAR-100 are the fine ones.

    Raises:
        InputError: a file is missing, cut short or holds a label out of range.
    """
    edition = next(edition for edition in _EDITIONS if edition.is_in(folder))
    names = read_names(folder / edition.names, edition.num_classes)
    return Source(
        format=edition.format,
        shape=(32, 32, 3),
        dtype="uint8",
        class_names=names or numbered_classes(edition.num_classes),
        splits={
            split: _split([folder / name for name in files], edition) for split, files in edition.files.items()
        },
    )


def _split(paths: list[Path], edition: _Edition) -> StreamedSplit:
    labels = np.concatenate([_labels(path, edition) for path in paths])
    return StreamedSplit(labels=labels, read_all=partial(_images, paths, edition))


def _labels(path: Path, edition: _Edition) -> NDArray[np.int64]:
    fine = edition.num_label_bytes - 1
    labels = np.concatenate([records[:, fine] for records in _records(path, edition)]).astype(np.int64)
    check_range(path, labels, edition.num_classes)
    return labels


def _images(paths: list[Path], edition: _Edition) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        for records in _records(path, edition):
            pixels = records[:, edition.num_label_bytes :]
            yield pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _records(path: Path, edition: _Edition) -> Iterator[NDArray[np.uint8]]:
    num_records = count_records(path, edition.record_bytes)
    with open_stream(path) as stream:
        yield from read_records(path, stream, num_records, edition.record_bytes)
