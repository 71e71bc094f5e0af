"""What training counted since the last commit, per module and epoch."""

from __future__ import annotations

from edge_trgl.engine.visits import Visit
from edge_trgl.learning.totals import Totals
from edge_trgl.runtime.storage.state import Metric


class EpochTotals:
    """Sums over the training visits of each module and epoch, and the last learning rate of each."""

    def __init__(self) -> None:
        self._totals: dict[tuple[int, int], Totals] = {}
        self._rates: dict[tuple[int, int], float] = {}

    def add(self, visit: Visit, counted: Totals, learning_rate: float) -> None:
        """Add what a training visit counted; `learning_rate` is that of its last batch."""
        key = (visit.module, visit.span.epoch)
        self._totals[key] = self.of(visit).plus(counted)
        self._rates[key] = learning_rate

    def of(self, visit: Visit) -> Totals:
        """The sums of the module and epoch of a visit."""
        return self._totals.get((visit.module, visit.span.epoch), Totals())

    def metrics(self, position: int) -> list[Metric]:
        """The sums as a commit at `position` stores them."""
        return [
            Metric(
                kind="train",
                module=module,
                epoch=epoch,
                position=position,
                num_images=totals.num_images,
                loss_sum=totals.loss,
                num_correct=totals.correct,
                transport_sum=totals.transport,
                transport_gradient=totals.transport_gradient,
                other_gradient=totals.other_gradient,
                lr=self._rates[module, epoch],
            )
            for (module, epoch), totals in self._totals.items()
        ]
