"""What training took so far, over all its starts: seconds, steps, images, bytes, pages waited for."""

from __future__ import annotations

import time

from edge_trgl.run.facts import Work
from edge_trgl.runtime.memory import counters


class WorkCounter:
    """Adds what this process does to what earlier starts did.

    Args:
        before: the work up to the last commit.
    """

    def __init__(self, before: Work) -> None:
        self._before = before
        self._began = time.monotonic()
        self._io_start = counters.io_mb()
        self._faults_start = counters.major_faults()
        self._steps = 0
        self._images = 0.0

    def add_steps(self, num_steps: int) -> None:
        """Count steps of one module."""
        self._steps += num_steps

    def add_images(self, num_images: float) -> None:
        """Count images; one counts as 1 once every module with a loss has trained on it."""
        self._images += num_images

    def work(self) -> Work:
        """The work of all starts until now."""
        read_mb, written_mb = counters.io_mb()
        return Work(
            seconds=self.seconds(),
            steps=self._before.steps + self._steps,
            images=self._before.images + self._images,
            read_mb=self._before.read_mb + read_mb - self._io_start[0],
            written_mb=self._before.written_mb + written_mb - self._io_start[1],
            major_faults=self._before.major_faults + counters.major_faults() - self._faults_start,
        )

    def seconds(self) -> float:
        """Seconds of all starts until now."""
        return self._before.seconds + time.monotonic() - self._began
