"""What was written goes to the disk while the writer goes on, and leaves the page cache."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

STEP_BYTES = 4 * MIB
"""How much is moved, or let go of, at a time."""

STEPS_UNDER_WAY = 2
"""A writer waits where more steps than these have not reached the disk."""


class WriteBehind:
    """One thread for one file, which it does not own.

    The thread has no buffers: what it sends lies in the page cache, which holds `STEPS_UNDER_WAY` + 2 steps of the
    file at most. What is overwritten meanwhile is merely sent twice.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-behind")
        self._under_way: deque[Future[None]] = deque()
        self._start = self._stop = 0

    def written(self, start: int, stop: int) -> None:
        """The bytes from `start` to `stop` were written; returns at once, or when the disk has caught up.

        Raises:
            StorageError: the disk did not take something that was written before; the file is good for nothing.
        """
        if start != self._stop:
            self._send()
            self._start = start
        self._stop = stop
        if stop - self._start >= STEP_BYTES:
            self._send()

    def wait(self) -> None:
        """Wait for all that is under way.

        Raises:
            StorageError: as `written`.
        """
        while self._under_way:
            self._under_way.popleft().result()

    def close(self) -> None:
        """Wait for the thread, whatever became of what it sent."""
        with contextlib.suppress(StorageError):
            self.wait()
        self._thread.shutdown()

    def _send(self) -> None:
        while len(self._under_way) >= STEPS_UNDER_WAY:
            self._under_way.popleft().result()
        if self._start < self._stop:
            self._under_way.append(self._thread.submit(_flush, self._fd, self._start, self._stop - self._start))
        self._start = self._stop


def _flush(fd: int, start: int, length: int) -> None:
    files.write_out(fd, start, length)
    files.drop_cache(fd, start, length)
