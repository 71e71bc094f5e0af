"""The layout of a boundary and what the database stores of it.

It loads neither torch nor NumPy, because the parent process and the report read the database too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_trgl.runtime.units import MIB

ENTRY_BYTES = 16
"""Size of one entry of a boundary's index on disk."""

CHUNK_BYTES = MIB
"""Approximate size of what is read ahead, or dropped from the page cache, at a time; small reads are slow."""

WINDOW_CHUNKS = 16
"""How many chunks are in the page cache, or in memory, while their records are read in random order."""

LARGE_FILE_BYTES = 64 * MIB
"""From this size on, a file is not left to the page cache."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
SCALE_BYTES = 4


def num_scales(shape: tuple[int, ...]) -> int:
    """Number of scales of an int8 record: one per channel of an image, one for a record of one dimension."""
    return shape[0] if len(shape) > 1 else 1


def record_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of one record of this shape and dtype, including the scales of an int8 record."""
    scales = SCALE_BYTES * num_scales(shape) if dtype == "int8" else 0
    return math.prod(shape) * _ITEM_BYTES[dtype] + scales


def chunk_records(float_bytes: int) -> int:
    """Records of a chunk, each of `float_bytes` bytes as float32.

    It is the same for every dtype, because the order of an epoch depends on it.
    """
    return max(1, CHUNK_BYTES // float_bytes)


def is_large(file_bytes: int) -> bool:
    """Whether a file of that size is kept out of the page cache."""
    return file_bytes >= LARGE_FILE_BYTES


def window_records(chunk: int, batch_size: int, *, in_order: bool) -> int:
    """Records that are held in memory while the next ones are read ahead, beside the batch in use.

    Args:
        chunk: records of a chunk.
        batch_size: records of a batch.
        in_order: whether they are read in the order of the file.
    """
    # Records as large as a chunk need no window: each is a read of its own, in any order.
    shuffled = 0 if in_order or chunk == 1 else WINDOW_CHUNKS * chunk
    return shuffled + chunk + batch_size


@dataclass(frozen=True, kw_only=True)
class BoundarySpec:
    """What a boundary holds.

    Args:
        name: unique in its store; part of the file's name.
        shape: one record, in torch order, for example (C, H, W).
        dtype: "float32", "bfloat16", "float16" or "int8"; values of another dtype are converted when they are
            appended, and int8 records come back as float32.
        records: how many records one copy can hold.
        copies: number of augmented copies of the data.
        in_memory: keep the records in memory; the file is then written at commits only.
        in_order: the records are read in the order in which they were appended.
        producer: what wrote the records, for readers of the database.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    records: int
    copies: int = 1
    in_memory: bool = False
    in_order: bool = False
    producer: str = ""

    @property
    def num_records(self) -> int:
        """Records of all copies."""
        return self.copies * self.records

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return record_bytes(self.shape, self.dtype)

    @property
    def chunk_records(self) -> int:
        """Records of a chunk."""
        return chunk_records(record_bytes(self.shape, "float32"))

    @property
    def data_bytes(self) -> int:
        """Bytes of all records, on disk or in RAM."""
        return self.num_records * self.record_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of the file: records and index."""
        return self.data_bytes + self.num_records * ENTRY_BYTES

    @property
    def is_large(self) -> bool:
        """Whether the file is too large to stay in the page cache."""
        return is_large(self.file_bytes)

    def window(self, batch_size: int) -> int:
        """Records that are held in memory, beside a batch, while the next ones are read ahead."""
        return min(self.num_records, window_records(self.chunk_records, batch_size, in_order=self.in_order))


@dataclass(frozen=True, kw_only=True)
class BoundaryRecord:
    """What the database stores of a boundary: its file, the records of each copy, the checksum of the index."""

    spec: BoundarySpec
    file: str
    counts: tuple[int, ...]
    index_checksum: str
