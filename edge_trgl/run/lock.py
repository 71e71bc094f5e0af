"""The lock of a run: two training processes in one folder would destroy each other's files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_trgl.runtime.errors import UsageError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the run in `folder` for this process.

    Raises:
        UsageError: another process holds it.
        StorageError: the folder cannot be written.
    """
    descriptor = _opened(folder / ".lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"{folder} is in use by another process", hint="Wait for it, or stop it first."
            ) from None
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, _FLAGS, 0o644)
    except OSError:
        from edge_trgl.runtime.storage import (
            files,  # here, for the parent's memory: it knows how to say what failed
        )

        return files.open_file(path, _FLAGS)
