"""What becomes of the memory that the steps of training free."""

from __future__ import annotations

from edge_trgl.runtime.memory import allocator, counters, guard


class Headroom:
    """It stays on the heap for the next step as long as that step has room even where it finds no place there.

    Tensors of other sizes fill the heap's free places in another order every time, and one may find none that it
    fits in. It takes new memory, and the places that it left out stay: without this, one such tensor came on top
    of another, and a whole step on top of what smaller ones had left.
    """

    def __init__(self, limit_mb: float | None, placeless_mb: float = 0.0) -> None:
        """`limit_mb`: how far this process may grow; None for as far as it likes.

        `placeless_mb`: of tensors that find no place, in a step like the one before it.
        """
        self._limit_mb = limit_mb
        self._placeless_mb = placeless_mb
        self._last_mb = 0.0

    def before(self, work_mb: float) -> None:
        """Make ready for a step whose tensors take so much: if it is larger than the last, they find no place."""
        if work_mb > self._last_mb:
            self._leave(work_mb)
        self._last_mb = work_mb

    def after(self) -> None:
        """Make ready for a step like the one before."""
        allocator.keep_holes()
        self._leave(self._placeless_mb)

    def _leave(self, room_mb: float) -> None:
        """Give what is freed back to the system where there is less than `room_mb` left."""
        if self._limit_mb is not None and counters.usage().rss + room_mb > self._limit_mb:
            allocator.trim()
            guard.renew_guard()
