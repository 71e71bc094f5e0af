"""The kernel's high-water mark of resident memory, read from /proc because psutil does not have it on Linux.

VmHWM of /proc/PID/status keeps every peak that reading the current size from time to time would miss. Writing 5 to
/proc/PID/clear_refs resets it to the current size, so that each phase has a peak of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SELF = Path("/proc/self")


def peak_mb(process: Path = SELF) -> float:
    """The most MiB that a process had resident since it began or since `reset`; 0 if it has ended.

    Args:
        process: its folder under /proc.

    Raises:
        OSError: there is no such process.
    """
    for line in (process / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def reset(process: Path = SELF) -> None:
    """Let the mark start again from the current size; in containers that forbid this, it stays."""
    with suppress(OSError):
        (process / "clear_refs").write_text("5")


class Meter:
    """Peaks of this process by phase, and the highest of all.

    Attributes:
        highest: in MiB, as of the last reading.
    """

    def __init__(self, process: Path = SELF) -> None:
        self._process = process
        self.highest = 0.0

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Give the code inside a high-water mark of its own, which `read` returns until the next phase."""
        self.read()
        reset(self._process)
        yield
        self.read()

    def read(self) -> float:
        """MiB at most since the last phase began."""
        peak = peak_mb(self._process)
        self.highest = max(self.highest, peak)
        return peak
