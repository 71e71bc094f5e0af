"""Copies trained weights into the modules of a chain, one module at a time; the whole net is never in memory.

A file names weights as the model's state dict does (torchvision, timm, a user's module), or as `blocks.N.NAME`,
where N counts the blocks of the chain from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edge_trgl.engine.weight_files import WeightFiles, without_prefixes
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.networks.chain import BlockFactory, Chain, build_block
from edge_trgl.networks.cutting.first_weights import tensors_of
from edge_trgl.networks.heads import LinearHead
from edge_trgl.run.facts import PretrainedFit
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net

_BATCH_COUNTER = "num_batches_tracked"


class Pretrained:
    """Fills the modules of a chain from files, as far as these fit.

    Args:
        weights: the files; names may begin with the prefixes of wrappers.
        chain: the chain to fill.
        net: the model that the chain was cut from, whose state dict then names the weights; else None.

    Attributes:
        fit: which tensors of the blocks the files hold.

    Raises:
        InputError: no tensor fits, or one of a frozen module does not.
    """

    def __init__(self, weights: WeightFiles, chain: Chain, net: Net | None) -> None:
        self._weights = weights
        self._chain = chain
        self._net = net
        self._tensors = [_on_meta(factory) for factory in chain.blocks]
        if net is not None or not any(name.startswith("blocks.") for name in weights.shapes):
            self._weights = max(without_prefixes(weights), key=self._count_fitting)
        # For each block: name in the file, by name in the block.
        self._names = [self._fitting(number) for number in range(len(chain.blocks))]
        self._incomplete: set[int] = set()
        self.fit = self._judge()
        self._check()

    def _count_fitting(self, weights: WeightFiles) -> int:
        self._weights = weights
        return sum(len(self._fitting(number)) for number in range(len(self._tensors)))

    def _fitting(self, number: int) -> dict[str, str]:
        """Return the names in the file of the tensors of a block that it holds in their shape."""
        tensors, shapes = self._tensors[number], self._weights.shapes
        names = self._names_in_file(number, tensors)
        return {own: name for own, name in names.items() if shapes.get(name) == tuple(tensors[own].shape)}

    def _judge(self) -> PretrainedFit:
        """Compare all names and shapes, and note which blocks lack a tensor."""
        missing, different, shapes, known = [], [], self._weights.shapes, set()
        for number, tensors in enumerate(self._tensors):
            for own, name in self._names_in_file(number, tensors).items():
                known.add(name)
                if own in self._names[number] or not (name in shapes or _is_required(own, tensors[own])):
                    continue
                self._incomplete.add(number)
                if name in shapes:
                    different.append(f"{name} {list(shapes[name])}, expected {list(tensors[own].shape)}")
                else:
                    missing.append(name)
        fitting = sum(map(len, self._names))
        return PretrainedFit(
            file=str(self._weights.paths[0]),
            fitting=fitting,
            wanted=fitting + len(missing) + len(different),
            missing=tuple(missing),
            different=tuple(different),
            unused=tuple(name for name in shapes if name not in known and not self._is_outside(name)),
        )

    def _check(self) -> None:
        chain, fit = self._chain, self.fit
        if not fit.fitting:
            raise InputError(
                f"none of the weights in {fit.file} fits {chain.name}: {fit.text}",
                hint="Names are those of the model's state dict, or blocks.N.NAME.",
            )
        frozen = [module for module in range(chain.frozen) if not self.holds(module)]
        if frozen:
            raise InputError(
                f"module {frozen[0]} is frozen, and {fit.file} does not hold all of it: {fit.text}",
                hint="Freeze fewer modules, or give a file that holds them.",
            )

    def holds(self, module: int) -> bool:
        """Return whether the files hold all weights of `module`."""
        return self._incomplete.isdisjoint(self._chain.module_blocks(module))

    def _names_in_file(self, number: int, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Return the name that each tensor of a block would have in the file, whether or not the file holds it."""
        by_number = {name: f"blocks.{number}.{name}" for name in tensors}
        by_model = self._net.names(number, tensors) if self._net else by_number
        return {
            name: by_number[name] if by_number[name] in self._weights.shapes else by_model[name]
            for name in tensors
        }

    def _is_outside(self, name: str) -> bool:
        """Return whether a weight belongs to the head or to the model's classifier, not to a block."""
        return name.startswith("head.") or (self._net is not None and name in self._net.outside)

    @torch.no_grad()
    def fill(self, module: int, local: LocalModule) -> str | None:
        """Copy the weights of `module` into `local`.

        Returns:
            For the last module, a sentence that says where its head comes from; else None.
        """
        for number, block in zip(self._chain.module_blocks(module), local.trunk, strict=True):
            tensors = tensors_of(block)
            own_names = {name: own for own, name in self._names[number].items()}
            for name, values in self._weights.read(own_names):
                tensors[own_names[name]].copy_(values)
        # A file without the last block is of a shorter net, and so is its head.
        is_last = module == len(self._chain) - 1
        return self._fill_head(local) if is_last and self._names[-1] else None

    def _fill_head(self, local: LocalModule) -> str:
        tensors, shapes = tensors_of(local.head), self._weights.shapes
        candidates = [{f"head.{name}": name for name in tensors}]
        if self._net and self._net.classifier and isinstance(local.head, LinearHead):
            classifier = self._net.classifier
            candidates.append({f"{classifier}.{name.removeprefix('linear.')}": name for name in tensors})
        for own_names in candidates:
            if all(shapes.get(name) == tuple(tensors[own].shape) for name, own in own_names.items()):
                for name, values in self._weights.read(own_names):
                    tensors[own_names[name]].copy_(values)
                return "the last head is the file's classifier"
        return "the last head starts from random weights: the file has no head of its shape"


def _on_meta(factory: BlockFactory) -> dict[str, Tensor]:
    with torch.device("meta"):
        return tensors_of(build_block(factory))


def _is_required(name: str, tensor: Tensor) -> bool:
    """Return whether a file must hold this tensor of a block that was built on the meta device.

    Batch counters may be missing. Constant tables have values even there, and need none from a file.
    """
    return tensor.is_meta and not name.endswith(_BATCH_COUNTER)
