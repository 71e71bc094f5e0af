"""The smallest parts of a module that can be computed on their own, with the same bits.

Wherever a forward and backward pass is divided, between modules or inside one, values and gradients must lie in
memory as they would without the division, random draws must not depend on earlier ones, and what is computed again
must leave no trace.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from edge_trgl.method.transport import Residue, marks_of
from edge_trgl.networks.chain import Pieces
from edge_trgl.random_keys import key

ALIGNMENT = 64
"""In bytes: torch aligns every tensor that it allocates on the CPU to this."""


@dataclass(frozen=True)
class Segment:
    """A block, or one piece of a block that consists of pieces.

    `place`: the number of the block in its chain, and of the piece in its block.
    """

    layer: nn.Module
    place: tuple[int, int]

    @functools.cached_property
    def marks(self) -> list[Residue]:
        """The marks of its residues."""
        return marks_of(self.layer)

    def __call__(self, x: Tensor, seed: int) -> Tensor:
        """The output [B, ...] for x [B, ...], laid out; `seed` and `place` key what is drawn at random."""
        # Dropout draws from the default generator; keyed here, it draws the same in every order of visits.
        own = key(seed, *self.place)
        torch.default_generator.manual_seed(own)
        if x.is_cuda:
            torch.cuda.default_generators[x.get_device()].manual_seed(own)
        out = laid_out(self.layer(x))
        if out.requires_grad:
            out.register_hook(laid_out)  # type: ignore[no-untyped-call]
        return out


def segments_of(trunk: nn.Sequential, first_block: int) -> list[Segment]:
    """The segments of a module, in order; `first_block` is the number of its first block in the chain."""
    return [
        Segment(layer, (number, piece))
        for number, block in enumerate(trunk, first_block)
        for piece, layer in enumerate(block if isinstance(block, Pieces) else (block,))
    ]


def last_uses(stages: Iterable[Iterable[Segment]]) -> list[list[nn.Parameter]]:
    """For each stage, the weights whose gradients are complete after its backward, which follows all later
    stages'.

    A weight that several stages share belongs to the first of them.
    """
    seen: set[nn.Parameter] = set()
    found = []
    for stage in stages:
        weights = dict.fromkeys(weight for segment in stage for weight in segment.layer.parameters())
        found.append([weight for weight in weights if weight not in seen])
        seen.update(weights)
    return found


def laid_out(values: Tensor) -> Tensor:
    """`values` [B, ...] without gaps, maps channels-last, aligned to `ALIGNMENT`; copied if they are not.

    Layout and alignment decide which kernels run and so the bits of the result.
    """
    if values.stride() == _strides(values.shape) and values.data_ptr() % ALIGNMENT == 0:
        return values
    if values.dim() == 4:
        return values.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)
    return values.clone(memory_format=torch.contiguous_format)


@functools.lru_cache(maxsize=256)
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of values that are laid out; a step asks for the same few shapes every time."""
    if len(shape) == 4:
        _, channels, height, width = shape
        return channels * height * width, 1, channels * width, channels
    return (*reversed(list(accumulate(reversed(shape[1:]), int.__mul__))), 1)


class Seed(torch.autograd.Function):
    """Starts a backward at `out` with a given gradient.

    `torch.autograd.backward(out, gradient)` would do the same, but its check of shapes loads sympy: 35 MiB.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return out.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient, None
