"""One classifier for all modules (table 14's "same classifier"): its weights pass from visit to visit.

Each module keeps a copy beside its trunk, with an optimizer of its own, as if the head were its own. So saving,
resuming, counting, scoring and exporting need not know that it is shared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_trgl.engine.trainer import AfterVisit
from edge_trgl.engine.visits import Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.runtime.storage.module_store import ModuleStore


class SharedHead:
    """Copies the head of the module that was just trained to the one that is trained next.

    Args:
        modules: the run's modules.
        trained: the modules that are trained, in the order of their visits, each on one batch.
        batches: in an epoch, at whose end all modules get the head.
        statistics: whether the running statistics of its norms are shared, too; else each module keeps its own.
    """

    def __init__(
        self, modules: ModuleStore[LocalModule], trained: range, batches: int, *, statistics: bool
    ) -> None:
        self._modules = modules
        self._trained = trained
        self._batches = batches
        self._statistics = statistics

    def spread(self) -> None:
        """Copy the last module's head to all others."""
        last = self._modules.open(self._trained[-1])
        for module in self._trained[:-1]:
            self._give(last, module)

    def before(self, after: AfterVisit) -> AfterVisit:
        """Return a callback that passes the head on and then calls `after`, so that a commit includes the copy."""

        def hand_on(position: int, visit: Visit, local: LocalModule) -> None:
            if visit.kind == "train" and visit.module < self._trained[-1]:
                self._give(local, visit.module + 1)
            elif visit.kind == "train" and visit.span.stop < self._batches:
                self._give(local, self._trained[0])
            elif visit.kind == "train":
                self.spread()
            after(position, visit, local)

        return hand_on

    @torch.no_grad()
    def _give(self, local: LocalModule, module: int) -> None:
        other = self._modules.open(module)
        if other is not local:
            for mine, others in zip(self._shared(local), self._shared(other), strict=True):
                others.copy_(mine)
            self._modules.mark_changed(module)

    def _shared(self, local: LocalModule) -> list[Tensor]:
        """The tensors of a head that all modules share, in order."""
        return [*local.head.parameters(), *(local.head.buffers() if self._statistics else ())]
