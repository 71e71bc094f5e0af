"""The Python editions of CIFAR-10 and CIFAR-100, which are pickles."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from edge_trgl.data.sources.safe_pickle import ArrayLocation, load_pickle
from edge_trgl.data.sources.source import Source, StreamedSplit, check_range
from edge_trgl.data.sources.streams import GET_AGAIN, as_input_error, read_records
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAMES = (
    "data_batch_1 … data_batch_5, test_batch (CIFAR-10) or train, test, meta (CIFAR-100), or the folder above"
)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class _Edition:
    """How one of the two sets is published; `labels` and `names` are keys of the pickled dictionaries."""

    folder: str
    format: str
    files: dict[str, tuple[str, ...]]
    labels: bytes
    meta: str
    names: bytes
    num_classes: int

    def is_in(self, folder: Path) -> bool:
        return any((folder / name).is_file() for name in self.files["train"])


_EDITIONS = (
    _Edition(
        folder="cifar-10-batches-py",
        format="CIFAR-10 (Python)",
        files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
        labels=b"labels",
        meta="batches.meta",
        names=b"label_names",
        num_classes=10,
    ),
    _Edition(
        folder="cifar-100-python",
        format="CIFAR-100 (Python)",
        files={"train": ("train",), "test": ("test",)},
        labels=b"fine_labels",
        meta="meta",
        names=b"fine_label_names",
        num_classes=100,
    ),
)


def detect(folder: Path) -> list[Path]:
    """Return the folders that hold such files: `folder`, or some inside it."""
    candidates = [(edition, path) for edition in _EDITIONS for path in (folder, folder / edition.folder)]
    return [path for edition, path in candidates if edition.is_in(path)]


def load(folder: Path) -> Source:
    """Read the labels, and where in the files the images are.

    Raises:
        InputError: a file is missing or damaged, or holds objects other than plain arrays.
    """
    edition = next(edition for edition in _EDITIONS if edition.is_in(folder))
    return Source(
        format=edition.format,
        shape=(32, 32, 3),
        dtype="uint8",
        class_names=_class_names(folder / edition.meta, edition),
        splits={split: _split(folder, names, edition) for split, names in edition.files.items()},
    )


def _class_names(path: Path, edition: _Edition) -> tuple[str, ...]:
    names = load_pickle(path).get(edition.names)
    if (
        not isinstance(names, list)
        or len(names) != edition.num_classes
        or not all(isinstance(name, bytes) for name in names)
    ):
        raise InputError(f"{path} does not hold {edition.num_classes} class names", hint=GET_AGAIN)
    return tuple(name.decode(errors="replace") for name in names)


def _split(folder: Path, names: tuple[str, ...], edition: _Edition) -> StreamedSplit:
    paths = [folder / name for name in names]
    batches = [_batch(path, edition) for path in paths]
    locations = [(path, location) for path, (_, location) in zip(paths, batches, strict=True)]
    return StreamedSplit(
        labels=np.concatenate([labels for labels, _ in batches]), read_all=partial(_read_images, locations)
    )


def _batch(path: Path, edition: _Edition) -> tuple[NDArray[np.int64], ArrayLocation]:
    content = load_pickle(path)
    labels = _labels(path, content.get(edition.labels))
    check_range(path, labels, edition.num_classes)
    location = content.get(b"data")
    expected = (len(labels), _PIXELS)
    if (
        not isinstance(location, ArrayLocation)
        or location.shape != expected
        or location.num_bytes != len(labels) * _PIXELS
    ):
        raise InputError(
            f"{path} has {len(labels)} labels, but its images are not an array of {expected} bytes",
            hint=GET_AGAIN,
        )
    return labels, location


def _labels(path: Path, labels: Any) -> NDArray[np.int64]:
    if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 1 << 31 for label in labels):
        raise InputError(f"{path} does not hold a list of labels", hint=GET_AGAIN)
    return np.array(labels, np.int64)


def _read_images(locations: list[tuple[Path, ArrayLocation]]) -> Iterator[NDArray[np.uint8]]:
    for path, location in locations:
        with _open_at(path, location) as stream:
            for records in read_records(path, stream, location.num_bytes // _PIXELS, _PIXELS):
                yield records.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@contextmanager
def _open_at(path: Path, location: ArrayLocation) -> Iterator[BinaryIO]:
    if location.content:
        yield io.BytesIO(location.content)
        return
    with as_input_error(path), path.open("rb") as stream:
        stream.seek(location.start)
        yield stream
