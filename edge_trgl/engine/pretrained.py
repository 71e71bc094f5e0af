"""Copies trained weights into the modules of a chain, one module at a time; the whole net is never in memory.

A file names weights as the model's state dict does (torchvision, timm, a user's module), or as `blocks.N.NAME`,
where N counts the blocks of the chain from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edge_trgl.engine.weight_files import WeightFiles
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.networks.chain import Chain, build_block
from edge_trgl.networks.cutting.first_weights import tensors_of
from edge_trgl.networks.heads import LinearHead
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net

_NAMES_SHOWN = 3
"""The most names that a message lists."""

_BATCH_COUNTER = "num_batches_tracked"


class Pretrained:
    """Fills the modules of a chain from files.

    Args:
        weights: the files.
        chain: the chain to fill.
        net: the model that the chain was cut from, whose state dict then names the weights; else None.

    Attributes:
        num_blocks: number of leading blocks whose weights the files hold: all, or those of the frozen modules.

    Raises:
        InputError: weights are missing, have other shapes, or belong to no block.
    """

    def __init__(self, weights: WeightFiles, chain: Chain, net: Net | None) -> None:
        self._weights = weights
        self._chain = chain
        self._net = net
        # For each block: name in the file, by name in the block.
        self._names: list[dict[str, str]] = []
        missing_by_block, different = self._match()
        self.num_blocks = self._count_blocks()
        missing = [name for names in missing_by_block[: self.num_blocks] for name in names]
        matched = {name for names in self._names for name in names.values()}
        unknown = [name for name in weights.shapes if name not in matched and not self._is_outside(name)]
        for problem, names in (("lacks", missing), ("has other shapes:", different), ("has too much:", unknown)):
            if names:
                self._refuse(problem, names)

    def _match(self) -> tuple[list[list[str]], list[str]]:
        """Look up the weights of every block; return the names each block lacks, and the shapes that differ."""
        missing, different, shapes = [], [], self._weights.shapes
        for number, factory in enumerate(self._chain.blocks):
            with torch.device("meta"):
                tensors = tensors_of(build_block(factory))
            names = self._names_in_file(number, tensors)
            present = {own: name for own, name in names.items() if name in shapes}
            self._names.append(present)
            missing.append(
                [name for own, name in names.items() if own not in present and _is_required(own, tensors[own])]
            )
            different += [
                f"{name} is {list(shapes[name])}, expected {list(tensors[own].shape)}"
                for own, name in present.items()
                if shapes[name] != tuple(tensors[own].shape)
            ]
        return missing, different

    def _count_blocks(self) -> int:
        chain = self._chain
        num_frozen = chain.starts[chain.frozen]
        return len(chain.blocks) if any(self._names[num_frozen:]) or not num_frozen else num_frozen

    def holds(self, module: int) -> bool:
        """Return whether the files hold the weights of `module`."""
        return self._chain.starts[module] < self.num_blocks

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

    def _refuse(self, problem: str, names: Sequence[str]) -> None:
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise InputError(
            f"{self._weights.paths[0]} does not hold the weights of {self._chain.name}: "
            f"it {problem} {'; '.join(names[:_NAMES_SHOWN])}{more}",
            hint="Names are those of the model's state dict, or blocks.N.NAME.",
        )

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
        return self._fill_head(local) if module == len(self._chain) - 1 else None

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


def _is_required(name: str, tensor: Tensor) -> bool:
    """Return whether a file must hold this tensor of a block that was built on the meta device.

    Batch counters may be missing. Constant tables have values even there, and need none from a file.
    """
    return tensor.is_meta and not name.endswith(_BATCH_COUNTER)
