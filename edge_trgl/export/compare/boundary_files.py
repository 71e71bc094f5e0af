"""Files that hold the boundary between two modules, so that it need not stay in memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from edge_trgl.export.arrays import Array
from edge_trgl.runtime.storage import files


def write_samples(path: Path, first: int, values: Array) -> None:
    """Write `values`, float32 [N, ...], to the file `path` as samples `first` to `first + N - 1`.

    Raises:
        StorageError: the disk is full or fails.
    """
    data = np.ascontiguousarray(values, np.float32)
    with files.opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        files.write_all(fd, data.reshape(-1).view(np.uint8).data, first * data[0].nbytes)


def read_samples(path: Path, samples: range, shape: tuple[int, ...]) -> Array:
    """Read `samples` from a file that `write_samples` wrote, as float32 [N, *shape].

    Raises:
        StorageError: the file is missing or too short.
    """
    values = np.empty((len(samples), *shape), np.float32)
    with files.opened(path, os.O_RDONLY) as fd:
        files.read_into(fd, values.reshape(-1).view(np.uint8).data, samples.start * 4 * math.prod(shape))
    return values
