"""VGG-19 with batch norm (configuration E): 16 convolutions of 64 to 512 channels; its classifier is the head."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Branch, Sparing, through
from edge_trgl.networks.chain import BlockFactory, Chain, Pieces, split_by_depth

STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of convolutions between max-poolings."""


class ConvBlock(Sparing):
    """conv3x3, BN, ReLU: [B, in_channels, H, W] → [B, channels, H, W]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] → [B, channels, H, W]; the residue is output − input where the shapes agree."""
        # Only recomputing the convolution keeps less than the plain form.
        if self.again and self.spares(x):
            return functional.relu_(through(Branch(steps=((None, self.conv),), closing=self.norm, again=True), x))
        return functional.relu_(self.norm(self.conv(x)))


def _max_pool() -> nn.Module:
    # ceil_mode keeps the last row and column of odd maps, as with images of 28 pixels, and keeps single pixels.
    return nn.MaxPool2d(2, ceil_mode=True)


def _pooled_block(in_channels: int, channels: int) -> nn.Module:
    # The pooling is a piece of its own, so that a convolution with equal channels has a residue in every stage.
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
    """Make VGG-19; a block is one convolution.

    A max-pooling is at the start of the block after it; the last one is at the end of the last block.

    Args:
        input_shape: one image, (C, H, W).
        num_classes: number of logits.
        num_modules: number of modules, of equal depth.
        head: the name of the heads.
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
