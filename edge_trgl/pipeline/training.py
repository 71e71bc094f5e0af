"""Trains in a child process; when memory or disk runs out, continues from the last commit with a smaller plan."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import CONVERT, PLAN, TRAIN, Nothing, PlanRequest, TrainRequest
from edge_trgl.pipeline import limits
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import RESUME, DiskFullError, OverBudgetError
from edge_trgl.runtime.memory.cgroup import CgroupUnavailableError, memory_cgroup
from edge_trgl.runtime.memory.limits import Limits

ATTEMPTS = 3
"""Times that training may run out of memory or disk space without a commit in between."""

Refusal = OverBudgetError | DiskFullError


class Training:
    """Runs the job `train` of a planned run, as often as needed."""

    def __init__(self, run: Run, config: RunConfig, facts: RunFacts, jobs: JobRunner) -> None:
        self._run = run
        self._config = config
        self._facts = facts
        self._jobs = jobs

    def train(self) -> None:
        """Train what is left of the run and evaluate it, within its limits.

        Raises:
            OverBudgetError: memory ran out `ATTEMPTS` times in a row without a commit in between.
            DiskFullError: the same for disk space.
        """
        facts, stuck = self._facts, 0
        if facts.planned.layout.built and not facts.modules():
            self._jobs.do(CONVERT, Nothing())
        limits.make_room(self._run, facts.planned.plan.disk_mb)
        while not facts.is_trained:
            position = facts.position()
            try:
                self._start()
            except (OverBudgetError, DiskFullError) as refusal:
                stuck = stuck + 1 if facts.position() == position else 1
                try:
                    self._go_on_with_less(refusal, stuck)
                except DiskFullError as full:  # the disk may be too full even to store the event
                    full.hint = self._space_hint()
                    raise

    def _start(self) -> None:
        facts = self._facts
        facts.starts += 1
        if facts.starts > 1:
            facts.add_event("resume", f"start number {facts.starts}, from position {facts.position()}")
        with self._cgroup() as cgroup:
            self._jobs.do(TRAIN, TrainRequest(limits=facts.limits), cgroup=cgroup)

    def _go_on_with_less(self, refusal: Refusal, stuck: int) -> None:
        """Plan with less of what ran out; raise `refusal` if it did so `ATTEMPTS` times."""
        if isinstance(refusal, DiskFullError):
            # Uncommitted files are lost anyway, and the database needs room for the event.
            self._run.remove_uncommitted(self._facts)
            limits.make_room(self._run, math.inf)
        if stuck == ATTEMPTS:
            self._facts.add_event("stop", f"{refusal.message}; {ATTEMPTS} times without progress")
            raise refusal
        request = PlanRequest(
            limits=Limits(budget_mb=self._facts.limits.budget_mb, disk_mb=self._disk_mb()),
            refused="disk" if isinstance(refusal, DiskFullError) else "memory",
        )
        changed = self._jobs.do(PLAN, request).result.changed
        text = f"{refusal.message}; {changed or 'the plan stays: no other takes less'}"
        self._facts.add_event("restart", text)
        self._jobs.tell(f"{text}; going on from the last commit")

    def _disk_mb(self) -> float:
        return limits.disk_mb(self._run, self._config, self._facts)

    def _space_hint(self) -> str:
        missing_mb = math.ceil(self._facts.planned.plan.disk_mb - self._disk_mb())
        where = f"the disk that holds {self._run.folder}"
        free = (
            f"free {missing_mb} MiB on {where}"
            if missing_mb > 0
            else f"free space, or raise the quota, on {where}"
        )
        return f"What was committed is kept: {free}, then go on: {RESUME}"

    @contextmanager
    def _cgroup(self) -> Iterator[Path | None]:
        """Create a memory cgroup with the budget as its limit; yield None if not configured or not possible."""
        if not self._config.budget.cgroup:
            yield None
            return
        try:
            # Named after the run, so that the next start finds and replaces what a killed parent left behind.
            name = f"edge-trgl-{zlib.crc32(str(self._run.folder.resolve()).encode()):08x}"
            with memory_cgroup(self._facts.limits.memory_mb, name) as cgroup:
                try:
                    yield cgroup.path
                finally:
                    before_mb = self._facts.cgroup_peak_mb or 0.0
                    self._facts.cgroup_peak_mb = max(cgroup.peak_mb() or 0.0, before_mb)
        except CgroupUnavailableError as error:
            self._jobs.warn("cgroup", f"no memory cgroup: {error}; the budget is kept by the process's own limit")
            yield None
