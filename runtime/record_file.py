"""The file of a boundary: fixed-size records by the number of their row, then the index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_trgl.runtime import files
from edge_trgl.runtime.boundary_index import Rows
from edge_trgl.runtime.boundary_records import ENTRY_BYTES, BoundarySpec
from edge_trgl.runtime.errors import StorageError

STEP_BYTES = 8 << 20
"""How much is moved, or let go of, at a time."""

DAMAGED_HINT = (
    "`edge-trgl resume` goes back to the last commit; "
    "if this record is part of it, the error returns: check the disk and start the run again"
)

_LARGE_FILE_BYTES = 64 << 20


@dataclass(kw_only=True)
class Traffic:
    """Bytes that went through the files of a store."""

    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """`length` consecutive rows from `row` on that go to `position` of a batch."""

    position: int
    row: int
    length: int


def runs_of(rows: Rows) -> list[Run]:
    """Return the runs, in order, of which `rows` [B] consists; B is at least 1."""
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0]) != 1)
    lengths = np.diff(starts, append=len(rows))
    return [
        Run(position=int(start), row=int(rows[start]), length=int(length))
        for start, length in zip(starts, lengths, strict=True)
    ]


class RecordFile:
    """An open file of records; it keeps the page cache small.

    Raises, from each of its methods:
        StorageError: the disk is full or fails, or the file is not as long as it was.
    """

    def __init__(self, spec: BoundarySpec, fd: int, traffic: Traffic) -> None:
        self._spec = spec
        self._fd = fd
        self._traffic = traffic
        self._is_large = spec.file_bytes >= _LARGE_FILE_BYTES
        self._read_stop = 0
        self._cached_start = 0

    @classmethod
    def create(cls, spec: BoundarySpec, path: Path, traffic: Traffic) -> RecordFile:
        """Make a new file with all its space; after an error there is none."""
        fd = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            files.allocate(fd, spec.file_bytes)
        except StorageError:
            files.close_file(fd)
            files.remove(path)
            raise
        return cls(spec, fd, traffic)

    @classmethod
    def reopen(cls, spec: BoundarySpec, path: Path, traffic: Traffic) -> RecordFile:
        """Open an old file, which must have its full length."""
        fd = files.open_file(path, os.O_RDWR)
        num_bytes = files.size(fd)
        if num_bytes != spec.file_bytes:
            files.close_file(fd)
            raise StorageError(
                f"boundary {spec.name!r} is damaged: {path} has {num_bytes} bytes "
                f"where {spec.file_bytes} were written",
                hint=DAMAGED_HINT,
            )
        return cls(spec, fd, traffic)

    def close(self) -> None:
        """Close the file."""
        files.close_file(self._fd)

    def write(self, row: int, data: memoryview) -> None:
        """Write the records `data` from `row` on."""
        files.write_all(self._fd, data, row * self._spec.record_bytes)
        self._traffic.bytes_written += len(data)

    def read(self, row: int, data: memoryview) -> None:
        """Fill `data` with the records from `row` on."""
        start = row * self._spec.record_bytes
        files.read_into(self._fd, data, start)
        self._traffic.bytes_read += len(data)
        if self._is_large:
            self._drop_behind(start, start + len(data))

    def expect(self, runs: list[Run]) -> None:
        """Let the kernel fetch all runs at once: scattered reads of a cold file are several times faster."""
        if self._is_large:
            stride = self._spec.record_bytes
            for run in runs:
                files.will_need(self._fd, run.row * stride, run.length * stride)

    def write_index(self, row: int, data: memoryview) -> None:
        """Write the index entries `data` of the rows from `row` on."""
        files.write_all(self._fd, data, self._spec.data_bytes + row * ENTRY_BYTES)
        self._traffic.bytes_written += len(data)

    def read_index(self, row: int, data: memoryview) -> None:
        """Fill `data` with the index entries of the rows from `row` on."""
        files.read_into(self._fd, data, self._spec.data_bytes + row * ENTRY_BYTES)
        self._traffic.bytes_read += len(data)

    def sync(self) -> None:
        """Wait until all that was written is on the disk; after an error never call it again."""
        files.sync(self._fd)
        if self._is_large:
            files.drop_cache(self._fd, 0, self._spec.file_bytes)

    def _drop_behind(self, start: int, stop: int) -> None:
        # In steps: read-ahead straddles smaller ones and the kernel then keeps nearly everything.
        if start != self._read_stop:
            self._cached_start = start
        self._read_stop = stop
        if stop - self._cached_start >= STEP_BYTES:
            files.drop_cache(self._fd, self._cached_start, stop - self._cached_start)
            self._cached_start = stop
