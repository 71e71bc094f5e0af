"""The smallest head: a linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from edge_trgl.networks.heads.layers import PoolRule


class LinearHead(nn.Module):
    """Mean over positions, then linear; for feature vectors [B, C], linear alone."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule) -> None:
        super().__init__()
        del pool  # every position is pooled
        self.linear = nn.Linear(shape[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] → logits [B, num_classes]."""
        if x.dim() > 2:
            x = x.mean(dim=tuple(range(2, x.dim())))
        logits: Tensor = self.linear(x)
        return logits
