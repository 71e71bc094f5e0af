"""What a local loss is made of: the head's cross-entropy, and auxiliary parts that read the module's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an auxiliary part stands: one sample of the module's output, one image (C, H, W), and the classes."""

    output_shape: Shape
    image_shape: Shape
    num_classes: int


class Auxiliary(nn.Module, ABC):
    """A term of the loss with weights of its own, which are part of the module's state but not of the network.

    `compares_samples`: it is not a mean over samples, so that parts of a batch do not give that of the batch.
    `wants_image`: it compares with the images that the module's input came from.
    """

    compares_samples: ClassVar[bool] = False
    wants_image: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @abstractmethod
    def forward(self, out: Tensor, y: Tensor, image: Tensor | None) -> Tensor:
        """The module's output [B, ...], labels [B] and, if wanted, images [B, C, H, W] from 0 to 1 → 0-d."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The local loss of one module, but for the transport cost: cross_entropy · CE + Σ weight · part.

    `cross_entropy` weighs what the head's loss asks of the module's output. The head itself learns from all of it:
    how fast it learns should not hang on a weight that is meant for the trunk, and any depth can be scored.
    `parts`: weight and kind of each.
    """

    cross_entropy: float = 1.0
    parts: tuple[tuple[float, type[Auxiliary]], ...] = ()

    @property
    def kinds(self) -> tuple[type[Auxiliary], ...]:
        """Modules of equal kinds have auxiliary parts that cost the same, where shapes agree."""
        return tuple(kind for _, kind in self.parts)

    @property
    def wants_image(self) -> bool:
        """Whether a step needs the images that the module's input came from."""
        return any(kind.wants_image for kind in self.kinds)

    @property
    def compares_samples(self) -> bool:
        """Whether micro-batches would give another loss."""
        return any(kind.compares_samples for kind in self.kinds)


class LocalLoss(Protocol):
    """A frozen dataclass, whose fields are the loss's settings."""

    def of(self, module: int, num_modules: int) -> Mix:
        """The loss of one of so many modules."""


@dataclass(frozen=True)
class CrossEntropy:
    """The head's cross-entropy alone. Decoupled greedy learning (Belilovsky, Eickenberg and Oyallon, 2020) is this
    loss with cheap heads."""

    def of(self, module: int, num_modules: int) -> Mix:
        """Of every module the same."""
        return Mix()


def damped(out: Tensor, factor: float) -> Tensor:
    """`out`, of any shape; a gradient that comes back is multiplied by `factor`."""
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
