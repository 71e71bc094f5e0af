"""Every regime replayed on a machine of hashes: what was trained, on what, in which order, and what was kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visit_machine import (
    JOBS,
    LENGTHS,
    VIEWS,
    Machine,
    assert_each_step_once,
    frozen_jobs,
    image_of,
    plain_end_to_end,
    plain_parallel,
    plain_sequential,
    plain_streamed,
    samples_of,
)

from edge_trgl.engine.passes import carries_chunk, frozen_span
from edge_trgl.engine.regimes import REGIMES, end_to_end, evaluation, parallel, sequential, streamed_sequential
from edge_trgl.engine.schedule import Schedule, moved_position
from edge_trgl.engine.visits import IMAGES, JobSize


@given(JOBS, st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=150)
def test_parallel_is_the_published_loop_whatever_the_chunk(job, epochs, chunk):
    machine = Machine(job)
    assert machine.run(parallel(job, epochs, chunk)) == plain_parallel(job, epochs)
    assert_each_step_once(machine, [epochs] * job.num_modules)
    assert machine.forwards == []


@given(JOBS, st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=100)
def test_parallel_respects_both_arrows(job, epochs, chunk):
    machine = Machine(job)
    machine.run(parallel(job, epochs, chunk))
    done = set()
    for module, epoch, batch in machine.steps:
        number = epoch * job.batches_per_epoch + batch
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


@given(frozen_jobs(), VIEWS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.data())
@settings(max_examples=150)
def test_chunks_may_become_shorter_where_one_ends(frozen, views, epochs, length, times, data):
    job, num_frozen = frozen
    views = views if num_frozen else None
    long, short = (
        list(parallel(job, epochs, chunk, frozen=num_frozen, views=views)) for chunk in (length * times, length)
    )
    if job.num_modules - (num_frozen if views else 0) == 1:
        return  # nothing carries a chunk, and nothing is gained by a shorter one: plans have none but 1
    position = data.draw(st.sampled_from(list(_between_chunks(long))))
    rest = islice(short, moved_position(position, long, short), None)
    assert Machine(job).run(chain(long[:position], rest)) == plain_parallel(job, epochs, num_frozen, views)


@given(JOBS, st.integers(1, 3))
@settings(max_examples=100)
def test_end_to_end_goes_up_and_down_with_every_batch(job, epochs):
    machine = Machine(job)
    assert machine.run(end_to_end(job, epochs)) == plain_end_to_end(job, epochs)
    assert_each_step_once(machine, [epochs] * job.num_modules)
    batches = [(epoch, batch) for epoch in range(epochs) for batch in range(job.batches_per_epoch)]
    assert machine.ascents == [(module, *batch) for batch in batches for module in range(job.num_modules - 1)]
    assert machine.forwards == []


def test_a_round_keeps_no_more_than_it_needs():
    """On the way down, an input goes when its module is done, a gradient when the module below has read it."""
    job = JobSize(num_modules=3, num_samples=4, batch_size=4, augmented=True)
    live, found = set(), []
    for visit in end_to_end(job, 1):
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
    job = JobSize(num_modules=3, num_samples=40, batch_size=4, augmented=True, stretch=2)
    assert _changes(parallel(job, 2, 1)) == 2 * 10 * 3 - 1
    assert _changes(parallel(job, 2, 10)) == 2 * 3 - 1
    assert _changes(parallel(job, 2, 4)) == 2 * 3 * 3 - 1  # chunks of 4, 4 and 2 batches


@given(JOBS, LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150)
def test_sequential_and_multi_lap_are_the_plain_loops(job, lengths, views, laps):
    epochs = tuple(lengths[: job.num_modules])
    machine = Machine(job)
    expected = plain_sequential(job, epochs, views, laps)
    assert machine.run(sequential(job, epochs, views, laps)) == expected
    assert_each_step_once(machine, [laps * number for number in epochs])
    assert all(count == 1 for count in machine.num_dropped.values())
    assert len(machine.num_dropped) == laps * (job.num_modules - 1)


@given(JOBS, LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=50)
def test_multi_lap_is_laps_of_sequential(job, lengths, views, laps):
    """The visits of several laps are those of one, lap after lap, but for lap and epoch."""
    epochs = tuple(lengths[: job.num_modules])

    def outline(visits):
        return [(v.kind, v.module, v.span.start, v.span.stop, len(v.writes), len(v.drops)) for v in visits]

    several = list(sequential(job, epochs, views, laps))
    assert outline(several) == laps * outline(sequential(job, epochs, views))
    assert [visit.span.lap for visit in several] == sorted(visit.span.lap for visit in several)
    assert {visit.span.lap for visit in several} == set(range(laps))


@given(JOBS, LENGTHS, st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=150)
def test_streamed_sequential_is_the_plain_loop(job, lengths, chunk, laps):
    epochs = tuple(lengths[: job.num_modules])
    machine = Machine(job)
    states = machine.run(streamed_sequential(job, epochs, chunk, laps))
    assert states == plain_streamed(job, epochs, laps)
    assert_each_step_once(machine, [laps * number for number in epochs])


@given(JOBS, LENGTHS, st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=100)
def test_a_prefix_in_training_mode_is_the_plain_loop_whatever_the_chunk(job, lengths, chunk, laps):
    epochs = tuple(lengths[: job.num_modules])
    machine = Machine(job, moving=True)
    states = machine.run(streamed_sequential(job, epochs, chunk, laps, "ascend"))
    assert states == plain_streamed(job, epochs, laps, moving=True)
    assert_each_step_once(machine, [laps * number for number in epochs])
    assert machine.forwards == []


@given(JOBS, LENGTHS, st.integers(1, 9), st.integers(1, 2))
@settings(max_examples=50)
def test_without_augmentation_the_cache_changes_nothing(job, lengths, chunk, laps):
    job = replace(job, augmented=False)
    epochs = tuple(lengths[: job.num_modules])
    cached = Machine(job).run(sequential(job, epochs, 2, laps))
    assert cached == Machine(job).run(streamed_sequential(job, epochs, chunk, laps))


@pytest.mark.parametrize("split", ["val", "test"])
@given(job=JOBS, chunk=st.integers(1, 9))
@settings(max_examples=75)
def test_evaluation_shows_every_sample_to_every_module_once(split, job, chunk):
    machine = Machine(job)
    visits = list(evaluation(job, split, chunk))
    before = list(machine.states)
    assert machine.run(visits) == before
    everything = [(module, n) for module in range(job.num_modules) for n in range(job.num_samples)]
    assert sorted(machine.forwards) == everything
    assert {visit.span.split for visit in visits} == {split}


@given(JOBS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=100)
def test_a_schedule_trains_each_module_for_the_epochs_it_says(job, per_lap, laps, chunk, cached):
    epochs = tuple(laps * (per_lap + module) for module in range(job.num_modules))
    for regime, paged in [*((regime, False) for regime in REGIMES), ("end-to-end", True)]:
        streams = regime in ("parallel", "end-to-end")
        schedule = Schedule(
            regime=regime,
            epochs=epochs[:1] * job.num_modules if streams else epochs,
            laps=laps if regime == "multi-lap" else 1,
            chunk=chunk,
            views=2,
            cached=cached,
            paged=paged,
        )
        machine = Machine(job)
        machine.run(schedule.visits(job))
        lengths = [schedule.epochs_of(module) for module in range(job.num_modules)]
        assert lengths == list(schedule.epochs)
        assert_each_step_once(machine, lengths)


def test_multi_lap_spreads_the_epochs_over_its_laps():
    schedule = Schedule(regime="multi-lap", epochs=(7, 10), laps=3)
    assert [schedule.epochs_of(module) for module in range(2)] == [6, 9]
    assert [Schedule(regime="sequential", epochs=(7, 10)).epochs_of(module) for module in range(2)] == [7, 10]


@pytest.mark.parametrize(
    ("num_samples", "per_epoch", "per_pass"), [(10, 2, 3), (12, 3, 3), (3, 1, 1), (4, 1, 1), (5, 1, 2)]
)
def test_a_short_last_batch_is_dropped_in_training_only(num_samples, per_epoch, per_pass):
    job = JobSize(num_modules=1, num_samples=num_samples, batch_size=4, augmented=False)
    assert (job.batches_per_epoch, job.batches_per_pass) == (per_epoch, per_pass)
    assert replace(job, keeps_short=True).batches_per_epoch == per_pass


def _origins(schedule, job):
    """For every training step: the images that its samples' input came from, and those that are read beside it."""
    live, found = {}, []
    for visit in schedule.visits(job):
        span = visit.span
        for batch in range(span.start, span.stop):
            samples = samples_of(job, span.epoch, batch, shuffled=span.shuffled)
            first, *beside = visit.reads
            if first is IMAGES:
                origins = [image_of(job, n, span.epoch, batch, shuffled=span.shuffled) for n in samples]
            else:
                origins = [live[first.name][span.epoch % first.copies, n] for n in samples]
            for boundary in visit.writes:
                kept = live.setdefault(boundary.name, {})
                kept |= {(span.epoch % boundary.copies, n): o for n, o in zip(samples, origins, strict=True)}
            if visit.kind == "train":
                found.append((visit.module, origins, [_beside(job, span, batch, samples, one) for one in beside]))
        for name in visit.drops:
            del live[name]
    return found


def _beside(job, span, batch, samples, images):
    assert images.name == ""
    if images is IMAGES:
        return [image_of(job, n, span.epoch, batch) for n in samples]
    before = frozen_span(span, images)
    assert not before.shuffled
    return [image_of(job, n, before.epoch, n // job.batch_size, shuffled=False) for n in samples]


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("regime", ["parallel", "sequential", "multi-lap"])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_loss_gets_the_images_that_its_modules_input_came_from(frozen, regime, cached, augmented):
    job = JobSize(num_modules=4, num_samples=11, batch_size=3, augmented=augmented, stretch=2)
    laps = 2 if regime == "multi-lap" else 1
    options = {"regime": regime, "epochs": (6,) * 4, "laps": laps, "views": 2, "chunk": 2, "cached": cached}
    options["frozen"] = frozen
    plain = Schedule(**options)
    schedule = Schedule(**options, wants_image=frozenset({0, 2}))
    steps = _origins(schedule, job)
    assert {module for module, _, _ in steps} == {*range(frozen, 4)}
    for module, origins, beside in steps:
        assert beside == ([origins] if module in (0, 2) else [])
    without = [replace(visit, reads=visit.reads[:1]) for visit in schedule.visits(job)]
    assert without == list(plain.visits(job))
