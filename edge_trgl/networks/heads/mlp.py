"""The default head of the TRGL authors' scripts."""

from __future__ import annotations

import math

from torch import Tensor, nn

from edge_trgl.networks.heads.layers import PoolRule

HIDDEN = 100


class MlpHead(nn.Module):
    """Flatten, linear to 100, BN, ReLU, linear: nearly all of its cost is the first matrix."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule) -> None:
        super().__init__()
        del pool  # every position is read
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] → logits [B, num_classes]."""
        logits: Tensor = self.layers(x)
        return logits
