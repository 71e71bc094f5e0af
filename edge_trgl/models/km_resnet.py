"""K-M ResNet: K modules of M pre-activation blocks, wide and shallow (paper, appendix G)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.chain import BlockFactory, Chain, Pieces
from edge_trgl.sparing import Branch, Sparing, through
from edge_trgl.transport import Residue


class Encoder(Sparing):
    """conv3x3, BN, ReLU, conv5x5 of stride 2: halves the sides, [B, C, H, W] → [B, width, H/2, W/2]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width // 2, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width, 5, stride=2, padding=2)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images."""
        if self.spares(x):
            steps = ((None, self.conv1), (self.norm1, self.conv2))
            return functional.relu_(through(Branch(steps=steps, closing=self.norm2, again=True), x))
        x = functional.relu_(self.norm1(self.conv1(x)))
        return functional.relu_(self.norm2(self.conv2(x)))


class PreActivationBlock(Sparing):
    """x + r, with r = conv3x3(ReLU(BN(conv3x3(ReLU(BN(x)))))); `leading` False omits the first BN and ReLU."""

    def __init__(self, width: int, *, leading: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width) if leading else None
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.residue = Residue()

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] → the same shape."""
        if self.spares(x):
            steps = ((self.norm1, self.conv1), (self.norm2, self.conv2))
            return self.residue.join(x, Branch(steps=steps, again=self.again), x)
        inner = x if self.norm1 is None else functional.relu_(self.norm1(x))
        inner = functional.relu_(self.norm2(self.conv1(inner)))
        return self.residue.add(x, self.conv2(inner))


def _encoded_block(in_channels: int, width: int) -> nn.Module:
    return Pieces(Encoder(in_channels, width), PreActivationBlock(width, leading=False))


class Downsampling(nn.Module):
    """The bare 1x1 convolution of stride 2 that halves the sides and doubles the filters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width // 2, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width / 2, H, W] → [B, width, H/2, W/2]."""
        # Every second pixel first: the strided kernel's weight gradient writes outside its memory where
        # there are 8 input channels, channels-last (torch 2.13, oneDNN on AVX-512).
        out: Tensor = self.conv(x[:, :, ::2, ::2])
        return out


def _downsampled_block(width: int) -> nn.Module:
    return Pieces(Downsampling(width), PreActivationBlock(width, leading=False))


def km_resnet(
    num_modules: int,
    blocks_per_module: int,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    width: int = 256,
    downsample: tuple[int, ...] | None = None,
    head: str = "conv",
) -> Chain:
    """The K-M ResNet as a chain, module 0 holding the encoder.

    `downsample`: the modules that start by halving the map and doubling the filters; None is the paper's
    choice: the middle module (10-1: 5; 2-7: 1), and none in the 20-1 net.
    """
    if downsample is None:
        downsample = () if num_modules in (1, 20) else (num_modules // 2,)
    blocks: list[BlockFactory] = []
    for module in range(num_modules):
        first: Callable[[], nn.Module]
        if module == 0:
            first = partial(_encoded_block, input_shape[0], width)
        elif module in downsample:
            width *= 2
            first = partial(_downsampled_block, width)
        else:
            first = partial(PreActivationBlock, width, leading=True)
        rest = partial(PreActivationBlock, width, leading=True)
        blocks += [first, *[rest] * (blocks_per_module - 1)]
    return Chain(
        name=f"km-{num_modules}-{blocks_per_module}",
        blocks=tuple(blocks),
        starts=tuple(range(0, len(blocks), blocks_per_module)),
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
        gain=0.05,
        encoder_exempt=True,
    )
