"""The kernel's high-water mark of resident memory, read from /proc because psutil does not have it on Linux.

VmHWM of /proc/PID/status keeps every peak that reading the current size from time to time would miss. Writing 5 to
/proc/PID/clear_refs resets it to the current size, so that each phase has a peak of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SELF = Path("/proc/self")

_STATUS_BYTES = 8192
"""More than a status file has; VmHWM is near its begin."""


def peak_mb(process: Path = SELF) -> float:
    """The most MiB that a process had resident since it began or since `reset`; 0 if it has ended.

    Args:
        process: its folder under /proc.

    Raises:
        OSError: there is no such process.
    """
    # Without a file object and lines, in a third of the time: training reads it twice in every visit.
    status = os.open(f"{process}/status", os.O_RDONLY)
    try:
        _, _, found = os.read(status, _STATUS_BYTES).partition(b"VmHWM:")
    finally:
        os.close(status)
    return int(found.split(None, 1)[0]) / 1024 if found else 0.0


def reset(process: Path = SELF) -> None:
    """Let the mark start again from the current size; in containers that forbid this, it stays."""
    with suppress(OSError):
        references = os.open(f"{process}/clear_refs", os.O_WRONLY)
        try:
            os.write(references, b"5")
        finally:
            os.close(references)


class Meter:
    """Peaks of this process by phase, and the highest of all.

    Attributes:
        highest: in MiB, as of the last reading.
        last: the last reading: after a phase, its peak.
    """

    def __init__(self, process: Path = SELF) -> None:
        self._process = process
        self.highest = self.last = 0.0

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Give the code inside a high-water mark of its own, which `read` returns until the next phase."""
        self.read()
        reset(self._process)
        yield
        self.read()

    def read(self) -> float:
        """MiB at most since the last phase began."""
        self.last = peak_mb(self._process)
        self.highest = max(self.highest, self.last)
        return self.last
