"""What is measured of a stretch of training, the same for every loop, and taking turns with other processes."""

from __future__ import annotations

import json
import sys
import time

from edge_trgl.runtime.memory import allocator, counters, high_water


class Section:
    """Memory and traffic from its making on, time from `start` on."""

    def __init__(self) -> None:
        allocator.trim()
        high_water.reset()
        self._before_mb = high_water.peak_mb()
        self._io_mb = counters.io_mb()
        self._start = time.monotonic()

    def start(self) -> None:
        """Start the clock anew."""
        self._start = time.monotonic()

    def end(self, peak_mb: float) -> dict[str, float]:
        """The figures of the section; `peak_mb` is the most that the process held in it."""
        seconds = time.monotonic() - self._start
        read, written = counters.io_mb()
        return {
            "tensors_mb": peak_mb - self._before_mb,
            "rss_mb": peak_mb,
            "seconds": seconds,
            "read_mb": read - self._io_mb[0],
            "written_mb": written - self._io_mb[1],
        }


class Turns:
    """Goes on only when told so on standard input: processes that are compared must not run at once."""

    def __init__(self) -> None:
        self._began = 0.0

    def wait(self) -> None:
        """Wait for a line; end the process when there are no more."""
        if not sys.stdin.readline():
            sys.exit(0)
        self._began = time.monotonic()

    def done(self) -> None:
        """Tell the seconds since the turn began, and wait for the next."""
        tell({"turn": time.monotonic() - self._began})
        self.wait()


def tell(values: dict[str, object]) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
