"""The order of the images in an epoch and in cached boundaries, and the number of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.random_keys import key
from edge_trgl.runtime.storage.boundary_spec import WINDOW_CHUNKS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def epoch_order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of one epoch: a random permutation of the sample numbers, int64 [num_samples]."""
    generator = np.random.Generator(np.random.PCG64(key(seed, "order", epoch)))
    return generator.permutation(num_samples).astype(np.int64, copy=False)


def stored_order(num_samples: int, seed: int) -> NDArray[np.int64]:
    """Return the order in which cached records are written: a random permutation, int64 [num_samples].

    Without it, the records of a chunk could all have the same label: data sets may be sorted.
    """
    generator = np.random.Generator(np.random.PCG64(key(seed, "stored")))
    return generator.permutation(num_samples).astype(np.int64, copy=False)


def windowed_order(num_samples: int, seed: int, epoch: int, chunk: int) -> NDArray[np.int64]:
    """Return an order of one epoch over cached records, int64 [num_samples], that reads the disk in large parts.

    Chunks of `chunk` records that were written one after the other are shuffled, and then the records within every
    window of `WINDOW_CHUNKS` chunks. If everything fits one window, this is `epoch_order`.
    """
    if num_samples <= WINDOW_CHUNKS * chunk:
        return epoch_order(num_samples, seed, epoch)
    generator = np.random.Generator(np.random.PCG64(key(seed, "order", epoch)))
    chunks = generator.permutation(-(-num_samples // chunk))
    rows = (chunks[:, None] * chunk + np.arange(chunk)).ravel()
    window = WINDOW_CHUNKS * chunk
    for start in range(0, len(rows), window):
        generator.shuffle(rows[start : start + window])
    order: NDArray[np.int64] = stored_order(num_samples, seed)[rows[rows < num_samples]]
    return order


def spread(count: int, num_samples: int) -> NDArray[np.int64]:
    """Return `count` ascending sample numbers, evenly spaced over a set that may be sorted: int64 [count]."""
    return np.arange(count, dtype=np.int64) * num_samples // max(count, 1)


def num_batches(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches in one pass.

    Args:
        num_samples: number of images in the split.
        batch_size: number of images in a full batch, at least 1.
        drop_last: leave out a short last batch, unless it is the only one.
    """
    assert batch_size >= 1, "a batch holds at least one image"
    full, rest = divmod(num_samples, batch_size)
    keeps_rest = rest > 0 and (not drop_last or full == 0)
    return full + keeps_rest
