"""Lets runs share what was prepared: `train` takes the records that `plan` made, and so does the next run.

The cache is a hidden folder beside the runs, `runs/.prepared`, and not in the user's cache folder: a run names its
records by hard links, which need one file system, and a board often has its runs on another disk than the home
folder, whose card is small and wears out. Records are prepared in the run's own folder, as if there were no cache,
and then linked into it; a run that takes them gets links of its own. So a run never loses its data when the cache
is cleaned, data that a run uses costs the cache nothing, and where links are not possible every run prepares its
own. A kill while preparing leaves unfinished files in the run's folder alone.

A kept set is opened before it is used: its description, its labels and its checksums are read, and its files must
have their sizes. The records themselves are checked when training reads them, as those of any run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_trgl.data.content_key import content_key
from edge_trgl.data.dataset import DATASET_FILE, DatasetInfo, encode, is_prepared, open_dataset
from edge_trgl.data.reader import RecordReader
from edge_trgl.runtime.errors import DamagedDataError, DiskFullError, InputError, StorageError
from edge_trgl.runtime.storage import disk_space, files
from edge_trgl.runtime.storage.link_cache import LinkCache
from edge_trgl.runtime.units import MIB

if TYPE_CHECKING:
    from edge_trgl.config.data import DataConfig

MOST_MB = 4096.0
FREE_SHARE = 0.1
"""Where no `data.cache_mb` is set, the cache holds at most `MOST_MB` MiB, and `FREE_SHARE` of what is free."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared data set, and where it came from.

    Attributes:
        info: its description.
        reused: whether it was prepared before, for another run.
        damage: what was wrong with the set that was kept, so that it was prepared again; empty otherwise.
    """

    info: DatasetInfo
    reused: bool = False
    damage: str = ""


def open_cache(folder: Path) -> LinkCache:
    """Return the cache in `folder`."""
    return LinkCache(folder, DATASET_FILE)


class PreparedCache:
    """The kept sets, for one run.

    Args:
        cache: the folder that holds them.
        settings: the section `data` of the run.
        seed: of the splits that are drawn.
        labels: whether labels are needed: what was prepared without any is then not taken.
    """

    def __init__(self, cache: Path, settings: DataConfig, *, seed: int, labels: bool) -> None:
        self._cache = open_cache(cache)
        self._settings = settings
        self._seed = seed
        self._labels = labels

    def prepare(self, folder: Path, decode: Callable[[], DatasetInfo], *, anew: bool = False) -> Prepared:
        """Fill `folder` with a set that was kept, or call `decode`, which does it, and keep the result.

        Args:
            folder: is created if it is missing (its parent must exist).
            decode: prepares the data in `folder`, or only surveys them.
            anew: whether to remove what was kept, because a record in it is damaged, and to decode.
        """
        key = self._key()
        damage = ""
        if key and anew:
            self._remove(key)
        elif key:
            files.make_folder(folder)
            if self._cache.take(key, folder):
                try:
                    info = self._named(folder, _checked(folder))
                    if info.num_classes > 1 or not self._labels:
                        return Prepared(info=info, reused=True)
                except DamagedDataError as error:
                    damage = error.message
                    self._remove(key)
                files.remove(folder / DATASET_FILE)
        info = self._with_room(decode)
        # Files that changed while they were read may have been read before or after.
        if key and is_prepared(folder) and self._key() == key:
            self._cache.keep(key, folder, self._limit_bytes(folder))
        return Prepared(info=info, damage=damage)

    def _named(self, folder: Path, info: DatasetInfo) -> DatasetInfo:
        """Have the run's own description name its source as this run does: the folder may have been moved."""
        source = self._settings.source
        if info.summary.source == source:
            return info
        renamed = replace(info, summary=replace(info.summary, source=source))
        files.write_durable(folder / DATASET_FILE, [encode(renamed)])
        return renamed

    def _remove(self, key: str) -> None:
        with contextlib.suppress(StorageError):  # it belongs to another user
            self._cache.remove(key)

    def _with_room(self, decode: Callable[[], DatasetInfo]) -> DatasetInfo:
        """Decode; if the disk is full, once more without the sets that no run uses."""
        try:
            return decode()
        except DiskFullError:
            if not self._make_room():
                raise
            return decode()

    def _make_room(self) -> bool:
        """Remove the sets that no run uses; return whether there were any."""
        with contextlib.suppress(StorageError):
            is_idle = any(entry.own_bytes for entry in self._cache.entries())
            self._cache.shrink(0)
            return is_idle
        return False

    def _key(self) -> str | None:
        """The set's key; None if nothing may be kept, or the source cannot be listed, which `decode` tells."""
        if self._settings.cache_mb == 0:
            return None
        try:
            return content_key(self._settings, seed=self._seed)
        except (OSError, InputError):
            return None

    def _limit_bytes(self, folder: Path) -> int:
        limit_mb = self._settings.cache_mb
        if limit_mb is None:
            limit_mb = min(MOST_MB, FREE_SHARE * disk_space.free_mb(folder))
        return int(limit_mb * MIB)


def _checked(folder: Path) -> DatasetInfo:
    """Open a prepared set, and read its labels and checksums.

    Raises:
        DamagedDataError: they do not match.
    """
    info = open_dataset(folder)
    for split in info.splits:
        RecordReader(folder, split, info).close()
    return info
