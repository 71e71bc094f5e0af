"""A head of few operations: what counts where nets are small."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.networks.heads.layers import PoolRule, pooled_side

GRID = 4
"""Positions that pooling leaves on each side, if the side has them."""


class LiteHead(nn.Module):
    """The maximum of each channel in 4x4 windows, BN, linear: no convolution.

    All but the pooling is done on at most 16 positions. In trials on CIFAR-10 (5,000 images) averages instead of
    maxima cost five points, a grid of 2x2 or 8x8 five to six, and no norm four. Vectors [C] are not pooled; of
    more than two sides, the positions are pooled as those of a window.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule) -> None:
        super().__init__()
        del pool  # 4x4, whatever the net
        channels, *sides = shape
        sides = sides if len(sides) <= 2 else [math.prod(sides)]
        self._windows = [pooled_side(side, GRID) for side in sides]
        positions = math.prod(map(pooled_side, sides, self._windows))
        self.norm = nn.BatchNorm2d(channels) if len(sides) == 2 else nn.BatchNorm1d(channels)
        self.linear = nn.Linear(channels * positions, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] → logits [B, num_classes]."""
        logits: Tensor = self.linear(self.norm(self._pooled(x)).flatten(1))
        return logits

    def _pooled(self, x: Tensor) -> Tensor:
        if len(self._windows) == 2:
            return functional.max_pool2d(x, self._windows, ceil_mode=True)
        if len(self._windows) == 1:
            return functional.max_pool1d(x.flatten(2), self._windows, ceil_mode=True)
        return x
