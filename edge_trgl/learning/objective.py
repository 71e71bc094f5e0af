"""What a module's output is trained on, but for the transport term: cross-entropy of the head, auxiliary parts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.losses import Mix, damped


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The head, the auxiliary parts `aux` in the order of `mix.parts`, and how they are weighed."""

    head: nn.Module
    aux: nn.ModuleList
    mix: Mix
    label_smoothing: float

    def read(self, out: Tensor, y: Tensor, image: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The head's logits [B, classes] for a module's output, and the terms beside their cross-entropy (0-d)."""
        logits = self.head(damped(out, self.mix.cross_entropy))
        weights = (weight for weight, _ in self.mix.parts)
        return logits, [weight * part(out, y, image) for weight, part in zip(weights, self.aux, strict=True)]

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Of logits [B, classes] and labels [B], in float32, 0-d."""
        return functional.cross_entropy(logits.float(), y, label_smoothing=self.label_smoothing)

    def weights(self) -> list[nn.Parameter]:
        """The weights of the head and the auxiliary parts."""
        return list(nn.ModuleList([self.head, *self.aux]).parameters())
