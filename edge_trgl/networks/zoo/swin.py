"""Swin-Tiny: 12 blocks of shifted-window attention in four stages (Liu et al., 2021).

Boundaries are maps [C, H, W], as in all other networks here, so that any head can read them. In channels-last
memory order a map is the sequence of tokens that the layers of a block read, so permuting its axes copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import BlockFactory, Chain, Pieces, split_by_depth
from edge_trgl.networks.zoo.window_attention import Size, WindowAttention, padded

STAGES = ((96, 2, 3), (192, 2, 6), (384, 6, 12), (768, 2, 24))
"""Channels, blocks and attention heads of each stage."""

ONE_STAGE_A_MODULE = (0, 2, 4, 10)
"""The first block of each stage."""

LARGEST_WINDOW = 7
"""Side of a window, in tokens."""


def _tokens(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, H, W, C]."""
    return x.permute(0, 2, 3, 1)


def _map(tokens: Tensor) -> Tensor:
    """[B, H, W, C] → [B, C, H, W]."""
    return tokens.permute(0, 3, 1, 2)


class PatchEmbedding(nn.Module):
    """A convolution over patches that do not overlap, then LayerNorm."""

    def __init__(self, in_channels: int, channels: int, patch: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, patch, stride=patch)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, channels, H/patch, W/patch]."""
        return _map(self.norm(_tokens(self.conv(x))))


class PatchMerging(nn.Module):
    """Joins 2x2 tokens into one of twice the channels: LayerNorm, linear."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, 2C, H/2, W/2], rounded up; odd sides are padded with zeros."""
        tokens = padded(_tokens(x), 2)
        columns = tokens[:, :, 0::2], tokens[:, :, 1::2]
        neighbours = torch.cat([column[:, row::2] for column in columns for row in (0, 1)], -1)
        return _map(self.reduction(self.norm(neighbours)))


class SwinBlock(nn.Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)): two residues.

    Args:
        channels: C.
        num_heads: attention heads.
        size: (H, W) of the map, in tokens.
        window: side of the attention windows, in tokens.
        shift: tokens by which the windows are shifted.
        stochastic_depth: probability that a branch is dropped for a sample in training.
    """

    def __init__(
        self, channels: int, num_heads: int, size: Size, window: int, shift: int, stochastic_depth: float
    ) -> None:
        super().__init__()
        self.stochastic_depth = stochastic_depth
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, num_heads, size, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.residue1 = Residue()
        self.residue2 = Residue()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → the same shape."""
        tokens = _tokens(x)
        tokens = self.residue1.add(tokens, self._dropped(self.attention(self.norm1(tokens))))
        tokens = self.residue2.add(tokens, self._dropped(self.mlp(self.norm2(tokens))))
        return _map(tokens)

    def _dropped(self, branch: Tensor) -> Tensor:
        if not (self.training and self.stochastic_depth):
            return branch
        kept = 1 - self.stochastic_depth
        return branch * branch.new_empty(len(branch), 1, 1, 1).bernoulli_(kept).div_(kept)


def _embedded_block(in_channels: int, channels: int, patch: int, block: Callable[[], nn.Module]) -> nn.Module:
    return Pieces(PatchEmbedding(in_channels, channels, patch), block())


def _merged_block(channels: int, block: Callable[[], nn.Module]) -> nn.Module:
    return Pieces(PatchMerging(channels), block())


def _patch_and_window(side: int) -> tuple[int, int]:
    """Return the side of a patch in pixels and of a window in tokens, for images of `side` pixels.

    These are 4 and 7 at 224 pixels, 4 and 4 at 64, 2 and 4 at 32, 1 and 7 at 28: at least 16 tokens a side, and a
    window of at most 7 that divides the first map, if one does.
    """
    patch = 4 if side >= 64 else 2 if side >= 32 else 1
    fitting = (window for window in range(LARGEST_WINDOW, 3, -1) if side // patch % window == 0)
    return patch, next(fitting, LARGEST_WINDOW)


def swin_tiny(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    num_modules: int = 4,
    head: str = "tokens",
    stochastic_depth: float = 0.0,
) -> Chain:
    """Make Swin-Tiny. The LayerNorm after the last block belongs to the head.

    Args:
        input_shape: one image, (C, H, W).
        num_classes: number of logits.
        num_modules: number of modules; four have a stage each, other numbers split by equal depth.
        head: the name of the heads.
        stochastic_depth: drop probability of the last block; it grows linearly from 0 at the first.
    """
    patch, window = _patch_and_window(min(input_shape[1:]))
    size = input_shape[1] // patch, input_shape[2] // patch
    num_blocks = sum(number for _, number, _ in STAGES)
    blocks: list[BlockFactory] = []
    for channels, number, num_heads in STAGES:
        side = min(window, *size)
        for place in range(number):
            dropped = stochastic_depth * len(blocks) / (num_blocks - 1)
            shift = side // 2 * (place % 2)
            blocks.append(partial(SwinBlock, channels, num_heads, size, side, shift, dropped))
        size = -(-size[0] // 2), -(-size[1] // 2)
    blocks[0] = partial(_embedded_block, input_shape[0], STAGES[0][0], patch, blocks[0])
    for start, (channels, _, _) in zip(ONE_STAGE_A_MODULE[1:], STAGES, strict=False):
        blocks[start] = partial(_merged_block, channels, blocks[start])
    return Chain(
        name="swin-tiny",
        blocks=tuple(blocks),
        starts=ONE_STAGE_A_MODULE if num_modules == 4 else split_by_depth(num_blocks, num_modules),
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
    )
