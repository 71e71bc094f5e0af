"""What a module's output is trained on, but for the transport term: the loss of its head, auxiliary parts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edge_trgl.learning.criterion import Criterion
from edge_trgl.method.losses import Mix, damped


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The head, its criterion, the auxiliary parts `aux` in the order of `mix.parts`, and how they are weighed."""

    head: nn.Module
    aux: nn.ModuleList
    mix: Mix
    criterion: Criterion

    def read(self, out: Tensor, target: Tensor, image: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the head makes [B, ...] of a module's output, and the terms beside its loss (0-d)."""
        made = self.head(damped(out, self.mix.cross_entropy))
        weights = (weight for weight, _ in self.mix.parts)
        return made, [weight * part(out, target, image) for weight, part in zip(weights, self.aux, strict=True)]

    def weights(self) -> list[nn.Parameter]:
        """The weights of the head and the auxiliary parts."""
        return list(nn.ModuleList([self.head, *self.aux]).parameters())
