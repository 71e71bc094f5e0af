"""The progress that a training process tells its parent."""

from __future__ import annotations

import time

from edge_trgl.engine.commit_policy import CommitPolicy
from edge_trgl.engine.visits import Visit
from edge_trgl.engine.work_counter import WorkCounter
from edge_trgl.learning.totals import Totals
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.processes import messages

PROGRESS_SECONDS = 0.5
"""Least seconds between two messages."""


class ProgressMessages:
    """Sends a message of kind `progress` from time to time.

    Attributes:
        total_steps: steps of the whole run; those that the policy states, unless modules are dropped.

    Args:
        work: what training took so far.
        policy: the limits of the run and its length.
        samples: "images" or "windows", for the speed.
        classifies: whether modules have classifiers, and so an accuracy.
    """

    def __init__(self, work: WorkCounter, policy: CommitPolicy, samples: str, *, classifies: bool) -> None:
        self._work = work
        self._policy = policy
        self.total_steps = policy.total_steps
        self._samples = samples
        self._classifies = classifies
        self._sent_at = time.monotonic()

    def after_visit(self, visit: Visit, totals: Totals, peak_mb: float) -> None:
        """Send a message if one is due.

        `totals`: of the visit's module and epoch since the last commit; `peak_mb`: of the run's processes so far.
        """
        now = time.monotonic()
        if now - self._sent_at < PROGRESS_SECONDS:
            return
        self._sent_at = now
        work, total_steps = self._work.work(), self.total_steps
        done = max(work.steps, 1)
        messages.send(
            "progress",
            phase=visit.kind,
            module=visit.module,
            epoch=visit.span.epoch,
            lap=visit.span.lap,
            loss=totals.loss / max(totals.num_images, 1),
            accuracy=totals.correct / max(totals.num_images, 1) if self._classifies else None,
            samples=self._samples,
            images_per_s=work.images / max(work.seconds, 1e-9),
            rss_mb=counters.usage().rss + self._policy.others_mb,
            peak_mb=peak_mb,
            budget_mb=self._policy.limits.memory_mb,
            done=min(done / max(total_steps, 1), 1.0),
            left_s=work.seconds * max(total_steps - done, 0) / done,
        )
