"""The transport cost W of a module: the kinetic energy that TRGL adds to its loss (paper, equation 2).

W is the sum over the module's blocks of reduce(r²), r being the residue that a block adds to its input.
With τ (units: see `Reduction`) the local loss is CE + W / (2τ); with the method of multipliers
(appendix D) it is CE + W / λ, where λ grows with the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from edge_trgl.sparing import Branch, MeanSquare, residual

Reduction = Literal["mean", "sum"]
"""mean: over batch, channels and positions (the authors' scale). sum: the squared norm of a sample's
residue, averaged over the batch (the paper's formula). One block's penalty is the same under both when
τ_sum = τ_mean · C·H·W of that block's map."""


@dataclass(frozen=True)
class Energy:
    """mean(r²) (0-d float32) of a residue that is not kept, with r's number of elements a sample."""

    mean: Tensor
    size: int


class Residue(nn.Module):
    """Stands on a residual branch, `x + self.residue(branch)`, and so marks r for the transport cost.

    An identity; while gradients are recorded in training it keeps r until `take` is called, unless
    `recording` is off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recording = True
        self._marked: Tensor | Energy | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Return `branch`, any shape, unchanged."""
        if self._wanted():
            self._marked = branch
        return branch

    def join(self, shortcut: Tensor, branch: Branch, x: Tensor) -> Tensor:
        """shortcut + branch(x), all [B, C, H, W]: of the residue, its energy alone is marked and kept."""
        out, mean = residual(replace(branch, energy=self._wanted()), x, shortcut)
        if mean is not None:
            self._marked = Energy(mean, out[0].numel())
        return out

    def _wanted(self) -> bool:
        return self.recording and self.training and torch.is_grad_enabled()

    def take(self) -> Tensor | Energy | None:
        """Hand over what was marked and forget it, so that nothing outlives the step."""
        marked, self._marked = self._marked, None
        return marked


def energy(residue: Tensor | Energy, reduction: Reduction) -> Tensor:
    """The kinetic energy of one residue [B, ...] as a 0-d float32 tensor."""
    if isinstance(residue, Tensor):
        mean: Tensor = MeanSquare.apply(residue)  # type: ignore[no-untyped-call]
        residue = Energy(mean, residue.numel() // residue.shape[0])
    return residue.mean if reduction == "mean" else residue.mean * residue.size


def residues(block: nn.Module, x: Tensor, out: Tensor) -> Iterator[Tensor | Energy]:
    """Yield what `block` added to `x` [B, ...] to give `out`: its marked residues, or their energies.

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
