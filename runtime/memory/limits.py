"""Limits: what a run may take. The one object that carries the budget from the command line to the guard."""

from __future__ import annotations

import math
from dataclasses import dataclass


def larger_mb(mb: float) -> int:
    """A budget to propose where `mb` MiB were not enough: a tenth more."""
    return math.ceil(1.1 * mb)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may take, in MiB: `budget_mb` of memory, all its processes together, and `disk_mb` of its disk.

    None where no number was given. Asked of a run, that means its own limits; in planning, the least budget that
    works. A planned run has both numbers.
    """

    budget_mb: float | None = None
    disk_mb: float | None = None

    @property
    def memory_mb(self) -> float:
        """The budget of a planned run.

        Raises:
            ValueError: it is still open.
        """
        if self.budget_mb is None:
            raise ValueError("these limits leave the budget open")
        return self.budget_mb

    def room_mb(self, others_mb: float) -> float:
        """MiB of the budget that are left to a process beside others of `others_mb` MiB."""
        return self.memory_mb - others_mb
