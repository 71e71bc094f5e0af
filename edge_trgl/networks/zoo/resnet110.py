"""ResNet-110: 54 post-activation blocks of 16, 32 and 64 channels, with the paper's splits (tables 3, 7, 8)."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.recompute import Branch, Sparing, through
from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import BlockFactory, Chain, Pieces, split_by_depth

BLOCKS_PER_STAGE = 18

EQUALLY_DEEP = {
    2: (27, 27),
    4: (14, 14, 13, 13),
    8: (7, 7, 7, 7, 8, 6, 6, 6),
    16: (4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3),
}
"""Number of blocks in each module, by number of modules: splits of about equal depth (paper)."""

EQUALLY_HEAVY = {2: (14, 40), 4: (6, 8, 12, 28)}
"""The same for modules of about equal computation, which the paper marks with a star."""


class Stem(Sparing):
    """conv3x3, BN, ReLU: [B, C, H, W] → [B, 16, H, W]."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, 16, H, W]."""
        if self.spares(x):
            return functional.relu_(through(Branch(steps=((None, self.conv),), closing=self.norm, again=True), x))
        return functional.relu_(self.norm(self.conv(x)))


class PostActivationBlock(Sparing):
    """ReLU(shortcut(x) + r), r = BN(conv3x3(ReLU(BN(conv3x3(x))))); the shortcut has no parameters."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.widens = channels != in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=1 + self.widens, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.residue = Residue()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] → [B, channels, H, W], or [B, channels, H/2, W/2] if it has more channels."""
        if self.spares(x):
            return functional.relu_(self.residue.join(self._shortcut(x), self._branch(x), x))
        inner = functional.relu_(self.norm1(self.conv1(x)))
        branch = self.residue.norm(self.norm2, self.conv2(inner))
        return functional.relu_(self._shortcut(x) + branch)

    def _branch(self, x: Tensor) -> Branch:
        # If x has a gradient, the shortcut's is in memory during the whole backward pass: keep less beside it.
        steps = ((None, self.conv1), (self.norm1, self.conv2))
        return Branch(steps=steps, closing=self.norm2, again=self.again or x.requires_grad)

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.widens:
            return x
        added = self.conv1.out_channels - self.conv1.in_channels
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, added))


def _first_block(in_channels: int) -> nn.Module:
    return Pieces(Stem(in_channels), PostActivationBlock(16, 16))


def _pool(side: int) -> int:
    # The heads of the paper have kernels of 16, 16 and 8 at 96, 48 and 24 pixels (STL-10). Smaller maps keep 2x2.
    if side >= 48:
        return 16
    return 8 if side >= 24 else max(side // 2, 1)


def resnet110(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    num_modules: int = 16,
    heavy: bool = False,
    head: str = "conv",
) -> Chain:
    """Make ResNet-110.

    Args:
        input_shape: one image, (C, H, W).
        num_classes: number of logits.
        num_modules: number of modules, up to 54, one for each block; split as in the paper if it splits into as
            many, else by equal depth.
        heavy: use the paper's split into modules of equal computation.
        head: the name of the heads.
    """
    blocks: list[BlockFactory] = [partial(_first_block, input_shape[0])]
    widths = [16] * BLOCKS_PER_STAGE + [32] * BLOCKS_PER_STAGE + [64] * BLOCKS_PER_STAGE
    blocks += [partial(PostActivationBlock, before, after) for before, after in pairwise(widths)]
    sizes = (EQUALLY_HEAVY if heavy else EQUALLY_DEEP).get(num_modules)
    starts = (0, *accumulate(sizes[:-1])) if sizes else split_by_depth(len(blocks), num_modules)
    return Chain(
        name="resnet110",
        blocks=tuple(blocks),
        starts=starts,
        input_shape=input_shape,
        num_classes=num_classes,
        head=head,
        pool=_pool,
    )
