"""Measurement of the speed of the disk that holds a folder, without the page cache.

The name of the file is removed as soon as it is open, so that the kernel frees it however the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

FILE_BYTES = 64 * MIB
CHUNK_BYTES = MIB
BLOCK_BYTES = 4096  # the unit of data sheets and profiles, whatever the page size
PAGE_BYTES = mmap.PAGESIZE
NUM_BLOCKS = 2000
"""Maximum number of random reads."""

RANDOM_SECONDS = 2.0
"""Random reads stop after this time: a hard disk makes about a hundred of them per second."""

SHARE_OF_FREE = 10
"""At most a tenth of the free space is written."""

DIRECT = "O_DIRECT"
DROPPED = "synced and dropped from the page cache"


@dataclass(frozen=True, kw_only=True)
class StorageSpeed:
    """The speed of a disk.

    Attributes:
        read_mbs, write_mbs: sequential, in MB/s.
        random_iops: single reads of 4 KiB per second.
        method: how the page cache was avoided, `DIRECT` or `DROPPED`.
        file_mb: MiB that were written.
    """

    read_mbs: float
    write_mbs: float
    random_iops: float
    method: str
    file_mb: float


def measure(folder: Path, *, max_bytes: int = FILE_BYTES) -> StorageSpeed:
    """Write a file of at most `max_bytes` in `folder`, read it, and remove it.

    At most a tenth of the free space is written.

    Raises:
        StorageError: the folder is not writable, or its disk is full or fails.
    """
    try:
        num_bytes = _size(folder, max_bytes)
        with _nameless(folder) as fd:
            try:
                return _measure(fd, num_bytes, direct=_bypass(fd))
            except StorageError as error:
                # Some file systems accept O_DIRECT and then refuse the transfers.
                if _errno(error) != errno.EINVAL:
                    raise
            _use_cache(fd)
            return _measure(fd, num_bytes, direct=False)
    except (OSError, StorageError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
        raise StorageError(
            f"the disk that holds {folder} cannot be measured: {reason[0].lower()}{reason[1:]}",
            hint="Choose a folder with --disk that can be written and has 10 MiB free or more.",
        ) from error


def kind(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """File system and device of `folder`, such as `ext4 on mmcblk0p2`."""
    found, length = "unknown", 0
    for line in mounts.read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4]))
        # The innermost mount is the one, and the last of several in the same place.
        if folder.resolve().is_relative_to(point) and len(point.parts) >= length:
            file_system, source = right.split()[:2]
            found, length = f"{file_system} on {Path(source).name}", len(point.parts)
    return found


def _size(folder: Path, max_bytes: int) -> int:
    free_bytes: int = psutil.disk_usage(str(folder)).free
    chunks = min(free_bytes // SHARE_OF_FREE, max_bytes) // CHUNK_BYTES
    if chunks == 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return chunks * CHUNK_BYTES


@contextmanager
def _nameless(folder: Path) -> Iterator[int]:
    path = folder / f".edge-trgl-probe-{os.getpid()}"
    try:
        with files.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            files.remove(path)
            yield fd
    finally:
        files.remove(path)  # an interrupt may have come before the first removal


def _bypass(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return False
    return True


def _use_cache(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)


def _measure(fd: int, num_bytes: int, *, direct: bool) -> StorageSpeed:
    # An anonymous map is page-aligned, as O_DIRECT requires. Random bytes, because some disks compress.
    chunk = memoryview(mmap.mmap(-1, CHUNK_BYTES))
    chunk[:] = os.urandom(CHUNK_BYTES)
    files.allocate(fd, num_bytes)
    write_s = _seconds(lambda: _write(fd, chunk, num_bytes))
    files.drop_cache(fd, 0, 0)
    read_s = _seconds(lambda: _read(fd, chunk, num_bytes))
    files.drop_cache(fd, 0, 0)
    return StorageSpeed(
        read_mbs=num_bytes / 1e6 / read_s,
        write_mbs=num_bytes / 1e6 / write_s,
        random_iops=_random_iops(fd, chunk[:BLOCK_BYTES], num_bytes),
        method=DIRECT if direct else DROPPED,
        file_mb=num_bytes / MIB,
    )


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _write(fd: int, chunk: memoryview, num_bytes: int) -> None:
    for offset in range(0, num_bytes, CHUNK_BYTES):
        files.write_all(fd, chunk, offset)
    files.sync(fd)


def _read(fd: int, chunk: memoryview, num_bytes: int) -> None:
    for offset in range(0, num_bytes, CHUNK_BYTES):
        files.read_into(fd, chunk, offset)


def _random_iops(fd: int, block: memoryview, num_bytes: int) -> float:
    """Random reads per second; each page is read at most once, so that none comes from the page cache."""
    with suppress(OSError):
        files.system.fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    places = range(0, num_bytes, max(BLOCK_BYTES, PAGE_BYTES))
    order = random.Random(0).sample(places, min(len(places), NUM_BLOCKS))
    start, done, seconds = time.perf_counter(), 0, 0.0
    while done < len(order) and seconds < RANDOM_SECONDS:
        files.read_into(fd, block, order[done])
        done, seconds = done + 1, time.perf_counter() - start
    return done / seconds


def _errno(error: StorageError) -> int | None:
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None
