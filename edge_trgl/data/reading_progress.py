"""The progress that reading a data set tells the parent process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edge_trgl.runtime.processes import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

QUIET_SECONDS = 2.0
"""Seconds before the first message: nobody wants to hear of a set that is read at once."""

EACH_SECONDS = 0.5
"""Least seconds between two messages."""


class ReadingProgress:
    """Counts the samples of a data set as they are read, and sends a message of kind `reading` from time to time.

    Args:
        total: number of samples that will be read.
        noun: what they are: "images" or "windows".
    """

    def __init__(self, total: int, noun: str) -> None:
        self._total = total
        self._noun = noun
        self._count = 0
        self._began = time.monotonic()
        self._due = self._began + QUIET_SECONDS

    def counting(self, observe: Callable[[NDArray[Any]], None]) -> Callable[[NDArray[Any]], None]:
        """Return a function that calls `observe` and counts the samples it was given, [B, ...]."""

        def counted(samples: NDArray[Any]) -> None:
            observe(samples)
            self._add(len(samples))

        return counted

    def _add(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EACH_SECONDS
        rate = self._count / (now - self._began)
        messages.send(
            "reading",
            noun=self._noun,
            done=self._count / self._total,
            per_s=rate,
            left_s=(self._total - self._count) / rate,
        )
