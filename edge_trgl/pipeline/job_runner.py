"""Runs jobs one after another, each in its own process, records their memory and compares it with the budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import PREPARE, Job, PrepareRequest, PrepareResult
from edge_trgl.run.data_summary import DataSummary, augmentation_of
from edge_trgl.run.facts import Result, RunFacts
from edge_trgl.run.folder import Run, prepared_cache
from edge_trgl.run.wording import samples_word
from edge_trgl.runtime.errors import DamagedDataError, InputError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.allocator import Allocator
from edge_trgl.runtime.processes.supervisor import Message, Outcome, run_child
from edge_trgl.runtime.records import document_of, from_json, to_json
from edge_trgl.runtime.storage import files

Listener = Callable[[Message], None]
"""Called with every message of a job; kinds are `phase`, `progress`, `warning` and others."""

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Done(Generic[R]):
    """A job's result, and the peak of its process in MiB."""

    result: R
    peak_mb: float


class JobRunner:
    """Runs the jobs of one run, and records in its database the time and memory that they took."""

    def __init__(self, run: Run, config: RunConfig, facts: RunFacts, listener: Listener) -> None:
        self._run = run
        self._config = config
        self._facts = facts
        self._listener = listener

    def do(self, job: Job[Q, R], request: Q, *, cgroup: Path | None = None) -> Done[R]:
        """Run `job` to its end; if the prepared data are damaged, prepare them again and run it once more.

        Args:
            job: the job.
            request: its request.
            cgroup: the cgroup that its process joins; None for that of this process.

        Raises:
            EdgeTrglError: the job's own error, or OverBudgetError if its process was killed.
        """
        facts, name = self._facts, job.name
        self._listener({"kind": "phase", "name": name})
        try:
            outcome = self.start(job, request, cgroup)
        except DamagedDataError as damage:
            self.warn("data", f"{damage.message}; the data are prepared again")
            self.prepare(anew=True)
            self._listener({"kind": "phase", "name": name})
            outcome = self.start(job, request, cgroup)
        result: R = from_json(job.result, outcome.result)
        child_mb = outcome.peak_mb
        if isinstance(result, Result):
            # The training process resets its high-water mark between visits, and reports the maximum itself.
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

    def prepare(self, *, survey_large: bool = False, anew: bool = False) -> PrepareResult:
        """Run the job `prepare`, with the prepared data that other runs left.

        Args:
            survey_large: whether large images that keep their size are surveyed, not decoded.
            anew: whether to decode again, because what was prepared is damaged.

        Raises:
            InputError: the data cannot be read, or are not those with which the run began.
        """
        cache = prepared_cache()
        request = PrepareRequest(survey_large=survey_large, cache=None if cache is None else str(cache), anew=anew)
        prepared = self.do(PREPARE, request).result
        if prepared.damage:
            self.warn("data", f"{prepared.damage}; the data were prepared again")
        if prepared.reused:
            samples = samples_word(prepared.summary.shape)
            self._listener({"kind": "note", "text": f"using the {samples} that were prepared before"})
        self._show_data(prepared.summary)
        if prepared.decoded:
            self._keep_fingerprint(prepared.fingerprint)
        return prepared

    def _keep_fingerprint(self, fingerprint: str) -> None:
        if self._facts.fingerprint not in ("", fingerprint):
            files.remove(self._run.dataset_file)
            raise InputError(
                f"{self._config.data.source} has changed since {self._run.folder} was begun",
                hint="Put the old files back, or begin a new run.",
            )
        self._facts.fingerprint = fingerprint

    def start(self, job: Job[Q, R], request: Q, cgroup: Path | None) -> Outcome:
        """Run a job's process to its end, without recording what it took."""
        return run_child(
            ["-m", "edge_trgl.jobs", job.name, str(self._run.folder), json.dumps(document_of(request))],
            on_message=self._listener,
            threads=self._config.train.threads,
            allocator=self._allocator(),
            cgroup=cgroup,
        )

    def warn(self, kind: str, text: str) -> None:
        """Warn the user, and store the warning as an event of that kind for the report."""
        self._facts.add_event(kind, text)
        self.tell(text)

    def tell(self, text: str) -> None:
        """Warn the user, without an event."""
        self._listener({"kind": "warning", "text": text})

    def _show_data(self, summary: DataSummary) -> None:
        """Show what was found in the data, unless it was shown before decoding; keep it for the report."""
        shown = self._facts.data_summary
        self._facts.data_summary = summary
        if shown is not None and replace(shown, decoded=summary.decoded) == summary:
            return
        augmentation = augmentation_of(self._config.data, summary.shape)
        self._listener({"kind": "data", "summary": to_json(summary), "augmentation": to_json(augmentation)})

    def _allocator(self) -> Allocator:
        if self._facts.is_counted:
            return self._facts.counted.allocator
        # Before counting, the sizes of tensors are not known.
        return "default" if "allocator" in self._config.budget.without else "heap"
