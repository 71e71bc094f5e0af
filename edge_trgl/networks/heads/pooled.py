"""The cheap head of Belilovsky, Eickenberg and Oyallon, Decoupled greedy learning of CNNs (2020)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.networks.heads.layers import PoolRule, layers_for, pooled_side, to_two_by_two


class PooledHead(nn.Module):
    """Average pooling to a quarter of each side, three of conv1x1, BN, ReLU, pooling to 2x2, two linear layers.

    It needs 2 to 3 % of the multiplications of the `conv` head. Pooling never leaves fewer than 2 positions on a
    side that has them: with a single position, batch norm could not normalise a batch of one sample.
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule = to_two_by_two) -> None:
        super().__init__()
        del pool  # a quarter and then 2x2, whatever the net
        channels, *sides = shape
        self._quarter = [min(4, pooled_side(side, 2)) for side in sides]
        quarters = [pooled_side(side, kernel) for side, kernel in zip(sides, self._quarter, strict=True)]
        self._half = [pooled_side(side, 2) for side in quarters]
        layers = layers_for(sides)
        self.mixing = nn.Sequential()
        for _ in range(3):
            self.mixing.extend((layers.conv(channels, channels, 1, bias=False), layers.norm(channels), nn.ReLU()))
        self.hidden = nn.Linear(channels * math.prod(min(side, 2) for side in quarters), channels)
        self.norm = nn.LayerNorm(channels)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, L] → logits [B, num_classes]."""
        x = _averaged(self.mixing(_averaged(x, self._quarter)), self._half)
        logits: Tensor = self.linear(functional.relu_(self.norm(self.hidden(x.flatten(1)))))
        return logits


def _averaged(x: Tensor, kernel: list[int]) -> Tensor:
    """Pool averages over all pixels, also those of an incomplete last kernel."""
    pool = functional.avg_pool2d if len(kernel) == 2 else functional.avg_pool1d
    return pool(x, kernel, ceil_mode=True, count_include_pad=False)
