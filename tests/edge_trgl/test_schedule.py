"""Every regime replayed on a machine of hashes: what was trained, on what, in which order, and what was kept.

A module's state is a hash of all that it was ever trained on, a value is a hash of all that it was made from.
Two orders of visits are the same training if and only if they end in the same states.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.schedule import (
    IMAGES,
    REGIMES,
    Program,
    Shape,
    carries_chunk,
    end_to_end,
    evaluation,
    moved,
    parallel,
    passed,
    sequential,
    streamed_sequential,
)


@lru_cache(maxsize=1000)
def _order(num_samples, epoch):
    return tuple(np.random.default_rng(epoch).permutation(num_samples).tolist())


def _batch(shape, epoch, batch, *, shuffled=True):
    order = _order(shape.num_samples, epoch) if shuffled else tuple(range(shape.num_samples))
    return order[batch * shape.batch_size : (batch + 1) * shape.batch_size]


def _image(shape, sample, epoch, batch, *, shuffled=True):
    return hash((sample, epoch, batch, shuffled)) if shape.augmented else hash((sample,))


class Machine:
    """Does visits as a trainer would, and refuses what a trainer could not do.

    `moving`: a pass in training mode changes its module, as batch norm does.
    """

    def __init__(self, shape, *, moving=False):
        self.shape = shape
        self.moving = moving
        self.states = [hash((module,)) for module in range(shape.num_modules)]
        self.steps = []  # (module, epoch, batch) of every training step
        self.ascents = []  # the same of every forward whose step comes later
        self.forwards = []  # (module, sample) of every frozen pass
        self.live = {}  # name → (boundary, {(copy, sample): value})
        self.num_dropped = Counter()

    def run(self, visits):
        for visit in visits:
            assert 0 < visit.span.stop - visit.span.start <= self.shape.stretch
            for batch in range(visit.span.start, visit.span.stop):
                self._step(visit, batch)
            for name in visit.drops:
                # At its last reader, neither later nor sooner: a later read would not find it.
                assert name in [boundary.name for boundary in visit.reads]
                del self.live[name]
                self.num_dropped[name] += 1
        assert not self.live, "a boundary was never dropped"
        return self.states

    def _step(self, visit, batch):
        module, span = visit.module, visit.span
        samples = _batch(self.shape, span.epoch, batch, shuffled=span.shuffled)
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
            assert span.augmented == (self.shape.augmented and span.split == "train")
            shuffled = span.shuffled
            return [_image(self.shape, n, span.epoch, batch, shuffled=shuffled) for n in samples]
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


def _images(shape, samples, epoch, batch, *, shuffled=True):
    return [_image(shape, sample, epoch, batch, shuffled=shuffled) for sample in samples]


def _through(states, values):
    for state in states:
        values = [hash((state, value)) for value in values]
    return values


def _copies(shape, lap, views):
    """All the images, in their order, so many times."""
    copies, size = views if shape.augmented else 1, shape.batch_size
    return [
        [_image(shape, n, lap * copies + copy, n // size, shuffled=False) for n in range(shape.num_samples)]
        for copy in range(copies)
    ]


def _plain_parallel(shape, epochs, frozen=0, views=None):
    """Batch by batch, every module, as published; `frozen` ones first, for every batch or for `views` copies."""
    states = Machine(shape).states
    entering = [_through(states[:frozen], copy) for copy in _copies(shape, 0, views or 1)]
    for epoch in range(epochs):
        for batch in range(shape.batches_per_epoch):
            samples = _batch(shape, epoch, batch)
            if frozen and views:
                values = [entering[epoch % len(entering)][sample] for sample in samples]
            else:
                values = _through(states[:frozen], _images(shape, samples, epoch, batch))
            for module, state in enumerate(states[frozen:], frozen):
                states[module] = hash((state, samples, tuple(values)))
                values = _through([state], values)
    return states


def _plain_sequential(shape, epochs, views, laps, frozen=0):
    """Module by module on a list of all the inputs, `views` times; `frozen` ones first, once for all laps."""
    states = Machine(shape).states
    entering = [_through(states[:frozen], copy) for copy in _copies(shape, 0, views)]
    for lap in range(laps):
        inputs = entering if frozen else _copies(shape, lap, views)
        for module, num_epochs in list(enumerate(epochs))[frozen:]:
            for epoch in range(lap * num_epochs, (lap + 1) * num_epochs):
                for batch in range(shape.batches_per_epoch):
                    samples = _batch(shape, epoch, batch)
                    if module == 0:
                        values = _images(shape, samples, epoch, batch)
                    else:
                        values = [inputs[epoch % len(inputs)][sample] for sample in samples]
                    states[module] = hash((states[module], samples, tuple(values)))
            inputs = [_through([states[module]], copy) for copy in inputs]
    return states


def _plain_streamed(shape, epochs, laps, *, moving=False, frozen=0):
    """Module by module, each batch through the modules before, frozen or in training mode."""
    states = Machine(shape).states
    for lap in range(laps):
        for module, num_epochs in list(enumerate(epochs))[frozen:]:
            for epoch in range(lap * num_epochs, (lap + 1) * num_epochs):
                for batch in range(shape.batches_per_epoch):
                    samples = _batch(shape, epoch, batch)
                    values = _images(shape, samples, epoch, batch)
                    for number, before in enumerate(states[:module]):
                        states[number] = _moved(before, values) if moving and number >= frozen else before
                        values = _through([before], values)
                    states[module] = hash((states[module], samples, tuple(values)))
    return states


def _plain_end_to_end(shape, epochs):
    """Batch by batch, every module up, and down again."""
    states = Machine(shape).states
    for epoch in range(epochs):
        for batch in range(shape.batches_per_epoch):
            samples = _batch(shape, epoch, batch)
            inputs = [[_image(shape, sample, epoch, batch) for sample in samples]]
            for state in states[:-1]:
                inputs.append([hash((state, value)) for value in inputs[-1]])
            above = ()
            for module, values in reversed(list(enumerate(inputs))):
                state = states[module]
                states[module] = hash((state, samples, tuple(values), *map(tuple, above)))
                above = ([hash(("down", state, *made_of)) for made_of in zip(values, *above, strict=True)],)
    return states


SHAPES = st.builds(
    Shape,
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
def _frozen(draw, shapes=SHAPES):
    """A shape, and how many of its modules are frozen, one at least being trained."""
    shape = draw(shapes)
    return shape, draw(st.integers(0, shape.num_modules - 1))


def _assert_each_step_once(machine, epochs):
    """Every (module, epoch, batch) of the grid once, each module's own in their order."""
    batches = range(machine.shape.batches_per_epoch)
    found = defaultdict(list)
    for module, epoch, batch in machine.steps:
        found[module].append((epoch, batch))
    for module, num_epochs in enumerate(epochs):
        assert found[module] == [(epoch, batch) for epoch in range(num_epochs) for batch in batches]
    assert len(found) == len(epochs)
    assert all(machine.states[module] == hash((module,)) for module, number in enumerate(epochs) if number == 0)


@given(SHAPES, st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_parallel_is_the_published_loop_whatever_the_chunk(shape, epochs, chunk):
    machine = Machine(shape)
    assert machine.run(parallel(shape, epochs, chunk)) == _plain_parallel(shape, epochs)
    _assert_each_step_once(machine, [epochs] * shape.num_modules)
    assert machine.forwards == []


@given(SHAPES, st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_parallel_respects_both_arrows(shape, epochs, chunk):
    machine = Machine(shape)
    machine.run(parallel(shape, epochs, chunk))
    done = set()
    for module, epoch, batch in machine.steps:
        number = epoch * shape.batches_per_epoch + batch
        assert number == 0 or (module, number - 1) in done
        assert module == 0 or (module - 1, number) in done
        done.add((module, number))


def _between_chunks(visits):
    """The positions at which no boundary carries a chunk."""
    live = set()
    yield 0
    for position, visit in enumerate(visits, 1):
        live |= {boundary.name for boundary in visit.writes}
        live -= set(visit.drops)
        if not any(map(carries_chunk, live)):
            yield position


@given(_frozen(), VIEWS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=150, deadline=None)
def test_chunks_may_become_shorter_where_one_ends(frozen, views, epochs, length, times, data):
    shape, num_frozen = frozen
    views = views if num_frozen else None
    long, short = (
        list(parallel(shape, epochs, chunk, frozen=num_frozen, views=views)) for chunk in (length * times, length)
    )
    if shape.num_modules - (num_frozen if views else 0) == 1:
        return  # nothing carries a chunk, and nothing is gained by a shorter one: plans have none but 1
    position = data.draw(st.sampled_from(list(_between_chunks(long))))
    rest = islice(short, moved(position, long, short), None)
    assert Machine(shape).run(chain(long[:position], rest)) == _plain_parallel(shape, epochs, num_frozen, views)


@given(SHAPES, st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_end_to_end_goes_up_and_down_with_every_batch(shape, epochs):
    machine = Machine(shape)
    assert machine.run(end_to_end(shape, epochs)) == _plain_end_to_end(shape, epochs)
    _assert_each_step_once(machine, [epochs] * shape.num_modules)
    batches = [(epoch, batch) for epoch in range(epochs) for batch in range(shape.batches_per_epoch)]
    assert machine.ascents == [(module, *batch) for batch in batches for module in range(shape.num_modules - 1)]
    assert machine.forwards == []


def test_a_round_keeps_no_more_than_it_needs():
    """On the way down, an input goes when its module is done, a gradient when the module below has read it."""
    shape = Shape(num_modules=3, num_samples=4, batch_size=4, augmented=True)
    live, found = set(), []
    for visit in end_to_end(shape, 1):
        live |= {boundary.name for boundary in visit.writes}
        live -= set(visit.drops)
        found.append(sorted(live))
    assert found == [
        ["stream1"],
        ["stream1", "stream2"],
        ["stream1", "stream2-gradient"],
        ["stream1-gradient"],
        [],
    ]


def _changes(visits):
    modules = [visit.module for visit in visits]
    return sum(a != b for a, b in pairwise(modules))


def test_a_chunk_keeps_its_module():
    shape = Shape(num_modules=3, num_samples=40, batch_size=4, augmented=True, stretch=2)
    assert _changes(parallel(shape, 2, 1)) == 2 * 10 * 3 - 1
    assert _changes(parallel(shape, 2, 10)) == 2 * 3 - 1
    assert _changes(parallel(shape, 2, 4)) == 2 * 3 * 3 - 1  # chunks of 4, 4 and 2 batches


@given(SHAPES, LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_sequential_and_multi_lap_are_the_plain_loops(shape, lengths, views, laps):
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape)
    expected = _plain_sequential(shape, epochs, views, laps)
    assert machine.run(sequential(shape, epochs, views, laps)) == expected
    _assert_each_step_once(machine, [laps * number for number in epochs])
    assert all(count == 1 for count in machine.num_dropped.values())
    assert len(machine.num_dropped) == laps * (shape.num_modules - 1)


@given(SHAPES, LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_multi_lap_is_laps_of_sequential(shape, lengths, views, laps):
    """The visits of several laps are those of one, lap after lap, but for lap and epoch."""
    epochs = tuple(lengths[: shape.num_modules])

    def outline(visits):
        return [(v.kind, v.module, v.span.start, v.span.stop, len(v.writes), len(v.drops)) for v in visits]

    several = list(sequential(shape, epochs, views, laps))
    assert outline(several) == laps * outline(sequential(shape, epochs, views))
    assert [visit.span.lap for visit in several] == sorted(visit.span.lap for visit in several)
    assert {visit.span.lap for visit in several} == set(range(laps))


@given(SHAPES, LENGTHS, st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_streamed_sequential_is_the_plain_loop(shape, lengths, chunk, laps):
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape)
    states = machine.run(streamed_sequential(shape, epochs, chunk, laps))
    assert states == _plain_streamed(shape, epochs, laps)
    _assert_each_step_once(machine, [laps * number for number in epochs])


@given(SHAPES, LENGTHS, st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_a_prefix_in_training_mode_is_the_plain_loop_whatever_the_chunk(shape, lengths, chunk, laps):
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape, moving=True)
    states = machine.run(streamed_sequential(shape, epochs, chunk, laps, "ascend"))
    assert states == _plain_streamed(shape, epochs, laps, moving=True)
    _assert_each_step_once(machine, [laps * number for number in epochs])
    assert machine.forwards == []


@given(SHAPES, LENGTHS, st.integers(1, 9), st.integers(1, 2))
@settings(max_examples=50, deadline=None)
def test_without_augmentation_the_cache_changes_nothing(shape, lengths, chunk, laps):
    shape = replace(shape, augmented=False)
    epochs = tuple(lengths[: shape.num_modules])
    cached = Machine(shape).run(sequential(shape, epochs, 2, laps))
    assert cached == Machine(shape).run(streamed_sequential(shape, epochs, chunk, laps))


@pytest.mark.parametrize("split", ["val", "test"])
@given(shape=SHAPES, chunk=st.integers(1, 9))
@settings(max_examples=75, deadline=None)
def test_evaluation_shows_every_sample_to_every_module_once(split, shape, chunk):
    machine = Machine(shape)
    visits = list(evaluation(shape, split, chunk))
    before = list(machine.states)
    assert machine.run(visits) == before
    everything = [(module, n) for module in range(shape.num_modules) for n in range(shape.num_samples)]
    assert sorted(machine.forwards) == everything
    assert {visit.span.split for visit in visits} == {split}


@given(SHAPES, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_program_trains_each_module_for_the_epochs_it_says(shape, per_lap, laps, chunk, cached):
    epochs = tuple(laps * (per_lap + module) for module in range(shape.num_modules))
    for regime, paged in [*((regime, False) for regime in REGIMES), ("end-to-end", True)]:
        streams = regime in ("parallel", "end-to-end")
        program = Program(
            regime=regime,
            epochs=epochs[:1] * shape.num_modules if streams else epochs,
            laps=laps if regime == "multi-lap" else 1,
            chunk=chunk,
            views=2,
            cached=cached,
            paged=paged,
        )
        machine = Machine(shape)
        machine.run(program.visits(shape))
        lengths = [program.epochs_of(module) for module in range(shape.num_modules)]
        assert lengths == list(program.epochs)
        _assert_each_step_once(machine, lengths)


@given(_frozen(), st.integers(1, 3), st.integers(1, 9), VIEWS)
@settings(max_examples=150, deadline=None)
def test_parallel_trains_what_is_not_frozen(drawn, epochs, chunk, views):
    shape, frozen = drawn
    machine = Machine(shape)
    states = machine.run(parallel(shape, epochs, chunk, frozen=frozen, views=views))
    assert states == _plain_parallel(shape, epochs, frozen, views)
    _assert_each_step_once(machine, [0] * frozen + [epochs] * (shape.num_modules - frozen))


@given(_frozen(), LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_sequential_and_multi_lap_train_what_is_not_frozen(drawn, lengths, views, laps):
    shape, frozen = drawn
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape)
    states = machine.run(sequential(shape, epochs, views, laps, frozen=frozen))
    assert states == _plain_sequential(shape, epochs, views, laps, frozen)
    _assert_each_step_once(machine, [0] * frozen + [laps * number for number in epochs[frozen:]])


@given(_frozen(), LENGTHS, st.integers(1, 9), st.integers(1, 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_streamed_sequential_passes_the_frozen_first(drawn, lengths, chunk, laps, moving):
    shape, frozen = drawn
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape, moving=moving)
    prefix = "ascend" if moving else "forward"
    states = machine.run(streamed_sequential(shape, epochs, chunk, laps, prefix, frozen=frozen))
    assert states == _plain_streamed(shape, epochs, laps, moving=moving, frozen=frozen)
    _assert_each_step_once(machine, [0] * frozen + [laps * number for number in epochs[frozen:]])


@given(_frozen(), LENGTHS, st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_frozen_is_passed_once_for_all(drawn, lengths, views, laps, in_parallel):
    """Every sample once a copy, however many epochs and laps; nothing is rebuilt."""
    shape, frozen = drawn
    machine, epochs = Machine(shape), tuple(lengths[: shape.num_modules])
    if in_parallel:
        machine.run(parallel(shape, lengths[0], 2, frozen=frozen, views=views))
    else:
        machine.run(sequential(shape, epochs, views, laps, frozen=frozen))
    counts = Counter(passed for passed in machine.forwards if passed[0] < frozen)
    copies = views if shape.augmented else 1
    assert counts == {(module, n): copies for module in range(frozen) for n in range(shape.num_samples)}


@given(_frozen(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_without_augmentation_what_is_frozen_may_be_cached(drawn, epochs, chunk, views):
    shape, frozen = replace(drawn[0], augmented=False), drawn[1]
    cached = Machine(shape).run(parallel(shape, epochs, chunk, frozen=frozen, views=views))
    assert cached == Machine(shape).run(parallel(shape, epochs, chunk, frozen=frozen))


def test_a_program_freezes_what_it_says():
    shape = Shape(num_modules=3, num_samples=12, batch_size=4, augmented=True)
    for regime in REGIMES:
        for cached in (True, False):
            program = Program(regime=regime, epochs=(2, 2, 2), frozen=2, views=2, cached=cached)
            assert [program.epochs_of(module) for module in range(3)] == [0, 0, 2]
            if regime != "end-to-end":
                machine = Machine(shape)
                machine.run(program.visits(shape))
                _assert_each_step_once(machine, [0, 0, 2])
                assert len(machine.forwards) == 2 * 2 * 12  # modules, copies or epochs, samples


def test_multi_lap_spreads_the_epochs_over_its_laps():
    program = Program(regime="multi-lap", epochs=(7, 10), laps=3)
    assert [program.epochs_of(module) for module in range(2)] == [6, 9]
    assert [Program(regime="sequential", epochs=(7, 10)).epochs_of(module) for module in range(2)] == [7, 10]


@pytest.mark.parametrize(
    ("num_samples", "per_epoch", "per_pass"), [(10, 2, 3), (12, 3, 3), (3, 1, 1), (4, 1, 1), (5, 1, 2)]
)
def test_a_short_last_batch_is_dropped_in_training_only(num_samples, per_epoch, per_pass):
    shape = Shape(num_modules=1, num_samples=num_samples, batch_size=4, augmented=False)
    assert (shape.batches_per_epoch, shape.batches_per_pass) == (per_epoch, per_pass)
    assert replace(shape, keeps_short=True).batches_per_epoch == per_pass


def _origins(program, shape):
    """For every training step: the images that its samples' input came from, and those that are read beside it."""
    live, found = {}, []
    for visit in program.visits(shape):
        span = visit.span
        for batch in range(span.start, span.stop):
            samples = _batch(shape, span.epoch, batch, shuffled=span.shuffled)
            first, *beside = visit.reads
            if first is IMAGES:
                origins = [_image(shape, n, span.epoch, batch, shuffled=span.shuffled) for n in samples]
            else:
                origins = [live[first.name][span.epoch % first.copies, n] for n in samples]
            for boundary in visit.writes:
                kept = live.setdefault(boundary.name, {})
                kept |= {(span.epoch % boundary.copies, n): o for n, o in zip(samples, origins, strict=True)}
            if visit.kind == "train":
                found.append(
                    (visit.module, origins, [_beside(shape, span, batch, samples, one) for one in beside])
                )
        for name in visit.drops:
            del live[name]
    return found


def _beside(shape, span, batch, samples, images):
    assert images.name == ""
    if images is IMAGES:
        return [_image(shape, n, span.epoch, batch) for n in samples]
    before = passed(span, images)
    assert not before.shuffled
    return [_image(shape, n, before.epoch, n // shape.batch_size, shuffled=False) for n in samples]


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("regime", ["parallel", "sequential", "multi-lap"])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_loss_gets_the_images_that_its_modules_input_came_from(frozen, regime, cached, augmented):
    shape = Shape(num_modules=4, num_samples=11, batch_size=3, augmented=augmented, stretch=2)
    laps = 2 if regime == "multi-lap" else 1
    options = {"regime": regime, "epochs": (6,) * 4, "laps": laps, "views": 2, "chunk": 2, "cached": cached}
    options["frozen"] = frozen
    plain = Program(**options)
    program = Program(**options, pictured=frozenset({0, 2}))
    steps = _origins(program, shape)
    assert {module for module, _, _ in steps} == {*range(frozen, 4)}
    for module, origins, beside in steps:
        assert beside == ([origins] if module in (0, 2) else [])
    without = [replace(visit, reads=visit.reads[:1]) for visit in program.visits(shape)]
    assert without == list(plain.visits(shape))
