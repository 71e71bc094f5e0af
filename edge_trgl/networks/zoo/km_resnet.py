"""K-M ResNet: K modules of M pre-activation blocks, wide and shallow (paper, appendix G).

Of windows [B, C, L] the convolutions, norms and strides are along their one axis.
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


class Encoder(Sparing):
    """conv3x3, BN, ReLU, conv5x5 of stride 2: halves the sides, [B, C, H, W] → [B, width, H/2, W/2]."""

    def __init__(self, in_channels: int, width: int, layers: Layers = MAPS) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, width // 2, 3, padding=1)
        self.norm1 = layers.norm(width // 2)
        self.conv2 = layers.conv(width // 2, width, 5, stride=2, padding=2)
        self.norm2 = layers.norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images or windows."""
        if x.dim() == 4 and self.spares(x):
            steps = ((None, self.conv1), (self.norm1, self.conv2))
            return functional.relu_(through(Branch(steps=steps, closing=self.norm2, again=True), x))
        x = functional.relu_(self.norm1(self.conv1(x)))
        return functional.relu_(self.norm2(self.conv2(x)))


class PreActivationBlock(Sparing):
    """x + r, with r = conv3x3(ReLU(BN(conv3x3(ReLU(BN(x)))))); `leading` False omits the first BN and ReLU."""

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
    """The bare 1x1 convolution of stride 2 that halves the sides and doubles the filters."""

    def __init__(self, width: int, layers: Layers) -> None:
        super().__init__()
        self.conv = layers.conv(width // 2, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width / 2, H, W] → [B, width, H/2, W/2]."""
        # Every second pixel first: the strided kernel's weight gradient writes outside its memory where
        # there are 8 input channels, channels-last (torch 2.13, oneDNN on AVX-512).
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
    encoder_apart: bool = False,
) -> Chain:
    """The K-M ResNet as a chain, module 0 holding the encoder; of images (C, H, W) or of windows (C, L).

    `downsample`: the modules that start by halving the map and doubling the filters; None is the paper's
    choice: the middle module (10-1: 5; 2-7: 1), and none in the 20-1 net. `encoder_apart`: the encoder is a module
    of its own, before the K others, that it may be trained beforehand and then fixed (table 14).
    """
    if downsample is None:
        downsample = () if num_modules in (1, 20) else (num_modules // 2,)
    layers = layers_for(input_shape[1:])
    blocks: list[BlockFactory] = [partial(Encoder, input_shape[0], width, layers)] if encoder_apart else []
    starts = [0] if encoder_apart else []
    for module in range(num_modules):
        first: Callable[[], nn.Module]
        if module == 0 and encoder_apart:
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
        name=f"km-{num_modules}-{blocks_per_module}{'-encoder' * encoder_apart}",
        blocks=tuple(blocks),
        starts=tuple(starts),
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
        gain=0.05,
        encoder_exempt=True,
    )
