"""The index of a boundary: the row of each sample, and the checksum of each row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edge_trgl.runtime.storage.boundary_spec import ENTRY_BYTES, BoundarySpec
from edge_trgl.runtime.storage.checksum import Checksum, checksum_of

Samples = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]

_ENTRY = np.dtype([("sample", "<i8"), ("checksum", "<u8")])
assert _ENTRY.itemsize == ENTRY_BYTES


class Index:
    """The row of each sample in each copy, and the checksum of each row. Row r of copy c is c * records + r."""

    def __init__(self, spec: BoundarySpec, num_samples: int) -> None:
        self._spec = spec
        self.counts = [0] * spec.copies
        self._entries = np.zeros(spec.num_records, dtype=_ENTRY)
        self._rows = np.full((spec.copies, num_samples), -1, dtype=np.int32)

    def clear(self) -> None:
        """Forget all rows."""
        self.counts = [0] * self._spec.copies
        self._rows.fill(-1)

    def next_row(self, samples: Samples, copy: int) -> int:
        """Return the row that the first of `samples` will get."""
        count = self.counts[copy]
        assert count + len(samples) <= self._spec.records, f"{self._spec.name}: more than {self._spec.records}"
        assert (self._rows[copy, samples] < 0).all(), f"{self._spec.name}: a sample is there already"
        return copy * self._spec.records + count

    def append(self, first: int, samples: Samples, copy: int) -> None:
        """Assign the next rows, from `first` = `next_row(samples, copy)` on, to `samples`."""
        self._entries["sample"][first : first + len(samples)] = samples
        self._rows[copy, samples] = np.arange(first, first + len(samples), dtype=np.int32)
        self.counts[copy] += len(samples)

    def rows_of(self, samples: Samples, copy: int) -> Rows:
        """Return the row [B] of each of `samples` [B], all of them appended before."""
        rows: Rows = self._rows[copy, samples]
        assert (rows >= 0).all(), f"{self._spec.name}: no record of sample {samples[rows < 0][0]}"
        return rows

    def known_rows_of(self, samples: Samples, copy: int) -> Rows:
        """Return the rows [N] of those of `samples` [B] that were appended before, in the same order."""
        rows: Rows = self._rows[copy, samples]
        return rows[rows >= 0]

    def checksums(self, rows: Rows) -> list[int]:
        """Return the checksum of each of `rows` [B] as it was written."""
        found: list[int] = self._entries["checksum"][rows].tolist()
        return found

    def set_checksums(self, first: int, data: memoryview) -> None:
        """Store the checksums of the records `data` as those of the rows from `first` on."""
        found = list(checksums(data, self._spec))
        self._entries["checksum"][first : first + len(found)] = found

    def spans(self, counts: list[int]) -> list[tuple[int, int]]:
        """Return the rows (first, stop) of each copy that were appended after the first `counts` of it."""
        starts = [copy * self._spec.records for copy in range(self._spec.copies)]
        spans = [(start + old, start + new) for start, old, new in zip(starts, counts, self.counts, strict=True)]
        return [(first, stop) for first, stop in spans if first < stop]

    def entry_bytes(self, first: int, stop: int) -> memoryview:
        """Return a view of the entries of the rows first..stop."""
        return self._entries[first:stop].view(np.uint8).data

    def digest(self) -> str:
        """Return the checksum of all entries in use."""
        checksum = Checksum()
        for first, stop in self.spans([0] * self._spec.copies):
            checksum.update(self.entry_bytes(first, stop))
        return checksum.hexdigest()

    def rebuild(self) -> None:
        """Recompute the row of each sample from the entries."""
        for first, stop in self.spans([0] * self._spec.copies):
            samples = self._entries["sample"][first:stop]
            self._rows[first // self._spec.records, samples] = np.arange(first, stop, dtype=np.int32)


def checksums(data: memoryview, spec: BoundarySpec) -> Iterator[int]:
    """Return the checksum of each record in `data`."""
    stride = spec.record_bytes
    return (checksum_of(data[start : start + stride]) for start in range(0, len(data), stride))
