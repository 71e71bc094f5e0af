"""The store of boundaries: the tensors that enter each module, as records of one size, on disk or in memory.

Images [C, H, W] are stored in channels-last order (H, W, C) and returned as channels-last batches; records of any
other rank are stored row-major. A record has the number of its sample, but no label.

File of a boundary, N = copies x records:
    N records  |  N index entries (sample int64, XXH3 uint64)
Between commits both parts are only appended to, so that what an earlier commit named does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_trgl.runtime.errors import DamagedBoundaryError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.boundary import Boundary, Shared
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord, BoundarySpec

__all__ = ["ActivationStore", "Boundary"]


class ActivationStore:
    """All boundaries of a run, in one folder.

    A commit has three steps: `commit`, the transaction of the database with the records it returned, and `sweep`.
    After a crash before the transaction the last commit is valid, after a later crash the new one; `restore`
    returns to the one that the database names.

    Args:
        folder: created if it does not exist; it must contain nothing else.
        num_samples: number of samples; they are numbered from 0.
        batch_size: maximum number of records that one `read` returns.
        reuse: use the same buffers for every batch; otherwise allocate new ones.
        ahead: read the next records of a large file into memory while the caller uses the current ones.

    Attributes:
        bytes_read: from disk, since the store was made.
        bytes_written: to disk, since the store was made.
    """

    def __init__(
        self, folder: Path, num_samples: int, batch_size: int, *, reuse: bool = True, ahead: bool = False
    ) -> None:
        files.make_folder(folder)
        self.folder = folder
        self._shared = Shared(num_samples, batch_size, reuse=reuse, ahead=ahead)
        self._live: dict[str, Boundary] = {}
        self._dropped: list[Path] = []
        self._unnamed: list[Path] = []
        self._serial = max((_serial_of(path) for path in files.list_folder(folder)), default=0)

    @property
    def bytes_read(self) -> int:
        return self._shared.traffic.bytes_read

    @property
    def bytes_written(self) -> int:
        return self._shared.traffic.bytes_written

    def __contains__(self, name: str) -> bool:
        return name in self._live

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the current boundaries."""
        return tuple(self._live)

    @property
    def is_outdated(self) -> bool:
        """Whether the last commit names a file that is no longer needed; the next commit frees its space."""
        return bool(self._dropped)

    @property
    def bytes_without_file(self) -> int:
        """Bytes that a commit would add to the folder: the files of boundaries in memory that have none yet."""
        live = self._live.values()
        return sum(one.spec.file_bytes for one in live if one.spec.in_memory and not one.is_committed)

    def create(self, spec: BoundarySpec) -> Boundary:
        """Return an empty boundary with all its space allocated, in place of one of the same name.

        Raises:
            StorageError: the disk has no room for it; a boundary of the same name has been dropped.
        """
        old = self._live.get(spec.name)
        if old is not None and old.spec == spec and not old.is_committed:
            # Usual for a boundary of one chunk: keep the file and its blocks.
            old.clear()
            return old
        if old is not None:
            self.drop(spec.name)
        self._serial += 1
        boundary = Boundary(spec, self.folder / f"{spec.name}.{self._serial}", self._shared)
        if not spec.in_memory:
            boundary.make_file()
        self._live[spec.name] = boundary
        return boundary

    def get(self, name: str) -> Boundary:
        """Return the current boundary of that name."""
        assert name in self._live, f"no boundary {name!r}; there are {sorted(self._live)}"
        return self._live[name]

    def drop(self, name: str) -> None:
        """Remove a boundary; a file that a commit has named is kept until the `sweep` after the next commit."""
        boundary = self.get(name)
        has_file = boundary.has_file
        del self._live[name]
        boundary.close()
        self._shared.buffers.let_go(other.spec for other in self._live.values())
        if boundary.is_committed:
            self._dropped.append(boundary.path)
        elif has_file:
            files.remove(boundary.path)

    def commit(self) -> list[BoundaryRecord]:
        """Make the records appended so far durable in every boundary.

        Returns:
            One record for each boundary; together they replace those of the last commit.

        Raises:
            StorageError: the disk is full or fails. The last commit is still valid; use `restore` to return to it.
        """
        records = [boundary.commit() for boundary in self._live.values()]
        files.sync_folder(self.folder)
        self._unnamed += self._dropped
        self._dropped = []
        return records

    def sweep(self) -> None:
        """Remove the files that the database no longer names; call it after the transaction."""
        while self._unnamed:
            files.remove(self._unnamed[-1])
            self._unnamed.pop()

    def restore(
        self, records: Iterable[BoundaryRecord], given_up: Mapping[str, DamagedBoundaryError] | None = None
    ) -> list[tuple[BoundaryRecord, DamagedBoundaryError]]:
        """Return to the commit that returned `records`; later records are dropped, other files removed.

        Args:
            records: what the database names.
            given_up: boundaries, by name, that are not to be opened, each with the reason.

        Returns:
            The boundaries that are lost, each with the reason: the file is missing, cut or damaged, or `given_up`
            names it. Their files are kept until the `sweep` after the next commit.

        Raises:
            StorageError: a file cannot be read; no file was removed.
        """
        self.close()
        records, lost = list(records), []
        for record in records:
            error = (given_up or {}).get(record.spec.name) or self._reopen(record)
            if error is not None:
                lost.append((record, error))
        named = {record.file for record in records}
        for path in files.list_folder(self.folder):
            if path.name not in named:
                files.remove(path)
        self._dropped, self._unnamed = [self.folder / record.file for record, _ in lost], []
        return lost

    def _reopen(self, record: BoundaryRecord) -> DamagedBoundaryError | None:
        try:
            self._live[record.spec.name] = Boundary.reopen(record, self.folder / record.file, self._shared)
        except DamagedBoundaryError as error:
            return error
        return None

    def close(self) -> None:
        """Close all files, which are kept, and forget all boundaries."""
        for boundary in self._live.values():
            boundary.close()
        self._live = {}


def _serial_of(path: Path) -> int:
    serial = path.name.rpartition(".")[2]
    return int(serial) if serial.isdecimal() else 0
