"""A model that was cut: what is stored with a run, so that training loads no library of models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from edge_trgl.networks.chain import BlockFactory, Chain, by_depth
from edge_trgl.networks.cutting.piece import build_block

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Block:
    """The pieces of a block, by their numbers in `Net.pieces`, and what the model's names begin with in each."""

    pieces: tuple[int, ...]
    prefixes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Net:
    """`pieces`: the distinct ones, as JSON. `classifier`: the model's last linear layer, if a `linear` head on
    the last block computes the same as the model does after that block (in evaluation mode). `left`: the model's
    weights and buffers that are in no block, by name: those of the classifier."""

    name: str
    input_shape: Shape
    num_classes: int
    pieces: tuple[str, ...]
    blocks: tuple[Block, ...]
    classifier: str | None
    left: tuple[str, ...]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Net:
        """The net that was stored as `document`."""
        return cls(
            name=document["name"],
            input_shape=tuple(document["input_shape"]),
            num_classes=document["num_classes"],
            pieces=tuple(json.dumps(piece, sort_keys=True) for piece in document["pieces"]),
            blocks=tuple(
                Block(pieces=tuple(block["pieces"]), prefixes=tuple(block["prefixes"]))
                for block in document["blocks"]
            ),
            classifier=document["classifier"],
            left=tuple(document["left"]),
        )

    def document(self) -> dict[str, Any]:
        """As nested plain values."""
        return {**asdict(self), "pieces": [json.loads(piece) for piece in self.pieces]}

    def chain(self, *, num_modules: int | None = None, head: str = "linear") -> Chain:
        """The chain of its blocks, one module a block unless `num_modules` says otherwise.

        The blocks have no weights of the model: those are filled in, module by module (see `filling`).
        """
        return Chain(
            name=self.name,
            blocks=tuple(self._factory(block) for block in self.blocks),
            starts=by_depth(len(self.blocks), num_modules or len(self.blocks)),
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            head=head,
            gain=None,
            built=True,
        )

    def _factory(self, block: Block) -> BlockFactory:
        # Equal blocks have equal arguments, and so are known to cost the same.
        return partial(build_block, tuple(self.pieces[number] for number in block.pieces))

    def names(self, block: int, local: Iterable[str]) -> dict[str, str]:
        """For the names of tensors in a block as it is built, their names in the model."""
        prefixes = self.blocks[block].prefixes
        found = {}
        for name in local:
            number, own = name.split(".", 1) if len(prefixes) > 1 else ("0", name)
            found[name] = prefixes[int(number)] + own.removeprefix("net.")
        return found
