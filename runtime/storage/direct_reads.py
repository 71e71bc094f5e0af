"""Reads of a file that leave out the page cache.

The disk then writes straight into the memory of the process. By way of the page cache, the kernel takes at least
twice the processor time: it makes pages, copies them and lets them go again, on a core that computes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.boundary_index import Rows
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

Slots = npt.NDArray[np.uint8]
"""Memory for records: uint8 [slots, bytes of a record]."""

SECTOR_BYTES = 512
"""What most disks read at a time: places in the file and in memory are multiples of it."""

PAGE_BYTES = 4096
"""The same for every disk."""


def aligned(num_bytes: int) -> torch.Tensor:
    """Allocate uninitialised memory, uint8 [num_bytes], that begins at a multiple of `PAGE_BYTES`."""
    memory = torch.empty(num_bytes + PAGE_BYTES, dtype=torch.uint8)
    start = -memory.data_ptr() % PAGE_BYTES
    return memory[start : start + num_bytes]


class DirectReads:
    """Reads records into slots of a memory that `aligned` made.

    Records of whole sectors go straight to their slots, others by way of a buffer. Where the file system knows no
    direct reads, they come through the page cache and are dropped from it.
    """

    def __init__(self, path: Path, spec: BoundarySpec) -> None:
        self._path = path
        self._record_bytes = spec.record_bytes
        self._chunk_bytes = spec.chunk_records * spec.record_bytes
        self._fd: int | None = None
        self._is_direct = True
        # Small records would make too many parts of a read.
        self._in_sectors = self._record_bytes % SECTOR_BYTES == 0 and self._record_bytes >= PAGE_BYTES
        self._buffer: Slots | None = None

    def read(self, row: int, slots: Rows, memory: Slots) -> None:
        """Read the records from `row` on, at most a chunk, into `slots` [N] of `memory`.

        Raises:
            StorageError: the file ends before, or cannot be read.
        """
        start, length = row * self._record_bytes, len(slots) * self._record_bytes
        if self._in_sectors:
            self._fill([memory[slot].data for slot in slots.tolist()], start, length)
            return
        first = start // PAGE_BYTES * PAGE_BYTES
        buffer = self._buffer_of(-(-(start + length - first) // PAGE_BYTES) * PAGE_BYTES)
        self._fill([buffer.data], first, start + length - first)
        memory[slots] = buffer[start - first :][:length].reshape(len(slots), -1)

    def close(self) -> None:
        """Close the file and release the buffer."""
        self._buffer = None
        if self._fd is not None:
            files.close_file(self._fd)
            self._fd = None

    def _fill(self, buffers: Sequence[memoryview], start: int, needed: int) -> None:
        if self._is_direct:
            try:
                files.scatter_into(self._opened(), buffers, start, needed)
                return
            except StorageError as error:
                if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EINVAL:
                    raise
            self._use_page_cache()
        files.scatter_into(self._opened(), buffers, start, needed)
        files.drop_cache(self._opened(), start, needed)

    def _opened(self) -> int:
        if self._fd is None:
            self._fd = files.open_file(self._path, os.O_RDONLY | (os.O_DIRECT if self._is_direct else 0))
        return self._fd

    def _use_page_cache(self) -> None:
        self._is_direct = False
        if self._fd is not None:
            files.close_file(self._fd)
            self._fd = None

    def _buffer_of(self, num_bytes: int) -> Slots:
        if self._buffer is None:
            self._buffer = aligned(self._chunk_bytes + 2 * PAGE_BYTES).numpy()
        return self._buffer[:num_bytes]
