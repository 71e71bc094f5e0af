"""The engine: one loop over visits, in which the training method meets storage and memory limits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from edge_trgl.engine.batches import Feed, Samples
from edge_trgl.engine.passes import frozen_span
from edge_trgl.engine.visits import IMAGES, Boundary, Span, Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_kinds import trains
from edge_trgl.learning.steps import Batch, StepOptions, take_step
from edge_trgl.random_keys import key
from edge_trgl.runtime.memory.headroom import Headroom
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
from edge_trgl.runtime.storage.module_store import ModuleStore

AfterVisit = Callable[[int, Visit, LocalModule], None]
"""Called at a safe point after each visit, with the position of the next visit, the visit done and its module."""


@dataclass(frozen=True, kw_only=True)
class EngineContext:
    """What the loop works with.

    Attributes:
        modules: the modules, read from disk as they are visited.
        activations: the boundaries between them.
        feed: the samples of the split.
        meter: measures the memory peak of each visit.
        learning_rate: of a visit and a batch.
        spec_of: gives the layout of a boundary.
        seed: the run's random seed.
        prefetch: whether the next module is read while one is trained.
        work_mb: estimates the MiB that a step takes, of a visit and its number of samples.
        headroom: trims the heap before steps that need it.
    """

    modules: ModuleStore[LocalModule]
    activations: ActivationStore
    feed: Feed
    meter: Meter
    learning_rate: Callable[[Visit, int], float]
    spec_of: Callable[[Boundary], BoundarySpec]
    seed: int
    prefetch: bool
    work_mb: Callable[[Visit, int], float]
    headroom: Headroom


def walk(visits: Iterable[Visit | None], context: EngineContext, after: AfterVisit, *, start: int = 0) -> None:
    """Carry out every visit from position `start` on: open the module, read, step, write, call `after`.

    None is the place of a visit that is passed over. `after` commits when its policy says so; an exception from it
    ends the walk, and the last commit stays.
    """
    for position, visit, window in _looking_ahead(visits, start):
        local = _open(visit, window, context)
        with context.meter.phase():
            for batch in range(visit.span.start, visit.span.stop):
                samples = context.feed.samples(visit.span, batch)
                context.headroom.before(context.work_mb(visit, len(samples)))
                _step(visit, batch, samples, local, context)
                context.headroom.after()
        if visit.kind != "forward":
            context.modules.mark_changed(visit.module)
        for name in visit.drops:
            if name in context.activations:  # a gradient is dropped as soon as it is read
                context.activations.drop(name)
        after(position, visit, local)
        del local  # else it stays in memory while the next module is made


def _open(visit: Visit, window: Iterable[tuple[int, Visit]], context: EngineContext) -> LocalModule:
    """Return the visit's module, and begin to read the one that follows it in `window` if the plan says so."""
    if not context.prefetch and visit.module in context.modules:
        return context.modules.open(visit.module)
    upcoming = _distinct(window)
    local = context.modules.open(visit.module, upcoming)
    following = next((module for module in upcoming if module != visit.module), None)
    if context.prefetch and following is not None:
        context.modules.prefetch(following, beside=visit.module, upcoming=upcoming)
    return local


def _step(visit: Visit, batch: int, samples: Samples, local: LocalModule, context: EngineContext) -> None:
    span = visit.span
    gradient = _gradient(visit, samples, context)  # first: the store reuses its buffer for the input
    read = Batch(
        x=_read(visit.reads[0], span, batch, samples, context),
        y=context.feed.labels(samples),
        image=_images(visit, batch, samples, context),
        gradient=gradient,
    )
    options = StepOptions(
        lr=context.learning_rate(visit, batch) if trains(visit.kind) else 0.0,
        seed=key(context.seed, "step", span.epoch, batch),
        lap=span.lap,
        first=batch == 0,
        emit=_writer(visit, visit.module + 1, samples, context),
        send_back=_writer(visit, visit.module, samples, context),
    )
    take_step(local, visit.kind, read, options)


def _gradient(visit: Visit, samples: Samples, context: EngineContext) -> Tensor | None:
    """Read the gradient of the module's output; None unless this is a backward visit, which is of one batch."""
    if visit.kind != "backward":
        return None
    name = visit.reads[1].name
    # A copy: the store's buffer is used again for the input, which is read next.
    gradient = context.activations.get(name).read(samples).clone()
    context.activations.drop(name)
    return context.feed.to_device(gradient)


def _images(visit: Visit, batch: int, samples: Samples, context: EngineContext) -> Tensor | None:
    """Return the images that the visit's input was computed from, if its loss compares with them; else None."""
    if visit.kind == "backward" or len(visit.reads) == 1:
        return None
    images = visit.reads[1]
    span = visit.span if images is IMAGES else frozen_span(visit.span, images)
    return context.feed.unnormalised(span, batch, samples)


def _read(boundary: Boundary, span: Span, batch: int, samples: Samples, context: EngineContext) -> Tensor:
    if boundary is IMAGES:
        return context.feed.images(span, batch, samples)
    stored, copy = context.activations.get(boundary.name), span.epoch % boundary.copies
    upcoming = context.feed.upcoming(span, batch, stored.window)
    return context.feed.to_device(stored.read(samples, copy=copy, then=upcoming))


def _writer(
    visit: Visit, module: int, samples: Samples, context: EngineContext
) -> Callable[[Tensor], None] | None:
    """Return a function that appends outputs to the boundary that the visit writes for `module`; None without one.

    Each call brings the next samples of the batch: all of them, or a micro-batch.
    """
    boundary = next((boundary for boundary in visit.writes if boundary.module == module), None)
    if boundary is None:
        return None
    if boundary.name not in context.activations:
        context.activations.create(context.spec_of(boundary))
    stored = context.activations.get(boundary.name)
    taken = 0

    def emit(out: Tensor) -> None:
        nonlocal taken
        part = samples[taken : taken + len(out)]
        taken += len(out)
        stored.append(part, out, copy=visit.span.epoch % boundary.copies)

    return emit


def _looking_ahead(
    visits: Iterable[Visit | None], start: int
) -> Iterator[tuple[int, Visit, deque[tuple[int, Visit]]]]:
    """Yield each visit from `start` on, with the position after it, and those that follow it, until the next."""
    window: deque[tuple[int, Visit]] = deque()
    for position, visit in _numbered(visits, start):
        window.append((position, visit))
        if len(window) > LOOKAHEAD:
            yield *window.popleft(), window
    while window:
        yield *window.popleft(), window


def _numbered(visits: Iterable[Visit | None], start: int) -> Iterator[tuple[int, Visit]]:
    """Yield each visit from `start` on, with the position of the next one that is not passed over."""
    waiting: Visit | None = None
    position = start
    for position, visit in enumerate(islice(visits, start, None), start):
        if visit is not None and waiting is not None:
            yield position, waiting
        waiting = visit or waiting
    if waiting is not None:
        yield position + 1, waiting


LOOKAHEAD = 256
"""Visits looked ahead: enough to see every module again, also up and down or in several stretches each."""


def _distinct(window: Iterable[tuple[int, Visit]]) -> list[int]:
    """Return the modules of these visits, nearest first."""
    return list(dict.fromkeys(visit.module for _, visit in window))
