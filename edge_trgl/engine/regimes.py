"""Regimes: each is a generator of visits, and nothing more.

In parallel training, step (k, i) of module k on batch i depends only on step (k, i − 1) and on the output of
module k − 1 for batch i. Every order that respects these two dependencies computes the same numbers, so one module
in memory is enough. End-to-end training has no such freedom: every batch goes up through all modules, and its
gradient down again.

"Add a regime" in README.md, beside this file, says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from edge_trgl.engine.passes import (
    cached,
    chunks,
    output_of_frozen,
    round_trip,
    stream,
    train_on,
    training_span,
    write_frozen,
    write_next,
)
from edge_trgl.engine.visits import IMAGES, JobSize, Span, Split, Visit
from edge_trgl.learning.step_kinds import StepKind

Regime = Literal["parallel", "sequential", "multi-lap", "end-to-end"]
REGIMES: tuple[Regime, ...] = ("parallel", "multi-lap", "sequential", "end-to-end")

Epochs = tuple[int, ...]
"""Epochs of each module; in multi-lap training, of each module in one lap."""

Prefix = Literal["forward", "ascend"]
"""How batches pass modules that are not being trained: frozen, or in training mode, which updates running
statistics."""


def parallel(
    job: JobSize, epochs: int, chunk: int, *, frozen: int = 0, views: int | None = None, prefix: Prefix = "forward"
) -> Iterator[Visit]:
    """Train every module on each chunk of batches in turn, each on the outputs of the module before.

    With a chunk of one batch and every module in memory this is the published loop; every chunk length gives the
    same weights.

    Args:
        job: the size of the job.
        epochs: number of epochs.
        chunk: batches in a chunk.
        frozen: number of leading modules that are not trained.
        views: number of copies in which the output of the frozen modules is cached; None: every batch passes
            through them.
        prefix: how they do.
    """
    reads = IMAGES if views is None else output_of_frozen(job, frozen, views)
    yield from write_frozen(job, reads)
    kinds = (*_kinds(prefix, frozen - reads.module), *_kinds("train", job.num_modules - frozen))
    for epoch in range(epochs):
        for start, stop in chunks(job.batches_per_epoch, chunk):
            span = training_span(job, epoch, start, stop, source=reads.module)
            is_last = epoch == epochs - 1 and stop == job.batches_per_epoch
            yield from stream(job, span, kinds, reads, read_again=not is_last)


def sequential(job: JobSize, epochs: Epochs, views: int, laps: int = 1, *, frozen: int = 0) -> Iterator[Visit]:
    """In each lap, train every module on its cached boundary, then write the next boundary in a frozen pass.

    One lap is sequential training, several are the paper's multi-lap training (section 3.2).

    Args:
        job: the size of the job.
        epochs: of each module in one lap.
        views: number of copies of each boundary.
        laps: number of laps.
        frozen: number of leading modules that are not trained; their output is written once for all laps.
    """
    entry = output_of_frozen(job, frozen, views)
    yield from write_frozen(job, entry)
    for lap in range(laps):
        reads = entry
        for module in range(frozen, job.num_modules):
            is_last, read_again = module == job.num_modules - 1, module == frozen and lap < laps - 1
            lap_epochs = range(lap * epochs[module], (lap + 1) * epochs[module])
            yield from train_on(job, module, reads, lap_epochs, lap, read_again=read_again or not is_last)
            if not is_last:
                writes = cached(job, f"lap{lap}-b{module + 1}", module + 1, views)
                yield from write_next(job, module, reads, writes, lap, read_again=read_again)
                reads = writes


def streamed_sequential(
    job: JobSize, epochs: Epochs, chunk: int, laps: int = 1, prefix: Prefix = "forward", *, frozen: int = 0
) -> Iterator[Visit]:
    """Train sequentially without a cache: every epoch streams its batches through the trained modules again.

    Args:
        job: the size of the job.
        epochs: of each module in one lap.
        chunk: batches in a chunk.
        laps: number of laps.
        prefix: how batches pass the modules before.
        frozen: number of leading modules that are not trained.
    """
    for lap in range(laps):
        for module in range(frozen, job.num_modules):
            kinds = (*_kinds(prefix, module), *_kinds("train", 1))
            for epoch in range(lap * epochs[module], (lap + 1) * epochs[module]):
                for start, stop in chunks(job.batches_per_epoch, chunk):
                    yield from stream(job, training_span(job, epoch, start, stop, lap=lap), kinds)


def end_to_end(job: JobSize, epochs: int) -> Iterator[Visit]:
    """Train end to end, module by module: take every batch up through all modules, then its gradient down.

    Only the last module has a loss. The weights are bit-identical to those of the whole net as one module.
    """
    for epoch in range(epochs):
        for batch in range(job.batches_per_epoch):
            yield from round_trip(job, training_span(job, epoch, batch, batch + 1))


def recalibration(job: JobSize, chunk: int, *, frozen: int = 0) -> Iterator[Visit]:
    """Measure the running statistics of modules again, in one pass over the training images.

    These are not augmented, as in evaluation. Every module reads what the one before gives in training mode;
    `frozen` leading ones keep their statistics.
    """
    kinds = (*_kinds("forward", frozen), *_kinds("recalibrate", job.num_modules - frozen))
    for start, stop in chunks(job.batches_per_epoch, chunk):
        span = Span("train", 0, start, stop, shuffled=False, augmented=False)
        yield from stream(job, span, kinds)


def evaluation(job: JobSize, split: Split, chunk: int) -> Iterator[Visit]:
    """Compute every module's output and score on `split` (of `job.num_samples` samples), one chunk at a time."""
    for start, stop in chunks(job.batches_per_pass, chunk):
        span = Span(split, 0, start, stop, shuffled=False, augmented=False)
        yield from stream(job, span, _kinds("forward", job.num_modules))


def _kinds(kind: StepKind, count: int) -> tuple[StepKind, ...]:
    return (kind,) * count
