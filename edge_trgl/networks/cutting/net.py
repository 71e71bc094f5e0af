"""A model that was cut, as it is kept with a run: training needs neither its code nor its library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from edge_trgl.networks.chain import BlockFactory, Chain, Shape, split_by_depth
from edge_trgl.networks.cutting.piece import build_block
from edge_trgl.runtime.records import Document, document_of, read_record


@dataclass(frozen=True, kw_only=True)
class NetBlock:
    """One block of a net.

    Args:
        pieces: positions in `Net.pieces`.
        prefixes: for each piece, what the names of its weights begin with in the model.
    """

    pieces: tuple[int, ...]
    prefixes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Net:
    """A model as blocks, described so that they can be built without its code.

    Args:
        name: the model's name, as `--model` gives it.
        input_shape: one sample, (C, H, W) or any other shape.
        num_classes: number of classes of the data.
        num_logits: number of logits of the model's own classifier, which heads replace.
        pieces: the distinct pieces, each as the JSON of a `PieceSource`.
        blocks: the blocks, in the order in which they run.
        classifier: the name of the model's last linear layer, if a `linear` head on the last block computes the
            same as the model does after that block (in evaluation mode); else None.
        outside: names of the model's weights and buffers that are in no block, such as those of the classifier.
    """

    name: str
    input_shape: Shape
    num_classes: int
    num_logits: int
    pieces: tuple[str, ...]
    blocks: tuple[NetBlock, ...]
    classifier: str | None
    outside: tuple[str, ...]

    @classmethod
    def from_document(cls, document: Document) -> Net:
        """Read what `document` returned."""
        return read_record(cls, document)

    def document(self) -> Document:
        """Return the net as a JSON object."""
        return document_of(self)

    def chain(self, *, num_modules: int | None = None, head: str = "linear") -> Chain:
        """Return the chain of its blocks, a module for each block unless `num_modules` says otherwise.

        The blocks do not have the model's weights: `FirstWeights`, or a file of weights, fills them.
        """
        return Chain(
            name=self.name,
            blocks=tuple(self._factory(block) for block in self.blocks),
            starts=split_by_depth(len(self.blocks), num_modules or len(self.blocks)),
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            head=head,
            gain=None,
            built=True,
        )

    def _factory(self, block: NetBlock) -> BlockFactory:
        # Equal blocks have equal arguments, so that their costs are counted once.
        return partial(build_block, tuple(self.pieces[number] for number in block.pieces))

    def names(self, block: int, names_in_block: Iterable[str]) -> dict[str, str]:
        """Return the name in the model of each tensor of block number `block`, by its name in the block."""
        prefixes = self.blocks[block].prefixes
        names = {}
        for name_in_block in names_in_block:
            piece, name = name_in_block.split(".", 1) if len(prefixes) > 1 else ("0", name_in_block)
            names[name_in_block] = prefixes[int(piece)] + name.removeprefix("net.")
        return names
