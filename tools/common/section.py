"""Measure memory, I/O and time of a stretch of training; take turns with other processes."""

from __future__ import annotations

import json
import sys
import time

import psutil

from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.units import MIB
from tools.common import kernel


class Section:
    """Memory and traffic from its making on, time from `start` on."""

    def __init__(self) -> None:
        allocator.trim()
        kernel.reset_peak()
        self._before_mb = kernel.own_peak_mb()
        self._io = psutil.Process().io_counters()
        self._start = time.monotonic()

    def start(self) -> None:
        """Start the clock anew."""
        self._start = time.monotonic()

    def end(self, peak_mb: float) -> dict[str, float]:
        """The figures of the section; `peak_mb` is the most that the process held in it."""
        seconds = time.monotonic() - self._start
        io = psutil.Process().io_counters()
        return {
            "tensors_mb": peak_mb - self._before_mb,
            "rss_mb": peak_mb,
            "seconds": seconds,
            "read_mb": (io.read_chars - self._io.read_chars) / MIB,
            "written_mb": (io.write_bytes - self._io.write_bytes) / MIB,
        }


class Turns:
    """Goes on only when told so on standard input: processes that are compared must not run at once."""

    def __init__(self) -> None:
        self._began = self._cpu_began = 0.0

    def wait(self) -> None:
        """Wait for a line; end the process when there are no more."""
        if not sys.stdin.readline():
            sys.exit(0)
        self._began, self._cpu_began = time.monotonic(), time.process_time()

    def done(self) -> None:
        """Tell the seconds since the turn began, and the CPU seconds; wait for the next."""
        cpu_seconds = time.process_time() - self._cpu_began
        tell({"turn": {"seconds": time.monotonic() - self._began, "cpu_seconds": cpu_seconds}})
        self.wait()


def tell(values: dict[str, object]) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
