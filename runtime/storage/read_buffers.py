"""Buffers for records that are read: one for the current batch, one for the batch that is read ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage.boundary_index import Rows
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.record_codec import empty_rows


class Source(Protocol):
    """Records on disk, as the buffers need them."""

    spec: BoundarySpec

    def expect(self, rows: Rows) -> None:
        """Announce that `rows` [N] are read next."""
        ...

    def fill(self, buffer: Tensor, rows: Rows) -> None:
        """Read `rows` [B] into `buffer`."""
        ...


@dataclass(frozen=True)
class _Coming:
    """A batch that is being read in the background."""

    source: Source
    rows: Rows
    buffer: Tensor
    done: Future[None]


class ReadBuffers:
    """Buffers for records of the shape and dtype that was read last.

    Attributes:
        ahead: whether a thread reads the next batch into a second buffer.

    Args:
        batch_size: maximum number of records of a batch.
        reuse: use the same buffers for every batch; otherwise allocate new ones.
        ahead: see above.
    """

    def __init__(self, batch_size: int, *, reuse: bool, ahead: bool) -> None:
        self.ahead = ahead
        self._batch_size = batch_size
        self._reuse = reuse
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        self._kind: tuple[tuple[int, ...], str] | None = None
        # The buffer of the current batch comes first.
        self._buffers: list[Tensor] = []
        self._coming: _Coming | None = None

    def current(self, spec: BoundarySpec) -> Tensor:
        """Return a buffer of `batch_size` rows for the batch that is read now."""
        self.settle()
        if not self._reuse:
            return empty_rows(spec, self._batch_size)
        self._provide(spec, 1)
        return self._buffers[0]

    def fetch(self, source: Source, rows: Rows) -> None:
        """Read the first batch of `rows` [N] in the background, and announce the rest."""
        self.settle()
        batch = rows[: self._batch_size]
        buffer = self._next(source.spec)[: len(batch)]
        self._coming = _Coming(source, batch, buffer, self._thread.submit(_fetch, source, buffer, rows))

    def fetched(self, source: Source, rows: Rows) -> Tensor | None:
        """Return the records `rows` [B] if they are being read in the background, after waiting for them; else
        None.

        Raises:
            StorageError: what `source.fill` raised.
        """
        coming, self._coming = self._coming, None
        if coming is None:
            return None
        if coming.source is not source or not np.array_equal(coming.rows, rows):
            _wait(coming)
            return None
        coming.done.result()
        self._buffers.reverse()
        return coming.buffer

    def settle(self) -> None:
        """Wait for the batch that is being read in the background, and discard it."""
        if self._coming is not None:
            _wait(self._coming)
            self._coming = None

    def let_go(self, specs: Iterable[BoundarySpec]) -> None:
        """Release the buffers if none of these boundaries can use them."""
        if self._kind not in {(spec.shape, spec.dtype) for spec in specs}:
            self.settle()
            self._kind, self._buffers = None, []

    def _next(self, spec: BoundarySpec) -> Tensor:
        """Return a buffer for the next batch, while the current one is in use."""
        if not self._reuse:
            return empty_rows(spec, self._batch_size)
        self._provide(spec, 2)
        return self._buffers[1]

    def _provide(self, spec: BoundarySpec, count: int) -> None:
        kind = (spec.shape, spec.dtype)
        if self._kind != kind:
            self._kind, self._buffers = kind, []  # release the old ones first
        while len(self._buffers) < count:
            self._buffers.append(empty_rows(spec, self._batch_size))


def _fetch(source: Source, buffer: Tensor, rows: Rows) -> None:
    source.expect(rows)
    source.fill(buffer, rows[: len(buffer)])


def _wait(coming: _Coming) -> None:
    # The batch is discarded. If it is needed, reading it will raise the error again.
    with contextlib.suppress(StorageError):
        coming.done.result()
