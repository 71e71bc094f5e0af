"""The head of Belilovsky, Eickenberg and Oyallon, Greedy layerwise learning can scale to ImageNet (2019)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Branch, Sparing, through
from edge_trgl.networks.heads.layers import PoolRule, layers_for, to_two_by_two


class DeepHead(Sparing):
    """conv3x3, BN, ReLU, twice; then average pooling, BN, linear."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule = to_two_by_two) -> None:
        super().__init__()
        channels, *sides = shape
        layers, kernel = layers_for(sides), pool(min(sides))
        positions = math.prod(side // kernel for side in sides)
        self.conv1 = layers.conv(channels, channels, 3, padding=1, bias=False)
        self.norm1 = layers.norm(channels)
        self.conv2 = layers.conv(channels, channels, 3, padding=1, bias=False)
        self.norm2 = layers.norm(channels)
        self.pool = layers.pool(kernel)
        self.norm3 = layers.norm(channels)
        self.linear = nn.Linear(channels * positions, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, L] → logits [B, num_classes]."""
        x = self.norm3(self.pool(functional.relu_(self._convolved(x))))
        logits: Tensor = self.linear(x.flatten(1))
        return logits

    def _convolved(self, x: Tensor) -> Tensor:
        if x.dim() == 4 and self.spares(x):
            steps = ((None, self.conv1), (self.norm1, self.conv2))
            return through(Branch(steps=steps, closing=self.norm2, again=self.again), x)
        out: Tensor = self.norm2(self.conv2(functional.relu_(self.norm1(self.conv1(x)))))
        return out
