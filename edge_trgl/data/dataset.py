"""A prepared data set: the description in its folder, and the check that every file is there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_trgl.run.data_summary import DataSummary
from edge_trgl.runtime.errors import DamagedDataError
from edge_trgl.runtime.records import Document, document_of, read_record
from edge_trgl.runtime.storage.checksum import checksum_of

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 3
DATASET_FILE = "dataset.json"
SURVEY_FILE = "survey.json"
SPLITS = ("train", "val", "test")
ITEM_BYTES = {"uint8": 1, "float32": 4}
PREPARE_AGAIN = "Prepare the data again."


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split on disk: the files `NAME.images`, `NAME.labels` and `NAME.checksums`.

    Args:
        num_images: records in each of the three files.
        images_bytes: size of `NAME.images`.
        labels_checksum: checksum of `NAME.labels`.
        records_checksum: checksum of `NAME.checksums`, which holds one checksum for each image.
    """

    num_images: int
    images_bytes: int
    labels_checksum: str
    records_checksum: str


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The content of `dataset.json`.

    Args:
        shape: (H, W, C) of every image, or (L, C) of every window.
        dtype: "uint8" or "float32".
        num_classes: labels run from 0 to num_classes - 1.
        class_names: one name for each label.
        splits: under "train", "val" and "test"; a split may have no images.
        mean, std: of each channel over the training split; uint8 is scaled to 0–1 first, float32 is not scaled.
        summary: what was found in the data, for people to read.
        fingerprint: SHA-256 (hex) over `.checksums` and `.labels` of train, val and test, in that order.
    """

    shape: tuple[int, ...]
    dtype: str
    num_classes: int
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitInfo]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    summary: DataSummary
    fingerprint: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample as a network reads it: (C, H, W) or (C, L)."""
        return (self.shape[-1], *self.shape[:-1])

    @property
    def scale(self) -> float:
        """What stored values are divided by before `mean` and `std` apply: 255 for uint8, 1 for float32."""
        return 255.0 if self.dtype == "uint8" else 1.0

    @property
    def record_bytes(self) -> int:
        """Bytes of one image on disk."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def encode(info: DatasetInfo) -> bytes:
    """Return the bytes of `dataset.json`."""
    document = {"schema": SCHEMA, **document_of(info)}
    return _canonical({**document, "checksum": checksum_of(_canonical(document))})


def open_dataset(folder: Path) -> DatasetInfo:
    """Read the `dataset.json` of a prepared folder, and check the sizes of its other files.

    Raises:
        DamagedDataError: a file is missing, damaged, of the wrong size, or was written by another version.
    """
    info = _decode(folder / DATASET_FILE)
    for name, split in info.splits.items():
        _check_size(folder / f"{name}.images", split.images_bytes)
        _check_size(folder / f"{name}.labels", split.num_images * 8)
        _check_size(folder / f"{name}.checksums", split.num_images * 8)
    return info


def is_prepared(folder: Path) -> bool:
    """Return whether the data set in a folder was decoded completely."""
    return (folder / DATASET_FILE).is_file()


def open_survey(folder: Path) -> DatasetInfo:
    """Read the description of a data set that may only have been surveyed; see `open_dataset`.

    A survey knows shapes and numbers of images; mean, std and checksums are left empty.

    Raises:
        DamagedDataError: the description is missing or damaged, or so is the data set if it was decoded.
    """
    if is_prepared(folder) or not (folder / SURVEY_FILE).is_file():
        return open_dataset(folder)
    return _decode(folder / SURVEY_FILE)


def _canonical(document: Document) -> bytes:
    """Return the one form of a document that its checksum is taken of."""
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _decode(path: Path) -> DatasetInfo:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedDataError(f"{path} cannot be read: {error.strerror}", hint=PREPARE_AGAIN) from error
    except ValueError as error:
        raise DamagedDataError(f"{path} is damaged: it is not JSON", hint=PREPARE_AGAIN) from error
    checksum = document.pop("checksum", None) if isinstance(document, dict) else None
    if checksum != checksum_of(_canonical(document)):
        raise DamagedDataError(f"{path} is damaged: its checksum does not match", hint=PREPARE_AGAIN)
    if document.pop("schema") != SCHEMA:
        raise DamagedDataError(f"{path} was written by another version", hint=PREPARE_AGAIN)
    return read_record(DatasetInfo, document)


def _check_size(path: Path, expected: int) -> None:
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise DamagedDataError(f"{path} cannot be read: {error.strerror}", hint=PREPARE_AGAIN) from error
    if num_bytes != expected:
        raise DamagedDataError(
            f"{path} is damaged: it has {num_bytes} bytes, {expected} were written", hint=PREPARE_AGAIN
        )
