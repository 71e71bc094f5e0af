"""The second half of an autoencoder: from a module's output back to the samples that entered the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.networks.heads.layers import layers_for

DECODER = "decoder"
"""Its name among heads. No option gives it: a network that reconstructs has it instead of a classifier."""

MAX_CHANNELS = 128
"""Channels between its layers, at most; those of the authors' decoder for the K-M net of width 256."""


class Decoder(nn.Module):
    """Transposed convolution 5x5 of stride 2, BN, ReLU for each time that the sides were halved; then conv3x3.

    The first layer keeps the sides where none were. Each layer has half the channels of the one before, and every
    side becomes what it was, odd or even. The last layer is linear: normalised pixels have no bounds, and neither
    do the readings of a sensor. (The authors' decoder for an encoder of stride 2 ends in BN and Tanh.)

    Raises:
        ValueError: the output has other dimensions than the samples, is no map and no window, or is empty.
    """

    def __init__(self, output_shape: Sequence[int], sample_shape: Sequence[int]) -> None:
        super().__init__()
        is_spatial = len(output_shape) == len(sample_shape) and len(output_shape) in (2, 3)
        if not is_spatial or math.prod(output_shape) == 0:
            raise ValueError(
                f"an autoencoder rebuilds images [C, H, W] from maps, and windows [C, L] from windows; here "
                f"{list(sample_shape)} from {list(output_shape)}"
            )
        channels, *sides = output_shape
        self._sides = halved(sample_shape[1:], sides)
        kinds, layers = layers_for(sides), nn.ModuleList()
        up: Callable[..., nn.Module] = nn.ConvTranspose2d if len(sides) == 2 else nn.ConvTranspose1d
        for before, after in zip(self._sides, self._sides[1:], strict=False):
            # Of stride 2, a layer makes 2 n - 1 positions of n, or one more.
            added = tuple(wide - (2 * narrow - 1) for narrow, wide in zip(before, after, strict=True))
            narrower = _narrower(channels)
            layer = up(channels, narrower, 5, stride=2, padding=2, output_padding=added, bias=False)
            layers.append(nn.Sequential(layer, kinds.norm(narrower)))
            channels = narrower
        if not layers:
            narrower = _narrower(channels)
            layer = kinds.conv(channels, narrower, 3, padding=1, bias=False)
            layers.append(nn.Sequential(layer, kinds.norm(narrower)))
            channels = narrower
        self.layers = layers
        self.last = kinds.conv(channels, sample_shape[0], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] → [B, C', H, W]; windows [B, C, l] → [B, C', L]."""
        if tuple(x.shape[2:]) != self._sides[0]:
            x = functional.interpolate(x, self._sides[0])
        for layer in self.layers:
            x = functional.relu_(layer(x))
        return cast(Tensor, self.last(x))


def halved(sample: Sequence[int], output: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the sides from those nearest to `output` to those of `sample`, each about twice the one before.

    A halving rounds up, as a convolution of stride 2 with padding does.
    """
    ratio = math.prod(sample) / math.prod(output)
    sides = [tuple(sample)]
    for _ in range(max(round(math.log2(ratio) / len(sample)), 0)):
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    return sides[::-1]


def _narrower(channels: int) -> int:
    return min(max(channels // 2, 1), MAX_CHANNELS)
