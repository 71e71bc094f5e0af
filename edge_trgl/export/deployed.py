"""The network as it is deployed: raw images in, logits out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import nn


class Deployed(nn.Module):
    """Normalisation, trunk and one head as a single network: `head(trunk((input / scale - mean) / std))`.

    Args:
        trunk: the modules up to the chosen depth, [N, C, H, W] to the last boundary.
        head: the auxiliary classifier of that depth, boundary to logits.
        mean: per-channel mean, in units of `input / scale`.
        std: per-channel standard deviation in the same units, each above 0.
        scale: 255 for images in 0-255, 1 for raw units.

    Raises:
        ValueError: `mean` and `std` differ in length, or `std` or `scale` is not above 0.
    """

    mean: torch.Tensor  # [C, 1, 1]
    std: torch.Tensor  # [C, 1, 1]

    def __init__(
        self, trunk: nn.Module, head: nn.Module, mean: Sequence[float], std: Sequence[float], scale: float
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels, std has {len(std)}")
        if min(*std, scale) <= 0:
            raise ValueError(f"std and scale must be above 0, found std {list(std)} and scale {scale}")
        self.trunk = trunk
        self.head = head
        self.scale = float(scale)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, num_classes] of float32 images [N, C, H, W]."""
        logits: torch.Tensor = self.head(self.trunk((images / self.scale - self.mean) / self.std))
        return logits


def describe(model: Deployed, class_names: Sequence[str]) -> dict[str, str]:
    """What a user of the file must know, as metadata: `class_names` (a JSON list) and `preprocessing`."""
    units = "values from 0 to 255" if model.scale == 255 else "values in the units of the training data"
    normalised = (
        f"(input / {model.scale:g} - mean) / std, "
        f"mean {_numbers(model.mean)}, std {_numbers(model.std)}, is part of the graph"
    )
    return {
        "class_names": json.dumps(list(class_names), ensure_ascii=False),
        "preprocessing": f"Give float32 images [N, C, H, W] with {units}; {normalised}.",
    }


def _numbers(values: torch.Tensor) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values.flatten().tolist()) + "]"
