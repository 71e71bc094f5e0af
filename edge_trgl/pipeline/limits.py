"""What was asked for, held against what this machine has: the limits that a run gets."""

from __future__ import annotations

from edge_trgl.config.sections import RunConfig
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.storage import disk_space

AUTO = 0.8
"""The budget `auto`, of what is available."""


def budget_mb(config: RunConfig, facts: RunFacts, asked_mb: float | None, jobs: JobRunner) -> float | None:
    """The budget as asked, as the run has it, or as configured, where so much is available; None for the least."""
    available_mb = counters.available_mb()
    wanted = asked_mb or facts.limits.budget_mb or config.budget.mb
    if wanted == "min":
        return None
    if wanted == "auto":
        return float(int(AUTO * available_mb))
    if wanted <= available_mb:
        return float(wanted)
    jobs.warn(
        "budget",
        f"the budget of {wanted:.0f} MiB is more than is available; lowered to {available_mb:.0f} MiB",
    )
    return float(available_mb)


def disk_mb(run: Run, config: RunConfig, facts: RunFacts) -> float:
    """MiB that the run's folder may take now: as many as it was given, where its disk has them."""
    there_mb = disk_space.limit_mb(run.folder)
    return min(wanted_disk_mb(config, facts) or there_mb, there_mb)


def wanted_disk_mb(config: RunConfig, facts: RunFacts) -> float | None:
    """MiB that the run was given; None where it may take what is free."""
    return facts.limits.disk_mb or config.budget.disk_mb
