"""The head of the paper (appendix G)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Sparing, pooled
from edge_trgl.networks.heads.layers import PoolRule, layers_for, to_two_by_two


class ConvHead(Sparing):
    """conv3x3, ReLU, average pooling, BN, linear."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule = to_two_by_two) -> None:
        super().__init__()
        channels, *sides = shape
        layers, kernel = layers_for(sides), pool(min(sides))
        positions = math.prod(side // kernel for side in sides)
        self.conv = layers.conv(channels, channels, 3, padding=1, bias=False)
        self.pool = layers.pool(kernel)
        self.norm = layers.norm(channels)
        self.linear = nn.Linear(channels * positions, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, L] → logits [B, num_classes]."""
        spares = x.dim() == 4 and self.spares(x)
        x = pooled(self.conv, self.pool, x) if spares else self.pool(functional.relu_(self.conv(x)))
        logits: Tensor = self.linear(self.norm(x).flatten(1))
        return logits
