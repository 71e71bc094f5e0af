"""Every regime replayed on a machine of hashes: what was trained, on what, in which order, and what was kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visit_machine import (
    LENGTHS,
    SHAPES,
    VIEWS,
    Machine,
    assert_each_step_once,
    frozen_shapes,
    image_of,
    plain_end_to_end,
    plain_parallel,
    plain_sequential,
    plain_streamed,
    samples_of,
)

from edge_trgl.engine.schedule import (
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


@given(SHAPES, st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=150)
def test_parallel_is_the_published_loop_whatever_the_chunk(shape, epochs, chunk):
    machine = Machine(shape)
    assert machine.run(parallel(shape, epochs, chunk)) == plain_parallel(shape, epochs)
    assert_each_step_once(machine, [epochs] * shape.num_modules)
    assert machine.forwards == []


@given(SHAPES, st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=100)
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


@given(frozen_shapes(), VIEWS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=150)
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
    assert Machine(shape).run(chain(long[:position], rest)) == plain_parallel(shape, epochs, num_frozen, views)


@given(SHAPES, st.integers(1, 3))
@settings(max_examples=100)
def test_end_to_end_goes_up_and_down_with_every_batch(shape, epochs):
    machine = Machine(shape)
    assert machine.run(end_to_end(shape, epochs)) == plain_end_to_end(shape, epochs)
    assert_each_step_once(machine, [epochs] * shape.num_modules)
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
@settings(max_examples=150)
def test_sequential_and_multi_lap_are_the_plain_loops(shape, lengths, views, laps):
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape)
    expected = plain_sequential(shape, epochs, views, laps)
    assert machine.run(sequential(shape, epochs, views, laps)) == expected
    assert_each_step_once(machine, [laps * number for number in epochs])
    assert all(count == 1 for count in machine.num_dropped.values())
    assert len(machine.num_dropped) == laps * (shape.num_modules - 1)


@given(SHAPES, LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=50)
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
@settings(max_examples=150)
def test_streamed_sequential_is_the_plain_loop(shape, lengths, chunk, laps):
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape)
    states = machine.run(streamed_sequential(shape, epochs, chunk, laps))
    assert states == plain_streamed(shape, epochs, laps)
    assert_each_step_once(machine, [laps * number for number in epochs])


@given(SHAPES, LENGTHS, st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=100)
def test_a_prefix_in_training_mode_is_the_plain_loop_whatever_the_chunk(shape, lengths, chunk, laps):
    epochs = tuple(lengths[: shape.num_modules])
    machine = Machine(shape, moving=True)
    states = machine.run(streamed_sequential(shape, epochs, chunk, laps, "ascend"))
    assert states == plain_streamed(shape, epochs, laps, moving=True)
    assert_each_step_once(machine, [laps * number for number in epochs])
    assert machine.forwards == []


@given(SHAPES, LENGTHS, st.integers(1, 9), st.integers(1, 2))
@settings(max_examples=50)
def test_without_augmentation_the_cache_changes_nothing(shape, lengths, chunk, laps):
    shape = replace(shape, augmented=False)
    epochs = tuple(lengths[: shape.num_modules])
    cached = Machine(shape).run(sequential(shape, epochs, 2, laps))
    assert cached == Machine(shape).run(streamed_sequential(shape, epochs, chunk, laps))


@pytest.mark.parametrize("split", ["val", "test"])
@given(shape=SHAPES, chunk=st.integers(1, 9))
@settings(max_examples=75)
def test_evaluation_shows_every_sample_to_every_module_once(split, shape, chunk):
    machine = Machine(shape)
    visits = list(evaluation(shape, split, chunk))
    before = list(machine.states)
    assert machine.run(visits) == before
    everything = [(module, n) for module in range(shape.num_modules) for n in range(shape.num_samples)]
    assert sorted(machine.forwards) == everything
    assert {visit.span.split for visit in visits} == {split}


@given(SHAPES, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=100)
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
        assert_each_step_once(machine, lengths)


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
            samples = samples_of(shape, span.epoch, batch, shuffled=span.shuffled)
            first, *beside = visit.reads
            if first is IMAGES:
                origins = [image_of(shape, n, span.epoch, batch, shuffled=span.shuffled) for n in samples]
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
        return [image_of(shape, n, span.epoch, batch) for n in samples]
    before = passed(span, images)
    assert not before.shuffled
    return [image_of(shape, n, before.epoch, n // shape.batch_size, shuffled=False) for n in samples]


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
