"""The last resort before the budget is passed: memory is given back where a visit takes more than planned."""

from __future__ import annotations

from edge_trgl.engine.commit_policy import CommitPolicy
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run.facts import RunFacts
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.storage.module_store import ModuleStore

NEAR_BUDGET = 0.9
"""Share of the budget from which a visit that takes more than planned sends the other modules to disk."""

PLAN_TOLERANCE = 1.02
"""Ratio of measured to planned peak up to which a visit counts as planned."""


class Governor:
    """Frees memory between visits: heap that modules left behind and, near the budget, the other modules."""

    def __init__(self, facts: RunFacts, modules: ModuleStore[LocalModule], policy: CommitPolicy) -> None:
        self._facts = facts
        self._modules = modules
        self._policy = policy
        self._evictions = 0
        self._has_acted = False

    def after_visit(self, module: int, peak_mb: float) -> None:
        """Free what can be freed after a visit of `module` in which the run's processes took `peak_mb` MiB."""
        policy = self._policy
        near_budget = peak_mb > NEAR_BUDGET * policy.limits.memory_mb
        acts = near_budget and peak_mb > PLAN_TOLERANCE * policy.planned_mb[module]
        if acts:
            self._modules.release(keep=module)
            if not self._has_acted:
                text = f"module {module} took {peak_mb:.0f} MiB, {policy.planned_mb[module]:.0f} were planned"
                self._facts.add_event("governor", f"{text}: other modules left the memory")
            self._has_acted = True
        if acts or (policy.trim and self._modules.evictions != self._evictions):
            self._evictions = self._modules.evictions
            allocator.trim()
