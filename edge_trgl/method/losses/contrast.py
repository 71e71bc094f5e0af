"""Supervised contrast (Khosla et al., 2020) with one view of each sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.losses.layers import mixing, norm
from edge_trgl.method.losses.mix import Auxiliary, Place

FEATURES = 128
TEMPERATURE = 0.07


class Contrast(Auxiliary):
    """How badly the projection z of a sample separates its class from the rest of the batch.

    For each sample i that shares its class with another one: the mean over those j of −log softmax(zᵢ·zⱼ / 0.07),
    the softmax being over all samples but i. The loss is the mean over these i. The projection has InfoPro's form:
    a convolution and two linear layers.
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
    """The loss of unit rows z [B, N] and labels [B], 0-d."""
    self_pairs = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # Not −inf, of which the softmax of a batch of one would be NaN.
    similar = (z @ z.T / TEMPERATURE).masked_fill(self_pairs, torch.finfo(torch.float32).min)
    alike = (y[:, None] == y[None, :]) & ~self_pairs
    chosen = torch.log_softmax(similar, dim=1).masked_fill(~alike, 0)
    counts = alike.sum(1)
    anchors = (counts > 0).sum().clamp(min=1)
    return -(chosen.sum(1) / counts.clamp(min=1)).sum() / anchors
