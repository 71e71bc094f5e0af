"""Buffers for records that are read: one for the current batch, and a window of those that are read ahead."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from edge_trgl.runtime.storage.boundary_index import Rows
from edge_trgl.runtime.storage.boundary_spec import WINDOW_CHUNKS, BoundarySpec
from edge_trgl.runtime.storage.read_window import ReadWindow
from edge_trgl.runtime.storage.record_codec import empty_rows
from edge_trgl.runtime.storage.stored_rows import StoredRows


class ReadBuffers:
    """Buffers for records of the shape and dtype that was read last.

    Args:
        batch_size: maximum number of records of a batch.
        reuse: use the same buffer for every batch; otherwise allocate a new one.
        ahead: read the next records of a large file into memory; otherwise they are left to the page cache.
    """

    def __init__(self, batch_size: int, *, reuse: bool, ahead: bool) -> None:
        self._ahead = ahead
        self._batch_size = batch_size
        self._reuse = reuse
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._kind: tuple[tuple[int, ...], str] | None = None
        self._buffer: Tensor | None = None
        self._window: ReadWindow | None = None

    def current(self, spec: BoundarySpec) -> Tensor:
        """Return a buffer of `batch_size` rows for the batch that is read now."""
        if not self._reuse:
            return empty_rows(spec, self._batch_size)
        kind = (spec.shape, spec.dtype)
        if self._buffer is None or self._kind != kind:
            self._buffer = None  # release the old one first
            self._kind, self._buffer = kind, empty_rows(spec, self._batch_size)
        return self._buffer

    def read(self, stored: StoredRows, rows: Rows) -> Tensor:
        """Return the records `rows` [B] in the current buffer, compared with their checksums.

        Raises:
            DamagedBoundaryError: a record is not what was written.
            StorageError: it cannot be read.
        """
        records = self.current(stored.spec)[: len(rows)]
        if self._is_windowed(stored.spec):
            self._window_of(stored).take(rows, records)
            stored.verify(records, rows)
        else:
            stored.fill(records, rows)
        return records

    def announce(self, stored: StoredRows, rows: Rows) -> None:
        """Prepare to read `rows` [N] next, in this order."""
        if self._is_windowed(stored.spec):
            self._window_of(stored).announce(rows)
        elif self._ahead or stored.spec.is_large:
            stored.expect(rows)

    def num_announced(self, spec: BoundarySpec) -> int:
        """How many of the next records are worth announcing."""
        if self._is_windowed(spec):
            return 2 * spec.window(self._batch_size)  # so that of each chunk all are known when it is read
        return max(WINDOW_CHUNKS * spec.chunk_records, self._batch_size)

    def forget(self) -> None:
        """Wait for what is being read in the background, and discard it."""
        if self._window is not None:
            self._window.forget()

    def close(self, stored: StoredRows) -> None:
        """Release the window if it is one of these records."""
        if self._window is not None and self._window.source is stored:
            self._window.forget()
            self._window = None

    def let_go(self, specs: Iterable[BoundarySpec]) -> None:
        """Release the buffer if none of these boundaries can use it."""
        if self._kind not in {(spec.shape, spec.dtype) for spec in specs}:
            self._kind, self._buffer = None, None

    def _is_windowed(self, spec: BoundarySpec) -> bool:
        return self._ahead and spec.is_large

    def _window_of(self, stored: StoredRows) -> ReadWindow:
        if self._window is None or self._window.source is not stored:
            self.forget()
            self._window = None  # release its memory first
            self._window = ReadWindow(stored, self._batch_size, self._thread)
        return self._window
