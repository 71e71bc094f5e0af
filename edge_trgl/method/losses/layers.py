"""Layers of auxiliary losses, for samples of one, two or three dimensions."""

from __future__ import annotations

from torch import nn

from edge_trgl.method.losses.mix import Shape


def mixing(shape: Shape) -> nn.Module:
    """A layer without bias that keeps the shape of samples: a convolution with kernel 3, or linear for [C].

    Raises:
        ValueError: the shape is none of [C], [C, L] and [C, H, W].
    """
    if len(shape) not in (1, 2, 3):
        raise ValueError(f"the local loss reads [C], [C, L] or [C, H, W]; this module's output is {list(shape)}")
    if len(shape) == 1:
        return nn.Linear(shape[0], shape[0], bias=False)
    convolution = nn.Conv1d if len(shape) == 2 else nn.Conv2d
    return convolution(shape[0], shape[0], 3, padding=1, bias=False)


def norm(shape: Shape) -> nn.Module:
    """Batch norm for the output of `mixing`; it is never used in evaluation, so it has no running statistics."""
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return kind(shape[0], track_running_stats=False)
