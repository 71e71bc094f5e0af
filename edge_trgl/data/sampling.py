"""Which images make which batch, and in which order they are kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.random_keys import key
from edge_trgl.runtime.storage.boundary_spec import WINDOW_CHUNKS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def epoch_order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation of the sample numbers, int64 [num_samples]."""
    generator = np.random.Generator(np.random.PCG64(key(seed, "order", epoch)))
    return generator.permutation(num_samples).astype(np.int64, copy=False)


def stored_order(num_samples: int, seed: int) -> NDArray[np.int64]:
    """The order in which cached records are written, int64 [num_samples]: a permutation, so that no chunk of
    records is a stretch of a data set that is sorted by label."""
    generator = np.random.Generator(np.random.PCG64(key(seed, "stored")))
    return generator.permutation(num_samples).astype(np.int64, copy=False)


def windowed_order(num_samples: int, seed: int, epoch: int, chunk: int) -> NDArray[np.int64]:
    """The order of one epoch over cached records, int64 [num_samples], that a slow disk can follow.

    Chunks of `chunk` records that were written one after the other come in a random order; the records of every
    `WINDOW_CHUNKS` chunks in a row are shuffled. What is all one window is shuffled like images: `epoch_order`.
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
    """`count` ascending sample numbers from all over a set, int64 [count]: classes may come one after another."""
    return np.arange(count, dtype=np.int64) * num_samples // max(count, 1)


def num_batches(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches one pass makes.

    Args:
        num_samples: images in the split.
        batch_size: images in a full batch, at least 1.
        drop_last: leave out a short last batch, as training does; a set smaller than one batch keeps it.
    """
    assert batch_size >= 1, "a batch holds at least one image"
    full, rest = divmod(num_samples, batch_size)
    keeps_rest = rest > 0 and (not drop_last or full == 0)
    return full + keeps_rest
