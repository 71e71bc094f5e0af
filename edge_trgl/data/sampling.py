"""Which images make which batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.random  # numpy loads it when first used: in training, under the guard

from edge_trgl.keys import key

if TYPE_CHECKING:
    from numpy.typing import NDArray


def epoch_order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation of the sample numbers, int64 [num_samples]."""
    generator = np.random.Generator(np.random.PCG64(key(seed, "order", epoch)))
    return generator.permutation(num_samples).astype(np.int64, copy=False)


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
