"""Write-behind: send what was written to the disk in the background, and drop it from the page cache."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

STEP_BYTES = 4 * MIB
"""Size of what is sent to the disk, and dropped from the page cache, at a time."""

STEPS_UNDER_WAY = 2
"""Maximum number of steps that have not reached the disk; the writer waits beyond that."""


class WriteBehind:
    """A background thread that sends a file, which stays open and is closed by its owner, to the disk.

    It needs no buffers: the data is in the page cache, which holds at most `STEPS_UNDER_WAY` + 2 steps of the
    file. Bytes that are overwritten in the meantime are sent twice.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-behind")
        self._under_way: deque[Future[None]] = deque()
        self._start = self._stop = 0

    def written(self, start: int, stop: int) -> None:
        """Note that the bytes from `start` to `stop` were written; wait if the disk is too far behind.

        Raises:
            StorageError: the disk did not take something that was written earlier; the file must not be used any
            more.
        """
        if start != self._stop:
            self._send()
            self._start = start
        self._stop = stop
        if stop - self._start >= STEP_BYTES:
            self._send()

    def wait(self) -> None:
        """Wait until everything that was sent is on the disk.

        Raises:
            StorageError: as `written`.
        """
        while self._under_way:
            self._under_way.popleft().result()

    def close(self) -> None:
        """Wait for the thread and end it; errors are ignored."""
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
