"""ResNet-50, -101 and -152: post-activation bottleneck blocks, with the paper's splits (tables 1, 2, 5, 9)."""

from __future__ import annotations

from functools import partial
from itertools import accumulate

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Branch, Sparing, through
from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import BlockFactory, Chain, Pieces, split_by_depth

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Number of blocks in each stage, by depth."""

SPLITS = {
    (50, 4): (3, 4, 6, 3),
    (101, 2): (17, 16),
    (101, 4): (7, 9, 9, 8),
    (152, 2): (25, 25),
    (152, 4): (11, 13, 13, 13),
}
"""Number of blocks in each module, by depth and number of modules: two for CIFAR-100, four for TinyImageNet."""

EXPANSION = 4
"""The output of a block has this many times the channels of its inner convolutions."""

SMALL_SIDE = 32
"""The stem keeps the size of images of up to this side, in pixels."""


class Stem(Sparing):
    """A convolution, BN and ReLU, without max-pooling.

    With `small` it is a conv3x3, [B, C, H, W] → [B, 64, H, W]; else a conv7x7 of stride 2, → [B, 64, H/2, W/2].
    """

    def __init__(self, in_channels: int, *, small: bool) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv = nn.Conv2d(in_channels, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, 64, H, W] or [B, 64, H/2, W/2]."""
        if self.spares(x):
            return functional.relu_(through(Branch(steps=((None, self.conv),), closing=self.norm, again=True), x))
        return functional.relu_(self.norm(self.conv(x)))


class Projection(Sparing):
    """The shortcut of a block that changes the shape: conv1x1 of a stride, BN."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] → [B, channels, H/stride, W/stride]."""
        # Pixels are skipped before the convolution, as in `Downsampling` of the K-M ResNet.
        x = x[:, :, :: self.stride, :: self.stride]
        if self.spares(x):
            return through(Branch(steps=((None, self.conv),), closing=self.norm, again=self.again), x)
        out: Tensor = self.norm(self.conv(x))
        return out


class BottleneckBlock(Sparing):
    """ReLU(shortcut(x) + r), r = BN(conv1x1(ReLU(BN(conv3x3(ReLU(BN(conv1x1(x)))))))); the conv3x3 has the stride.

    The shortcut is a projection if the shape changes, else x.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)
        changes = stride != 1 or in_channels != channels
        self.shortcut = Projection(in_channels, channels, stride) if changes else nn.Identity()
        self.residue = Residue()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] → [B, 4 * width, H/stride, W/stride]."""
        if self.spares(x):
            return functional.relu_(self.residue.join(self.shortcut(x), self._branch(), x))
        inner = functional.relu_(self.norm1(self.conv1(x)))
        inner = functional.relu_(self.norm2(self.conv2(inner)))
        branch = self.residue.norm(self.norm3, self.conv3(inner))
        return functional.relu_(self.shortcut(x) + branch)

    def _branch(self) -> Branch:
        steps = ((None, self.conv1), (self.norm1, self.conv2), (self.norm2, self.conv3))
        return Branch(steps=steps, closing=self.norm3, again=self.again)


def _first_block(in_channels: int, *, small: bool) -> nn.Module:
    return Pieces(Stem(in_channels, small=small), BottleneckBlock(64, 64, 1))


def _pool(side: int) -> int:
    # Kernels of 16, 8 and 4 at 32, 16 and 8 pixels leave 2x2 positions; at 4 pixels, one.
    return min(max(side // 2, 4), side)


def resnet(
    depth: int,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    num_modules: int = 4,
    head: str = "conv",
) -> Chain:
    """Make ResNet-50, -101 or -152.

    The stem keeps the size of images of up to 32 pixels and halves larger ones; neither has a max-pooling.

    Args:
        depth: 50, 101 or 152.
        input_shape: one image, (C, H, W).
        num_classes: number of logits.
        num_modules: number of modules; split as in the paper if it splits into as many, else by equal depth.
        head: the name of the heads.
    """
    small = min(input_shape[1:]) <= SMALL_SIDE
    blocks: list[BlockFactory] = []
    channels, width = 64, 64
    for stage, num_blocks in enumerate(STAGES[depth]):
        for number in range(num_blocks):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(partial(BottleneckBlock, channels, width, stride))
            channels = EXPANSION * width
        width *= 2
    blocks[0] = partial(_first_block, input_shape[0], small=small)
    sizes = SPLITS.get((depth, num_modules))
    return Chain(
        name=f"resnet{depth}",
        blocks=tuple(blocks),
        starts=(0, *accumulate(sizes[:-1])) if sizes else split_by_depth(len(blocks), num_modules),
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
        pool=_pool,
    )
