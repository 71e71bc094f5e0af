"""When a process of training returns freed heap to the system: a step that would not fit beside it comes next."""

from __future__ import annotations

from edge_trgl.runtime.memory import allocator, counters, guard

_LONGEST_WAIT = 64
"""Occasions, at most, that pass between two trims that only the plan asks for."""


class Headroom:
    """Keeps freed memory on the heap for the next step, and trims the heap where that step would exceed a limit.

    The tensors of a step fill the free blocks of the heap in another order every time. Because of fragmentation
    one of them may fit in none and take new memory. Without trimming, such tensors would add up from step to step,
    and a larger step would come on top of all that smaller ones have left.

    Within the budget, trims become rare where the process is soon as large again: what it returned it needed, and
    asking for it anew takes up to a fifth of the time of a small net.

    Args:
        limit_mb: how far this process may grow within its budget, in MiB; None if it has no limit.
        planned_mb: how far the plan expects it to grow; None is `limit_mb`.
        fragmentation_mb: MiB of tensors that may not fit in free blocks, in a step like the one before.
    """

    def __init__(
        self, limit_mb: float | None, *, planned_mb: float | None = None, fragmentation_mb: float = 0.0
    ) -> None:
        self._limit_mb = limit_mb
        self._planned_mb = limit_mb if planned_mb is None else planned_mb
        self._fragmentation_mb = fragmentation_mb
        self._last_mb = 0.0
        self._faults = -1
        self._for_larger, self._for_equal = _Patience(), _Patience()

    def before(self, work_mb: float) -> None:
        """Prepare for a step whose tensors take `work_mb` MiB.

        Trim first if this step is larger than the last: its tensors may not fit the freed blocks.
        """
        if work_mb > self._last_mb:
            self._ensure(work_mb, self._for_larger)
        self._last_mb = work_mb

    def after(self) -> None:
        """Prepare for another step like the last one."""
        faults = counters.page_faults()
        if faults != self._faults:  # else nothing has grown since the last step
            self._faults = faults
            allocator.no_huge_pages_in_heap()
            guard.renew_guard()
            self._ensure(self._fragmentation_mb, self._for_equal)

    def _ensure(self, needed_mb: float, patience: _Patience) -> None:
        """Trim the heap if less than `needed_mb` MiB are left below the limit, or, at times, below the plan."""
        if self._limit_mb is None or self._planned_mb is None:
            return
        wanted_mb = counters.usage().rss + needed_mb
        if wanted_mb > self._limit_mb or patience.ends(above=wanted_mb > self._planned_mb):
            allocator.trim()
            guard.renew_guard()


class _Patience:
    """Waits between trims, twice as long each time, until for a long time none was wanted."""

    def __init__(self) -> None:
        self._wait = self._since = 0

    def ends(self, *, above: bool) -> bool:
        """Whether it is time to trim a process that is `above` the plan, or not."""
        self._since += 1
        if not above:
            self._wait = 0 if self._since > 2 * _LONGEST_WAIT else self._wait
            return False
        if self._since <= self._wait:
            return False
        self._wait, self._since = min(2 * self._wait + 1, _LONGEST_WAIT), 0
        return True
