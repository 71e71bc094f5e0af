"""The transport term in the loss of one module: where its residues are measured, and how much they weigh."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edge_trgl.learning.segments import Segment
from edge_trgl.method.kinetic_energy import Measure
from edge_trgl.method.transport import Transport, marks_of, new_multiplier, penalised


class TransportTerm:
    """W / (2τ), or W / λ, of one module, and the state of λ.

    Args:
        trunk: the module's blocks.
        transport: how the modules of the run are regularised.
        place: the module's number among those that are trained, `num_trained` in all: the halves of τ are theirs.
        exempt: this module has no such term.

    Attributes:
        enabled: whether there is a term.
    """

    def __init__(
        self, trunk: nn.Module, transport: Transport, place: int, num_trained: int, *, exempt: bool
    ) -> None:
        self._marks = marks_of(trunk)
        self._transport = transport
        self._place = place
        self._fixed_weight = transport.weight(place, num_trained)
        self.enabled = not exempt and (self._fixed_weight > 0 or transport.multipliers is not None)
        self._multiplier = new_multiplier()
        self.measure(None)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a step, by name."""
        return {"multiplier": self._multiplier} if self._transport.multipliers else {}

    def measure(self, gauge: Tensor | None) -> None:
        """Measure the residues in the next step, if there is a term; `gauge`: see `Measure`."""
        self._measure = Measure(self._transport.power, gauge) if self.enabled else None
        for mark in self._marks:
            mark.measure = self._measure

    def begin(self, lap: int) -> None:
        """Begin a step: λ starts anew with each lap."""
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

    def trace(self, stage: Sequence[Segment], x: Tensor, seed: int) -> tuple[Tensor, list[Tensor]]:
        """Forward x [B, ...] through a stage with its graph: the output, and what each residue costs (0-d)."""
        costs: list[Tensor] = []
        for segment in stage:
            out = segment(x, seed)
            if self._measure is not None:
                out, energies = penalised(segment.marks, x, out, self._measure)
                costs += [energy.reduced(self._transport.reduction) for energy in energies]
            x = out
        return x, costs
