"""Auxiliary classifiers: small nets that predict the label from a module's output."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.sparing import Sparing, pooled

PoolRule = Callable[[int], int]
"""Side of a square map in pixels → kernel of the head's average pooling."""


def to_two_by_two(side: int) -> int:
    """The pooling that leaves 2x2 positions (1 where the map is a single pixel)."""
    return max(side // 2, 1)


class ConvHead(Sparing):
    """conv3x3, ReLU, average pooling, BN, linear: the paper's classifier (appendix G)."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule = to_two_by_two) -> None:
        super().__init__()
        channels, height, width = shape
        kernel = pool(min(height, width))
        positions = (height // kernel) * (width // kernel)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.pool = nn.AvgPool2d(kernel)
        self.norm = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels * positions, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → logits [B, num_classes]."""
        x = pooled(self.conv, self.pool, x) if self.spares(x) else self.pool(functional.relu_(self.conv(x)))
        logits: Tensor = self.linear(self.norm(x).flatten(1))
        return logits


class LinearHead(nn.Module):
    """Mean over positions, then linear; of a feature vector [B, C], the linear part alone."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule = to_two_by_two) -> None:
        super().__init__()
        del pool  # every position is pooled
        self.linear = nn.Linear(shape[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] → logits [B, num_classes]."""
        if x.dim() > 2:
            x = x.mean(dim=tuple(range(2, x.dim())))
        logits: Tensor = self.linear(x)
        return logits


HEADS: dict[str, type[ConvHead] | type[LinearHead]] = {"conv": ConvHead, "linear": LinearHead}


def build_head(name: str, shape: tuple[int, ...], num_classes: int, pool: PoolRule) -> nn.Module:
    """The head `name` for a module whose output has `shape` (one sample, without the batch).

    Raises:
        ValueError: the head cannot read such a shape.
    """
    if name == "conv" and len(shape) != 3:
        raise ValueError(f"the conv head reads maps [C, H, W]; this module's output is {list(shape)}")
    if math.prod(shape) == 0:
        raise ValueError(f"the module's output {list(shape)} is empty: the input is too small for this net")
    return HEADS[name](shape, num_classes, pool)
