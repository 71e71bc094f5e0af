"""A model without its weights: each one is dropped as soon as the constructor makes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Factory = Callable[[], nn.Module]
"""Makes a model."""


@contextmanager
def parameters_on_meta(keep: Collection[int] = ()) -> Iterator[list[nn.Parameter]]:
    """Move every parameter to the device meta as soon as a module registers it, except those numbered in `keep`.

    Yields:
        The parameters in the order in which they are registered; the list grows while modules are built.
    """
    register = nn.Module.register_parameter
    registered: list[nn.Parameter] = []

    def register_on_meta(part: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        if weight is not None and not any(weight is known for known in registered):
            if len(registered) not in keep:
                weight = nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)
            registered.append(weight)
        register(part, name, weight)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign,assignment]
    try:
        yield registered
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def build_without_weights(factory: Factory) -> tuple[nn.Module, dict[str, int]]:
    """Build a model whose parameters have no values; its buffers do.

    Returns:
        The model, and for each parameter's name its position in the order of registration.
    """
    with torch.device("cpu"), parameters_on_meta() as registered:
        model = factory()
    positions = {id(weight): number for number, weight in enumerate(registered)}
    named = model.named_parameters(remove_duplicate=False)
    return model, {name: positions[id(weight)] for name, weight in named if id(weight) in positions}


def draw_weights(
    factory: Factory, positions: Mapping[str, int], names: Collection[str], seed: int
) -> dict[str, Tensor]:
    """Return some parameters as the model's constructor draws them, and all buffers; nothing else is held.

    Nothing is drawn for a parameter on the device meta, so the values depend on `names` as well as on `seed`.

    Args:
        factory: makes the model.
        positions: as `build_without_weights` returns them.
        names: the parameters that are wanted; others are ignored.
        seed: of torch's default generator.
    """
    torch.default_generator.manual_seed(seed)
    with torch.device("cpu"), parameters_on_meta({positions[name] for name in names if name in positions}):
        model = factory()
    weights = dict(model.named_parameters(remove_duplicate=False))
    return {name: weights[name].detach() for name in names if name in weights} | dict(model.named_buffers())
