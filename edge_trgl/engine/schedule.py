"""Schedules: a regime with its lengths, and positions in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice

from edge_trgl.engine.passes import cached
from edge_trgl.engine.regimes import (
    Epochs,
    Prefix,
    Regime,
    end_to_end,
    parallel,
    recalibration,
    sequential,
    streamed_sequential,
)
from edge_trgl.engine.visits import IMAGES, Boundary, JobSize, Visit
from edge_trgl.learning.step_kinds import trains


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A regime with its lengths: everything that decides the order of visits.

    Attributes:
        epochs: total of each module; multi-lap training spreads them over `laps`.
        laps: number of laps.
        chunk: batches in a chunk.
        views: augmented copies of a cached boundary.
        cached: whether boundaries below a trained module are cached; else they are recomputed every epoch.
        paged: whether end-to-end training goes up and down through several modules; else the net is one module.
        prefix: how batches pass the modules below in training that is not `cached`.
        wants_image: the modules whose loss compares with the images.
        frozen: number of leading modules that are not trained.
        recalibrates: whether running statistics are measured again at the end.
    """

    regime: Regime
    epochs: Epochs
    laps: int = 1
    chunk: int = 1
    views: int = 1
    cached: bool = True
    paged: bool = False
    prefix: Prefix = "forward"
    wants_image: frozenset[int] = frozenset()
    frozen: int = 0
    recalibrates: bool = False

    def epochs_of(self, module: int) -> int:
        """Return the total epochs that `module` is trained for: the length of its learning-rate schedule."""
        return self.laps * self._per_lap(module) if module >= self.frozen else 0

    def visits(self, job: JobSize) -> Iterator[Visit]:
        """Yield the visits of this regime, in order, and those of recalibration after them."""
        builders: dict[Regime, Callable[[JobSize], Iterator[Visit]]] = {
            "parallel": self._parallel,
            "end-to-end": self._end_to_end,
            "sequential": self._sequential,
            "multi-lap": self._sequential,
        }
        visits = builders[self.regime](job)
        if self.wants_image:
            visits = _with_images(visits, self.wants_image, self._images(job))
        return chain(visits, self._recalibration(job)) if self.recalibrates else visits

    def _recalibration(self, job: JobSize) -> Iterator[Visit]:
        """Statistics that training changes are measured again: those of a frozen prefix in training mode, too."""
        return recalibration(job, self.chunk, frozen=self.frozen if self.prefix == "forward" else 0)

    def ends(self, job: JobSize) -> dict[int, int]:
        """Return by module, in the order of training, the position after its last training visit."""
        return {visit.module: position for position, visit in self._training(job)}

    def ends_of_epochs(self, job: JobSize) -> dict[int, int]:
        """Return by epoch, counted from 0, the position after its last training visit."""
        return {visit.span.epoch: position for position, visit in self._training(job)}

    def _training(self, job: JobSize) -> Iterator[tuple[int, Visit]]:
        """Yield the visits that train, each with the position after it."""
        return ((position, visit) for position, visit in enumerate(self.visits(job), 1) if trains(visit.kind))

    def _images(self, job: JobSize) -> Boundary:
        """Return the images that boundaries are computed from."""
        if not self.cached or (self.regime == "parallel" and not self.frozen):
            return IMAGES
        return replace(cached(job, "", 0, self.views), once=self.frozen > 0)

    def _parallel(self, job: JobSize) -> Iterator[Visit]:
        views = self.views if self.cached else None
        return parallel(job, self.epochs[0], self.chunk, frozen=self.frozen, views=views, prefix=self.prefix)

    def _end_to_end(self, job: JobSize) -> Iterator[Visit]:
        return end_to_end(job, self.epochs[0]) if self.paged else parallel(job, self.epochs[0], self.chunk)

    def _sequential(self, job: JobSize) -> Iterator[Visit]:
        per_lap = tuple(self._per_lap(module) for module in range(job.num_modules))
        if self.cached:
            return sequential(job, per_lap, self.views, self.laps, frozen=self.frozen)
        return streamed_sequential(job, per_lap, self.chunk, self.laps, self.prefix, frozen=self.frozen)

    def _per_lap(self, module: int) -> int:
        return max(self.epochs[module] // self.laps, 1)


def moved_position(position: int, visits: Iterable[Visit], others: Iterable[Visit]) -> int:
    """Return how many of the visits `others` cover the same batches as the first `position` of `visits`.

    Both are of one regime and may differ in the length of chunks; a chunk of each must begin at the position.
    """
    batches_left = sum(visit.span.stop - visit.span.start for visit in islice(visits, position))
    position = 0
    for visit in others:
        if batches_left <= 0:
            break
        batches_left -= visit.span.stop - visit.span.start
        position += 1
    assert batches_left == 0, "a chunk is not done"
    return position


def _with_images(visits: Iterator[Visit], modules: frozenset[int], images: Boundary) -> Iterator[Visit]:
    """Yield the same visits, except that those that train one of `modules` also read images to compare with.

    They read `images`, or the freshly augmented ones where these are the module's input.
    """
    for visit in visits:
        compared = IMAGES if visit.reads[0] is IMAGES else images
        compares = visit.kind == "train" and visit.module in modules
        yield replace(visit, reads=(*visit.reads, compared)) if compares else visit
