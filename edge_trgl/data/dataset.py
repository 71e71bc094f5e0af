"""A prepared data set: what its folder holds, and the check that it is all there."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage.checksum import checksum_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 2
DATASET_FILE = "dataset.json"
SURVEY_FILE = "survey.json"
SPLITS = ("train", "val", "test")
ITEM_BYTES = {"uint8": 1, "float32": 4}
PREPARE_AGAIN = "Prepare the data again."


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One split on disk: `NAME.images`, `NAME.labels` and the checksums of its records, `NAME.checksums`.

    Args:
        num_images: records in each of the three files.
        images_bytes: size of `NAME.images`.
        labels_checksum: of `NAME.labels`.
        records_checksum: of `NAME.checksums`.
    """

    num_images: int
    images_bytes: int
    labels_checksum: str
    records_checksum: str


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What `dataset.json` says.

    Args:
        shape: (H, W, C) of every image, or (L, C) where they are windows.
        dtype: "uint8" or "float32".
        num_classes: labels run from 0 to num_classes - 1.
        class_names: one name a label.
        splits: keys "train", "val", "test"; a split may hold no image.
        mean, std: per channel over the training split, on a scale of 0–1 for uint8, as they are for float32.
        fingerprint: sha256 (hex) over `.checksums` and `.labels` of train, val and test, in that order.
    """

    shape: tuple[int, ...]
    dtype: str
    num_classes: int
    class_names: tuple[str, ...]
    splits: Mapping[str, SplitInfo]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One sample as a network reads it: (C, H, W) or (C, L)."""
        return (self.shape[-1], *self.shape[:-1])

    @property
    def scale(self) -> float:
        """Divide stored values by this before taking `mean` and `std`: 255 for uint8, 1 for float32."""
        return 255.0 if self.dtype == "uint8" else 1.0

    @property
    def record_bytes(self) -> int:
        """Size of one image on disk."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def encode(info: DatasetInfo) -> bytes:
    """The content of `dataset.json`."""
    document = {"schema": SCHEMA, **asdict(info)}
    return _canonical({**document, "checksum": checksum_of(_canonical(document))})


def open_dataset(folder: Path) -> DatasetInfo:
    """Read a prepared folder's `dataset.json` and check the sizes of the files it names.

    Raises:
        StorageError: the file is missing or damaged, or another file is missing or has the wrong size.
    """
    info = _decode(folder / DATASET_FILE)
    for name, split in info.splits.items():
        _check_size(folder / f"{name}.images", split.images_bytes)
        _check_size(folder / f"{name}.labels", split.num_images * 8)
        _check_size(folder / f"{name}.checksums", split.num_images * 8)
    return info


def is_prepared(folder: Path) -> bool:
    """Whether the set in a folder was decoded, to its end."""
    return (folder / DATASET_FILE).is_file()


def open_survey(folder: Path) -> DatasetInfo:
    """Read a prepared folder as `open_dataset` does; one that was only surveyed, as far as that goes.

    Raises:
        StorageError: what is there is damaged, or nothing is there.
    """
    if is_prepared(folder) or not (folder / SURVEY_FILE).is_file():
        return open_dataset(folder)
    return _decode(folder / SURVEY_FILE)


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _decode(path: Path) -> DatasetInfo:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", hint=PREPARE_AGAIN) from error
    except ValueError as error:
        raise StorageError(f"{path} is damaged: it is not JSON", hint=PREPARE_AGAIN) from error
    checksum = document.pop("checksum", None) if isinstance(document, dict) else None
    if checksum != checksum_of(_canonical(document)):
        raise StorageError(f"{path} is damaged: its checksum does not match", hint=PREPARE_AGAIN)
    if document.pop("schema") != SCHEMA:
        raise StorageError(f"{path} was written by another version", hint=PREPARE_AGAIN)
    return _from_document(document)


def _from_document(document: dict[str, Any]) -> DatasetInfo:
    splits = {name: SplitInfo(**document["splits"][name]) for name in SPLITS}
    lists = {name: tuple(document[name]) for name in ("shape", "class_names", "mean", "std")}
    return DatasetInfo(**{**document, **lists, "splits": splits})


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", hint=PREPARE_AGAIN) from error
    if found != expected:
        raise StorageError(f"{path} is damaged: it has {found} bytes, {expected} were written", hint=PREPARE_AGAIN)
