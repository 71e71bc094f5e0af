"""SGD with momentum: all weights after the backward, or each one in it, as soon as its gradient is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Descent:
    """The momentum of some weights, and the one way in which they are updated, in place.

    Attributes:
        momenta: for each weight, by its name, a tensor like it.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], *, momentum: float, weight_decay: float) -> None:
        self.momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._momentum_of = {weight: self.momenta[name] for name, weight in weights.items()}
        self._momentum = momentum
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, weights: Iterable[nn.Parameter], lr: float) -> None:
        """Update those of `weights` that have a gradient, and free it."""
        due = [(weight, weight.grad) for weight in weights if weight.grad is not None]
        if not due:
            return
        # The functional form: torch.optim would load torch._dynamo, 70 MiB of the user's budget.
        torch._fused_sgd_(
            [weight for weight, _ in due],
            [gradient for _, gradient in due],
            [self._momentum_of[weight] for weight, _ in due] if self._momentum else [],
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=lr,
            dampening=0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        for weight, _ in due:
            weight.grad = None

    @contextmanager
    def in_backward(self, weights: Iterable[nn.Parameter], lr: float | None) -> Iterator[None]:
        """Around a backward that completes the gradients of `weights`: each is updated there and then.

        Without a rate, none is.
        """

        def update(weight: Tensor) -> None:
            assert isinstance(weight, nn.Parameter)
            assert lr is not None
            self.step((weight,), lr)

        learning = [weight for weight in weights if weight.requires_grad and lr is not None]
        handles = [weight.register_post_accumulate_grad_hook(update) for weight in learning]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            # A hook that stayed would tie weights and momentum into a cycle, which is not freed at once.
            for handle in handles:
                handle.remove()
