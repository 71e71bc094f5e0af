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
    """Counts what is read of a data set, and sends a message of kind `reading` from time to time.

    Args:
        noun: what is read: "images", "windows" or "files".
        total: how many will be read; None if that is not known.
    """

    def __init__(self, noun: str, total: int | None = None) -> None:
        self._noun = noun
        self._total = total
        self._count = 0
        self._began = time.monotonic()
        self._due = self._began + QUIET_SECONDS

    def counting(self, observe: Callable[[NDArray[Any]], None]) -> Callable[[NDArray[Any]], None]:
        """Return a function that calls `observe` and counts the samples it was given, [B, ...]."""

        def counted(samples: NDArray[Any]) -> None:
            observe(samples)
            self.add(len(samples))

        return counted

    def add(self, count: int) -> None:
        """Count some more, and send a message if one is due."""
        self._count += count
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EACH_SECONDS
        rate = self._count / (now - self._began)
        messages.send(
            "reading",
            noun=self._noun,
            count=self._count,
            per_s=rate,
            done=None if self._total is None else self._count / self._total,
            left_s=None if self._total is None else (self._total - self._count) / rate,
        )
