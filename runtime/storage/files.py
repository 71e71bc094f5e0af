"""Access to the file system: everything that a run stores is written and read through these functions.

A write is durable in this order only: temporary name, write, fsync, rename, fsync of the folder. Without the last
step a power cut can undo a write that has been reported as done.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_trgl.runtime.errors import RESUME, DiskFullError, StorageError

TEMPORARY_SUFFIX = ".tmp"
_TRIAL_BYTES = 4096  # a whole block; some file systems need none for a few bytes
_MODE = 0o644


def is_utf8(name: str) -> bool:
    """Whether a file name is valid UTF-8. Linux allows any bytes; TOML and HTML do not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What the database stores of a file: its name in its folder, its length, the checksum of all bytes."""

    name: str
    num_bytes: int
    checksum: str


class FileSystem:
    """The system calls of the stores. Tests replace `system` by one that fails."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, _MODE)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def scatter(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return os.preadv(fd, buffers, offset)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_file_range(self, fd: int, offset: int, length: int) -> None:
        if _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _WRITE_AND_WAIT):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def fallocate(self, fd: int, size: int) -> None:
        os.posix_fallocate(fd, 0, size)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        os.posix_fadvise(fd, offset, length, advice)


_libc = ctypes.CDLL(None, use_errno=True)
_WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER

system = FileSystem()

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errors of a full disk or an exhausted quota."""

_RESUME = f"then go on: {RESUME}"
_CAUSES = {
    errno.ENOSPC: (
        "the disk is full: {path} could not be written",
        f"free space on the disk that holds {{folder}}, {_RESUME}",
    ),
    errno.EDQUOT: (
        "the disk quota is used up: {path} could not be written",
        f"free space or raise the quota for {{folder}}, {_RESUME}",
    ),
    errno.EIO: (
        "the disk reported an input/output error at {path}",
        f"check the disk that holds {{folder}} (`dmesg` names the fault), {_RESUME}",
    ),
    errno.EACCES: ("no permission to open or change {path}", "check the owner and the mode of {folder}"),
    errno.EROFS: (
        "{path} lies on a file system that is mounted read-only",
        f"mount the disk that holds {{folder}} writable, {_RESUME}",
    ),
    errno.ENOENT: ("{path} does not exist", "check that nothing was moved or deleted in {folder}"),
}


def open_file(path: Path, flags: int) -> int:
    """Return a descriptor of `path`, opened with the `os.O_*` flags; a new file gets mode 0644.

    Raises:
        StorageError: the file cannot be opened.
    """
    with _reported(path):
        return system.open(path, flags)


def close_file(fd: int) -> None:
    """Close a descriptor of `open_file`."""
    system.close(fd)


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file for the duration of a `with` block."""
    fd = open_file(path, flags)
    try:
        yield fd
    finally:
        close_file(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` (one-dimensional bytes) at `offset`, in as many system calls as it takes.

    Raises:
        StorageError: the disk is full, fails, or takes no more bytes.
    """
    left = memoryview(data)
    with _reported(fd):
        while len(left):
            count = system.pwrite(fd, left, offset)
            if count == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left = left[count:]
            offset += count


def read_into(fd: int, buffer: bytearray | memoryview, offset: int) -> None:
    """Fill `buffer` (one-dimensional bytes) from `offset`.

    Raises:
        StorageError: the file ends before the buffer is full, or cannot be read.
    """
    left = memoryview(buffer)
    with _reported(fd):
        while len(left):
            count = system.preadv(fd, left, offset)
            if count == 0:
                raise _cut_short(fd, offset, len(left))
            left = left[count:]
            offset += count


def scatter_into(fd: int, buffers: Sequence[memoryview], offset: int, needed: int) -> None:
    """Fill `buffers` (at most 1024), one after the other, from `offset`; behind `needed` bytes the file may end.

    Raises:
        StorageError: the file ends before, or cannot be read.
    """
    with _reported(fd):
        while (count := system.scatter(fd, buffers, offset)) < needed:
            if count == 0:
                raise _cut_short(fd, offset, needed)
            buffers = _behind(buffers, count)
            offset += count
            needed -= count


def _behind(buffers: Sequence[memoryview], count: int) -> list[memoryview]:
    """What of `buffers` follows their first `count` bytes."""
    left = []
    for buffer in buffers:
        if count < len(buffer):
            left.append(buffer[count:])
        count = max(count - len(buffer), 0)
    return left


def _cut_short(fd: int, offset: int, missing: int) -> StorageError:
    return StorageError(
        f"{_path_of(fd)} ends at byte {offset}, {missing} bytes short",
        hint=f"A file that was cut since the last commit is lost; to go back to that commit: {RESUME}",
    )


def size(fd: int) -> int:
    """Return the length of an open file in bytes."""
    with _reported(fd):
        return os.fstat(fd).st_size


def sync(fd: int) -> None:
    """Wait until all bytes of a file are on the disk.

    After an error the kernel may have dropped the bytes: never call it again on the same descriptor.

    Raises:
        StorageError: the disk did not take them.
    """
    with _reported(fd):
        system.fsync(fd)


def write_out(fd: int, offset: int, length: int) -> None:
    """Wait until these bytes have been sent to the disk, which may still lose them in a power cut.

    Raises:
        StorageError: the disk did not take them; as with `sync`, a later call would not report it.
    """
    with _reported(fd):
        system.sync_file_range(fd, offset, length)


def sync_folder(path: Path) -> None:
    """Wait until the folder's entries (new and renamed files) are on the disk."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        sync(fd)


def rename(source: Path, target: Path, *, durable: bool = True) -> None:
    """Rename within a folder, over an older file if there is one; `durable` syncs the folder as well."""
    with _reported(target):
        system.rename(source, target)
    if durable:
        sync_folder(target.parent)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, a hard link, which `target` must not be yet; `sync_folder` makes it durable.

    Raises:
        StorageError: the names lie on different file systems, or theirs has no hard links.
    """
    with _reported(target):
        system.link(source, target)


def remove(path: Path) -> None:
    """Remove a file if it exists."""
    with _reported(path), contextlib.suppress(FileNotFoundError):
        system.unlink(path)


def make_folder(path: Path) -> None:
    """Create a folder durably if it does not exist; its parent must exist."""
    if not path.is_dir():
        with _reported(path):
            system.mkdir(path)
        sync_folder(path.parent)


def list_folder(path: Path) -> list[Path]:
    """Return the files of a folder, sorted by name."""
    with _reported(path):
        return sorted(entry for entry in path.iterdir() if not entry.is_dir())


def allocate(fd: int, num_bytes: int) -> None:
    """Allocate the full length of a file, so that a full disk is noticed before the work begins.

    Raises:
        StorageError: the disk has less space than that.
    """
    with _reported(fd):
        try:
            system.fallocate(fd, num_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            system.ftruncate(fd, num_bytes)


def is_full(folder: Path) -> bool:
    """Whether the disk that holds `folder` is full, or the quota on it exhausted, for even the smallest file."""
    trial = folder / f"trial{TEMPORARY_SUFFIX}"
    try:
        with opened(trial, os.O_WRONLY | os.O_CREAT) as fd:
            allocate(fd, _TRIAL_BYTES)
    except StorageError as error:
        return isinstance(error, DiskFullError)
    finally:
        with contextlib.suppress(StorageError):
            remove(trial)
    return False


def will_need(fd: int, offset: int, length: int) -> None:
    """Tell the kernel that this part of the file will be read soon."""
    _advise(fd, offset, length, os.POSIX_FADV_WILLNEED)


def drop_cache(fd: int, offset: int, length: int) -> None:
    """Drop a part of the file from the page cache; pages that are not yet synced stay."""
    _advise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def temporary_of(path: Path) -> Path:
    """Return the temporary name of `path` while it is being written."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def write_durable(path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> FileRecord:
    """Write a file, which survives a power cut once this returns.

    Raises:
        StorageError: the disk is full or fails; an older file is still there, and the temporary one is removed.
    """
    return replace_file(path, chunks, durable=True)


def replace_file(path: Path, chunks: Iterable[bytes | bytearray | memoryview], *, durable: bool) -> FileRecord:
    """Write a file under a temporary name and rename it, so that nobody ever reads half of it.

    Without `durable` it does not wait for the disk: after a kill the old or the new file is there, after a power
    cut perhaps neither.
    """
    temporary = temporary_of(path)
    try:
        record = _write_new(temporary, path.name, chunks, durable=durable)
        rename(temporary, path, durable=durable)
    except BaseException:
        # Report the first error, even if the clean-up fails too.
        with contextlib.suppress(StorageError):
            remove(temporary)
        raise
    return record


def _write_new(
    path: Path, name: str, chunks: Iterable[bytes | bytearray | memoryview], *, durable: bool
) -> FileRecord:
    from edge_trgl.runtime.storage.checksum import Checksum  # here, for the memory of who only reads

    num_bytes = 0
    checksum = Checksum()
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        for chunk in chunks:
            write_all(fd, chunk, num_bytes)
            num_bytes += len(chunk)
            checksum.update(chunk)
        if durable:
            sync(fd)
    return FileRecord(name=name, num_bytes=num_bytes, checksum=checksum.hexdigest())


def _advise(fd: int, offset: int, length: int, advice: int) -> None:
    # Advice only: a file system that refuses it still reads and writes.
    with contextlib.suppress(OSError):
        system.fadvise(fd, offset, length, advice)


@contextlib.contextmanager
def _reported(target: int | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(error, _path_of(target)) from error


def _path_of(target: int | Path) -> Path:
    if isinstance(target, Path):
        return target
    return Path(f"/proc/self/fd/{target}").readlink()


def _storage_error(error: OSError, path: Path) -> StorageError:
    cause = "{path} cannot be used: " + (error.strerror or type(error).__name__).lower()
    message, hint = _CAUSES.get(error.errno or 0, (cause, "check the disk that holds {folder}"))
    kind = DiskFullError if error.errno in FULL else StorageError
    return kind(message.format(path=path, folder=path.parent), hint=hint.format(path=path, folder=path.parent))
