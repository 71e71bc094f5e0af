"""K-M ResNet: K modules of M pre-activation blocks, wide and shallow (paper, appendix G).

For windows [B, C, L] all layers are one-dimensional.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Branch, Sparing, through
from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import BlockFactory, Chain, Pieces, Shape
from edge_trgl.networks.heads.layers import Layers, layers_for

MAPS = layers_for((1, 1))
"""The layers for maps: two sides, of any length."""


class Encoder(Sparing):
    """conv3x3, BN, ReLU, conv5x5 of stride 2, BN, ReLU: [B, C, H, W] → [B, width, H/2, W/2]."""

    def __init__(self, in_channels: int, width: int, layers: Layers = MAPS) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, width // 2, 3, padding=1)
        self.norm1 = layers.norm(width // 2)
        self.conv2 = layers.conv(width // 2, width, 5, stride=2, padding=2)
        self.norm2 = layers.norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, width, H/2, W/2]; windows [B, C, L] → [B, width, L/2]."""
        if x.dim() == 4 and self.spares(x):
            steps = ((None, self.conv1), (self.norm1, self.conv2))
            return functional.relu_(through(Branch(steps=steps, closing=self.norm2, again=True), x))
        x = functional.relu_(self.norm1(self.conv1(x)))
        return functional.relu_(self.norm2(self.conv2(x)))


class PreActivationBlock(Sparing):
    """x + r, with r = conv3x3(ReLU(BN(conv3x3(ReLU(BN(x)))))); `leading=False` omits the first BN and ReLU."""

    def __init__(self, width: int, layers: Layers = MAPS, *, leading: bool) -> None:
        super().__init__()
        self.norm1 = layers.norm(width) if leading else None
        self.conv1 = layers.conv(width, width, 3, padding=1, bias=False)
        self.norm2 = layers.norm(width)
        self.conv2 = layers.conv(width, width, 3, padding=1, bias=False)
        self.residue = Residue()

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        if x.dim() == 4 and self.spares(x):
            steps = ((self.norm1, self.conv1), (self.norm2, self.conv2))
            return self.residue.join(x, Branch(steps=steps, again=self.again), x)
        inner = x if self.norm1 is None else functional.relu_(self.norm1(x))
        inner = functional.relu_(self.norm2(self.conv1(inner)))
        return self.residue.add(x, self.conv2(inner))


def _encoded_block(in_channels: int, width: int, layers: Layers) -> nn.Module:
    return Pieces(Encoder(in_channels, width, layers), PreActivationBlock(width, layers, leading=False))


class Downsampling(nn.Module):
    """A 1x1 convolution of stride 2, without norm or ReLU, that halves the sides and doubles the channels."""

    def __init__(self, width: int, layers: Layers) -> None:
        super().__init__()
        self.conv = layers.conv(width // 2, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width / 2, H, W] → [B, width, H/2, W/2]."""
        # Pixels are skipped before the convolution: the weight gradient of a strided one writes outside its memory
        # with 8 input channels in channels-last order (torch 2.13, oneDNN on AVX-512).
        second = (slice(None), slice(None), *[slice(None, None, 2)] * (x.dim() - 2))
        out: Tensor = self.conv(x[second])
        return out


def _downsampled_block(width: int, layers: Layers) -> nn.Module:
    return Pieces(Downsampling(width, layers), PreActivationBlock(width, layers, leading=False))


def km_resnet(
    num_modules: int,
    blocks_per_module: int,
    *,
    input_shape: Shape,
    num_classes: int,
    width: int = 256,
    downsample: tuple[int, ...] | None = None,
    head: str = "conv",
    separate_encoder: bool = False,
) -> Chain:
    """Make a K-M ResNet; the encoder is in module 0.

    Args:
        num_modules: K.
        blocks_per_module: M.
        input_shape: an image (C, H, W) or a window (C, L).
        num_classes: number of logits.
        width: channels of the first module.
        downsample: the modules that begin by halving the map and doubling the channels. None is the paper's
            choice: the middle module (5 in 10-1, 1 in 2-7), and none in 20-1.
        head: the name of the heads.
        separate_encoder: make the encoder a module of its own before the K others, so that it can be trained first
            and then frozen (table 14).
    """
    if downsample is None:
        downsample = () if num_modules in (1, 20) else (num_modules // 2,)
    layers = layers_for(input_shape[1:])
    blocks: list[BlockFactory] = [partial(Encoder, input_shape[0], width, layers)] if separate_encoder else []
    starts = [0] if separate_encoder else []
    for module in range(num_modules):
        first: Callable[[], nn.Module]
        if module == 0 and separate_encoder:
            first = partial(PreActivationBlock, width, layers, leading=False)
        elif module == 0:
            first = partial(_encoded_block, input_shape[0], width, layers)
        elif module in downsample:
            width *= 2
            first = partial(_downsampled_block, width, layers)
        else:
            first = partial(PreActivationBlock, width, layers, leading=True)
        rest = partial(PreActivationBlock, width, layers, leading=True)
        starts.append(len(blocks))
        blocks += [first, *[rest] * (blocks_per_module - 1)]
    return Chain(
        name=f"km-{num_modules}-{blocks_per_module}{'-encoder' * separate_encoder}",
        blocks=tuple(blocks),
        starts=tuple(starts),
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
        gain=0.05,
        exempt_blocks=2 if separate_encoder else 1,
    )
