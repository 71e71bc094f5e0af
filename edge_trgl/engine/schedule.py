"""A regime is the order of visits, and nothing more.

A visit is one module, in memory, on a short stretch of batches. In parallel training, step (k, i) of module
k on batch i needs only step (k, i − 1) and what module k − 1 gave for batch i, so every order of the grid
that respects these two arrows computes the same numbers: that is why one module in memory is enough.
End-to-end training has no such freedom: every batch goes up through all modules and its gradient down again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from edge_trgl.learning.step_kinds import StepKind

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """The tensor that enters a module, or its gradient: `records` samples, each in `copies` augmented versions.

    The boundary without a name is the images themselves: freshly augmented for each span or, with `records`, in
    the versions that the frozen passes of a lap read, one a copy; those of the first lap if it is written `once`.
    """

    name: str
    module: int
    records: int = 0
    copies: int = 1
    once: bool = False


IMAGES = Boundary("", 0)


@dataclass(frozen=True, slots=True)
class Span:
    """Batches `start` to `stop` (exclusive) of one pass over a split.

    `epoch` keys the order, the augmentation and the learning rate; in a boundary of V copies it stands for
    copy epoch mod V. `lap` is the lap of multi-lap training. Without `shuffled`, samples come in the order they
    are kept in and the last batch may be short; with it, they are shuffled so far as the cached boundary that
    enters module `source` can be read well, 0 being the images.
    """

    split: Split
    epoch: int
    start: int
    stop: int
    shuffled: bool
    augmented: bool
    lap: int = 0
    source: int = 0


@dataclass(frozen=True, slots=True)
class Visit:
    """One module on one span.

    `reads`: its input and, in a backward, the gradient of its output or, where the loss compares with them, the
    images that the input came from. `writes`: what enters the next module, or the gradient of what entered this
    one. `drops` names the boundaries that nobody reads after this visit.
    """

    kind: StepKind
    module: int
    span: Span
    reads: tuple[Boundary, ...]
    writes: tuple[Boundary, ...] = ()
    drops: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a schedule needs to know of the job, in samples and batches.

    `keeps_short`: an epoch ends with its short batch, if it has one. `stretch`: the most batches of a visit, so
    that a commit can fall between visits.
    """

    num_modules: int
    num_samples: int
    batch_size: int
    augmented: bool
    keeps_short: bool = False
    stretch: int = 16

    @property
    def batches_per_epoch(self) -> int:
        """Training batches an epoch: a short last one is dropped, unless it is kept or the only one."""
        return self.batches_per_pass if self.keeps_short else max(self.num_samples // self.batch_size, 1)

    @property
    def batches_per_pass(self) -> int:
        """Batches that cover every sample."""
        return -(-self.num_samples // self.batch_size)


Epochs = tuple[int, ...]
"""Epochs of each module (of each module and lap, in multi-lap)."""


def parallel(
    shape: Shape, epochs: int, chunk: int, *, frozen: int = 0, views: int | None = None
) -> Iterator[Visit]:
    """For each epoch, chunk of batches and module: train it, its outputs feeding the next module.

    chunk = 1 with every module in memory is the published loop; every chunk gives the same weights. The first
    `frozen` modules are not trained: with `views`, what leaves them is cached in so many copies, else every batch
    passes them.
    """
    reads = IMAGES if views is None else _what_enters(shape, frozen, views)
    yield from _frozen_pass(shape, reads)
    kinds = (*_kinds("forward", frozen - reads.module), *_kinds("train", shape.num_modules - frozen))
    for epoch in range(epochs):
        for start in range(0, shape.batches_per_epoch, chunk):
            stop = min(start + chunk, shape.batches_per_epoch)
            span = _training(shape, epoch, start, stop, source=reads.module)
            is_last = epoch == epochs - 1 and span.stop == shape.batches_per_epoch
            yield from _stream(shape, span, kinds, reads, read_again=not is_last)


def sequential(shape: Shape, epochs: Epochs, views: int, laps: int = 1, *, frozen: int = 0) -> Iterator[Visit]:
    """For each lap and module: train it on its cached boundary, then write the next boundary, frozen.

    One lap is sequential training, several are the paper's multi-lap (section 3.2); `epochs` are those of one lap.
    The first `frozen` modules are not trained: what leaves them is written once for all laps.
    """
    entry = _what_enters(shape, frozen, views)
    yield from _frozen_pass(shape, entry)
    for lap in range(laps):
        reads = entry
        for module in range(frozen, shape.num_modules):
            is_last, read_again = module == shape.num_modules - 1, module == frozen and lap < laps - 1
            span = range(lap * epochs[module], (lap + 1) * epochs[module])
            yield from _train_on(shape, module, reads, span, lap, done_with_it=is_last and not read_again)
            if not is_last:
                writes = _cached(shape, f"lap{lap}-b{module + 1}", module + 1, views)
                yield from write_next(shape, module, reads, writes, lap, read_again=read_again)
                reads = writes


Prefix = Literal["forward", "ascend"]
"""How trained modules are passed again: frozen, or in training mode, where their running statistics move on."""


def streamed_sequential(
    shape: Shape, epochs: Epochs, chunk: int, laps: int = 1, prefix: Prefix = "forward", *, frozen: int = 0
) -> Iterator[Visit]:
    """Sequential training without a cache: every epoch streams its batches through the prefix again.

    The first `frozen` modules are not trained, and always passed frozen.
    """
    for lap in range(laps):
        for module in range(frozen, shape.num_modules):
            kinds = (*_kinds("forward", frozen), *_kinds(prefix, module - frozen), *_kinds("train", 1))
            for epoch in range(lap * epochs[module], (lap + 1) * epochs[module]):
                for start in range(0, shape.batches_per_epoch, chunk):
                    stop = min(start + chunk, shape.batches_per_epoch)
                    yield from _stream(shape, _training(shape, epoch, start, stop, lap), kinds)


def end_to_end(shape: Shape, epochs: int) -> Iterator[Visit]:
    """Every batch up through all modules, then its gradient down again: end-to-end training, one module at a time.

    The last module alone has a loss. A batch's steps are those of a net that is one module, to the bit.
    """
    for epoch in range(epochs):
        for batch in range(shape.batches_per_epoch):
            yield from _round(shape, _training(shape, epoch, batch, batch + 1))


def evaluation(shape: Shape, split: Split, chunk: int) -> Iterator[Visit]:
    """Every module's output and score on `split` (of `shape.num_samples` samples), a chunk at a time."""
    for start in range(0, shape.batches_per_pass, chunk):
        stop = min(start + chunk, shape.batches_per_pass)
        span = Span(split, 0, start, stop, shuffled=False, augmented=False)
        yield from _stream(shape, span, _kinds("forward", shape.num_modules))


def _training(shape: Shape, epoch: int, start: int, stop: int, lap: int = 0, source: int = 0) -> Span:
    return Span("train", epoch, start, stop, shuffled=True, augmented=shape.augmented, lap=lap, source=source)


def _stream(
    shape: Shape, span: Span, kinds: tuple[StepKind, ...], reads: Boundary = IMAGES, *, read_again: bool = False
) -> Iterator[Visit]:
    """The batches of `span` through modules of the given kinds, from the one that `reads` enters on.

    Each boundary between them is read once, in order; `reads` may be read again later.
    """
    records = min((span.stop - span.start) * shape.batch_size, shape.num_samples)
    last = reads.module + len(kinds) - 1
    for module, kind in enumerate(kinds, reads.module):
        writes = Boundary(f"stream{module + 1}", module + 1, records)
        for left, right in _stretches(span.start, span.stop, shape.stretch):
            drops = _named(reads) if right == span.stop and not read_again else ()
            part = replace(span, start=left, stop=right)
            yield Visit(kind, module, part, (reads,), () if module == last else (writes,), drops)
        reads, read_again = writes, False


def _round(shape: Shape, span: Span) -> Iterator[Visit]:
    """One batch up and down."""
    last, records = shape.num_modules - 1, min(shape.batch_size, shape.num_samples)
    above = range(1, shape.num_modules)
    inputs = (IMAGES, *(Boundary(f"stream{module}", module, records) for module in above))
    # None for the gradient of the images, which nobody needs.
    gradients = (None, *(Boundary(f"stream{module}-gradient", module, records) for module in above))
    for module in range(last):
        yield Visit("ascend", module, span, (inputs[module],), (inputs[module + 1],))
    back: tuple[Boundary, ...] = ()
    for module in reversed(range(shape.num_modules)):
        kind: StepKind = "train" if module == last else "backward"
        reads, gradient = (inputs[module], *back), gradients[module]
        back = () if gradient is None else (gradient,)
        drops = tuple(name for boundary in reads for name in _named(boundary))
        yield Visit(kind, module, span, reads, back, drops)


def _train_on(
    shape: Shape, module: int, reads: Boundary, epochs: range, lap: int, *, done_with_it: bool
) -> Iterator[Visit]:
    """Train `module` for `epochs` on a boundary; `done_with_it`: nobody reads the boundary afterwards."""
    for epoch in epochs:
        for start, stop in _stretches(0, shape.batches_per_epoch, shape.stretch):
            span = _training(shape, epoch, start, stop, lap, reads.module)
            done = done_with_it and epoch == epochs[-1] and stop == shape.batches_per_epoch
            yield Visit("train", module, span, (reads,), (), _named(reads) if done else ())


def _cached(shape: Shape, name: str, module: int, views: int) -> Boundary:
    """All samples, as they enter `module`."""
    return Boundary(name, module, shape.num_samples, views if shape.augmented else 1)


def _what_enters(shape: Shape, module: int, views: int) -> Boundary:
    """What enters `module`, all those before it being frozen."""
    return _cached(shape, f"frozen-b{module}", module, views) if module else IMAGES


def _frozen_pass(shape: Shape, entry: Boundary) -> Iterator[Visit]:
    """Once through the modules before `entry`, which is written by the last of them."""
    reads = IMAGES
    for module in range(entry.module):
        writes = _what_enters(shape, module + 1, entry.copies)
        yield from write_next(shape, module, reads, writes, lap=0)
        reads = writes


def write_next(
    shape: Shape, module: int, reads: Boundary, writes: Boundary, lap: int, *, read_again: bool = False
) -> Iterator[Visit]:
    """The frozen pass that writes every copy of the next boundary; the one before is then of no more use."""
    for copy in range(writes.copies):
        for start, stop in _stretches(0, shape.batches_per_pass, shape.stretch):
            span = Span(
                "train",
                lap * writes.copies + copy,
                start,
                stop,
                shuffled=False,
                augmented=shape.augmented,
                lap=lap,
            )
            done = copy == writes.copies - 1 and stop == shape.batches_per_pass and not read_again
            yield Visit("forward", module, span, (reads,), (writes,), _named(reads) if done else ())


def passed(span: Span, images: Boundary) -> Span:
    """The frozen pass over `images` that led to what `span`, which trains, reads."""
    lap = 0 if images.once else span.lap
    return replace(span, epoch=lap * images.copies + span.epoch % images.copies, shuffled=False)


def _with_images(visits: Iterator[Visit], modules: frozenset[int], images: Boundary) -> Iterator[Visit]:
    """The same visits, but those that train one of `modules` read the images, too: `images`, as far as their own
    input is not the fresh ones."""
    for visit in visits:
        wanted = IMAGES if visit.reads[0] is IMAGES else images
        wants = visit.kind == "train" and visit.module in modules
        yield replace(visit, reads=(*visit.reads, wanted)) if wants else visit


def carries_chunk(name: str) -> bool:
    """Whether the boundary of that name is there for one chunk only: where none is, every chunk is done."""
    return name.startswith("stream")


def moved(position: int, visits: Iterable[Visit], others: Iterable[Visit]) -> int:
    """How many of `others` do what the first `position` of `visits` did, both being of one regime.

    They may differ in the length of chunks; the position must be one at which both begin one.
    """
    done = sum(visit.span.stop - visit.span.start for visit in islice(visits, position))
    position = 0
    for visit in others:
        if done <= 0:
            break
        done -= visit.span.stop - visit.span.start
        position += 1
    assert done == 0, "a chunk is not done"
    return position


def _named(boundary: Boundary) -> tuple[str, ...]:
    return () if boundary is IMAGES else (boundary.name,)


def _kinds(kind: StepKind, count: int) -> tuple[StepKind, ...]:
    return (kind,) * count


def _stretches(start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
    for left in range(start, stop, length):
        yield left, min(left + length, stop)


Regime = Literal["parallel", "sequential", "multi-lap", "end-to-end"]
REGIMES: tuple[Regime, ...] = ("parallel", "multi-lap", "sequential", "end-to-end")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A regime with its lengths: everything that decides the order of visits.

    `epochs`: of each module in all; multi-lap spreads them over `laps`. `chunk` in batches. `paged`: end-to-end
    training goes up and down through several modules; else the net is one, or each trains on its own. `prefix`:
    of sequential training that is not `cached`. `pictured`: the modules whose loss compares with the images.
    `frozen`: so many modules, the first ones, are not trained.
    """

    regime: Regime
    epochs: Epochs
    laps: int = 1
    chunk: int = 1
    views: int = 1
    cached: bool = True
    paged: bool = False
    prefix: Prefix = "forward"
    pictured: frozenset[int] = frozenset()
    frozen: int = 0

    def epochs_of(self, module: int) -> int:
        """The epochs that `module` is trained for in all: the length of its learning-rate schedule."""
        return self.laps * self._per_lap(module) if module >= self.frozen else 0

    def visits(self, shape: Shape) -> Iterator[Visit]:
        """The training visits of this regime, in order."""
        builders: dict[Regime, Callable[[], Iterator[Visit]]] = {
            "parallel": lambda: self._parallel(shape),
            "end-to-end": lambda: self._whole(shape),
            "sequential": lambda: self._lapped(shape),
            "multi-lap": lambda: self._lapped(shape),
        }
        visits = builders[self.regime]()
        return _with_images(visits, self.pictured, self._images(shape)) if self.pictured else visits

    def _images(self, shape: Shape) -> Boundary:
        """Those that boundaries come from."""
        if not self.cached or (self.regime == "parallel" and not self.frozen):
            return IMAGES
        return replace(_cached(shape, "", 0, self.views), once=self.frozen > 0)

    def _parallel(self, shape: Shape) -> Iterator[Visit]:
        views = self.views if self.cached else None
        return parallel(shape, self.epochs[0], self.chunk, frozen=self.frozen, views=views)

    def _whole(self, shape: Shape) -> Iterator[Visit]:
        return end_to_end(shape, self.epochs[0]) if self.paged else parallel(shape, self.epochs[0], self.chunk)

    def _lapped(self, shape: Shape) -> Iterator[Visit]:
        per_lap = tuple(self._per_lap(module) for module in range(shape.num_modules))
        if self.cached:
            return sequential(shape, per_lap, self.views, self.laps, frozen=self.frozen)
        return streamed_sequential(shape, per_lap, self.chunk, self.laps, self.prefix, frozen=self.frozen)

    def _per_lap(self, module: int) -> int:
        return max(self.epochs[module] // self.laps, 1)
