"""Reads prepared images during training: records with checked checksums, in a reused buffer."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.data.dataset import PREPARE_AGAIN
from edge_trgl.runtime.errors import DamagedDataError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.checksum import Checksum, checksum_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_trgl.data.dataset import DatasetInfo


class RecordReader:
    """Reads one split of a prepared data set, a batch at a time.

    Reading into one buffer keeps the memory of the process independent of the size of the set.

    Args:
        folder: a prepared folder.
        split: "train", "val" or "test".
        info: the description that `open_dataset(folder)` returned.

    Attributes:
        labels: int64 [N].

    Raises:
        DamagedDataError: the labels or checksums are damaged.
    """

    def __init__(self, folder: Path, split: str, info: DatasetInfo) -> None:
        stored = info.splits[split]
        self._path = folder / f"{split}.images"
        self._shape, self._dtype = info.shape, np.dtype(info.dtype)
        self._record_bytes = info.record_bytes
        self._checksums = _load(folder / f"{split}.checksums", "<u8", stored.num_images, stored.records_checksum)
        labels = _load(folder / f"{split}.labels", "<i8", stored.num_images, stored.labels_checksum)
        self.labels: NDArray[np.int64] = labels.astype(np.int64, copy=False)
        self._buffer = np.empty((0, self._record_bytes), np.uint8)
        self._fd = files.open_file(self._path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, samples: NDArray[np.int64]) -> NDArray[Any]:
        """Read some of the images.

        Args:
            samples: int64 [B], positions from 0 to len(self) - 1 in any order.

        Returns:
            The images in that order, uint8 or float32 [B, *info.shape]: a view of the reader's buffer, valid until
            the next call.

        Raises:
            StorageError: a record does not match its checksum (a DamagedDataError), or the file is cut short.
        """
        assert not len(samples) or 0 <= samples.min() <= samples.max() < len(self), "no such sample"
        if len(samples) > len(self._buffer):
            self._buffer = np.empty((len(samples), self._record_bytes), np.uint8)
        records = self._buffer[: len(samples)]
        for start, stop in _contiguous(samples):
            offset = int(samples[start]) * self._record_bytes
            files.read_into(self._fd, records[start:stop].data.cast("B"), offset)
        self._verify(samples, records)
        return records.view(self._dtype).reshape(-1, *self._shape)

    def close(self) -> None:
        """Close the file; the reader cannot be used afterwards."""
        files.close_file(self._fd)

    def _verify(self, samples: NDArray[np.int64], records: NDArray[np.uint8]) -> None:
        for sample, record in zip(samples.tolist(), records, strict=True):
            if checksum_of(record.data) != self._checksums[sample]:
                raise DamagedDataError(
                    f"{self._path} is damaged: record {sample} does not match its checksum",
                    hint=PREPARE_AGAIN,
                )


def _load(path: Path, dtype: str, num_records: int, checksum: str) -> NDArray[Any]:
    values = np.empty(num_records, dtype)
    with files.opened(path, os.O_RDONLY) as fd:
        files.read_into(fd, values.view(np.uint8).data, 0)
    if Checksum(values.view(np.uint8).data).hexdigest() != checksum:
        raise DamagedDataError(f"{path} is damaged: its checksum does not match", hint=PREPARE_AGAIN)
    return values


def _contiguous(samples: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the start and stop of each part of `samples` that is contiguous on disk."""
    breaks = np.flatnonzero(np.diff(samples) != 1) + 1
    edges = [0, *breaks.tolist(), len(samples)]
    return ((start, stop) for start, stop in itertools.pairwise(edges) if start < stop)
