"""The head of Swin Transformer (Liu et al., 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from edge_trgl.networks.heads.layers import PoolRule


class TokensHead(nn.Module):
    """Layer norm over the channels of each position, mean over positions, linear."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, pool: PoolRule) -> None:
        super().__init__()
        del pool  # every position is pooled
        self.norm = nn.LayerNorm(shape[0])
        self.linear = nn.Linear(shape[0], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] → logits [B, num_classes]."""
        tokens = x.flatten(2).transpose(1, 2) if x.dim() > 2 else x.unsqueeze(1)  # [B, positions, C]
        logits: Tensor = self.linear(self.norm(tokens).mean(1))
        return logits
