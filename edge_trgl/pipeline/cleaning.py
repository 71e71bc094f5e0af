"""Removes what no run needs: kept prepared data, what interrupted runs and plans left, kept measurements."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_trgl.run.folder import DATASET, PREPARED, RUNS, Run, abandoned_plans
from edge_trgl.runtime.errors import StorageError, UsageError, command
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.storage import disk_space, files
from edge_trgl.runtime.storage.link_cache import LinkCache
from edge_trgl.runtime.units import MIB


@dataclass(frozen=True, kw_only=True)
class Removed:
    """How many things of one kind were removed, and the MiB that this frees on the disk."""

    count: int
    freed_mb: float


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed, or would be.

    Attributes:
        prepared: data sets that were prepared; those that a run uses stay with it, and free nothing.
        plans: folders of plans that were killed.
        leftovers: files that interrupted runs left, and that the next start of the run would remove.
        measurements: measured steps and disks in the user's cache folder; None if they were not asked for.
    """

    prepared: Removed
    plans: Removed
    leftovers: Removed
    measurements: Removed | None

    @property
    def freed_mb(self) -> float:
        """MiB that all of it frees."""
        return sum(
            kind.freed_mb for kind in (self.prepared, self.plans, self.leftovers, self.measurements) if kind
        )


def clean(runs: Path, *, dry_run: bool = False, measurements: bool = False) -> Cleaned:
    """Remove what no run in the folder `runs` needs; a run that a process works on is left alone.

    Args:
        runs: a folder that holds runs.
        dry_run: whether to remove nothing, only to say what would be.
        measurements: whether to remove the measurements in the user's cache folder as well.

    Raises:
        UsageError: there is no such folder, or it is a run itself.
        StorageError: a file cannot be removed.
    """
    # Where nothing was run yet there is nothing to clean, but the measurements.
    if runs != RUNS and not runs.is_dir():
        raise UsageError(f"there is no folder {runs}", hint="Give the folder that holds the runs.")
    if Run(runs).config_file.is_file():
        raise UsageError(
            f"{runs} is a run",
            hint=f"Give the folder that holds it: {command('clean', runs.parent)}",
        )
    kept = measurements_cache.cache_folder().glob("*.json") if measurements else None
    return Cleaned(
        prepared=_clean_prepared(runs, dry_run=dry_run),
        plans=_remove_folders(abandoned_plans(runs), dry_run=dry_run),
        leftovers=_clean_runs(runs, dry_run=dry_run),
        measurements=None if kept is None else _remove_files(kept, dry_run=dry_run),
    )


def _clean_prepared(runs: Path, *, dry_run: bool) -> Removed:
    cache = LinkCache(runs / PREPARED, DATASET)
    entries = cache.entries()
    if not dry_run:
        cache.clear()
    return Removed(count=len(entries), freed_mb=sum(entry.own_bytes for entry in entries) / MIB)


def _clean_runs(runs: Path, *, dry_run: bool) -> Removed:
    count, freed_mb = 0, 0.0
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        run = Run(folder)
        if run.config_file.is_file() and run.state_file.is_file():
            # A run that is in use, or whose database is damaged, is not ours to clean.
            with contextlib.suppress(UsageError, StorageError), run.locked():
                removed = _remove_files(_leftovers(run), dry_run=dry_run)
                count, freed_mb = count + removed.count, freed_mb + removed.freed_mb
    return Removed(count=count, freed_mb=freed_mb)


def _leftovers(run: Run) -> Iterator[Path]:
    """Yield the files that the next start of a run would remove or write anew."""
    facts = run.facts()
    try:
        yield from run.uncommitted(facts)
    finally:
        facts.close()
    is_prepared = run.dataset_file.is_file()
    for path in files.list_folder(run.data) if run.data.is_dir() else ():
        if path.suffix == files.TEMPORARY_SUFFIX or not is_prepared:
            yield path


def _remove_folders(folders: Iterable[Path], *, dry_run: bool) -> Removed:
    count, freed_mb = 0, 0.0
    for folder in folders:
        removed = _remove_files((path for path in folder.rglob("*") if not path.is_dir()), dry_run=dry_run)
        count, freed_mb = count + 1, freed_mb + removed.freed_mb
        if not dry_run:
            _remove_empty(folder)
    return Removed(count=count, freed_mb=freed_mb)


def _remove_empty(folder: Path) -> None:
    for child in folder.iterdir():
        _remove_empty(child)
    folder.rmdir()


def _remove_files(paths: Iterable[Path], *, dry_run: bool) -> Removed:
    count, freed_mb = 0, 0.0
    for path in list(paths):
        count += 1
        # A file with another name elsewhere stays on the disk.
        freed_mb += disk_space.taken_mb(path) if path.lstat().st_nlink == 1 else 0.0
        if not dry_run:
            files.remove(path)
    return Removed(count=count, freed_mb=freed_mb)
