"""The weights of the blocks of a net, as the model's own constructor draws them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edge_trgl.networks.cutting.without_weights import Factory, build_without_weights, draw_weights
from edge_trgl.random_keys import key

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net


class FirstWeights:
    """Draws the first weights of one block of `net` at a time; no other weights of the model are in memory."""

    def __init__(self, net: Net, factory: Factory) -> None:
        self._net = net
        self._factory = factory
        _, self._positions = build_without_weights(factory)

    def fill(self, number: int, block: nn.Module, seed: int) -> None:
        """Write the first weights and buffers of block `number` into `block`; `seed` and `number` decide them."""
        tensors = tensors_of(block)
        names = self._net.names(number, tensors)
        wanted = set(names.values())
        copy_by_name(
            draw_weights(self._factory, self._positions, wanted, key(seed, "build", number)), tensors, names
        )


def tensors_of(block: nn.Module) -> dict[str, Tensor]:
    """Return the weights and buffers of a block by name, detached; they share its memory."""
    parameters = block.named_parameters(remove_duplicate=False)
    return {name: weight.detach() for name, weight in parameters} | dict(
        block.named_buffers(remove_duplicate=False)
    )


@torch.no_grad()
def copy_by_name(values: Mapping[str, Tensor], tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Copy `values` into the tensors of a block.

    Args:
        values: by name in the model; a constant of the block has none and stays as it is.
        tensors: by name in the block, as `tensors_of` returns them; written in place.
        names: the name in the model of each name in the block, as `Net.names` returns them.
    """
    for name, tensor in tensors.items():
        if names[name] in values:
            tensor.copy_(values[names[name]])
