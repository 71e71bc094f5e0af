"""The weights of the blocks of a net, as the model's own constructor draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edge_trgl.networks.cutting.weights_in_file import WeightsFile, build_in_file
from edge_trgl.networks.cutting.without_weights import Factory, build_without_weights, draw_weights
from edge_trgl.random_keys import key

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net


class FirstWeights:
    """Draws the first weights of the blocks of `net`, one at a time; the others of the model are not in memory.

    Where the constructor uses the values of weights, it is run once, with all of them in a file: they are then
    what it gives after `torch.manual_seed(key(seed, "build"))`.

    Args:
        net: the model as it was cut.
        factory: makes the model.
        seed: the run's random seed; it and the number of a block decide the block's weights.
        scratch: an existing folder for the file; None is the system's own.
    """

    def __init__(self, net: Net, factory: Factory, seed: int, scratch: Path | None = None) -> None:
        self._net = net
        self._factory = factory
        self._seed = seed
        self._in_file: tuple[nn.Module, WeightsFile] | None = None
        try:
            _, self._positions = build_without_weights(factory)
        except Exception:  # noqa: BLE001 - as in `build_lightly`
            self._in_file = build_in_file(factory, scratch, key(seed, "build"))

    def fill(self, number: int, block: nn.Module) -> None:
        """Write the first weights and buffers of block `number` into `block`."""
        tensors = tensors_of(block)
        names = self._net.names(number, tensors)
        if self._in_file is None:
            wanted = set(names.values())
            seed = key(self._seed, "build", number)
            copy_by_name(draw_weights(self._factory, self._positions, wanted, seed), tensors, names)
            return
        model, weights = self._in_file
        copy_by_name(tensors_of(model), tensors, names)
        weights.drop_pages()


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
