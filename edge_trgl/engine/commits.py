"""What happens between visits: they are counted, the budget is checked, commits fall due, a stop is heeded."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_trgl.engine.commit_policy import CommitPolicy
from edge_trgl.engine.epoch_totals import EpochTotals
from edge_trgl.engine.governor import Governor
from edge_trgl.engine.passes import carries_chunk
from edge_trgl.engine.progress_messages import ProgressMessages
from edge_trgl.engine.visit_samples import VisitSamples
from edge_trgl.engine.visits import Visit
from edge_trgl.engine.work_counter import WorkCounter
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_kinds import trains
from edge_trgl.run.depth_gain import VALIDATION
from edge_trgl.run.facts import Progress, RunFacts, Work
from edge_trgl.runtime.errors import RESUME, StoppedError
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.device import Device
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.module_store import ModuleStore
from edge_trgl.runtime.storage.state import Metric, ModuleRecord
from edge_trgl.runtime.units import MIB


@dataclass
class Ledger:
    """The account of a training run: told of every visit, it commits when the policy says so.

    `start`: the position of the last commit.
    """

    facts: RunFacts
    modules: ModuleStore[LocalModule]
    activations: ActivationStore
    meter: Meter
    device: Device
    policy: CommitPolicy
    start: int

    def __post_init__(self) -> None:
        self._position = self.start
        self._committed_at = time.monotonic()
        self._has_diverged = False
        self._totals = EpochTotals()
        self._scores: list[Metric] = []
        self._peaks_mb: dict[int, float] = {}
        self._work = WorkCounter(self.facts.progress.work)
        self._samples = VisitSamples(self._work, self.policy.others_mb)
        self._progress_messages = ProgressMessages(
            self._work, self.policy, self.facts.samples_word, classifies=self.policy.classifies
        )
        self._governor = Governor(self.facts, self.modules, self.policy)

    def after(self, position: int, visit: Visit, local: LocalModule) -> None:
        """Count a visit; at this safe point stop, commit or go on.

        Raises:
            OverBudgetError: the budget was passed; what is done is committed, if the disk has room for that.
            StoppedError: a signal asked for it; the same.
        """
        self._position = position
        peak_mb = self.meter.last
        used_mb = peak_mb + self.policy.others_mb + self.device.memory_mb()
        self._count(visit, local, used_mb)
        self._samples.after_visit(visit, peak_mb, self.device.memory_mb())
        self._progress_messages.after_visit(visit, self._totals.of(visit), self.peak_mb())
        self._governor.after_visit(visit.module, used_mb)
        if (self._ends() or self._frees_disk() or self._is_due()) and self._has_room():
            self.commit()
        self.check(visit)

    def after_scoring(self, visit: Visit) -> None:
        """Stop, after a commit, if that is due in a visit that scores modules between two that train.

        Raises:
            OverBudgetError, StoppedError: as for `after`.
        """
        if self._ends() and self._has_room():
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
            raise StoppedError("stopped", hint=f"To go on from the last commit: {RESUME}")

    def peak_mb(self) -> float:
        """The most that this process and those beside it have used so far."""
        return self.meter.highest + self.policy.others_mb + self.device.memory_mb()

    def scores(self) -> list[Metric]:
        """What validation images have given so far: of all commits, and what the next one will store."""
        return [*self.facts.metrics(VALIDATION), *self._scores]

    def expect(self, steps: int) -> None:
        """Show progress towards so many more training steps, as modules were dropped."""
        self._progress_messages.total_steps = self._work.work().steps + steps

    def add_scores(self, scores: Sequence[Metric]) -> None:
        """Keep what validation images gave, for the next commit to store."""
        self._scores += scores

    def work(self) -> Work:
        """What training took so far, over all starts."""
        return self._work.work()

    def commit(self) -> None:
        """Make everything done so far what a resume starts from."""
        files = self.modules.commit()
        boundaries = self.activations.commit()
        self.facts.commit(
            position=self._position,
            modules=[ModuleRecord(module=module, file=file) for module, file in files.items()],
            boundaries=boundaries,
            metrics=[
                *self._totals.metrics(self._position),
                *(replace(score, position=self._position) for score in self._scores),
            ],
            samples=self._samples.pending,
            meta=RunFacts.progress.entry(self._progress()),
        )
        self.activations.sweep()
        self.modules.committed(files)
        self._totals, self._scores = EpochTotals(), []
        self._samples.committed()
        self._committed_at = time.monotonic()

    def _ends(self) -> bool:
        return self.policy.stop_requested() or self.peak_mb() > self.policy.limits.memory_mb

    def _is_due(self) -> bool:
        waited_s = time.monotonic() - self._committed_at
        # A boundary that carries a chunk would be synced for nothing: better to wait for the chunk's end.
        return waited_s >= self.policy.checkpoint_s * (1 if self._is_quiet() else 2)

    def _frees_disk(self) -> bool:
        """Whether a commit frees disk space that the last one still names.

        That is not worth it where it writes a chunk that would otherwise stay in memory.
        """
        return self.activations.is_outdated and (self._is_quiet() or not self.activations.bytes_without_file)

    def _is_quiet(self) -> bool:
        """Whether every chunk that was begun is done."""
        return not any(map(carries_chunk, self.activations.names))

    def _has_room(self) -> bool:
        """Whether a commit takes no more of the disk than the plan says: boundaries in memory would be written."""
        added = self.activations.bytes_without_file
        return added == 0 or (added + self.modules.bytes_to_write) / MIB <= self.policy.room_mb()

    def _count(self, visit: Visit, local: LocalModule, used_mb: float) -> None:
        self._peaks_mb[visit.module] = max(self._peaks_mb.get(visit.module, 0.0), used_mb)
        totals = local.take_totals()
        if trains(visit.kind):
            self._work.add_steps(visit.span.stop - visit.span.start)
        if visit.kind == "train":
            self._totals.add(visit, totals, self.policy.learning_rate(visit, visit.span.stop - 1))
            self._work.add_images(totals.num_images / self.policy.num_heads)
            self._warn_if_diverged(visit, totals.loss)

    def _warn_if_diverged(self, visit: Visit, loss: float) -> None:
        """Say so once; the run goes on, for the modules before may be good, and one of them is chosen."""
        if math.isfinite(loss) or self._has_diverged:
            return
        self._has_diverged = True
        text = (
            f"the loss of module {visit.module} is not finite any more (epoch {visit.span.epoch + 1}): it learns "
            "nothing from here on, nor do those that read its output; a smaller --lr helps most often"
        )
        messages.send("warning", text=text)
        self.facts.add_event("diverged", text)

    def _progress(self) -> Progress:
        before = self.facts.progress.module_peaks
        peaks = {**before, **{k: max(peak, before.get(k, 0.0)) for k, peak in self._peaks_mb.items()}}
        return Progress(work=self.work(), module_peaks=peaks, chunk=self.policy.chunk)
