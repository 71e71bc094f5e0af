"""One module in its deployed form, and the metadata that a user of the exported file needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_trgl.config.data import Resize


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Normalises samples, channel by channel: (input / scale - mean) / std.

    Args:
        mean: per-channel mean, in units of `input / scale`.
        std: per-channel standard deviation in the same units, each above 0.
        scale: 255 for images in 0-255, 1 for raw units.
        input_shape: (C, H, W) of images, (C, L) of windows.

    Raises:
        ValueError: `mean` or `std` does not have one value per channel, or `std` or `scale` is not above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    input_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        channels = self.input_shape[0]
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(f"for {channels} channels, mean has {len(self.mean)} values and std {len(self.std)}")
        if min(*self.std, self.scale) <= 0:
            raise ValueError(f"std and scale must be above 0, found std {self.std} and scale {self.scale}")

    def __call__(self, samples: Tensor) -> Tensor:
        """Normalise `samples`, float32 [N, *input_shape], to the same dtype and shape."""
        return (samples / float(self.scale) - self._channels(self.mean)) / self._channels(self.std)

    def _channels(self, values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * len(self.input_shape[1:]))


class Stage(nn.Module):
    """The trunk of one module and, at an exit, its head.

    Its tensors keep their names in the module's own file, `trunk.…` and `head.…`.

    Args:
        trunk: maps its input [N, ...] to the boundary that the next module reads.
        head: maps that boundary to logits [N, num_classes]; None if the module is not an exit.
        goes_on: whether another module follows.
        normalisation: applied to the input of the first module; None for all others.
    """

    def __init__(
        self, trunk: nn.Module, head: nn.Module | None, *, goes_on: bool, normalisation: Normalisation | None
    ) -> None:
        super().__init__()
        assert goes_on or head is not None, "a module that nothing follows is an exit"
        self.trunk = trunk
        self.head = head
        self.goes_on = goes_on
        self.normalisation = normalisation

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the boundary, if another module follows, and the logits, if this is an exit."""
        out = self.trunk(x if self.normalisation is None else self.normalisation(x))
        boundary = (out,) if self.goes_on else ()
        return boundary if self.head is None else (*boundary, self.head(out))

    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers by name; a shared tensor appears once."""
        return {name: weight.detach() for name, weight in self.named_parameters()} | dict(self.named_buffers())


def describe(normalisation: Normalisation, class_names: Sequence[str], resize: Resize) -> dict[str, str]:
    """The metadata of an exported file: `class_names` (a JSON list), and what must be done to its inputs.

    These are `preprocessing` (a sentence), `scale`, and of images `resize`, how one of another size was resized.
    """
    scale = normalisation.scale
    units = "values from 0 to 255" if scale == 255 else "values in the units of the training data"
    samples = "images [N, C, H, W]" if len(normalisation.input_shape) == 3 else "windows [N, C, L]"
    normalised = (
        f"(input / {scale:g} - mean) / std, "
        f"mean {_numbers(normalisation.mean)}, std {_numbers(normalisation.std)}, is part of the graph"
    )
    of_images = {"resize": resize} if len(normalisation.input_shape) == 3 else {}
    return {
        "class_names": json.dumps(list(class_names)),
        "preprocessing": f"Give float32 {samples} with {units}; {normalised}.",
        "scale": f"{scale:g}",
        **of_images,
    }


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
