"""Networks of the proof that are not in the product, for `--model tools.prove.nets:NAME`.

Every block is a factory with plain arguments: equal ones are planned once, and none is built before it is used.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.networks.chain import BlockFactory, Chain

ImageShape = tuple[int, int, int]
"""(C, H, W)."""

MLP_SIZES = (1024,) * 6
HUGE_SIZES = (4096, 8192, 256)
"""The second layer has 128 MiB of weights, as many of momentum and, for a moment, of gradients."""

LARGE_STATE_SIZES = (2048,) * 91
"""2.9 GiB of weights and momentum."""

RESNET18_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels of two blocks each, and the stride of the first."""

MOBILENET_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1))
"""Widening inside, channels, blocks, stride of the first: MobileNetV2 for small images, less its last blocks."""


def mlp(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """Six equal layers."""
    return _layers("mlp", MLP_SIZES, input_shape, num_classes)


def huge(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """One layer that outweighs all others."""
    return _layers("huge", HUGE_SIZES, input_shape, num_classes)


def large_state(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """Far more weights than the budget that it is trained in."""
    return _layers("large-state", LARGE_STATE_SIZES, input_shape, num_classes)


def resnet18(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """ResNet-18 with the stem for small images."""
    blocks: list[BlockFactory] = [partial(_normed, input_shape[0], 64, 3)]
    before = 64
    for channels, stride in RESNET18_STAGES:
        blocks += [partial(BasicBlock, before, channels, stride), partial(BasicBlock, channels, channels, 1)]
        before = channels
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, name="resnet18")


def mobilenet(*, input_shape: ImageShape, num_classes: int) -> Chain:
    """The inverted residual blocks of MobileNetV2."""
    blocks: list[BlockFactory] = [partial(_normed, input_shape[0], 32, 3)]
    before = 32
    for widening, channels, num_blocks, first_stride in MOBILENET_STAGES:
        for block in range(num_blocks):
            stride = first_stride if block == 0 else 1
            blocks.append(partial(InvertedResidual, before, channels, widening, stride))
            before = channels
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, name="mobilenet")


class BasicBlock(nn.Module):
    """ReLU(shortcut(x) + BN(conv3x3(ReLU(BN(conv3x3(x)))))), [B, in_channels, H, W] → [B, channels, H', W']."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = _normed(in_channels, channels, 3, stride)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.shortcut = _projection(in_channels, channels) if channels != in_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        branch = self.norm(self.conv(self.first(x)))
        return functional.relu_(branch + self.shortcut(x[:, :, :: self.stride, :: self.stride]))


class InvertedResidual(nn.Module):
    """conv1x1 to `widening` times the channels, depthwise conv3x3, conv1x1 back; added to x where shapes allow."""

    def __init__(self, in_channels: int, channels: int, widening: int, stride: int) -> None:
        super().__init__()
        inner = in_channels * widening
        self.adds = stride == 1 and in_channels == channels
        self.widen = _normed(in_channels, inner, 1) if widening > 1 else nn.Identity()
        self.depthwise = _normed(inner, inner, 3, stride, groups=inner)
        self.narrow = _projection(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] → [B, channels, H', W']."""
        out: Tensor = self.narrow(self.depthwise(self.widen(x)))
        return x + out if self.adds else out


def _layers(name: str, sizes: tuple[int, ...], input_shape: ImageShape, num_classes: int) -> Chain:
    channels, height, width = input_shape
    blocks: list[BlockFactory] = [partial(_flat_layer, channels * height * width, sizes[0])]
    blocks += [partial(_layer, before, after) for before, after in pairwise(sizes)]
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes, name=name)


def _flat_layer(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU(inplace=True))


def _layer(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True))


def _normed(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _projection(in_channels: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
