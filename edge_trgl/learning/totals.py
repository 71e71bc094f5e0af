"""What is counted while a module works."""

from __future__ import annotations

from typing import NamedTuple


class Totals(NamedTuple):
    """Sums over samples: cross-entropy, correct predictions, transport cost. Of gauged steps, the squared norms of
    the gradients in the residues: those of the transport term, and those of all else in the loss."""

    num_images: int = 0
    loss: float = 0.0
    correct: int = 0
    transport: float = 0.0
    transport_gradient: float = 0.0
    other_gradient: float = 0.0

    def plus(self, more: Totals) -> Totals:
        """Both together."""
        return Totals(
            self.num_images + more.num_images,
            self.loss + more.loss,
            self.correct + more.correct,
            self.transport + more.transport,
            self.transport_gradient + more.transport_gradient,
            self.other_gradient + more.other_gradient,
        )
