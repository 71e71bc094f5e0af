"""VGG-19 with batch norm: 16 convolutions of 64 to 512 channels (configuration E); the head is its classifier."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Branch, Sparing, through
from edge_trgl.networks.chain import BlockFactory, Chain, Pieces, split_by_depth

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions between one max-pool and the next."""


class ConvBlock(Sparing):
    """conv3x3, BN, ReLU: [B, in_channels, H, W] → [B, channels, H, W]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Where the shapes agree, r = T(x) − x."""
        # Nothing less is kept without computing the convolution again.
        if self.again and self.spares(x):
            return functional.relu_(through(Branch(steps=((None, self.conv),), closing=self.norm, again=True), x))
        return functional.relu_(self.norm(self.conv(x)))


def _max_pool() -> nn.Module:
    # An odd map, as of images of 28 pixels, keeps its last row and column, and a single pixel stays one.
    return nn.MaxPool2d(2, ceil_mode=True)


def _pooled_block(in_channels: int, channels: int) -> nn.Module:
    # In pieces, and before the convolution: a block of equal shapes then has a residue in every stage.
    return Pieces(_max_pool(), ConvBlock(in_channels, channels))


def _last_block(channels: int) -> nn.Module:
    return Pieces(ConvBlock(channels, channels), _max_pool())


def vgg19(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    num_modules: int = 4,
    head: str = "conv",
) -> Chain:
    """VGG-19 as a chain of `num_modules` modules of equal depth; one block is one convolution.

    A max-pool starts the block that follows it; the last one ends the last block.
    """
    blocks: list[BlockFactory] = []
    before = input_shape[0]
    for stage, (channels, num_blocks) in enumerate(STAGES):
        blocks.append(partial(_pooled_block if stage > 0 else ConvBlock, before, channels))
        blocks += [partial(ConvBlock, channels, channels)] * (num_blocks - 1)
        before = channels
    blocks[-1] = partial(_last_block, before)
    return Chain(
        name="vgg19",
        blocks=tuple(blocks),
        starts=split_by_depth(len(blocks), num_modules),
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
    )
