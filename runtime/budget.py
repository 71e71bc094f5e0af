"""The guard: a limit on this process, and the check at safe points."""

from __future__ import annotations

import errno
import resource

from edge_trgl.runtime.errors import OverBudgetError
from edge_trgl.runtime.memory import MIB, usage

_MAPPED_MB = 16.0
"""Mapped later but hardly resident: the stack of the reading thread, the staging buffer of module files."""

_MAPPED_SHARE = 1.15
"""What is mapped over what is resident at a step's peak: a tensor is mapped whole before it is touched, and
convolutions ask for more scratch than they use (measured up to 1.08). The guard is there against runaways;
the high-water mark, checked between visits, holds the budget itself."""


def set_guard(limit_mb: float) -> None:
    """Let the private writable memory of this process grow only as far as `limit_mb` MiB of RSS allow.

    RLIMIT_DATA counts what is mapped, not what is resident (thread stacks, arenas), and leaves file pages
    out; so it is set from here on: what is mapped now, plus what the limit leaves. Call it once the threads
    that compute are there. Beyond it, torch raises "can't allocate memory" instead of the kernel killing the
    process.
    """
    now = usage()
    allowed = int((now.data + max(limit_mb - now.rss, 0.0) * _MAPPED_SHARE + _MAPPED_MB) * MIB)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


# torch's own allocators; oneDNN, which does not say why; C++ in general.
_REFUSALS = ("can't allocate memory", "out of memory", "could not create a primitive", "bad_alloc")


def refused(error: BaseException) -> bool:
    """Whether `error` is an allocation that the guard or the device refused."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    refusal = isinstance(error, RuntimeError) and any(text in str(error) for text in _REFUSALS)
    return refusal or isinstance(error, MemoryError)


def check(peak_mb: float, budget_mb: float, where: str) -> None:
    """At a safe point: stop, resumable, when the peak has passed the budget.

    Raises:
        OverBudgetError: with both numbers.
    """
    if peak_mb > budget_mb:
        raise OverBudgetError(
            f"the budget of {budget_mb:.0f} MiB was passed: {peak_mb:.0f} MiB at {where}",
            hint="What was committed is kept. Resume with a larger budget: edge-trgl resume RUN --budget-mb N.",
        )
