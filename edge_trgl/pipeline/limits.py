"""The limits of a run: what the user asked for, lowered to what this machine has."""

from __future__ import annotations

from edge_trgl.config.sections import RunConfig
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.storage import disk_space

AUTO = 0.8
"""Share of the available memory that the budget `auto` takes."""


def budget_mb(config: RunConfig, facts: RunFacts, asked_mb: float | None, jobs: JobRunner) -> float | None:
    """Return the memory budget in MiB, at most what is available; None for the smallest that works.

    It is `asked_mb` if given, else the run's own, else the configured one.
    """
    available_mb = counters.available_mb()
    requested = asked_mb or facts.limits.budget_mb or config.budget.mb
    if requested == "min":
        return None
    if requested == "auto":
        return float(int(AUTO * available_mb))
    if requested <= available_mb:
        return float(requested)
    jobs.warn(
        "budget",
        f"the budget of {requested:.0f} MiB is more than is available; lowered to {available_mb:.0f} MiB",
    )
    return float(available_mb)


def disk_mb(run: Run, config: RunConfig, facts: RunFacts) -> float:
    """Return the MiB that the run's folder may take now: its disk limit, at most what its disk has."""
    available_mb = disk_space.limit_mb(run.folder)
    return min(wanted_disk_mb(config, facts) or available_mb, available_mb)


def wanted_disk_mb(config: RunConfig, facts: RunFacts) -> float | None:
    """Return the disk limit that the user set, in MiB; None if the run may take what is free."""
    return facts.limits.disk_mb or config.budget.disk_mb
