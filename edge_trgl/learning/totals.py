"""What is counted while a module works."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Totals(NamedTuple):
    """Sums over samples: cross-entropy, correct predictions, transport cost.

    The last two are sums over gauged steps: the squared norms of the gradients in the residues, of the transport
    term and of the rest of the loss.
    """

    num_images: int = 0
    loss: float = 0.0
    correct: int = 0
    transport: float = 0.0
    transport_gradient: float = 0.0
    other_gradient: float = 0.0

    def plus(self, more: Totals) -> Totals:
        """The sums of both."""
        return Totals(
            self.num_images + more.num_images,
            self.loss + more.loss,
            self.correct + more.correct,
            self.transport + more.transport,
            self.transport_gradient + more.transport_gradient,
            self.other_gradient + more.other_gradient,
        )


_NUM_IMAGES, _LOSS, _CORRECT, _TRANSPORT = range(4)
_GRADIENTS = slice(4, 6)
"""Places of the sums in their tensor, in the order of `Totals`."""


class RunningTotals:
    """`Totals` in a float64 tensor on the module's device, so that no step waits for it."""

    def __init__(self) -> None:
        self._sums = torch.zeros(len(Totals._fields), dtype=torch.float64, device="cpu")

    def move_to(self, device: str) -> None:
        """Keep the sums on `device`."""
        self._sums = self._sums.to(device)

    @property
    def device_type(self) -> str:
        """cpu or cuda."""
        return self._sums.device.type

    @property
    def gauge(self) -> Tensor:
        """Where a gauged backward adds the squared norms of its gradients, float64 [2]: see `Measure`."""
        return self._sums[_GRADIENTS]

    @torch.no_grad()
    def count(self, cross_entropy: Tensor, logits: Tensor, y: Tensor, transport: Tensor) -> None:
        """Add a batch: mean cross-entropy and transport cost (0-d), logits [B, classes] and labels [B]."""
        self._sums[_NUM_IMAGES] += len(y)
        self._sums[_LOSS] += cross_entropy.detach() * len(y)
        self._sums[_CORRECT] += (logits.argmax(1) == y).sum()
        self._sums[_TRANSPORT] += transport.detach() * len(y)

    def take(self) -> Totals:
        """The sums since the last call; waits for the device."""
        num_images, loss, correct, transport, transport_gradient, other_gradient = self._sums.tolist()
        self._sums.zero_()
        return Totals(int(num_images), loss, int(correct), transport, transport_gradient, other_gradient)
