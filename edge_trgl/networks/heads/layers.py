"""The layers of heads, for maps [C, H, W] and for windows [C, L]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

PoolRule = Callable[[int], int]
"""The kernel of a head's average pooling, by the shorter side of a map in pixels, or the length of a window."""


def to_two_by_two(side: int) -> int:
    """Return the kernel that leaves 2x2 positions; of a single pixel, one."""
    return max(side // 2, 1)


def pooled_side(side: int, kernel: int) -> int:
    """Return how many positions a pooling leaves; the last one may cover fewer pixels."""
    return -(-side // kernel)


class Layers(NamedTuple):
    """The layer classes for a number of spatial dimensions."""

    conv: Callable[..., Any]
    norm: Callable[..., Any]
    pool: Callable[..., Any]


def layers_for(sides: Sequence[int]) -> Layers:
    """Return the 2D layers for the two sides of a map, the 1D layers for the length of a window."""
    if len(sides) == 2:
        return Layers(nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d)
    return Layers(nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d)
