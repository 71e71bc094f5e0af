"""The weights of the blocks of a net: as the model's own constructor draws them, or out of its state dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edge_trgl.networks.cutting.net import Net
from edge_trgl.networks.cutting.without_weights import Factory, drawn, numbers
from edge_trgl.random_keys import key


class FirstWeights:
    """Draws the first weights of one block of `net` at a time; no more of the model than that is held."""

    def __init__(self, net: Net, factory: Factory) -> None:
        self._net = net
        self._factory = factory
        _, self._numbers = numbers(factory)

    def fill(self, number: int, block: nn.Module, seed: int) -> None:
        """Write the first weights and buffers of block `number` into it; they depend on `seed` and the block."""
        tensors = tensors_of(block)
        names = self._net.names(number, tensors)
        values = drawn(self._factory, self._numbers, set(names.values()), key(seed, "build", number))
        fill(tensors, names, values)


def tensors_of(block: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a block, by name."""
    named = block.named_parameters(remove_duplicate=False)
    return {name: weight.detach() for name, weight in named} | dict(block.named_buffers(remove_duplicate=False))


@torch.no_grad()
def fill(tensors: Mapping[str, Tensor], names: Mapping[str, str], values: Mapping[str, Tensor]) -> None:
    """Write into `tensors`, by their `names` in a model, the `values` of that; constants it has none for stay."""
    for local, tensor in tensors.items():
        if names[local] in values:
            tensor.copy_(values[names[local]])
