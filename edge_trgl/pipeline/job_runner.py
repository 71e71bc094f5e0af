"""One job after another, each in a process of its own; what it took is recorded and held against the budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import Job
from edge_trgl.run.facts import Result, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.allocator import Allocator
from edge_trgl.runtime.processes.supervisor import Message, Outcome, run_child
from edge_trgl.runtime.records import document_of, from_json

Listener = Callable[[Message], None]
"""Told what happens: messages of kind `phase`, `progress`, `warning`."""

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Done(Generic[R]):
    """What a job answered, and the most that its process took, in MiB."""

    result: R
    peak_mb: float


class JobRunner:
    """Starts the jobs of one run and keeps its database up to date with what they took."""

    def __init__(self, run: Run, config: RunConfig, facts: RunFacts, listener: Listener) -> None:
        self._run = run
        self._config = config
        self._facts = facts
        self._listener = listener

    def do(self, job: Job[Q, R], request: Q, *, cgroup: Path | None = None) -> Done[R]:
        """Run `job` to its end. `cgroup`: where its process puts itself.

        Raises:
            EdgeTrglError: what the job raised, or OverBudgetError where its process was killed.
        """
        facts, name = self._facts, job.name
        self._listener({"kind": "phase", "name": name})
        outcome = self.start(job, request, cgroup)
        result: R = from_json(job.result, outcome.result)
        child_mb = outcome.peak_mb
        if isinstance(result, Result):
            # The training process resets its high-water mark between visits and adds its maxima up itself.
            child_mb = max(child_mb, result.peak_mb)
        peak_mb = child_mb + high_water.peak_mb()
        facts.highest_child_mb = max(child_mb, facts.highest_child_mb)
        facts.record_phase(name, peak_mb, outcome.seconds)
        budget_mb = facts.limits.budget_mb
        if budget_mb is not None and peak_mb > budget_mb:
            self.warn(
                "budget", f"the job {name} took {peak_mb:.0f} MiB, more than the budget of {budget_mb:.0f} MiB"
            )
        return Done(result=result, peak_mb=outcome.peak_mb)

    def start(self, job: Job[Q, R], request: Q, cgroup: Path | None) -> Outcome:
        """The process of a job, to its end."""
        return run_child(
            ["-m", "edge_trgl.jobs", job.name, str(self._run.folder), json.dumps(document_of(request))],
            on_message=self._listener,
            threads=self._config.train.threads,
            allocator=self._allocator(),
            cgroup=cgroup,
        )

    def warn(self, kind: str, text: str) -> None:
        """Warn the user, and keep the warning for the report as an event of that kind."""
        self._facts.add_event(kind, text)
        self.tell(text)

    def tell(self, text: str) -> None:
        """Warn the user."""
        self._listener({"kind": "warning", "text": text})

    def _allocator(self) -> Allocator:
        if self._facts.is_counted:
            return self._facts.counted.allocator
        # Before it is known how large tensors are.
        return "default" if "allocator" in self._config.budget.without else "heap"
