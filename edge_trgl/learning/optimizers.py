"""SGD with momentum, and AdamW: weights updated after the backward, or in it, once their gradient is complete.

The functional forms: torch.optim would load torch._dynamo, 70 MiB of the user's budget.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["sgd", "adamw"]

Weights = Mapping[str, nn.Parameter]
"""Weights by name."""

LATE_BYTES = 256 * 1024
"""The smallest weights, together at most this large, are updated in one call after the backward.

Their gradients take hardly any memory, and a call for each of them takes longer than its arithmetic."""


class Optimizer(ABC):
    """Moments of some weights, and the one way in which they are updated, in place.

    Attributes:
        momenta: for each weight, by name, a tensor like it: the running mean of its gradients.
    """

    def __init__(self, weights: Weights, *, weight_decay: float) -> None:
        self.momenta = _like(weights)
        self._momentum_of = {weight: self.momenta[name] for name, weight in weights.items()}
        self._weight_decay = weight_decay
        self._late = late_weights(weights.values())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a step, by name."""
        return {f"momentum.{name}": tensor for name, tensor in self.momenta.items()}

    @abstractmethod
    def begin(self) -> None:
        """Begin a step, in which each weight may be updated once."""

    @torch.no_grad()
    def step(self, weights: Iterable[nn.Parameter], lr: float) -> None:
        """Update those of `weights` that have a gradient, and free the gradient."""
        due = [weight for weight in weights if weight.grad is not None]
        if due:
            self._update(due, [_like_its(weight, weight.grad) for weight in due if weight.grad is not None], lr)
        for weight in due:
            weight.grad = None

    @abstractmethod
    def _update(self, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor], lr: float) -> None: ...

    @contextmanager
    def in_backward(self, weights: Iterable[nn.Parameter], lr: float | None) -> Iterator[None]:
        """Surround a backward that completes the gradients of `weights`; each is updated on the spot.

        The late ones are left to the next `step`, as are all without a learning rate.
        """

        def update(weight: Tensor) -> None:
            assert isinstance(weight, nn.Parameter)
            assert lr is not None
            self.step((weight,), lr)

        early = [weight for weight in weights if weight.requires_grad and weight not in self._late]
        learning = [] if lr is None else early
        handles = [weight.register_post_accumulate_grad_hook(update) for weight in learning]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            # A hook that stayed would tie weights and momentum into a cycle, which is not freed at once.
            for handle in handles:
                handle.remove()


def late_weights(weights: Iterable[nn.Parameter]) -> set[nn.Parameter]:
    """Those of `weights` that `in_backward` leaves to the step after it."""
    smallest = sorted(weights, key=lambda weight: weight.nbytes)
    totals = accumulate(weight.nbytes for weight in smallest)
    return {weight for weight, total in zip(smallest, totals, strict=True) if total <= LATE_BYTES}


class Sgd(Optimizer):
    """SGD with momentum, not Nesterov's."""

    def __init__(self, weights: Weights, *, momentum: float, weight_decay: float) -> None:
        super().__init__(weights, weight_decay=weight_decay)
        self._momentum = momentum

    def begin(self) -> None:
        """Nothing to do: every step is like the first."""

    def _update(self, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor], lr: float) -> None:
        torch._fused_sgd_(
            list(weights),
            list(gradients),
            [self._momentum_of[weight] for weight in weights] if self._momentum else [],
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=lr,
            dampening=0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), bias correction included.

    The number of steps is kept with the moments, so that no schedule has to count for it.
    """

    def __init__(self, weights: Weights, *, betas: Sequence[float], weight_decay: float) -> None:
        super().__init__(weights, weight_decay=weight_decay)
        self._squares = _like(weights)
        self._square_of = {weight: self._squares[name] for name, weight in weights.items()}
        self._beta1, self._beta2 = betas
        # The kernel reads it where the weights are.
        device = next((weight.device for weight in weights.values()), "cpu")
        self._steps = torch.zeros((), dtype=torch.float32, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a step, by name."""
        squares = {f"square.{name}": tensor for name, tensor in self._squares.items()}
        return {**super().tensors(), **squares, "steps": self._steps}

    def begin(self) -> None:
        """Count a step, for all weights at once."""
        self._steps += 1

    def _update(self, weights: Sequence[nn.Parameter], gradients: Sequence[Tensor], lr: float) -> None:
        torch._fused_adamw_(
            list(weights),
            list(gradients),
            [self._momentum_of[weight] for weight in weights],
            [self._square_of[weight] for weight in weights],
            [],
            [self._steps] * len(weights),
            lr=lr,
            beta1=self._beta1,
            beta2=self._beta2,
            weight_decay=self._weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


EPSILON = 1e-8
"""Added to the square root of AdamW's second moment; PyTorch's default."""


def _like_its(weight: nn.Parameter, gradient: Tensor) -> Tensor:
    """`gradient` with the strides of its weight: CUDA's kernels refuse others, even in dimensions of size 1.

    In all other dimensions autograd has made them equal; CUDA's depthwise convolutions differ in such a one.
    """
    if gradient.stride() == weight.stride():
        return gradient
    return gradient.as_strided(weight.shape, weight.stride())


def _like(weights: Weights) -> dict[str, Tensor]:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}
