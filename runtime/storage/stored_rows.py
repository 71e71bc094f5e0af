"""The rows of a boundary's file, each compared with its checksum when it is read."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from edge_trgl.runtime.errors import DamagedBoundaryError
from edge_trgl.runtime.storage.boundary_index import Index, Rows, checksums
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.direct_reads import Slots
from edge_trgl.runtime.storage.record_codec import steps
from edge_trgl.runtime.storage.record_file import DAMAGED_HINT, RecordFile, runs_of
from edge_trgl.runtime.storage.safetensors_file import bytes_of


class StoredRows:
    """Reads and writes rows of `file`, whose checksums are in `index`.

    Raises, from each of its methods:
        DamagedBoundaryError: a record is not what was written.
        StorageError: the disk is full or fails.
    """

    def __init__(self, spec: BoundarySpec, index: Index, file: RecordFile) -> None:
        self.spec = spec
        self.file = file
        self._index = index

    def write(self, row: int, data: memoryview) -> None:
        """Write the records `data` from `row` on, and note their checksums."""
        self.file.write(row, data)
        self._index.set_checksums(row, data)

    def fill(self, buffer: Tensor, rows: Rows) -> None:
        """Read `rows` [B] into `buffer` [B, ...], which is as `empty_rows` makes it."""
        stride, data = self.spec.record_bytes, bytes_of(buffer)
        for run in runs_of(rows):
            start = run.position * stride
            self.file.read(run.row, data[start : start + run.length * stride])
        self._verify(rows, data)

    def fetch(self, rows: Rows, slots: Rows, memory: Slots) -> None:
        """Read `rows` [N], ascending and all of one chunk, into `slots` [N] of `memory`, unverified."""
        self.file.fetch(rows, slots, memory)

    def expect(self, rows: Rows) -> None:
        """Tell the kernel that the chunks of `rows` [N] are read next, and no others."""
        self.file.expect(rows)

    def verify(self, buffer: Tensor, rows: Rows) -> None:
        """Compare `rows` [B] in `buffer` [B, ...] with their checksums."""
        self._verify(rows, bytes_of(buffer))

    def save(self, memory: Tensor, first: int, stop: int) -> None:
        """Write the rows first..stop of `memory` [N, ...]."""
        for row, data in steps(memory, first, stop):
            self.write(row, data)

    def load(self, memory: Tensor, first: int, stop: int) -> None:
        """Read the rows first..stop into `memory` [N, ...]."""
        for row, data in steps(memory, first, stop):
            self.file.read(row, data)
            num_rows = len(data) // self.spec.record_bytes
            self._verify(np.arange(row, row + num_rows, dtype=np.int32), data)

    def write_index(self, first: int, stop: int) -> None:
        """Write the index entries of the rows first..stop."""
        self.file.write_index(first, self._index.entry_bytes(first, stop))

    def read_index(self, first: int, stop: int) -> None:
        """Read the index entries of the rows first..stop."""
        self.file.read_index(first, self._index.entry_bytes(first, stop))

    def _verify(self, rows: Rows, data: memoryview) -> None:
        found, written = list(checksums(data, self.spec)), self._index.checksums(rows)
        if found == written:
            return
        for row, checksum, expected in zip(rows, found, written, strict=True):
            if checksum != expected:
                raise DamagedBoundaryError(
                    f"boundary {self.spec.name!r}, record {row} in {self.file.path} is damaged: "
                    f"its checksum is {checksum:016x} where {expected:016x} was written",
                    hint=DAMAGED_HINT,
                    boundary=self.spec.name,
                )
