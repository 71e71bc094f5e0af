"""Supervised contrast (Khosla et al., 2020), one view a sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.losses.layers import mixing, norm
from edge_trgl.method.losses.mix import Auxiliary, Place

FEATURES = 128
TEMPERATURE = 0.07


class Contrast(Auxiliary):
    """How badly a sample's projection tells those of its class from the rest of the batch.

    The mean, over samples with another of their class in the batch, of −log softmax(zᵢ·zⱼ / 0.07) over all others,
    averaged over the j of the same class. The projection has InfoPro's form: a convolution, two linear layers.
    """

    compares_samples = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        channels = place.output_shape[0]
        self.layer = mixing(place.output_shape)
        self.norm = norm(place.output_shape)
        self.hidden = nn.Linear(channels, FEATURES)
        self.last = nn.Linear(FEATURES, FEATURES)

    def forward(self, out: Tensor, y: Tensor, image: Tensor | None) -> Tensor:
        """[B, C], [B, C, L] or [B, C, H, W], and labels [B] → 0-d float32."""
        inner = functional.relu_(self.norm(self.layer(out)))
        pooled = inner.flatten(2).mean(2) if inner.dim() > 2 else inner
        projected = self.last(functional.relu_(self.hidden(pooled)))
        with torch.autocast(out.device.type, enabled=False):
            return _contrast(functional.normalize(projected.float(), dim=1), y)


def _contrast(z: Tensor, y: Tensor) -> Tensor:
    """Of unit rows z [B, N] and labels [B]."""
    self_pairs = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # Not −inf, of which the softmax of a batch of one could make nothing.
    similar = (z @ z.T / TEMPERATURE).masked_fill(self_pairs, torch.finfo(torch.float32).min)
    alike = (y[:, None] == y[None, :]) & ~self_pairs
    chosen = torch.log_softmax(similar, dim=1).masked_fill(~alike, 0)
    counts = alike.sum(1)
    anchors = (counts > 0).sum().clamp(min=1)
    return -(chosen.sum(1) / counts.clamp(min=1)).sum() / anchors
