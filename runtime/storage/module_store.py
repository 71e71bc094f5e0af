"""The store of modules: weights, head and optimizer state of each, paged between memory and disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from edge_trgl.runtime.storage import blocks, files, safetensors_file
from edge_trgl.runtime.storage.blocks import module_file
from edge_trgl.runtime.storage.files import FileRecord


class Pageable(Protocol):
    """A module as the store sees it: named tensors that are read and written in place."""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that is kept after a visit, by name; the names never change."""
        ...


Module = TypeVar("Module", bound=Pageable)


@dataclass(frozen=True)
class _Version:
    """A file of a module; `durable` once it and its folder are synced."""

    file: FileRecord
    durable: bool


class ModuleStore(Generic[Module]):
    """Keeps modules in memory up to a limit, and the others on disk, each in one safetensors file.

    When memory is needed, the module whose next use is farthest away is evicted: the order of visits is known.
    Files written between commits are not durable; `commit` makes them so.

    Args:
        folder: created if it does not exist; every file in it that is not in use is removed.
        build: allocates a module, uninitialised, to be read from its file.
        initialise: makes a module with its first weights.
        limits: by module, the bytes of all modules in memory while that module is in use.
        committed: by module, the file that the database names.

    Attributes:
        evictions: number of modules evicted so far.
    """

    def __init__(
        self,
        folder: Path,
        *,
        build: Callable[[int], Module],
        initialise: Callable[[int], Module],
        limits: Sequence[int],
        committed: Mapping[int, FileRecord],
    ) -> None:
        files.make_folder(folder)
        self._folder = folder
        self._block_bytes = blocks.block_bytes(folder)
        self._build = build
        self._initialise = initialise
        self._limits = tuple(limits)
        self._committed = dict(committed)
        self._versions = {module: _Version(file, durable=True) for module, file in committed.items()}
        self._resident: dict[int, Module] = {}
        self._sizes: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._serial = max((_serial(record.name) for record in committed.values()), default=0)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._coming: tuple[int, Future[Module]] | None = None
        self._sync_failed = False
        self.evictions = 0
        self._remove_garbage()

    def __contains__(self, module: int) -> bool:
        """Whether a module is in memory."""
        return module in self._resident

    def open(self, module: int, upcoming: Sequence[int] = ()) -> Module:
        """Return a module, which stays in memory until it is evicted.

        The memory of an evicted module is free only when no caller refers to it any more.

        Args:
            module: its number.
            upcoming: the modules of the next visits in order, which decide what is evicted.

        Raises:
            StorageError: a file is damaged, or the disk is full or fails.
        """
        if module not in self._resident:
            self._make_room(module, upcoming)
            self._resident[module] = self._load(module) if self._coming is None else self._fetched()
        return self._resident[module]

    def prefetch(self, module: int, *, beside: int, upcoming: Sequence[int] = ()) -> None:
        """Read `module` in the background while `beside` is in use, if the limit allows both."""
        if module in self._resident or self._coming is not None or module not in self._versions:
            return
        room = self._limits[beside] - self._size(module)
        if self._size(beside) <= room:
            self._evict_beyond(room, upcoming, keep=beside)
            self._coming = (module, self._reader.submit(self._load, module))

    def release(self, *, keep: int) -> None:
        """Evict every module but `keep`, including the one that is being read in the background."""
        self._settle_prefetch()
        self._evict_beyond(0, (), keep=keep)

    def mark_changed(self, module: int) -> None:
        """Note that a module in memory differs from its file."""
        assert module in self._resident, f"module {module} is not in memory"
        self._dirty.add(module)

    @property
    def bytes_to_write(self) -> int:
        """An upper bound of the bytes that the next commit writes."""
        return sum(module_file(self._size(module), self._block_bytes) for module in self._dirty)

    def commit(self) -> dict[int, FileRecord]:
        """Make every module durable in its current state; returns the files that the database must name.

        Raises:
            StorageError: the disk is full or fails. The last commit is still valid; make a new store from it.
        """
        assert not self._sync_failed, "make a new store from the last commit"
        for module in sorted(self._dirty):
            self._write(module, durable=True)
        for module, version in self._versions.items():
            if not version.durable:
                # If a sync fails, the file may be lost although a second sync reports success.
                self._sync_failed = True
                safetensors_file.make_durable(self._folder / version.file.name)
                self._sync_failed = False
                self._versions[module] = replace(version, durable=True)
        return {module: version.file for module, version in self._versions.items()}

    def committed(self, records: Mapping[int, FileRecord]) -> None:
        """Note that the database now names `records`, and remove the files of older versions."""
        self._committed = dict(records)
        self._remove_garbage()

    def _make_room(self, module: int, upcoming: Sequence[int]) -> None:
        if self._coming is not None and self._coming[0] != module:
            self._settle_prefetch()
        # The size of a module that was never written is unknown: make all the room there is.
        room = self._limits[module] - self._size(module) if module in self._versions else 0
        self._evict_beyond(room, upcoming)

    def _evict_beyond(self, room: int, upcoming: Sequence[int], keep: int | None = None) -> None:
        """Evict modules other than `keep` until those in memory take at most `room` bytes."""
        while sum(map(self._size, self._resident)) > room:
            others = [resident for resident in self._resident if resident != keep]
            if not others:
                return
            self._evict(_farthest(others, upcoming))

    def _size(self, module: int) -> int:
        """Bytes of the tensors of a module, which never change."""
        if module not in self._sizes:
            if module in self._resident:
                self._sizes[module] = sum(tensor.nbytes for tensor in self._resident[module].tensors().values())
            else:
                infos = safetensors_file.read_header(self._folder / self._versions[module].file.name)
                self._sizes[module] = sum(info.stop - info.start for info in infos.values())
        return self._sizes[module]

    def _evict(self, module: int) -> None:
        if module in self._dirty:
            self._write(module, durable=False)
        self.evictions += 1
        del self._resident[module]

    def _fetched(self) -> Module:
        assert self._coming is not None
        _, future = self._coming
        # Before the result is taken: an error is raised once.
        self._coming = None
        return future.result()

    def _settle_prefetch(self) -> None:
        if self._coming is not None:
            self._fetched()

    def _load(self, module: int) -> Module:
        version = self._versions.get(module)
        if version is None:
            made = self._initialise(module)
            self._dirty.add(module)
            return made
        built = self._build(module)
        safetensors_file.read_into(self._folder / version.file.name, built.tensors(), version.file)
        return built

    def _write(self, module: int, *, durable: bool) -> None:
        self._serial += 1
        path = self._folder / f"m{module:03d}.{self._serial:06d}.safetensors"
        record = safetensors_file.write(path, self._resident[module].tensors(), durable=durable)
        old = self._versions.get(module)
        self._versions[module] = _Version(record, durable)
        self._dirty.discard(module)
        if old is not None and old.file != self._committed.get(module):
            files.remove(self._folder / old.file.name)

    def _remove_garbage(self) -> None:
        named = {record.name for record in self._committed.values()}
        named |= {version.file.name for version in self._versions.values()}
        for path in files.list_folder(self._folder):
            if path.name not in named:
                files.remove(path)


def _farthest(modules: Iterable[int], upcoming: Sequence[int]) -> int:
    """The module whose next use in `upcoming` is farthest away."""
    order = {module: position for position, module in reversed(list(enumerate(upcoming)))}
    return max(modules, key=lambda module: order.get(module, len(upcoming)))


def _serial(name: str) -> int:
    return int(name.split(".")[1])
