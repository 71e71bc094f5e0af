"""A network as a chain of modules, each built only when it is first opened."""

from __future__ import annotations

import copy
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from edge_trgl.networks.heads import PoolRule, build_head, to_two_by_two
from edge_trgl.random_keys import key

BlockFactory = Callable[[], nn.Module]
"""Makes one block. A block leaves its input untouched."""

Shape = tuple[int, ...]


class Pieces(nn.Sequential):
    """A block in parts that are recomputed, and asked for their residues, one by one: a stem and what follows it.

    Each part leaves its input untouched.
    """


def by_depth(num_blocks: int, num_modules: int) -> tuple[int, ...]:
    """First block of each of `num_modules` modules of as equal depth as can be, the deeper ones first."""
    depth, rest = divmod(num_blocks, num_modules)
    return tuple(depth * module + min(module, rest) for module in range(num_modules))


def by_weight(weights: Sequence[float], num_modules: int) -> tuple[int, ...]:
    """First block of each module such that the heaviest module is as light as can be.

    `weights`: one number a block, in any unit. Dynamic programming over the last cut.
    """
    totals = [0.0]
    for weight in weights:
        totals.append(totals[-1] + weight)
    # best[n] = (weight of the heaviest module, starts) for the first n blocks in as many modules as so far.
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

    `starts`: the first block of each module. `input_shape`: one image, (C, H, W), or one sample of any
    shape. `gain`: of the orthogonal initialisation; None keeps what the blocks' own constructors drew.
    `encoder_exempt`: no transport cost for module 0, which holds the encoder (paper, appendix G).
    `built`: the factories give blocks that already carry weights to be kept. `end_to_end`: the loss is that of
    the last module alone, which alone has a head. `head`: the name of one, for all modules, or one for each, None
    where a module has none. `frozen`: so many modules, the first ones, are not trained, and have none.
    """

    name: str
    blocks: tuple[BlockFactory, ...]
    starts: tuple[int, ...]
    input_shape: Shape
    num_classes: int
    head: str | tuple[str | None, ...] = "conv"
    pool: PoolRule = to_two_by_two
    gain: float | None = 0.1
    encoder_exempt: bool = False
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
        """A chain of the user's own blocks, one module a block unless `num_modules` says otherwise.

        Built blocks keep their weights; factories are called when a module is first opened, so that the
        whole network is never in memory.
        """
        items = list(blocks.children()) if isinstance(blocks, nn.Sequential) else list(blocks)
        factories = tuple(_copier(item) if isinstance(item, nn.Module) else item for item in items)
        return cls(
            name=name,
            blocks=factories,
            starts=by_depth(len(items), num_modules or len(items)),
            input_shape=tuple(input_shape),
            num_classes=num_classes,
            head=head,
            gain=None,
            built=any(isinstance(item, nn.Module) for item in items),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def regroup(self, starts: tuple[int, ...]) -> Chain:
        """The same blocks in other modules; their first weights stay the same.

        Of a head for each module, a new one has the head of the old one that holds its last block.
        """
        head = self.head
        if not isinstance(head, str):
            stops = (*starts[1:], len(self.blocks))
            head = tuple(head[bisect(self.starts, stop - 1) - 1] for stop in stops)
        return replace(self, starts=starts, head=head)

    def module_blocks(self, module: int) -> range:
        """The indices of the blocks of `module`."""
        stops = (*self.starts[1:], len(self.blocks))
        return range(self.starts[module], stops[module])

    def trunk(self, module: int) -> nn.Sequential:
        """The blocks of `module`, as their factories make them; without gradients if it is frozen."""
        trunk = nn.Sequential(*(self.blocks[index]() for index in self.module_blocks(module)))
        return trunk.requires_grad_(requires_grad=False) if module < self.frozen else trunk

    def has_head(self, module: int) -> bool:
        """Whether `module` has a classifier, and so a loss and a score."""
        return module >= (len(self) - 1 if self.end_to_end else self.frozen)

    def head_of(self, module: int) -> str | None:
        """The name of the head of `module`, if it has one."""
        if not self.has_head(module):
            return None
        return self.head if isinstance(self.head, str) else self.head[module]

    def classifier(self, module: int, output_shape: Shape) -> nn.Module:
        """The auxiliary classifier of `module`, which has this output.

        Raises:
            ValueError: there is no such head, or it cannot read the output.
        """
        name = self.head_of(module)
        assert name is not None
        return build_head(name, output_shape, self.num_classes, self.pool)

    def initialise(self, module: int, trunk: nn.Sequential, head: nn.Module, seed: int) -> None:
        """Draw the weights of a newly built module in place: each block's from a generator keyed by (seed, block),
        the head's from what is left of that of the block before it."""
        if self.gain is None:
            return
        for number, block in zip(self.module_blocks(module), trunk, strict=True):
            generator = torch.Generator().manual_seed(key(seed, "init", number))
            if not self.built:
                _draw(block, self.gain, generator)
        _draw(head, self.gain, generator)

    def seeded(self, seed: int) -> Chain:
        """The same chain, each block keying the default generator by (seed, block) before it is made.

        Blocks that draw in their constructors draw from it.
        """
        blocks = tuple(
            partial(_made_after_seeding, block, key(seed, "build", number))
            for number, block in enumerate(self.blocks)
        )
        return replace(self, blocks=blocks)


def _draw(part: nn.Module, gain: float, generator: torch.Generator) -> None:
    for layer in part.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _made_after_seeding(block: BlockFactory, seed: int) -> nn.Module:
    torch.default_generator.manual_seed(seed)
    return block()


def _copier(block: nn.Module) -> BlockFactory:
    # Each opening gets its own copy, so that two residents never share a tensor.
    return lambda: copy.deepcopy(block)
