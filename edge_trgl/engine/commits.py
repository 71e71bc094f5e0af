"""What happens between visits: metrics are added up, the budget is checked, commits fall due, a stop is heeded."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from edge_trgl.engine.commit_policy import CommitPolicy
from edge_trgl.engine.epoch_totals import EpochTotals
from edge_trgl.engine.passes import carries_chunk
from edge_trgl.engine.visits import Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_kinds import trains
from edge_trgl.run.facts import Progress, RunFacts, Work
from edge_trgl.runtime.errors import StoppedError
from edge_trgl.runtime.memory import allocator, counters, guard
from edge_trgl.runtime.memory.device import Device
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.module_store import ModuleStore
from edge_trgl.runtime.storage.state import ModuleRecord, VisitSample
from edge_trgl.runtime.units import MIB

NEAR = 0.9
"""Of the budget: a visit that comes this far, and farther than planned, sends the other modules to disk."""

PLAN_TOLERANCE = 1.02

PROGRESS_SECONDS = 0.5
SAMPLE_SECONDS, SAMPLES = 1.0, 2000
"""Between two samples of what is used: so many seconds, and more once there are so many samples."""


@dataclass
class Ledger:
    """The training run's book: told of every visit, it commits when the policy says so.

    `start`: the position of the last commit.
    """

    facts: RunFacts
    modules: ModuleStore[LocalModule]
    activations: ActivationStore
    meter: Meter
    device: Device
    policy: CommitPolicy
    start: int
    _totals: EpochTotals = field(default_factory=EpochTotals)
    _peaks: dict[int, float] = field(default_factory=dict)
    _samples: list[VisitSample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self._committed_at = self._told_at = time.monotonic()
        self._sampled_at = 0.0
        self._position = self.start
        self._before = self.facts.progress
        self._steps, self._images = 0, 0.0
        self._evictions, self._governed, self._diverged = 0, False, False
        self._io_start = counters.io_mb()

    def after(self, position: int, visit: Visit, local: LocalModule) -> None:
        """Book a visit; at this safe point stop, commit or go on.

        Raises:
            OverBudgetError: the budget was passed; what is done is committed, if the disk has room for that.
            StoppedError: a signal asked for it; the same.
        """
        self._position = position
        peak = self.meter.read()
        self._book(visit, local, peak)
        self._tell(visit)
        self._govern(visit.module, peak + self.policy.others_mb + self.device.memory_mb())
        ends = self.policy.stop_requested() or self.peak_mb() > self.policy.limits.memory_mb
        # What the last commit names and nobody reads takes room on the disk until the next one, which is not worth
        # it where that writes a chunk that would else stay in memory.
        in_files = self._is_quiet() or not self.activations.bytes_without_file
        frees = self.activations.is_outdated and in_files
        if (ends or frees or self._due()) and self._has_room():
            self.commit()
        self.check(visit)

    def check(self, visit: Visit) -> None:
        """Stop here if the budget was passed or a signal asks for it.

        Raises:
            OverBudgetError, StoppedError: what was committed is what a resume starts from.
        """
        where = f"module {visit.module}, epoch {visit.span.epoch + 1}"
        guard.check(self.peak_mb(), self.policy.limits, where)
        if self.policy.stop_requested():
            raise StoppedError("stopped", hint="edge-trgl resume RUN goes on from the last commit.")

    def _govern(self, module: int, peak_mb: float) -> None:
        """Give back what can be given back: freed heap, and modules in memory where the plan turns out too low."""
        policy = self.policy
        near_budget = peak_mb > NEAR * policy.limits.memory_mb
        near = near_budget and peak_mb > PLAN_TOLERANCE * policy.planned_mb[module]
        if near:
            self.modules.release(keep=module)
            if not self._governed:
                text = f"module {module} took {peak_mb:.0f} MiB, {self.policy.planned_mb[module]:.0f} were planned"
                self.facts.add_event("governor", f"{text}: other modules left the memory")
            self._governed = True
        if near or (self.policy.trim and self.modules.evictions != self._evictions):
            self._evictions = self.modules.evictions
            allocator.trim()

    def peak_mb(self) -> float:
        """The most that this process and those beside it have used so far."""
        return self.meter.highest + self.policy.others_mb + self.device.memory_mb()

    def commit(self) -> None:
        """Everything done so far becomes what a resume starts from."""
        files = self.modules.commit()
        boundaries = self.activations.commit()
        self.facts.commit(
            position=self._position,
            modules=[ModuleRecord(module=module, file=file) for module, file in files.items()],
            boundaries=boundaries,
            metrics=self._totals.metrics(self._position),
            samples=self._samples,
            meta=RunFacts.progress.entry(self._progress()),
        )
        self.activations.sweep()
        self.modules.committed(files)
        self._totals, self._samples = EpochTotals(), []
        self._committed_at = time.monotonic()

    def work(self) -> Work:
        """What training took so far, over all starts."""
        read, written = counters.io_mb()
        before = self._before.work
        return Work(
            seconds=before.seconds + time.monotonic() - self._began,
            steps=before.steps + self._steps,
            images=before.images + self._images,
            read_mb=before.read_mb + read - self._io_start[0],
            written_mb=before.written_mb + written - self._io_start[1],
        )

    def _due(self) -> bool:
        waited = time.monotonic() - self._committed_at
        # A boundary that carries a chunk would be synced for nothing: better to wait for the chunk's end.
        return waited >= self.policy.checkpoint_s * (1 if self._is_quiet() else 2)

    def _is_quiet(self) -> bool:
        """Whether every chunk that was begun is done."""
        return not any(map(carries_chunk, self.activations.names))

    def _has_room(self) -> bool:
        """Whether a commit takes no more of the disk than the plan says: boundaries in memory would be written."""
        added = self.activations.bytes_without_file
        return added == 0 or (added + self.modules.bytes_to_write) / MIB <= self.policy.room_mb()

    def _book(self, visit: Visit, local: LocalModule, peak: float) -> None:
        used_mb = peak + self.policy.others_mb + self.device.memory_mb()
        self._peaks[visit.module] = max(self._peaks.get(visit.module, 0.0), used_mb)
        counted = local.take_totals()
        if trains(visit.kind):
            self._steps += visit.span.stop - visit.span.start
        if visit.kind == "train":
            self._totals.add(visit, counted, self.policy.learning_rate(visit, visit.span.stop - 1))
            self._images += counted.num_images / self.policy.num_heads
            self._warn_if_diverged(visit, counted.loss)
        now = time.monotonic()
        seconds = self._before.work.seconds + now - self._began
        if now - self._sampled_at >= max(SAMPLE_SECONDS, seconds / SAMPLES):
            self._sampled_at = now
            self._samples.append(self._sample(visit, peak))

    def _warn_if_diverged(self, visit: Visit, loss: float) -> None:
        """Say so once; the run goes on, for the modules before may be good, and one of them is chosen."""
        if math.isfinite(loss) or self._diverged:
            return
        self._diverged = True
        text = (
            f"the loss of module {visit.module} is not finite any more (epoch {visit.span.epoch + 1}): it learns "
            "nothing from here on, nor do those that read its output; a smaller --lr helps most often"
        )
        messages.send("warning", text=text)
        self.facts.add_event("diverged", text)

    def _sample(self, visit: Visit, peak: float) -> VisitSample:
        work = self.work()
        return VisitSample(
            time_s=work.seconds,
            phase=visit.kind,
            module=visit.module,
            rss_mb=counters.usage().rss + self.policy.others_mb,
            peak_mb=peak + self.policy.others_mb,
            cuda_mb=self.device.memory_mb(),
            read_mb=work.read_mb,
            written_mb=work.written_mb,
        )

    def _progress(self) -> Progress:
        before = self.facts.progress.module_peaks
        peaks = {**before, **{k: max(peak, before.get(k, 0.0)) for k, peak in self._peaks.items()}}
        return Progress(work=self.work(), module_peaks=peaks, chunk=self.policy.chunk)

    def _tell(self, visit: Visit) -> None:
        now = time.monotonic()
        if now - self._told_at < PROGRESS_SECONDS:
            return
        self._told_at = now
        totals = self._totals.of(visit)
        work = self.work()
        done = max(work.steps, 1)
        messages.send(
            "progress",
            phase=visit.kind,
            module=visit.module,
            epoch=visit.span.epoch,
            lap=visit.span.lap,
            loss=totals.loss / max(totals.num_images, 1),
            accuracy=totals.correct / max(totals.num_images, 1),
            images_per_s=work.images / max(work.seconds, 1e-9),
            rss_mb=counters.usage().rss + self.policy.others_mb,
            peak_mb=self.peak_mb(),
            budget_mb=self.policy.limits.memory_mb,
            done=min(done / max(self.policy.total_steps, 1), 1.0),
            left_s=work.seconds * max(self.policy.total_steps - done, 0) / done,
        )
