"""The network as it is deployed: raw images or windows in, logits out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import nn


class Deployed(nn.Module):
    """Normalisation, trunk and one head as a single network: `head(trunk((input / scale - mean) / std))`.

    Args:
        trunk: the modules up to the chosen depth, [N, *input_shape] to the last boundary.
        head: the auxiliary classifier of that depth, boundary to logits.
        mean: per-channel mean, in units of `input / scale`.
        std: per-channel standard deviation in the same units, each above 0.
        scale: 255 for images in 0-255, 1 for raw units.
        input_shape: (C, H, W) of images, (C, L) of windows.

    Raises:
        ValueError: `mean` or `std` has not a value a channel, or `std` or `scale` is not above 0.
    """

    mean: torch.Tensor  # [C, 1, 1] or [C, 1]
    std: torch.Tensor  # [C, 1, 1] or [C, 1]

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float,
        input_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        if not len(mean) == len(std) == input_shape[0]:
            raise ValueError(f"of {input_shape[0]} channels, mean has {len(mean)} and std has {len(std)}")
        if min(*std, scale) <= 0:
            raise ValueError(f"std and scale must be above 0, found std {list(std)} and scale {scale}")
        self.trunk = trunk
        self.head = head
        self.scale = float(scale)
        channels = (-1, *[1] * len(input_shape[1:]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(channels))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, num_classes] of float32 images [N, C, H, W] or windows [N, C, L]."""
        logits: torch.Tensor = self.head(self.trunk((images / self.scale - self.mean) / self.std))
        return logits


def describe(model: Deployed, class_names: Sequence[str]) -> dict[str, str]:
    """What a user of the file must know, as metadata: `class_names` (a JSON list) and `preprocessing`."""
    units = "values from 0 to 255" if model.scale == 255 else "values in the units of the training data"
    samples = "images [N, C, H, W]" if model.mean.dim() == 3 else "windows [N, C, L]"
    normalised = (
        f"(input / {model.scale:g} - mean) / std, "
        f"mean {_numbers(model.mean)}, std {_numbers(model.std)}, is part of the graph"
    )
    return {
        "class_names": json.dumps(list(class_names), ensure_ascii=False),
        "preprocessing": f"Give float32 {samples} with {units}; {normalised}.",
    }


def _numbers(values: torch.Tensor) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values.flatten().tolist()) + "]"
