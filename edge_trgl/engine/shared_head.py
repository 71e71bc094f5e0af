"""One classifier for all modules (table 14's "same classifier"): its weights go on from visit to visit.

Each module holds them beside its trunk, as it would hold a head of its own, with an optimizer of its own: what is
saved, resumed, counted, scored and exported is the same as without sharing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_trgl.engine.trainer import AfterVisit
from edge_trgl.engine.visits import Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.runtime.storage.module_store import ModuleStore


class SharedHead:
    """Hands the head of the module that was just trained to the one that is trained next.

    `trained`: the modules that are, in the order of their visits: each on one batch, then the next.
    """

    def __init__(self, modules: ModuleStore[LocalModule], trained: range) -> None:
        self._modules = modules
        self._trained = trained

    def spread(self) -> None:
        """All have the last one's: before the first visit, and when the last one was the last to be trained."""
        last = self._modules.open(self._trained[-1])
        for module in self._trained[:-1]:
            self._give(last, module)

    def before(self, after: AfterVisit) -> AfterVisit:
        """The head is handed on before `after` is told, so that a commit has it where it is needed."""

        def hand_on(position: int, visit: Visit, local: LocalModule) -> None:
            if visit.kind == "train":
                following = (visit.module - self._trained.start + 1) % len(self._trained)
                self._give(local, self._trained[following])
            after(position, visit, local)

        return hand_on

    @torch.no_grad()
    def _give(self, local: LocalModule, module: int) -> None:
        other = self._modules.open(module)
        if other is not local:
            for mine, others in zip(_weights(local), _weights(other), strict=True):
                others.copy_(mine)
            self._modules.mark_changed(module)


def _weights(local: LocalModule) -> list[Tensor]:
    """The head's, and its buffers, in order."""
    return [tensor for name, tensor in local.final_tensors().items() if name.startswith("head.")]
