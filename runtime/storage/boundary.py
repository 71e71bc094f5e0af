"""One boundary: its records on disk or in memory, and how they become durable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_trgl.runtime.errors import DamagedBoundaryError, StorageError
from edge_trgl.runtime.storage.boundary_index import Index, Rows, Samples
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord, BoundarySpec
from edge_trgl.runtime.storage.read_buffers import ReadBuffers
from edge_trgl.runtime.storage.record_codec import decoded, empty_rows, encoded, store
from edge_trgl.runtime.storage.record_file import DAMAGED_HINT, RecordFile, Traffic
from edge_trgl.runtime.storage.safetensors_file import bytes_of
from edge_trgl.runtime.storage.stored_rows import StoredRows


class Shared:
    """What all boundaries of a store share: the samples, the batch size, counters and buffers."""

    def __init__(self, num_samples: int, batch_size: int, *, reuse: bool, ahead: bool) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.traffic = Traffic()
        self.buffers = ReadBuffers(batch_size, reuse=reuse, ahead=ahead)


class Boundary:
    """The records of one boundary. `ActivationStore` creates, commits and restores it; others append and read.

    Attributes:
        spec: what it holds.
        path: its file; a boundary in memory has one from its first commit on.
        is_committed: whether a commit has named the file.
    """

    def __init__(self, spec: BoundarySpec, path: Path, shared: Shared) -> None:
        self.spec = spec
        self.path = path
        self.is_committed = False
        self._shared = shared
        self._index = Index(spec, shared.num_samples)
        self._durable_counts = [0] * spec.copies
        self._sync_failed = False
        self._stored: StoredRows | None = None
        # [N, ...]: rows as `empty_rows` makes them
        self._memory = empty_rows(spec, spec.num_records) if spec.in_memory else None

    @property
    def has_file(self) -> bool:
        """Whether its file was made and is open."""
        return self._stored is not None

    @property
    def num_written(self) -> tuple[int, ...]:
        """Number of records appended so far, by copy."""
        return tuple(self._index.counts)

    def append(self, samples: Samples, values: Tensor, *, copy: int = 0) -> None:
        """Append one record for each sample, in order.

        Args:
            samples: [B], none of which this copy has yet.
            values: [B, *shape]; channels-last batches of images are written without a copy.
            copy: number of the augmented copy.

        Raises:
            StorageError: the disk fails; nothing was appended.
        """
        assert values.shape == (len(samples), *self.spec.shape), f"{self.spec.name}: {tuple(values.shape)}"
        first = self._index.next_row(samples, copy)
        values = values.detach()
        if self._memory is not None:
            store(self._memory[first : first + len(samples)], values, self.spec)
        else:
            assert self._stored is not None
            self._stored.write(first, bytes_of(encoded(values, self.spec)))
        self._index.append(first, samples, copy)

    @property
    def window(self) -> int:
        """Number of records that `read` should be told of in advance; at least a whole batch."""
        return self._shared.buffers.num_announced(self.spec)

    def read(self, samples: Samples, *, copy: int = 0, then: Samples | None = None) -> Tensor:
        """Return the records of some samples.

        The tensor is a view of a buffer: it is valid until the next `read` of any boundary of the same shape and
        dtype, and must not be written to.

        Args:
            samples: [B], B <= `batch_size`, in any order, all of them appended before.
            copy: number of the augmented copy.
            then: [N], the samples of this copy that are read next, in order; those not appended yet are ignored.
                It affects only the speed. `window` samples are enough; the others of a large file are dropped from
                the page cache.

        Returns:
            [B, *shape] in the boundary's dtype, float32 where that is int8; channels-last strides where records
            are images.

        Raises:
            DamagedBoundaryError: a record is not what was written.
            StorageError: it cannot be read.
        """
        assert 0 < len(samples) <= self._shared.batch_size, f"{len(samples)} samples"
        rows = self._index.rows_of(samples, copy)
        if self._memory is not None:
            return decoded(self._remembered(self._memory, rows), self.spec)
        assert self._stored is not None
        records = self._shared.buffers.read(self._stored, rows)
        if then is not None:
            self._shared.buffers.announce(self._stored, self._index.known_rows_of(then, copy))
        return decoded(records, self.spec)

    def _remembered(self, memory: Tensor, rows: Rows) -> Tensor:
        first = int(rows[0])
        if np.array_equal(rows, np.arange(first, first + len(rows))):
            return memory[first : first + len(rows)]
        buffer = self._shared.buffers.current(self.spec)[: len(rows)]
        torch.index_select(memory, 0, torch.from_numpy(rows), out=buffer)
        return buffer

    def make_file(self) -> None:
        """Create the file with all its space allocated.

        Raises:
            StorageError: the disk has no room for it; there is no file.
        """
        file = RecordFile.create(self.spec, self.path, self._shared.traffic)
        self._stored = StoredRows(self.spec, self._index, file)

    def clear(self) -> None:
        """Remove all records, but keep the space."""
        self._shared.buffers.forget()  # what was read ahead is overwritten next
        self._index.clear()

    def close(self) -> None:
        """Release the memory and close the file, which is kept."""
        self._memory = None
        if self._stored is not None:
            self._shared.buffers.close(self._stored)
            self._stored.file.close()
            self._stored = None

    def commit(self) -> BoundaryRecord:
        """Make the records appended so far durable; the caller must sync the folder.

        Raises:
            StorageError: the disk is full or fails. The last commit is still valid; use `reopen` to return to it.
        """
        assert not self._sync_failed, "restore the store before the next commit"
        if self._stored is None:
            self.make_file()
        assert self._stored is not None
        if not self.is_committed or self._durable_counts != self._index.counts:
            self._persist(self._stored)
        self.is_committed = True
        return BoundaryRecord(
            spec=self.spec,
            file=self.path.name,
            counts=self.num_written,
            index_checksum=self._index.digest(),
        )

    def _persist(self, stored: StoredRows) -> None:
        for first, stop in self._index.spans(self._durable_counts):
            if self._memory is not None:
                stored.save(self._memory, first, stop)
            stored.write_index(first, stop)
        self._sync_failed = True
        stored.file.sync()
        self._sync_failed = False
        self._durable_counts = list(self._index.counts)

    @classmethod
    def reopen(cls, record: BoundaryRecord, path: Path, shared: Shared) -> Boundary:
        """Return the boundary in the state of the commit that returned `record`.

        Raises:
            DamagedBoundaryError: the file is missing, cut or damaged.
            StorageError: it cannot be read.
        """
        boundary = cls(record.spec, path, shared)
        file = RecordFile.reopen(record.spec, path, shared.traffic)
        boundary._stored = StoredRows(record.spec, boundary._index, file)
        try:
            boundary._load(boundary._stored, record)
        except StorageError:
            boundary.close()
            raise
        return boundary

    def _load(self, stored: StoredRows, record: BoundaryRecord) -> None:
        self._index.counts = list(record.counts)
        spans = self._index.spans([0] * self.spec.copies)
        for first, stop in spans:
            stored.read_index(first, stop)
        if self._index.digest() != record.index_checksum:
            raise DamagedBoundaryError(
                f"the index of boundary {self.spec.name!r} in {self.path} is damaged",
                hint=DAMAGED_HINT,
                boundary=self.spec.name,
            )
        self._index.rebuild()
        if self._memory is not None:
            for first, stop in spans:
                stored.load(self._memory, first, stop)
        self._durable_counts = list(record.counts)
        self.is_committed = True
