"""The file of a boundary: records of one size, in the order of their rows, then the index."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_trgl.runtime.errors import RESUME, DamagedBoundaryError, StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.boundary_index import Rows
from edge_trgl.runtime.storage.boundary_spec import ENTRY_BYTES, BoundarySpec
from edge_trgl.runtime.storage.direct_reads import DirectReads, Slots
from edge_trgl.runtime.storage.write_behind import WriteBehind

DAMAGED_HINT = (
    "If this error returns, the last commit is damaged: check the disk and start the run again. "
    f"To go back to the last commit: {RESUME}"
)
"""For boundaries that only training itself can write again."""

_FETCH_BYTES = 128 << 10
"""Size of one read-ahead request; some disks cut longer ones down to this."""


@dataclass(kw_only=True)
class Traffic:
    """Bytes read from and written to the files of a store."""

    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """`length` consecutive rows from `row` on, which belong at `position` of a batch."""

    position: int
    row: int
    length: int


def runs_of(rows: Rows) -> list[Run]:
    """Split `rows` [B], B >= 1, into runs of consecutive rows."""
    starts = [0, *(np.flatnonzero(rows[1:] != rows[:-1] + 1) + 1).tolist()]
    stops = [*starts[1:], len(rows)]
    return [
        Run(position=start, row=int(rows[start]), length=stop - start)
        for start, stop in zip(starts, stops, strict=True)
    ]


class RecordFile:
    """An open file of records, which keeps its part of the page cache small.

    Attributes:
        path: of the file.

    Raises, from each of its methods:
        StorageError: the disk is full or fails, or the file is not as long as it was.
    """

    def __init__(self, spec: BoundarySpec, path: Path, fd: int, traffic: Traffic) -> None:
        self.path = path
        self._spec = spec
        self._fd = fd
        self._traffic = traffic
        self._cached: set[int] = set()
        self._behind = WriteBehind(fd) if spec.is_large else None
        self._direct = DirectReads(path, spec)

    @classmethod
    def create(cls, spec: BoundarySpec, path: Path, traffic: Traffic) -> RecordFile:
        """Create a file with all its space allocated; after an error there is none."""
        fd = files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            files.allocate(fd, spec.file_bytes)
        except StorageError:
            files.close_file(fd)
            files.remove(path)
            raise
        return cls(spec, path, fd, traffic)

    @classmethod
    def reopen(cls, spec: BoundarySpec, path: Path, traffic: Traffic) -> RecordFile:
        """Open an existing file, which must have its full length.

        Raises:
            DamagedBoundaryError: the file is missing or has another length.
        """
        if not path.exists():
            raise DamagedBoundaryError(
                f"boundary {spec.name!r} is lost: {path} does not exist", hint=DAMAGED_HINT, boundary=spec.name
            )
        fd = files.open_file(path, os.O_RDWR)
        num_bytes = files.size(fd)
        if num_bytes != spec.file_bytes:
            files.close_file(fd)
            raise DamagedBoundaryError(
                f"boundary {spec.name!r} is damaged: {path} has {num_bytes} bytes "
                f"where {spec.file_bytes} were written",
                hint=DAMAGED_HINT,
                boundary=spec.name,
            )
        return cls(spec, path, fd, traffic)

    def close(self) -> None:
        """Close the file."""
        if self._behind is not None:
            self._behind.close()
        self._direct.close()
        files.close_file(self._fd)

    def write(self, row: int, data: memoryview) -> None:
        """Write the records `data` from `row` on."""
        start = row * self._spec.record_bytes
        files.write_all(self._fd, data, start)
        self._traffic.bytes_written += len(data)
        if self._behind is not None:
            self._behind.written(start, start + len(data))

    def read(self, row: int, data: memoryview) -> None:
        """Fill `data` with the records from `row` on."""
        files.read_into(self._fd, data, row * self._spec.record_bytes)
        self._traffic.bytes_read += len(data)

    def fetch(self, rows: Rows, slots: Rows, memory: Slots) -> None:
        """Read `rows` [N], ascending and all of one chunk, into `slots` [N] of `memory`; not by the page cache."""
        for run in runs_of(rows):
            self._direct.read(run.row, slots[run.position : run.position + run.length], memory)
        self._traffic.bytes_read += len(rows) * self._spec.record_bytes

    def expect(self, rows: Rows) -> None:
        """Tell the kernel to read ahead the chunks of `rows` [N], which are read next, and to drop all others if
        the file is large."""
        chunks = np.zeros(-(-self._spec.num_records // self._spec.chunk_records), np.bool_)
        chunks[rows // self._spec.chunk_records] = True
        wanted = set(np.flatnonzero(chunks).tolist())
        for chunk in self._cached - wanted if self._spec.is_large else ():
            files.drop_cache(self._fd, *self._extent(chunk))
        for chunk in sorted(wanted - self._cached):
            start, length = self._extent(chunk)
            for offset in range(start, start + length, _FETCH_BYTES):
                files.will_need(self._fd, offset, min(_FETCH_BYTES, start + length - offset))
        self._cached = wanted

    def _extent(self, chunk: int) -> tuple[int, int]:
        """Offset and length of a chunk in bytes, rounded to whole pages."""
        num_bytes = self._spec.chunk_records * self._spec.record_bytes
        start, stop = chunk * num_bytes, min((chunk + 1) * num_bytes, self._spec.data_bytes)
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        return first, -(-stop // mmap.PAGESIZE) * mmap.PAGESIZE - first

    def write_index(self, row: int, data: memoryview) -> None:
        """Write the index entries `data` of the rows from `row` on."""
        files.write_all(self._fd, data, self._spec.data_bytes + row * ENTRY_BYTES)
        self._traffic.bytes_written += len(data)

    def read_index(self, row: int, data: memoryview) -> None:
        """Fill `data` with the index entries of the rows from `row` on."""
        files.read_into(self._fd, data, self._spec.data_bytes + row * ENTRY_BYTES)
        self._traffic.bytes_read += len(data)

    def sync(self) -> None:
        """Wait until everything that was written is on the disk; after an error never call it again."""
        if self._behind is not None:
            self._behind.wait()
        files.sync(self._fd)
        if self._spec.is_large:
            files.drop_cache(self._fd, 0, self._spec.file_bytes)
