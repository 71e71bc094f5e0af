"""A model of training in which visits are replayed, and the plain loops that they must be equal to.

A module's state is a hash of everything it was trained on, a value is a hash of everything it was computed from.
Two orders of visits are the same training if and only if they end in the same states.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache

import numpy as np
from hypothesis import strategies as st

from edge_trgl.engine.visits import IMAGES, JobSize


@lru_cache(maxsize=1000)
def _order(num_samples, epoch):
    return tuple(np.random.default_rng(epoch).permutation(num_samples).tolist())


def samples_of(job, epoch, batch, *, shuffled=True):
    order = _order(job.num_samples, epoch) if shuffled else tuple(range(job.num_samples))
    return order[batch * job.batch_size : (batch + 1) * job.batch_size]


def image_of(job, sample, epoch, batch, *, shuffled=True):
    return hash((sample, epoch, batch, shuffled)) if job.augmented else hash((sample,))


class Machine:
    """Carries out visits as the trainer does, and refuses what the trainer could not do.

    `moving`: a pass in training mode changes the module's state, as batch norm does.
    """

    def __init__(self, job, *, moving=False):
        self.job = job
        self.moving = moving
        self.states = [hash((module,)) for module in range(job.num_modules)]
        self.steps = []  # (module, epoch, batch) of every training step
        self.ascents = []  # the same of every forward whose step comes later
        self.forwards = []  # (module, sample) of every frozen pass
        self.live = {}  # name → (boundary, {(copy, sample): value})
        self.num_dropped = Counter()

    def run(self, visits):
        for visit in visits:
            assert 0 < visit.span.stop - visit.span.start <= self.job.stretch
            for batch in range(visit.span.start, visit.span.stop):
                self._step(visit, batch)
            for name in visit.drops:
                # A boundary is dropped by its last reader: a later read would not find it.
                assert name in [boundary.name for boundary in visit.reads]
                del self.live[name]
                self.num_dropped[name] += 1
        assert not self.live, "a boundary was never dropped"
        return self.states

    def _step(self, visit, batch):
        module, span = visit.module, visit.span
        samples = samples_of(self.job, span.epoch, batch, shuffled=span.shuffled)
        assert samples, "an empty batch"
        assert len(visit.reads) == 1 + (visit.kind == "backward")
        # The input and, in a backward, the gradient of the output, which enters the next module.
        values, *above = (
            self._read(boundary, module + number, span, batch, samples)
            for number, boundary in enumerate(visit.reads)
        )
        state = self.states[module]
        outputs = [hash((state, value)) for value in values]
        gradients = [hash(("down", state, *made_of)) for made_of in zip(values, *above, strict=True)]
        self._write(visit, samples, {module + 1: outputs, module: gradients})
        if visit.kind == "forward":
            self.forwards += [(module, sample) for sample in samples]
            return
        assert span.split == "train"
        assert span.shuffled
        if visit.kind == "ascend":
            self.ascents.append((module, span.epoch, batch))
            if self.moving:
                self.states[module] = _moved(state, values)
            return
        self.steps.append((module, span.epoch, batch))
        self.states[module] = hash((state, samples, *map(tuple, (values, *above))))

    def _read(self, boundary, module, span, batch, samples):
        assert boundary.module == module
        if boundary is IMAGES:
            assert span.augmented == (self.job.augmented and span.split == "train")
            shuffled = span.shuffled
            return [image_of(self.job, n, span.epoch, batch, shuffled=shuffled) for n in samples]
        created, values = self.live[boundary.name]
        assert created == boundary
        return [values[span.epoch % boundary.copies, sample] for sample in samples]

    def _write(self, visit, samples, made):
        for boundary in visit.writes:
            created, values = self.live.setdefault(boundary.name, (boundary, {}))
            assert created == boundary
            copy = visit.span.epoch % boundary.copies
            for sample, value in zip(samples, made[boundary.module], strict=True):
                assert (copy, sample) not in values, "written twice"
                values[copy, sample] = value
            assert sum(of == copy for of, _ in values) <= boundary.records


def _moved(state, values):
    return hash(("passed", state, *values))


def _images(job, samples, epoch, batch, *, shuffled=True):
    return [image_of(job, sample, epoch, batch, shuffled=shuffled) for sample in samples]


def _through(states, values):
    for state in states:
        values = [hash((state, value)) for value in values]
    return values


def _copies(job, lap, views):
    """Return all images in stored order, in `views` copies if they are augmented."""
    copies, size = views if job.augmented else 1, job.batch_size
    return [
        [image_of(job, n, lap * copies + copy, n // size, shuffled=False) for n in range(job.num_samples)]
        for copy in range(copies)
    ]


def plain_parallel(job, epochs, frozen=0, views=None, *, moving=False):
    """Train every module on each batch, as published.

    `frozen` modules run per batch, perhaps in training mode, or for `views` copies.
    """
    states = Machine(job).states
    entering = [_through(states[:frozen], copy) for copy in _copies(job, 0, views or 1)]
    for epoch in range(epochs):
        for batch in range(job.batches_per_epoch):
            samples = samples_of(job, epoch, batch)
            if frozen and views:
                values = [entering[epoch % len(entering)][sample] for sample in samples]
            else:
                values = _images(job, samples, epoch, batch)
                for module, state in enumerate(states[:frozen]):
                    states[module] = _moved(state, values) if moving else state
                    values = _through([state], values)
            for module, state in enumerate(states[frozen:], frozen):
                states[module] = hash((state, samples, tuple(values)))
                values = _through([state], values)
    return states


def plain_sequential(job, epochs, views, laps, frozen=0):
    """Train module by module on `views` copies of all inputs; `frozen` modules run first, once for all laps."""
    states = Machine(job).states
    entering = [_through(states[:frozen], copy) for copy in _copies(job, 0, views)]
    for lap in range(laps):
        inputs = entering if frozen else _copies(job, lap, views)
        for module, num_epochs in list(enumerate(epochs))[frozen:]:
            for epoch in range(lap * num_epochs, (lap + 1) * num_epochs):
                for batch in range(job.batches_per_epoch):
                    samples = samples_of(job, epoch, batch)
                    if module == 0:
                        values = _images(job, samples, epoch, batch)
                    else:
                        values = [inputs[epoch % len(inputs)][sample] for sample in samples]
                    states[module] = hash((states[module], samples, tuple(values)))
            inputs = [_through([states[module]], copy) for copy in inputs]
    return states


def plain_streamed(job, epochs, laps, *, moving=False, frozen=0):
    """Train module by module; each batch first passes the modules below, frozen or in training mode."""
    states = Machine(job).states
    for lap in range(laps):
        for module, num_epochs in list(enumerate(epochs))[frozen:]:
            for epoch in range(lap * num_epochs, (lap + 1) * num_epochs):
                for batch in range(job.batches_per_epoch):
                    samples = samples_of(job, epoch, batch)
                    values = _images(job, samples, epoch, batch)
                    for number, before in enumerate(states[:module]):
                        states[number] = _moved(before, values) if moving else before
                        values = _through([before], values)
                    states[module] = hash((states[module], samples, tuple(values)))
    return states


def plain_end_to_end(job, epochs):
    """Batch by batch, every module up, and down again."""
    states = Machine(job).states
    for epoch in range(epochs):
        for batch in range(job.batches_per_epoch):
            samples = samples_of(job, epoch, batch)
            inputs = [[image_of(job, sample, epoch, batch) for sample in samples]]
            for state in states[:-1]:
                inputs.append([hash((state, value)) for value in inputs[-1]])
            above = ()
            for module, values in reversed(list(enumerate(inputs))):
                state = states[module]
                states[module] = hash((state, samples, tuple(values), *map(tuple, above)))
                above = ([hash(("down", state, *made_of)) for made_of in zip(values, *above, strict=True)],)
    return states


JOBS = st.builds(
    JobSize,
    num_modules=st.integers(1, 4),
    num_samples=st.integers(1, 17),
    batch_size=st.integers(1, 5),
    augmented=st.booleans(),
    keeps_short=st.booleans(),
    stretch=st.integers(1, 5),
)
LENGTHS = st.lists(st.integers(1, 3), min_size=4, max_size=4)


VIEWS = st.none() | st.integers(1, 3)
"""Copies of what frozen modules give, or no cache of it."""


@st.composite
def frozen_jobs(draw, shapes=JOBS):
    """A job, and how many of its modules are frozen, one at least being trained."""
    job = draw(shapes)
    return job, draw(st.integers(0, job.num_modules - 1))


def assert_each_step_once(machine, epochs):
    """Every (module, epoch, batch) of the grid once, each module's own in their order."""
    batches = range(machine.job.batches_per_epoch)
    found = defaultdict(list)
    for module, epoch, batch in machine.steps:
        found[module].append((epoch, batch))
    for module, num_epochs in enumerate(epochs):
        assert found[module] == [(epoch, batch) for epoch in range(num_epochs) for batch in batches]
    assert len(found) == len(epochs)
    unchanged = [] if machine.moving else [module for module, number in enumerate(epochs) if number == 0]
    assert all(machine.states[module] == hash((module,)) for module in unchanged)
