"""Passes: the sequences of visits that regimes are built from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from edge_trgl.engine.visits import IMAGES, Boundary, JobSize, Span, Visit
from edge_trgl.learning.step_kinds import StepKind

_STREAM = "stream"


def carries_chunk(name: str) -> bool:
    """Return whether the boundary of that name holds a single chunk; while one exists, a chunk is unfinished."""
    return name.startswith(_STREAM)


def training_span(job: JobSize, epoch: int, start: int, stop: int, *, lap: int = 0, source: int = 0) -> Span:
    """Return the span of batches `start` to `stop` (exclusive) of a training epoch."""
    return Span("train", epoch, start, stop, shuffled=True, augmented=job.augmented, lap=lap, source=source)


def chunks(length: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield the chunks of `length` batches, as (start, stop)."""
    return _stretches(0, length, chunk)


def stream(
    job: JobSize, span: Span, kinds: tuple[StepKind, ...], reads: Boundary = IMAGES, *, read_again: bool = False
) -> Iterator[Visit]:
    """Take the batches of `span` through one module after another, starting with the one that `reads` enters.

    Every boundary in between is read once, in order.

    Args:
        job: the size of the job.
        span: the batches.
        kinds: the kind of step for each module.
        reads: the input of the first of these modules.
        read_again: a later visit still needs `reads`, so it is not dropped.
    """
    records = min((span.stop - span.start) * job.batch_size, job.num_samples)
    last = reads.module + len(kinds) - 1
    for module, kind in enumerate(kinds, reads.module):
        writes = Boundary(f"{_STREAM}{module + 1}", module + 1, records)
        for start, stop in _stretches(span.start, span.stop, job.stretch):
            drops = _named(reads) if stop == span.stop and not read_again else ()
            part = replace(span, start=start, stop=stop)
            yield Visit(kind, module, part, (reads,), () if module == last else (writes,), drops)
        reads, read_again = writes, False


def round_trip(job: JobSize, span: Span) -> Iterator[Visit]:
    """Take one batch up through all modules, and its gradient down again."""
    last, records = job.num_modules - 1, min(job.batch_size, job.num_samples)
    above = range(1, job.num_modules)
    inputs = (IMAGES, *(Boundary(f"{_STREAM}{module}", module, records) for module in above))
    # None: nothing needs the gradient of the images.
    gradients = (None, *(Boundary(f"{_STREAM}{module}-gradient", module, records) for module in above))
    for module in range(last):
        yield Visit("ascend", module, span, (inputs[module],), (inputs[module + 1],))
    back: tuple[Boundary, ...] = ()
    for module in reversed(range(job.num_modules)):
        kind: StepKind = "train" if module == last else "backward"
        reads, gradient = (inputs[module], *back), gradients[module]
        back = () if gradient is None else (gradient,)
        drops = tuple(name for boundary in reads for name in _named(boundary))
        yield Visit(kind, module, span, reads, back, drops)


def up_to(depth: int, visits: Iterable[Visit]) -> Iterator[Visit | None]:
    """Yield the visits of the first `depth` modules, whose last one writes for none; None in place of others."""
    for visit in visits:
        written = tuple(boundary for boundary in visit.writes if boundary.module < depth)
        yield replace(visit, writes=written) if visit.module < depth else None


def train_on(
    job: JobSize, module: int, reads: Boundary, epochs: range, lap: int, *, read_again: bool
) -> Iterator[Visit]:
    """Train `module` for `epochs` on the boundary `reads`; drop it afterwards unless it is `read_again`."""
    for epoch in epochs:
        for start, stop in _stretches(0, job.batches_per_epoch, job.stretch):
            span = training_span(job, epoch, start, stop, lap=lap, source=reads.module)
            is_last = epoch == epochs[-1] and stop == job.batches_per_epoch
            yield Visit("train", module, span, (reads,), (), _named(reads) if is_last and not read_again else ())


def cached(job: JobSize, name: str, module: int, views: int) -> Boundary:
    """Return the boundary of all samples as they enter `module`, in `views` copies if they are augmented."""
    return Boundary(name, module, job.num_samples, views if job.augmented else 1)


def output_of_frozen(job: JobSize, num_frozen: int, views: int) -> Boundary:
    """Return the output of the first `num_frozen` modules, which are never trained; the images if that is 0."""
    return cached(job, f"frozen-b{num_frozen}", num_frozen, views) if num_frozen else IMAGES


def write_frozen(job: JobSize, entry: Boundary) -> Iterator[Visit]:
    """Write `entry` by passing all samples once through the modules before it, none of which is trained."""
    reads = IMAGES
    for module in range(entry.module):
        writes = output_of_frozen(job, module + 1, entry.copies)
        yield from write_next(job, module, reads, writes, lap=0)
        reads = writes


def write_next(
    job: JobSize, module: int, reads: Boundary, writes: Boundary, lap: int, *, read_again: bool = False
) -> Iterator[Visit]:
    """Write every copy of the next boundary in a frozen pass; drop `reads` unless it is `read_again`."""
    for copy in range(writes.copies):
        for start, stop in _stretches(0, job.batches_per_pass, job.stretch):
            epoch = lap * writes.copies + copy
            span = Span("train", epoch, start, stop, shuffled=False, augmented=job.augmented, lap=lap)
            is_last = copy == writes.copies - 1 and stop == job.batches_per_pass
            drops = _named(reads) if is_last and not read_again else ()
            yield Visit("forward", module, span, (reads,), (writes,), drops)


def frozen_span(span: Span, images: Boundary) -> Span:
    """Return the span of the frozen pass over `images` whose output the training span `span` reads."""
    lap = 0 if images.once else span.lap
    return replace(span, epoch=lap * images.copies + span.epoch % images.copies, shuffled=False)


def _named(boundary: Boundary) -> tuple[str, ...]:
    return () if boundary is IMAGES else (boundary.name,)


def _stretches(start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    for left in range(start, stop, length):
        yield left, min(left + length, stop)
