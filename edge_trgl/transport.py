"""The transport cost W of a module: the kinetic energy that TRGL adds to its loss (paper, equation 2).

W is the sum over the module's blocks of reduce(r²), r being the residue that a block adds to its input.
With τ (units: see `Reduction`) the local loss is CE + W / (2τ); with the method of multipliers
(appendix D) it is CE + W / λ, where λ grows with the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum"]
"""mean: over batch, channels and positions (the authors' scale). sum: the squared norm of a sample's
residue, averaged over the batch (the paper's formula). One block's penalty is the same under both when
τ_sum = τ_mean · C·H·W of that block's map."""


class Residue(nn.Module):
    """Stands on a residual branch, `x + self.residue(branch)`, and so marks r for the transport cost.

    An identity; while gradients are recorded in training it keeps r until `take` is called, unless
    `recording` is off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recording = True
        self._marked: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Return `branch`, any shape, unchanged."""
        if self.recording and self.training and torch.is_grad_enabled():
            self._marked = branch
        return branch

    def take(self) -> Tensor | None:
        """Hand over the marked residue and forget it, so that nothing outlives the step."""
        marked, self._marked = self._marked, None
        return marked


class _MeanSquare(torch.autograd.Function):
    """mean(r²) without the r² that `r.pow(2).mean()` would allocate."""

    @staticmethod
    def forward(ctx: Any, residue: Tensor) -> Tensor:
        ctx.save_for_backward(residue)
        # A norm a sample: one running float32 sum over a whole batch would lose digits.
        norms: Tensor = torch.linalg.vector_norm(residue, dim=tuple(range(1, residue.dim())), dtype=torch.float32)
        return norms.square_().sum() / residue.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (residue,) = ctx.saved_tensors
        # A 0-d factor on the CPU joins a bfloat16 residue without widening it.
        scaled: Tensor = residue * (gradients[0] * (2 / residue.numel()))
        return scaled


def energy(residue: Tensor, reduction: Reduction) -> Tensor:
    """The kinetic energy of one residue [B, ...] as a 0-d float32 tensor."""
    mean: Tensor = _MeanSquare.apply(residue)  # type: ignore[no-untyped-call]
    return mean if reduction == "mean" else mean * (residue.numel() // residue.shape[0])


def residues(block: nn.Module, x: Tensor, out: Tensor) -> Iterator[Tensor]:
    """Yield what `block` added to `x` [B, ...] to give `out`: its marked residues.

    A block that marks none is a plain layer: r = out − x where the shapes agree (paper, section 2.1),
    nothing where they differ.
    """
    marks = [module for module in block.modules() if isinstance(module, Residue)]
    for mark in marks:
        residue = mark.take()
        if residue is not None:
            yield residue
    if not marks and out.shape == x.shape:
        yield out - x


@dataclass(frozen=True, kw_only=True)
class Transport:
    """How modules are regularised.

    `tau` is that of the first ⌊K/2⌋ modules; the others get 2τ. None is VanGL: no transport term.
    With `multipliers` the weight is 1/λ instead and `tau` is not used.
    """

    tau: float | None
    reduction: Reduction = "mean"
    multipliers: Multipliers | None = None

    def weight(self, module: int, num_modules: int) -> float:
        """The factor of W in the loss of module `module`: 1 / (2τ_k), or 0 for VanGL."""
        if self.tau is None:
            return 0.0
        tau = self.tau if module < num_modules // 2 else 2 * self.tau
        return 1 / (2 * tau)


@dataclass(frozen=True, kw_only=True)
class Multipliers:
    """λ of appendix D: starts at `first`, and every `every` steps grows by `growth` · CE."""

    first: float = 1.0
    growth: float = 1.0
    every: int = 50

    def begin(self, state: Tensor, lap: int) -> None:
        """Start anew in place when `lap` is another than that of `state` = [λ, steps, lap] (float64)."""
        if int(state[2]) != lap:
            state.copy_(torch.tensor([self.first, 0.0, float(lap)]))

    def advance(self, state: Tensor, cross_entropy: Tensor) -> None:
        """Count one step in place, with the cross-entropy that it just computed."""
        state[1] += 1
        if int(state[1]) % self.every == 0:
            state[0] += self.growth * cross_entropy.double()
