"""Keeps folders of finished files by key; whoever needs one gets hard links to its files.

A kept file is never copied and never changed in place: its bytes are on the disk once, however many folders name
them, and they stay there until the last of these names is gone. So removing a folder from the cache takes nothing
from those who use it, and what somebody else uses costs the cache nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files

_STAT_BYTES = 512  # the unit of st_blocks on every file system


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A kept folder.

    Attributes:
        key: its key.
        own_bytes: bytes on the disk of the files that have no name outside the cache; removing it frees them.
        used: time of its last use, in seconds.
    """

    key: str
    own_bytes: int
    used: float


class LinkCache:
    """A folder of kept folders, on one file system with those that use them.

    Every method holds a lock between processes, for as long as it takes to make or remove links. A folder counts
    as kept when it has the file `last`; one without it was left by a crash, and the next method removes it.

    Args:
        folder: is created when the first folder is kept; its parent must exist.
        last: name of the file that makes a folder complete, linked after all others are durable.
    """

    def __init__(self, folder: Path, last: str) -> None:
        self._folder = folder
        self._last = last

    def take(self, key: str, target: Path) -> bool:
        """Link the files kept under `key` into the folder `target`, over older ones.

        Returns:
            Whether that was done. If not, nothing is kept under that key, or links are not possible there, and
            `target` has no file `last`.
        """
        try:
            with self._locked():
                source = self._folder / key
                if not source.is_dir():
                    return False
                files.remove(target / self._last)
                self._link(source, target)
                os.utime(source)
                return True
        except (OSError, StorageError):
            return False

    def keep(self, key: str, source: Path, limit_bytes: int) -> bool:
        """Keep links to the files of the folder `source`, which must be durable and complete.

        Folders that were not used for long are removed first, until what only the cache holds leaves room for it.

        Returns:
            Whether it is kept now. If not, it is larger than `limit_bytes`, or links are not possible there.
        """
        size = sum(_disk_bytes(path) for path in source.iterdir())
        if size > limit_bytes:
            return False
        try:
            files.make_folder(self._folder)
            with self._locked():
                target = self._folder / key
                if not target.is_dir():
                    self._shrink(limit_bytes - size)
                    files.make_folder(target)
                    self._link(source, target)
                return True
        except (OSError, StorageError):
            return False

    def remove(self, key: str) -> None:
        """Remove what is kept under `key`, if anything is.

        Raises:
            StorageError: the folder cannot be changed.
        """
        if self._folder.is_dir():
            with self._locked():
                self._remove(key)

    def clear(self) -> None:
        """Remove everything.

        Raises:
            StorageError: the folder cannot be changed.
        """
        if self._folder.is_dir():
            with self._locked():
                for entry in self._entries():
                    self._remove(entry.key)

    def shrink(self, limit_bytes: int) -> None:
        """Remove what was not used for longest, until what only the cache holds is at most `limit_bytes`."""
        if self._folder.is_dir():
            with self._locked():
                self._shrink(limit_bytes)

    def entries(self) -> Sequence[Entry]:
        """Return what is kept, the longest unused first."""
        if not self._folder.is_dir():
            return ()
        with self._locked():
            return self._entries()

    def _link(self, source: Path, target: Path) -> None:
        """Link the files of `source` into `target`, `last` when all others are durable."""
        *others, last = sorted(files.list_folder(source), key=lambda path: path.name == self._last)
        for path in others:
            if not path.name.endswith(files.TEMPORARY_SUFFIX):
                files.remove(target / path.name)
                files.link(path, target / path.name)
        files.sync_folder(target)
        files.link(last, target / self._last)
        files.sync_folder(target)

    def _shrink(self, limit_bytes: int) -> None:
        entries = [entry for entry in self._entries() if entry.own_bytes]
        left = sum(entry.own_bytes for entry in entries)
        for entry in entries:
            if left <= limit_bytes:
                return
            self._remove(entry.key)
            left -= entry.own_bytes

    def _remove(self, key: str) -> None:
        """Remove a folder, `last` before all others: a crash then leaves none that looks complete."""
        folder = self._folder / key
        if folder.is_dir():
            files.remove(folder / self._last)
            for path in files.list_folder(folder):
                files.remove(path)
            folder.rmdir()

    def _entries(self) -> list[Entry]:
        entries = [_entry(path) for path in self._folder.iterdir() if path.is_dir()]
        return sorted(entries, key=lambda entry: entry.used)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait until no other process uses the cache, and remove what a crash left in it."""
        descriptor = files.open_file(self._folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for path in self._folder.iterdir():
                if path.is_dir() and not (path / self._last).is_file():
                    self._remove(path.name)
            yield
        finally:
            files.close_file(descriptor)


def _entry(folder: Path) -> Entry:
    alone = sum(_disk_bytes(path) for path in folder.iterdir() if path.stat().st_nlink == 1)
    return Entry(key=folder.name, own_bytes=alone, used=folder.stat().st_mtime)


def _disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * _STAT_BYTES
