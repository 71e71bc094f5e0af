"""A model without its weights: each one is dropped as soon as the constructor makes it.

A constructor that asks for the value of a weight, or makes one weight from another, cannot be run in this way: it
is run again with all weights, in a file (see `weights_in_file`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edge_trgl.networks.cutting.nested import tensors_in
from edge_trgl.networks.cutting.weights_in_file import build_in_file

Factory = Callable[[], nn.Module]
"""Makes a model."""


class NeedsValuesError(Exception):
    """The constructor of a model uses the values of its weights."""


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


class _Watch(TorchFunctionMode):
    """Notes whether anything is computed from the weights `registered`, other than into themselves."""

    def __init__(self, registered: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.reads_values = False
        self._registered = registered
        self._storages: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._storages |= {_storage(weight) for weight in self._registered[len(self._storages) :]}
        given = [tensor for tensor in tensors_in((args, kwargs)) if tensor.is_meta]
        weights = {_storage(tensor) for tensor in given} & self._storages
        result = func(*args, **kwargs)
        if weights and not _takes_only_the_form(func):
            made = any(_storage(tensor) not in weights for tensor in tensors_in(result))
            self.reads_values |= made or len(weights) > 1
        return result


def _storage(tensor: Tensor) -> int:
    number: int = tensor.untyped_storage()._cdata
    return number


def _takes_only_the_form(func: Any) -> bool:
    """Return whether a function makes a new tensor of the shape or the dtype of its argument."""
    # `torch.overrides.resolve_name` would load parts of torch that no step needs.
    name: str = getattr(func, "__name__", "").partition(".")[0]
    return name.startswith("new_") or name.endswith("_like")


def build_without_weights(factory: Factory) -> tuple[nn.Module, dict[str, int]]:
    """Build a model whose parameters have no values; its buffers do.

    Returns:
        The model, and for each parameter's name its position in the order of registration.

    Raises:
        NeedsValuesError: the constructor uses the values of weights.
        Exception: whatever it raises.
    """
    with torch.device("cpu"), parameters_on_meta() as registered, _Watch(registered) as watch:
        model = factory()
    if not isinstance(model, nn.Module):
        return model, {}
    positions = {id(weight): number for number, weight in enumerate(registered)}
    named = dict(model.named_parameters(remove_duplicate=False))
    unknown = any(id(weight) not in positions for weight in named.values())
    if watch.reads_values or unknown or any(buffer.is_meta for buffer in model.buffers()):
        raise NeedsValuesError
    return model, {name: positions[id(weight)] for name, weight in named.items()}


def build_lightly(factory: Factory, scratch: Path | None = None) -> nn.Module:
    """Build a model for its structure and its buffers; its weights have no values, or have them in a file.

    Args:
        factory: makes the model; what it returns is returned as it is.
        scratch: an existing folder for a file of weights; None is the system's own.

    Raises:
        Exception: whatever the constructor raises.
    """
    try:
        return build_without_weights(factory)[0]
    except Exception:  # noqa: BLE001 - without values any code may fail; with them, an error is the model's own
        return build_in_file(factory, scratch)[0]


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
