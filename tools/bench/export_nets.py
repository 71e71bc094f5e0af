"""Networks of the export benchmark, for `--model tools.bench.export_nets:NAME`."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import nn

from edge_trgl.networks.chain import BlockFactory, Chain

ImageShape = tuple[int, int, int]
"""(C, H, W)."""

HUGE_CHANNELS = (1024, 3584)
"""The second convolution has 126 MiB of weights; oneDNN makes a copy of them in its own order to compute with."""


def huge_convolution(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """One convolution that outweighs all else."""
    return _convolutions(HUGE_CHANNELS, input_shape, num_classes)


def small_convolution(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """The same form, small."""
    return _convolutions((16, 32), input_shape, num_classes)


def layers(num_layers: int, side: int, *, input_shape: ImageShape, num_classes: int) -> Chain:
    """Equal layers of `side` by `side` weights, after one that reads the image."""
    sizes = (side,) * num_layers
    channels, height, width = input_shape
    blocks: list[BlockFactory] = [partial(_flat_layer, channels * height * width, side)]
    blocks += [partial(_layer, before, after) for before, after in pairwise(sizes)]
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, name=f"layers-{num_layers}")


many_layers = partial(layers, 60, 2048)
"""944 MiB of weights, twice the budget of `tools.bench.export`."""

few_layers = partial(layers, 3, 64)


def _convolutions(channels: tuple[int, int], input_shape: ImageShape, num_classes: int) -> Chain:
    first, second = channels
    blocks: list[BlockFactory] = [
        partial(_convolution, input_shape[0], first, 4),
        partial(_convolution, first, second, 1),
    ]
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, name="convolutions")


def _convolution(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.ReLU(inplace=True))


def _flat_layer(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), _layer(inputs, outputs))


def _layer(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True))
