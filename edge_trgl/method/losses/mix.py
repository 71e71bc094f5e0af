"""The parts of a local loss: the head's cross-entropy, and auxiliary losses of the module's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What an auxiliary part is built for: shapes of one sample of the module's output and of one image."""

    output_shape: Shape
    image_shape: Shape
    num_classes: int


class Auxiliary(nn.Module, ABC):
    """A term of the loss with weights of its own, which belong to the module's state but not to the network.

    `compares_samples`: it is not a mean over samples, so micro-batches would give another loss. `wants_image`: it
    compares with the images that the module's input came from.
    """

    compares_samples: ClassVar[bool] = False
    wants_image: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @abstractmethod
    def forward(self, out: Tensor, y: Tensor, image: Tensor | None) -> Tensor:
        """The loss (0-d) of outputs [B, ...], labels [B] and, if wanted, images [B, C, H, W] from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The local loss of one module without the transport cost: cross_entropy · CE + Σ weight · part.

    `cross_entropy` scales the gradient that the head sends to the module. The head itself always learns from the
    unscaled loss: its speed should not depend on a weight that is meant for the trunk, and every depth can be
    scored. `parts`: weight and kind of each auxiliary part.
    """

    cross_entropy: float = 1.0
    parts: tuple[tuple[float, type[Auxiliary]], ...] = ()

    @property
    def kinds(self) -> tuple[type[Auxiliary], ...]:
        """The kinds of the parts; modules with equal kinds and equal shapes have parts of equal cost."""
        return tuple(kind for _, kind in self.parts)

    @property
    def wants_image(self) -> bool:
        """Whether a step needs the images that the module's input came from."""
        return any(kind.wants_image for kind in self.kinds)

    @property
    def compares_samples(self) -> bool:
        """Whether some part compares samples, so that micro-batches would give another loss."""
        return any(kind.compares_samples for kind in self.kinds)


class LocalLoss(Protocol):
    """A frozen dataclass with the settings of a loss."""

    def of(self, module: int, num_modules: int) -> Mix:
        """The loss of module `module` of `num_modules`."""


@dataclass(frozen=True)
class CrossEntropy:
    """The head's cross-entropy alone. Decoupled greedy learning (Belilovsky, Eickenberg and Oyallon, 2020) is this
    loss with cheap heads."""

    def of(self, module: int, num_modules: int) -> Mix:
        """The same for every module."""
        return Mix()


def damped(out: Tensor, factor: float) -> Tensor:
    """`out` unchanged (any shape); its gradient is multiplied by `factor`."""
    if factor == 1:
        return out
    if factor == 0:
        return out.detach()
    through: Tensor = _Damped.apply(out, factor)  # type: ignore[no-untyped-call]
    return through


class _Damped(torch.autograd.Function):
    """See `damped`."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
