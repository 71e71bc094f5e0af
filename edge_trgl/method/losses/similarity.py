"""Similarity matching: samples of one class should be similar, others should not (Nøkland and Eidnes, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edge_trgl.method.losses.layers import mixing
from edge_trgl.method.losses.mix import Auxiliary, Place


class Similarity(Auxiliary):
    """mean((S(h) − S(y))²), where S is the matrix of cosine similarities of samples, each centred on its own mean.

    h: a layer's output for the module's output; of a map, the standard deviation of each channel. y: the labels,
    one-hot. With unit rows X and Y of h and y, ‖XXᵀ − YYᵀ‖² = ‖XᵀX‖² − 2‖XᵀY‖² + ‖YᵀY‖², so that no tensor grows
    with the square of the batch.
    """

    compares_samples = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.layer = mixing(place.output_shape)

    def forward(self, out: Tensor, y: Tensor, image: Tensor | None) -> Tensor:
        """[B, C], [B, C, L] or [B, C, H, W], and labels [B] → 0-d float32."""
        mixed = self.layer(out)
        # In float32 whatever the trunk computes in: large sums are subtracted.
        with torch.autocast(out.device.type, enabled=False):
            x = _unit_rows(_features(mixed.float()))
            labels = _unit_rows(functional.one_hot(y, self.place.num_classes).float())
            joint = _square(x, x) - 2 * _square(x, labels) + _square(labels, labels)
            return joint / len(out) ** 2


def _features(values: Tensor) -> Tensor:
    """[B, C, ...] → [B, C]."""
    positions = values.flatten(2) if values.dim() > 2 else values.unsqueeze(2)
    return positions.std(2) if positions.shape[2] > 1 else positions.squeeze(2)


def _unit_rows(values: Tensor) -> Tensor:
    """[B, N] with each row centred on its mean and scaled to length 1."""
    return functional.normalize(values - values.mean(1, keepdim=True), dim=1, eps=1e-8)


def _square(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵀb‖²."""
    return (a.T @ b).square().sum()
