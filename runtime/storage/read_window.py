"""The records of a boundary that are read next, in memory: a thread reads them while the caller computes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage.boundary_index import Rows
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.direct_reads import Slots, aligned
from edge_trgl.runtime.storage.record_codec import as_rows

_NOWHERE = -1


class Source(Protocol):
    """Records on disk, as a window needs them."""

    spec: BoundarySpec

    def fetch(self, rows: Rows, slots: Rows, memory: Slots) -> None:
        """Read `rows` [N], ascending and all of one chunk, into `slots` [N] of `memory`."""
        ...


@dataclass(frozen=True)
class _Load:
    """`rows` [N] of one chunk on their way to `slots` [N]."""

    rows: Rows
    slots: Rows


class ReadWindow:
    """Holds each record from when its chunk is read until the batch that needs it.

    The records of a chunk are used at different times, but within one window of the shuffled order: so each chunk
    is read once, in one piece, although a slot is free again as soon as its record was used.

    Args:
        source: where the records are.
        batch_size: maximum number of records of a batch.
        thread: reads in the background.
    """

    def __init__(self, source: Source, batch_size: int, thread: ThreadPoolExecutor) -> None:
        spec = source.spec
        num_slots = spec.window(batch_size)
        self.source = source
        self._thread = thread
        self._memory = aligned(num_slots * spec.record_bytes).view(num_slots, spec.record_bytes)
        self._rows = as_rows(self._memory, spec)
        self._slot_of = np.full(spec.num_records, _NOWHERE, np.int32)
        # The first `num_free` are free.
        self._free, self._num_free = np.arange(num_slots, dtype=np.int32), num_slots
        self._is_coming = np.zeros(num_slots, np.bool_)
        self._upcoming = np.empty(0, np.int32)
        self._loads: Sequence[_Load] = ()
        self._done: Future[None] | None = None

    def take(self, rows: Rows, out: Tensor) -> None:
        """Copy `rows` [B] to `out` [B, ...] and let them go; those that are not here yet are read first.

        Raises:
            StorageError: they cannot be read.
        """
        if not np.array_equal(self._upcoming[: len(rows)], rows):
            self.forget()
            self._upcoming = rows
        if self._is_missing(rows):
            self._finish()
            self._begin()  # whole chunks, in the order of their use
            self._finish()
        elif self._is_coming[self._slot_of[rows]].any():
            self._finish()
        if self._is_missing(rows):
            self._read_now(rows)
        slots = self._slot_of[rows]
        torch.index_select(self._rows, 0, torch.from_numpy(slots), out=out)
        self._let_go(rows, slots)

    def announce(self, rows: Rows) -> None:
        """Read as many of `rows` [N], which are taken next and in this order, as there are slots for.

        Records of the same chunk that are not among them are left out.
        """
        self._upcoming = rows
        if self._done is not None and self._done.done():
            self._finish()
        if self._done is None:
            self._begin()

    def forget(self) -> None:
        """Wait for the thread, and let go of all records."""
        self._finish()
        self._slot_of.fill(_NOWHERE)
        self._num_free = len(self._free)
        self._free[:] = np.arange(self._num_free)
        self._upcoming = np.empty(0, np.int32)

    def _is_missing(self, rows: Rows) -> bool:
        return bool((self._slot_of[rows] == _NOWHERE).any())

    def _let_go(self, rows: Rows, slots: Rows) -> None:
        self._slot_of[rows] = _NOWHERE
        freed = _distinct(slots)
        self._free[self._num_free : self._num_free + len(freed)] = freed
        self._num_free += len(freed)

    def _begin(self) -> None:
        """Let the thread read chunks, in the order of their first use, for the slots that are free."""
        self._loads = self._next_loads()
        for load in self._loads:
            self._is_coming[load.slots] = True
        if self._loads:
            self._done = self._thread.submit(_fetch, self.source, self._loads, self._memory.numpy())

    def _finish(self) -> None:
        """Wait for the thread. If it failed, its records are not here: `take` reads them again."""
        if self._done is None:
            return
        try:
            self._done.result()
        except StorageError:
            for load in self._loads:
                self._let_go(load.rows, load.slots)
        self._is_coming[:] = False
        self._loads, self._done = (), None

    def _read_now(self, rows: Rows) -> None:
        """Read these rows and nothing else."""
        self.forget()
        self._upcoming = rows
        try:
            _fetch(self.source, self._next_loads(), self._memory.numpy())
        except StorageError:
            self.forget()
            raise

    def _next_loads(self) -> list[_Load]:
        """Give slots to the missing rows of `upcoming`, chunk by chunk, as long as there are enough."""
        spec, loads = self.source.spec, []
        missing = self._upcoming[self._slot_of[self._upcoming] == _NOWHERE]
        chunks = missing % spec.records // spec.chunk_records
        while len(missing):
            mine = chunks == chunks[0]
            rows = _distinct(missing[mine])
            if len(rows) > self._num_free:
                break
            self._num_free -= len(rows)
            slots = self._free[self._num_free : self._num_free + len(rows)].copy()
            self._slot_of[rows] = slots
            loads.append(_Load(rows, slots))
            missing, chunks = missing[~mine], chunks[~mine]
        return loads


def _distinct(numbers: Rows) -> Rows:
    """Return the distinct numbers in ascending order, as `np.unique`, which takes twice the time for so few."""
    ascending = np.sort(numbers)
    is_new = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=is_new[1:])
    return ascending[is_new]


def _fetch(source: Source, loads: Sequence[_Load], memory: Slots) -> None:
    for load in loads:
        source.fetch(load.rows, load.slots, memory)
