"""When a process of training returns freed heap to the system: a step that would not fit beside it comes next."""

from __future__ import annotations

from edge_trgl.runtime.memory import allocator, counters, guard


class Headroom:
    """Keeps freed memory on the heap for the next step, and trims the heap where that step would exceed the limit.

    The tensors of a step fill the free blocks of the heap in another order every time. Because of fragmentation
    one of them may fit in none and take new memory. Without trimming, such tensors would add up from step to step,
    and a larger step would come on top of all that smaller ones have left.

    Args:
        limit_mb: how far this process may grow, in MiB; None if it has no limit.
        fragmentation_mb: MiB of tensors that may not fit in free blocks, in a step like the one before.
    """

    def __init__(self, limit_mb: float | None, fragmentation_mb: float = 0.0) -> None:
        self._limit_mb = limit_mb
        self._fragmentation_mb = fragmentation_mb
        self._last_mb = 0.0
        self._faults = -1

    def before(self, work_mb: float) -> None:
        """Prepare for a step whose tensors take `work_mb` MiB.

        Trim first if this step is larger than the last: its tensors will not fit the freed blocks.
        """
        if work_mb > self._last_mb:
            self._ensure(work_mb)
        self._last_mb = work_mb

    def after(self) -> None:
        """Prepare for another step like the last one."""
        faults = counters.page_faults()
        if faults != self._faults:  # else nothing has grown since the last step
            self._faults = faults
            allocator.no_huge_pages_in_heap()
            self._ensure(self._fragmentation_mb)

    def _ensure(self, needed_mb: float) -> None:
        """Trim the heap if less than `needed_mb` MiB are left below the limit."""
        if self._limit_mb is not None and counters.usage().rss + needed_mb > self._limit_mb:
            allocator.trim()
            guard.renew_guard()
