"""What the heads of maps [C, H, W] and of windows [C, L] have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

PoolRule = Callable[[int], int]
"""Side of a square map in pixels, or length of a window → kernel of the head's average pooling."""


def to_two_by_two(side: int) -> int:
    """The pooling that leaves 2x2 positions (1 where the map is a single pixel)."""
    return max(side // 2, 1)


class Layers(NamedTuple):
    """The classes of layers for one number of sides."""

    conv: Callable[..., Any]
    norm: Callable[..., Any]
    pool: Callable[..., Any]


def layers_for(sides: Sequence[int]) -> Layers:
    """Those of maps for two sides, those of windows for one."""
    if len(sides) == 2:
        return Layers(nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d)
    return Layers(nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d)
