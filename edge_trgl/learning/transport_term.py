"""The transport term in the loss of one module: where its residues are measured, and how much they weigh."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edge_trgl.learning.segments import Segment
from edge_trgl.method.kinetic_energy import Measure
from edge_trgl.method.transport import Transport, new_multiplier, penalised


class TransportTerm:
    """W / (2τ), or W / λ, of one module, and the state of λ.

    Args:
        transport: how the modules of the run are regularised.
        place: the module's number among those that are trained, `num_trained` in all: the halves of τ are theirs.
        exempt: this module has no such term.

    Attributes:
        enabled: whether there is a term.
    """

    def __init__(self, transport: Transport, place: int, num_trained: int, *, exempt: bool) -> None:
        self._transport = transport
        self._place = place
        self._fixed_weight = transport.weight(place, num_trained)
        self.enabled = not exempt and (self._fixed_weight > 0 or transport.multipliers is not None)
        self._multiplier = new_multiplier()
        self._gauge: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a step, by name."""
        return {"multiplier": self._multiplier} if self._transport.multipliers else {}

    def begin(self, lap: int, gauge: Tensor | None) -> None:
        """Begin a step: λ starts anew with each lap. `gauge`: see `Measure`."""
        self._gauge = gauge
        if self._transport.multipliers:
            self._transport.multipliers.begin(self._multiplier, lap, self._place)

    def advance(self, cross_entropy: Tensor) -> None:
        """End a step that had this cross-entropy (0-d): λ grows every so many."""
        if self._transport.multipliers:
            self._transport.multipliers.advance(self._multiplier, cross_entropy)

    def weight(self) -> float:
        """The factor of W in the loss."""
        multipliers = self._transport.multipliers
        return multipliers.weight(self._multiplier) if multipliers else self._fixed_weight

    def trace(self, stage: Sequence[Segment], x: Tensor, seed: int, share: float) -> tuple[Tensor, list[Tensor]]:
        """Forward x [B, ...], a `share` of the batch, through a stage with its graph.

        Returns the output, and what each residue costs (0-d); the loss needs those of them that have a graph.
        """
        measure, costs = self._measure(share), []
        for segment in stage:
            for mark in segment.marks:
                mark.measure = measure
            out = segment(x, seed)
            if measure is not None:
                out, energies = penalised(segment.marks, x, out, measure)
                costs += [energy.reduced(self._transport.reduction) for energy in energies]
            x = out
        return x, costs

    def _measure(self, share: float) -> Measure | None:
        """How residues are measured; None if there is no term."""
        if not self.enabled:
            return None
        factors = (share, self.weight()) if self._transport.reduction == "mean" else None
        return Measure(self._transport.power, self._gauge, factors)
