"""A network as a chain of modules, each built only when it is first opened."""

from __future__ import annotations

import copy
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from edge_trgl.networks.heads import DECODER, Decoder, PoolRule, build_head, to_two_by_two
from edge_trgl.random_keys import key

BlockFactory = Callable[[], nn.Module]
"""Makes one block. A block does not change its input."""

Shape = tuple[int, ...]
"""The shape of one sample, without the batch."""


class Pieces(nn.Sequential):
    """A block in several parts, such as a stem and the residual block that follows it.

    Parts are recomputed one by one, and each has a residue of its own. A part does not change its input.
    """


def split_by_depth(num_blocks: int, num_modules: int) -> tuple[int, ...]:
    """Return the first block of each module, for modules of equal depth; deeper ones come first."""
    depth, rest = divmod(num_blocks, num_modules)
    return tuple(depth * module + min(module, rest) for module in range(num_modules))


def split_by_weight(weights: Sequence[float], num_modules: int) -> tuple[int, ...]:
    """Return the first block of each module such that the heaviest module is as light as possible.

    Args:
        weights: one number for each block, in any unit.
        num_modules: from 1 to the number of blocks.
    """
    totals = [0.0]
    for weight in weights:
        totals.append(totals[-1] + weight)
    # Dynamic programming over the last cut: best[n] = (weight of the heaviest module, starts) for the first n
    # blocks in as many modules as there were rounds.
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for _ in range(num_modules):
        best = {
            stop: min(
                (max(heaviest, totals[stop] - totals[start]), (*starts, start))
                for start, (heaviest, starts) in best.items()
                if start < stop
            )
            for stop in range(1, len(weights) + 1)
            if any(start < stop for start in best)
        }
    return best[len(weights)][1]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """An ordered list of blocks, grouped into modules, with a head for each module.

    Args:
        name: the network's name, for messages and reports.
        blocks: a factory for each block.
        starts: the first block of each module.
        input_shape: one image, (C, H, W), or one sample of any shape.
        num_classes: number of logits.
        head: the name of the head of all modules, or one name for each; None where a module has no head.
        pool: the average pooling of heads that pool.
        gain: gain of the orthogonal initialisation; None keeps what the blocks' constructors draw.
        exempt_blocks: number of leading blocks whose modules have no transport cost: the encoder and the block
            after it (paper, appendix G).
        built: the factories return blocks whose weights are to be kept.
        end_to_end: only the last module has a head, and its loss trains all of them.
        frozen: number of leading modules that are not trained and have no head.

    Raises:
        ValueError: `starts` are not rising block numbers from 0, or there are more or fewer heads than modules.
    """

    name: str
    blocks: tuple[BlockFactory, ...]
    starts: tuple[int, ...]
    input_shape: Shape
    num_classes: int
    head: str | tuple[str | None, ...] = "conv"
    pool: PoolRule = to_two_by_two
    gain: float | None = 0.1
    exempt_blocks: int = 0
    built: bool = False
    end_to_end: bool = False
    frozen: int = 0

    def __post_init__(self) -> None:
        stops = (*self.starts[1:], len(self.blocks))
        if not self.starts or self.starts[0] != 0 or any(a >= b for a, b in zip(self.starts, stops, strict=True)):
            raise ValueError(
                f"modules of {self.name} must start at rising blocks below {len(self.blocks)}, the first at 0; "
                f"got {list(self.starts)}"
            )
        if not isinstance(self.head, str) and len(self.head) != len(self):
            raise ValueError(f"{self.name} has {len(self)} modules; {len(self.head)} heads are given")

    @classmethod
    def from_blocks(
        cls,
        blocks: Sequence[nn.Module | BlockFactory] | nn.Sequential,
        *,
        input_shape: Shape,
        num_classes: int,
        num_modules: int | None = None,
        name: str = "blocks",
        head: str | tuple[str, ...] = "linear",
    ) -> Chain:
        """Make a chain of a user's own blocks.

        Args:
            blocks: modules, which keep their weights, or factories, which are called when a module is first
                opened, so that the whole network is never in memory.
            input_shape: one sample, (C, H, W) or any other shape.
            num_classes: number of logits.
            num_modules: number of modules to group the blocks into; None makes a module of every block.
            name: for messages and reports.
            head: the name of the head of all modules, or one name for each.
        """
        items = list(blocks.children()) if isinstance(blocks, nn.Sequential) else list(blocks)
        factories = tuple(_copier(item) if isinstance(item, nn.Module) else item for item in items)
        return cls(
            name=name,
            blocks=factories,
            starts=split_by_depth(len(items), num_modules or len(items)),
            input_shape=tuple(input_shape),
            num_classes=num_classes,
            head=head,
            gain=None,
            built=any(isinstance(item, nn.Module) for item in items),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def regroup(self, starts: tuple[int, ...]) -> Chain:
        """Return a chain of the same blocks in other modules; the blocks' first weights stay the same.

        Where each module has a head of its own, a new module gets that of the old one that holds its last block.
        """
        head = self.head
        if not isinstance(head, str):
            stops = (*starts[1:], len(self.blocks))
            head = tuple(head[bisect(self.starts, stop - 1) - 1] for stop in stops)
        return replace(self, starts=starts, head=head)

    def first(self, num_blocks: int) -> Chain:
        """Return the chain of the first `num_blocks` blocks, from 1 to all; its last module may be shorter."""
        starts = tuple(start for start in self.starts if start < num_blocks)
        head = self.head if isinstance(self.head, str) else self.head[: len(starts)]
        return replace(self, blocks=self.blocks[:num_blocks], starts=starts, head=head)

    def module_blocks(self, module: int) -> range:
        """Return the numbers of the blocks of `module`."""
        stops = (*self.starts[1:], len(self.blocks))
        return range(self.starts[module], stops[module])

    def trunk(self, module: int) -> nn.Sequential:
        """Build the blocks of `module`; they have no gradients if it is frozen."""
        trunk = nn.Sequential(*(build_block(self.blocks[index]) for index in self.module_blocks(module)))
        return trunk.requires_grad_(requires_grad=False) if module < self.frozen else trunk

    def has_head(self, module: int) -> bool:
        """Return whether `module` has a head, and so a loss and a score."""
        return module >= (len(self) - 1 if self.end_to_end else self.frozen)

    def is_exempt(self, module: int) -> bool:
        """Return whether `module` has no transport cost."""
        return self.starts[module] < self.exempt_blocks

    def head_of(self, module: int) -> str | None:
        """Return the name of the head of `module`, or None if it has no head."""
        if not self.has_head(module):
            return None
        return self.head if isinstance(self.head, str) else self.head[module]

    def reconstructs(self, module: int) -> bool:
        """Return whether the head of `module` rebuilds the samples, so that no labels are read."""
        return self.head_of(module) == DECODER

    def classifier(self, module: int, output_shape: Shape) -> nn.Module:
        """Build the head of `module`, whose output for one sample has `output_shape`.

        Raises:
            ValueError: there is no such head, or it cannot read such an output.
        """
        name = self.head_of(module)
        assert name is not None
        if name == DECODER:
            return Decoder(output_shape, self.input_shape)
        return build_head(name, output_shape, self.num_classes, self.pool)

    def initialise(self, module: int, trunk: nn.Sequential, head: nn.Module, seed: int) -> None:
        """Draw the weights of a newly built module in place; without a gain, do nothing.

        Each block draws from a generator keyed by (seed, block); the head goes on with that of the last block.
        """
        if self.gain is None:
            return
        for number, block in zip(self.module_blocks(module), trunk, strict=True):
            generator = torch.Generator().manual_seed(key(seed, "init", number))
            if not self.built:
                _draw_orthogonal(block, self.gain, generator)
        _draw_orthogonal(head, self.gain, generator)

    def seeded(self, seed: int) -> Chain:
        """Return the chain with factories that key torch's default generator by (seed, block) before each block.

        What a block draws in its constructor is then independent of the order in which blocks are built.
        """
        blocks = tuple(
            partial(_build_after_seeding, block, key(seed, "build", number))
            for number, block in enumerate(self.blocks)
        )
        return replace(self, blocks=blocks)


def build_block(factory: BlockFactory) -> nn.Module:
    """Build a block on the default device; on the device meta also where its constructor needs values."""
    try:
        return factory()
    except Exception:
        if torch.get_default_device().type != "meta":
            raise
    with torch.device("cpu"):
        block = factory()
    moved: dict[int, nn.Parameter] = {}  # a weight that stands in two places stays one weight
    for part in block.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = moved.setdefault(id(weight), _on_meta(weight))
    return block


def _on_meta(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)


def _draw_orthogonal(part: nn.Module, gain: float, generator: torch.Generator) -> None:
    for layer in part.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _build_after_seeding(block: BlockFactory, seed: int) -> nn.Module:
    torch.default_generator.manual_seed(seed)
    return block()


def _copier(block: nn.Module) -> BlockFactory:
    # Each opening gets its own copy, so that two modules in memory never share a tensor.
    return lambda: copy.deepcopy(block)
