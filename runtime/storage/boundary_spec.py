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
"""How many chunks are in the page cache while their records are read in random order."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
SCALE_BYTES = 4


def num_scales(shape: tuple[int, ...]) -> int:
    """Number of scales of an int8 record: one per channel of an image, one for a record of one dimension."""
    return shape[0] if len(shape) > 1 else 1


def record_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of one record of this shape and dtype, including the scales of an int8 record."""
    scales = SCALE_BYTES * num_scales(shape) if dtype == "int8" else 0
    return math.prod(shape) * _ITEM_BYTES[dtype] + scales


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
        producer: what wrote the records, for readers of the database.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    records: int
    copies: int = 1
    in_memory: bool = False
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
        """Records of a chunk; the same for every dtype, because the order of an epoch depends on it."""
        return max(1, CHUNK_BYTES // record_bytes(self.shape, "float32"))

    @property
    def data_bytes(self) -> int:
        """Bytes of all records, on disk or in RAM."""
        return self.num_records * self.record_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of the file: records and index."""
        return self.data_bytes + self.num_records * ENTRY_BYTES


@dataclass(frozen=True, kw_only=True)
class BoundaryRecord:
    """What the database stores of a boundary: its file, the records of each copy, the checksum of the index."""

    spec: BoundarySpec
    file: str
    counts: tuple[int, ...]
    index_checksum: str
