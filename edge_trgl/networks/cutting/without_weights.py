"""A model without its weights: what its constructor makes is let go of at once, so that it is never whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Factory = Callable[[], nn.Module]


@contextmanager
def hollow(keep: Collection[int] = ()) -> Iterator[list[nn.Parameter]]:
    """Parameters made meanwhile have no values, but for those of these numbers; yields them in order."""
    register = nn.Module.register_parameter
    made: list[nn.Parameter] = []

    def instead(part: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        if weight is not None and not any(weight is one for one in made):
            if len(made) not in keep:
                weight = nn.Parameter(weight.detach().to("meta"), requires_grad=weight.requires_grad)
            made.append(weight)
        register(part, name, weight)

    nn.Module.register_parameter = instead  # type: ignore[method-assign,assignment]
    try:
        yield made
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def numbers(factory: Factory) -> tuple[nn.Module, dict[str, int]]:
    """The model with buffers but no weights, and for each weight's name the how-manieth it was to be made."""
    with torch.device("cpu"), hollow() as made:
        model = factory()
    order = {id(weight): number for number, weight in enumerate(made)}
    named = model.named_parameters(remove_duplicate=False)
    return model, {name: order[id(weight)] for name, weight in named if id(weight) in order}


def drawn(factory: Factory, numbers: Mapping[str, int], names: Collection[str], seed: int) -> dict[str, Tensor]:
    """The weights `names` as the model's own constructor draws them, and all buffers; no other weight is held.

    The draws are keyed by `seed`, and are others where other weights are drawn beside them.
    """
    torch.default_generator.manual_seed(seed)
    with torch.device("cpu"), hollow({numbers[name] for name in names if name in numbers}):
        model = factory()
    weights = dict(model.named_parameters(remove_duplicate=False))
    return {name: weights[name].detach() for name in names if name in weights} | dict(model.named_buffers())
