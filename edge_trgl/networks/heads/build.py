"""Builds a head by its name."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from edge_trgl.networks.heads.conv import ConvHead
from edge_trgl.networks.heads.deep import DeepHead
from edge_trgl.networks.heads.layers import PoolRule
from edge_trgl.networks.heads.linear import LinearHead
from edge_trgl.networks.heads.lite import LiteHead
from edge_trgl.networks.heads.mlp import MlpHead
from edge_trgl.networks.heads.pooled import PooledHead
from edge_trgl.networks.heads.tokens import TokensHead

HEADS: dict[str, Callable[[tuple[int, ...], int, PoolRule], nn.Module]] = {
    "conv": ConvHead,
    "deep": DeepHead,
    "linear": LinearHead,
    "lite": LiteHead,
    "mlp": MlpHead,
    "pooled": PooledHead,
    "tokens": TokensHead,
}

_SPATIAL = ("conv", "deep", "pooled")
"""Heads that read maps or windows, not feature vectors."""


def build_head(name: str, shape: tuple[int, ...], num_classes: int, pool: PoolRule) -> nn.Module:
    """Build the head of a module.

    Args:
        name: one of `HEADS`.
        shape: one sample of the module's output, such as (C, H, W), without the batch.
        num_classes: number of logits.
        pool: the average pooling of heads that leave it open.

    Raises:
        ValueError: there is no such head, or it cannot read such an output.
    """
    if name not in HEADS:
        raise ValueError(f"there is no head {name!r}; known: {', '.join(HEADS)}")
    if name in _SPATIAL and len(shape) not in (2, 3):
        raise ValueError(
            f"the {name} head reads maps [C, H, W] or windows [C, L]; this module's output is {list(shape)}"
        )
    if math.prod(shape) == 0:
        raise ValueError(f"the module's output {list(shape)} is empty: the input is too small for this net")
    return HEADS[name](shape, num_classes, pool)
