"""Learning rates: constant, stepwise or cosine, each after a linear warm-up."""

from __future__ import annotations

import math

from edge_trgl.config.sections import RunConfig
from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.visits import JobSize, Visit


class LearningRate:
    """Gives each step its learning rate, from how far the training of its own module has come."""

    def __init__(self, config: RunConfig, job: JobSize, schedule: Schedule) -> None:
        self._base = config.train.lr
        self._cosine = config.train.lr_schedule == "cosine"
        self._milestones = config.train.lr_milestones if config.train.lr_schedule == "steps" else ()
        self._factor = config.train.lr_factor
        self._batches = job.batches_per_epoch
        self._warmup = config.train.warmup_epochs * self._batches
        self._steps = [schedule.epochs_of(module) * self._batches for module in range(job.num_modules)]

    def __call__(self, visit: Visit, batch: int) -> float:
        """Return the learning rate for `batch` of a training visit."""
        step = visit.span.epoch * self._batches + batch
        if step < self._warmup:
            return self._base * (step + 1) / self._warmup
        if not self._cosine:
            passed = sum(milestone <= visit.span.epoch for milestone in self._milestones)
            return float(self._base * self._factor**passed)
        done = (step - self._warmup) / (self._steps[visit.module] - self._warmup)
        return self._base * 0.5 * (1 + math.cos(math.pi * done))
