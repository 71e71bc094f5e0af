"""Running statistics of batch norms: left as they are, or measured again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

_BatchNorm = nn.modules.batchnorm._BatchNorm


@contextlib.contextmanager
def buffers_kept(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Batch norms use batch statistics and do not update their running ones, which the first forward updated."""
    norms = _with_statistics(layers)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextlib.contextmanager
def statistics_averaged(part: nn.Module, *, anew: bool) -> Iterator[None]:
    """Running statistics of batch norms follow the plain mean over batches, not one that forgets.

    `anew`: the mean begins with the next batch.
    """
    norms = _with_statistics([part])
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # torch's word for it
        if anew:
            norm.reset_running_stats()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _with_statistics(layers: Iterable[nn.Module]) -> list[_BatchNorm]:
    return [
        part
        for layer in layers
        for part in layer.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
