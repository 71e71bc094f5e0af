"""What is counted while a module works."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Totals(NamedTuple):
    """Sums over samples: loss of the head, correct predictions, transport cost.

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


class RunningTotals:
    """`Totals` in a float64 tensor on the module's device, so that no step waits for it.

    The tensor has the fields of `Totals` but for the number of images, which is known without the device.
    """

    def __init__(self) -> None:
        self._num_images = 0
        self.move_to("cpu")

    def move_to(self, device: str) -> None:
        """Begin anew on `device`."""
        self._sums = torch.zeros(len(Totals._fields) - 1, dtype=torch.float64, device=device)
        self._loss, self._correct, self._transport = self._sums[0], self._sums[1], self._sums[2]
        self._gradients = self._sums[3:]

    @property
    def device_type(self) -> str:
        """cpu or cuda."""
        return self._sums.device.type

    @property
    def gauge(self) -> Tensor:
        """Where a gauged backward adds the squared norms of its gradients, float64 [2]: see `Measure`."""
        return self._gradients

    @torch.no_grad()
    def count(self, loss: Tensor, num_samples: int, correct: Tensor | None, transport: Tensor | None) -> None:
        """Add a batch: mean loss of the head and mean transport cost, number of correct predictions (all 0-d).

        `correct`, `transport`: None where there are none.
        """
        self._num_images += num_samples
        self._loss.add_(loss * num_samples)
        if correct is not None:
            self._correct.add_(correct)
        if transport is not None:
            self._transport.add_(transport * num_samples)

    def take(self) -> Totals:
        """The sums since the last call; waits for the device."""
        loss, correct, transport, transport_gradient, other_gradient = self._sums.tolist()
        num_images, self._num_images = self._num_images, 0
        self._sums.zero_()
        return Totals(num_images, loss, int(correct), transport, transport_gradient, other_gradient)
