"""What a head's output is compared with: logits with labels, or what a decoder rebuilt with the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional


class Criterion(Protocol):
    """The loss of a head."""

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """The mean loss (0-d float32) of a head's output [B, ...]."""
        ...

    def num_correct(self, out: Tensor, target: Tensor) -> Tensor | None:
        """The number of correct predictions (0-d int64); None where there are none to count."""
        ...


@dataclass(frozen=True, kw_only=True)
class CrossEntropyOfLogits:
    """Of logits [B, classes] and labels [B]."""

    label_smoothing: float = 0.0

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """See `Criterion`."""
        return functional.cross_entropy(out.float(), target, label_smoothing=self.label_smoothing)

    def num_correct(self, out: Tensor, target: Tensor) -> Tensor | None:
        """See `Criterion`."""
        return (out.argmax(1) == target).sum()


@dataclass(frozen=True, kw_only=True)
class SquaredError:
    """Of rebuilt samples and the samples [B, C, ...], as a mean over all values."""

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """See `Criterion`."""
        return functional.mse_loss(out.float(), target)

    def num_correct(self, out: Tensor, target: Tensor) -> Tensor | None:
        """See `Criterion`."""
        return None
