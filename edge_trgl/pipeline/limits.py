"""The limits of a run: what the user asked for, lowered to what this machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from edge_trgl.config.sections import RunConfig
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import DATASET, Run, prepared_cache
from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.storage import disk_space
from edge_trgl.runtime.storage.link_cache import LinkCache
from edge_trgl.runtime.units import MIB

AUTO = 0.8
"""Share of the available memory that the budget `auto` takes."""


def budget_mb(
    config: RunConfig, facts: RunFacts, asked_mb: float | None, warn: Callable[[str, str], None]
) -> float | None:
    """Return the memory budget in MiB, at most what is available; None for the smallest that works.

    It is `asked_mb` if given, else the run's own, else the configured one. `warn` is called with
    a kind of event and a sentence if it is lowered.
    """
    available_mb = counters.available_mb()
    requested = asked_mb or facts.limits.budget_mb or config.budget.mb
    if requested == "min":
        return None
    if requested == "auto":
        return float(int(AUTO * available_mb))
    if requested <= available_mb:
        return float(requested)
    warn(
        "budget",
        f"the budget of {requested:.0f} MiB is more than is available; lowered to {available_mb:.0f} MiB",
    )
    return float(available_mb)


def disk_mb(run: Run, config: RunConfig, facts: RunFacts) -> float:
    """Return the MiB that the run's folder may take now: its disk limit, at most what its disk has.

    Kept data that no run uses count as free, as `make_room` removes them.
    """
    available_mb = disk_space.limit_mb(run.folder) + idle_mb(run)
    return min(wanted_disk_mb(config, facts) or available_mb, available_mb)


def idle_mb(run: Run) -> float:
    """Return the MiB of kept data on the disk of `run` that no run uses."""
    with contextlib.suppress(StorageError):  # those of another user are not ours to count or remove
        return sum(entry.own_bytes for cache in _caches(run) for entry in cache.entries()) / MIB
    return 0.0


def make_room(run: Run, needed_mb: float) -> None:
    """Remove kept data that no run uses, as many as the run's folder needs to take `needed_mb` MiB."""
    missing_mb = needed_mb - disk_space.limit_mb(run.folder)
    if missing_mb > 0:
        left_mb = max(idle_mb(run) - missing_mb, 0.0)
        with contextlib.suppress(StorageError):
            for cache in _caches(run):
                cache.shrink(int(left_mb * MIB))


def _caches(run: Run) -> list[LinkCache]:
    """The cache of prepared data, if there is one on the run's disk."""
    folder = prepared_cache()
    if folder is None or not folder.is_dir() or folder.stat().st_dev != run.folder.stat().st_dev:
        return []
    return [LinkCache(folder, DATASET)]


def wanted_disk_mb(config: RunConfig, facts: RunFacts) -> float | None:
    """Return the disk limit that the user set, in MiB; None if the run may take what is free."""
    return facts.limits.disk_mb or config.budget.disk_mb
