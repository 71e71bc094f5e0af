"""Keep samples between two modules in a file rather than in memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from edge_trgl.export.arrays import Array
from edge_trgl.runtime.storage import files


def put(path: Path, first: int, values: Array) -> None:
    """Write float32 `values` [N, ...], the samples from number `first` on, to the file `path`.

    Raises:
        StorageError: the disk is full or fails.
    """
    data = np.ascontiguousarray(values, np.float32)
    with files.opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        files.write_all(fd, data.reshape(-1).view(np.uint8).data, first * data[0].nbytes)


def take(path: Path, samples: range, shape: tuple[int, ...]) -> Array:
    """float32 [N, *shape], the samples of those numbers, from a file that `put` wrote.

    Raises:
        StorageError: they are not in it.
    """
    values = np.empty((len(samples), *shape), np.float32)
    with files.opened(path, os.O_RDONLY) as fd:
        files.read_into(fd, values.reshape(-1).view(np.uint8).data, samples.start * 4 * math.prod(shape))
    return values
