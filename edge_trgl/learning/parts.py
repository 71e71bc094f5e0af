"""Batches in parts: the whole batch, or micro-batches one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_trgl.learning.segments import laid_out
from edge_trgl.learning.step_config import Emit
from edge_trgl.random_keys import key


@dataclass(frozen=True, kw_only=True)
class Part:
    """A batch, or a micro-batch, on its way through a module.

    `rows` of the batch and their `share` of it; `seed` of what it draws at random. `rate`: the learning rate if
    weights are to be updated in its backward; only that of the last part completes the gradients. `emit` takes the
    output, `send_back` the gradient of the input, if anybody reads it.
    """

    rows: slice
    share: float
    seed: int
    rate: float | None
    emit: Emit
    send_back: Emit | None


def parts_of(
    num_samples: int,
    size: int | None,
    seed: int,
    *,
    rate: float | None = None,
    emit: Emit | None = None,
    send_back: Emit | None = None,
) -> Iterator[Part]:
    """The parts, of `size` samples each (None: all), of a batch; `rate` is for the last one."""
    size = size or num_samples
    for start in range(0, num_samples, size):
        stop = min(start + size, num_samples)
        yield Part(
            rows=slice(start, stop),
            share=(stop - start) / num_samples,
            seed=key(seed, start),
            rate=rate if stop == num_samples else None,
            emit=emit or ignore,
            send_back=send_back,
        )


def ignore(values: Tensor) -> None:
    """Take an output that nobody reads."""


def rows_of(batch: Tensor, rows: slice) -> Tensor:
    """Some rows of a batch, laid out in memory as a batch of their own."""
    whole = rows.start == 0 and rows.stop >= len(batch)
    return laid_out(batch) if whole else batch[rows].clone()


def leaf(x: Tensor, *, wants_gradient: bool) -> Tensor:
    """`x` as the start of a graph."""
    return x.detach().requires_grad_(wants_gradient)


def gradient_of(x: Tensor) -> Tensor | None:
    """The gradient that reached `x`, laid out like any batch."""
    return None if x.grad is None else laid_out(x.grad)


def hand_back(x: Tensor, part: Part) -> None:
    """Send the gradient of `x` back if anybody reads it; zeros where none reached it."""
    if part.send_back is not None:
        gradient = gradient_of(x)
        part.send_back(torch.zeros_like(x) if gradient is None else gradient)
