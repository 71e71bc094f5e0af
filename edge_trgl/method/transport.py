"""The transport cost W of a module: the kinetic energy that TRGL adds to its loss (paper, equation 2).

W is the sum over the module's blocks of reduce(r²), where r is the residue that a block adds to its input;
reduce(|r|^p) with another power. With τ (units: see `Reduction`) the local loss is CE + W / (2τ); with the method
of multipliers (appendix D) it is CE + W / λ, where λ grows with the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from edge_trgl.method import kinetic_energy as energies
from edge_trgl.method.kinetic_energy import BatchNorm, Measure
from edge_trgl.method.recompute import Branch, residual

Reduction = Literal["mean", "sum"]
"""mean: over batch, channels and positions (the authors' scale). sum: over a sample's residue, averaged over the
batch (the paper's formula). One block's penalty is the same under both when τ_sum = τ_mean · C·H·W of that
block's map."""


@dataclass(frozen=True)
class Energy:
    """mean(|r|^p) (0-d float32) of a residue r, and the number of elements of r in one sample."""

    mean: Tensor
    size: int

    def reduced(self, reduction: Reduction) -> Tensor:
        """The kinetic energy, 0-d float32."""
        return self.mean if reduction == "mean" else self.mean * self.size


class Residue(nn.Module):
    """Marks the residue r for the transport cost; it stands where a residual branch ends, and changes no value.

    In training, while gradients are recorded, it holds the energy of r until `take` is called, computed as
    `measure` says; None: no energy. A plain call keeps r for the backward; `add`, `norm` and `join` keep nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measure: Measure | None = Measure()
        self._marked: list[Energy] = []

    def forward(self, branch: Tensor) -> Tensor:
        """r = `branch`, any shape; for branches that none of the methods below suits."""
        measure = self._wanted()
        if measure is None:
            return branch
        value, mean = energies.kept(branch, measure)
        return self._mark(value, mean)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + r with r = `branch`, for equal shapes, where nothing changes x or the sum in place."""
        measure = self._wanted()
        if measure is None or not branch.dtype == x.dtype == torch.float32 or branch.shape != x.shape:
            return x + self.forward(branch)
        out, mean = energies.added(x, branch, measure)
        return self._mark(out, mean)

    def norm(self, norm: BatchNorm, x: Tensor) -> Tensor:
        """r = norm(x), for a branch that ends in this norm; x [B, C, ...]."""
        measure = self._wanted()
        exact = norm.affine and norm.training and x.dtype == torch.float32
        if measure is None or measure.power != 2 or not exact:
            return self.forward(norm(x))
        value, mean = energies.normed(norm, x, measure)
        return self._mark(value, mean)

    def join(self, shortcut: Tensor, branch: Branch, x: Tensor) -> Tensor:
        """shortcut + r with r = branch(x), [B, C, H, W]; without a closing norm, nothing may change it in
        place."""
        out, mean = residual(replace(branch, measure=self._wanted()), x, shortcut)
        return out if mean is None else self._mark(out, mean)

    def _wanted(self) -> Measure | None:
        return self.measure if self.training and torch.is_grad_enabled() else None

    def _mark(self, value: Tensor, mean: Tensor) -> Tensor:
        self._marked.append(Energy(mean, value.shape[1:].numel()))
        return value

    def take(self) -> list[Energy]:
        """Hand over the energies and forget them, so that nothing outlives the step."""
        marked, self._marked = self._marked, []
        return marked


def marks_of(block: nn.Module) -> list[Residue]:
    """The marks in a block, in order."""
    return [module for module in block.modules() if isinstance(module, Residue)]


def penalised(marks: Sequence[Residue], x: Tensor, out: Tensor, measure: Measure) -> tuple[Tensor, list[Energy]]:
    """`out` of a block with these marks for x, both [B, ...], and the energies of its marked residues.

    A block without a mark is a plain layer: r = out − x if the shapes agree (paper, section 2.1), and no residue
    if they differ. Go on with the `out` that is returned: only its gradient includes the energies'.
    """
    if marks or out.shape != x.shape:
        return out, [energy for mark in marks for energy in mark.take()]
    out, mean = energies.moved(x, out, measure)
    return out, [Energy(mean, out.shape[1:].numel())]


@dataclass(frozen=True, kw_only=True)
class Transport:
    """How the modules of a run are regularised.

    `tau` is that of the first ⌊K/2⌋ modules, the others get `late_factor` · τ (2τ in the paper); None is VanGL,
    with no transport term. With `power` p ≥ 1 it is |r|^p in place of r². With `multipliers` the weight is 1/λ
    instead, and `tau` is not used.
    """

    tau: float | None
    reduction: Reduction = "mean"
    late_factor: float = 2.0
    power: float = 2.0
    multipliers: Multipliers | None = None

    def weight(self, module: int, num_modules: int) -> float:
        """The factor of W in the loss of module `module` of `num_modules`: 1 / (2τ_k), or 0 for VanGL."""
        if self.tau is None:
            return 0.0
        tau = self.tau if module < num_modules // 2 else self.late_factor * self.tau
        return 1 / (2 * tau)


_LAMBDA, _STEPS, _LAP = range(3)
"""Places in the state of a multiplier."""

_NO_LAP = -1.0


def new_multiplier() -> Tensor:
    """The state of one module's λ before its first lap: float64 [λ, steps, lap] on the CPU."""
    return torch.tensor([0.0, 0.0, _NO_LAP], dtype=torch.float64, device="cpu")


@dataclass(frozen=True, kw_only=True)
class Multipliers:
    """λ of appendix D, which grows by `growth` · CE every `every` steps.

    It starts at `first` in every module, as in the paper; with `by_depth` at k · `first` in module k, as in the
    authors' scripts, where W weighs 1 / `first` as long as λ is 0.
    """

    first: float = 1.0
    growth: float = 1.0
    every: int = 50
    by_depth: bool = False

    def begin(self, state: Tensor, lap: int, module: int) -> None:
        """Start anew in place if `lap` differs from that of `state` (see `new_multiplier`).

        `module`: its number among those that are trained.
        """
        if int(state[_LAP]) != lap:
            start = self.first * module if self.by_depth else self.first
            state.copy_(torch.tensor([start, 0.0, float(lap)]))

    def weight(self, state: Tensor) -> float:
        """The factor of W in the loss."""
        return 1 / (float(state[_LAMBDA]) or self.first)

    def advance(self, state: Tensor, cross_entropy: Tensor) -> None:
        """Count one step in place, with the cross-entropy (0-d) that it just computed."""
        state[_STEPS] += 1
        if int(state[_STEPS]) % self.every == 0:
            # As a number: the state is on the CPU, wherever the loss was computed.
            state[_LAMBDA] += self.growth * float(cross_entropy)
