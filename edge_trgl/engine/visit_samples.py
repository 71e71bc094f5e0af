"""Samples of what the process uses, taken between visits for the report."""

from __future__ import annotations

import time

from edge_trgl.engine.visits import Visit
from edge_trgl.engine.work_counter import WorkCounter
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.storage.state import VisitSample

SAMPLE_SECONDS, SAMPLES = 1.0, 2000
"""Least seconds between two samples; more once a run would have more than `SAMPLES` of them."""


class VisitSamples:
    """Takes samples between visits.

    Args:
        work: the work of the run.
        others_mb: MiB of the processes beside this one.

    Attributes:
        pending: the samples since the last commit.
    """

    def __init__(self, work: WorkCounter, others_mb: float) -> None:
        self._work = work
        self._others_mb = others_mb
        self._sampled_at = 0.0
        self.pending: list[VisitSample] = []

    def after_visit(self, visit: Visit, peak_mb: float, device_mb: float) -> None:
        """Take a sample if one is due; `peak_mb` is this process's in the visit."""
        now = time.monotonic()
        if now - self._sampled_at < max(SAMPLE_SECONDS, self._work.seconds() / SAMPLES):
            return
        self._sampled_at = now
        work = self._work.work()
        self.pending.append(
            VisitSample(
                time_s=work.seconds,
                phase=visit.kind,
                module=visit.module,
                rss_mb=counters.usage().rss + self._others_mb,
                peak_mb=peak_mb + self._others_mb,
                cuda_mb=device_mb,
                read_mb=work.read_mb,
                written_mb=work.written_mb,
            )
        )

    def committed(self) -> None:
        """Forget the samples, which a commit has stored."""
        self.pending = []
