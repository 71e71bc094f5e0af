"""Modules that are frozen are passed, first, and never trained; replayed on the machine of hashes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visit_machine import (
    LENGTHS,
    VIEWS,
    Machine,
    assert_each_step_once,
    frozen_jobs,
    plain_parallel,
    plain_sequential,
    plain_streamed,
)

from edge_trgl.engine.regimes import REGIMES, parallel, recalibration, sequential, streamed_sequential
from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.visits import JobSize


@given(frozen_jobs(), st.integers(1, 3), st.integers(1, 9), VIEWS)
@settings(max_examples=150)
def test_parallel_trains_what_is_not_frozen(drawn, epochs, chunk, views):
    job, frozen = drawn
    machine = Machine(job)
    states = machine.run(parallel(job, epochs, chunk, frozen=frozen, views=views))
    assert states == plain_parallel(job, epochs, frozen, views)
    assert_each_step_once(machine, [0] * frozen + [epochs] * (job.num_modules - frozen))


@given(frozen_jobs(), st.integers(1, 3), st.integers(1, 9))
@settings(max_examples=100)
def test_parallel_may_pass_the_frozen_in_training_mode(drawn, epochs, chunk):
    job, frozen = drawn
    machine = Machine(job, moving=True)
    states = machine.run(parallel(job, epochs, chunk, frozen=frozen, prefix="ascend"))
    assert states == plain_parallel(job, epochs, frozen, moving=True)
    assert_each_step_once(machine, [0] * frozen + [epochs] * (job.num_modules - frozen))


@given(frozen_jobs(), st.integers(1, 9))
@settings(max_examples=100)
def test_recalibration_shows_every_batch_to_every_module_once_in_order(drawn, chunk):
    job, frozen = drawn
    kinds, seen = {}, {module: [] for module in range(job.num_modules)}
    for visit in recalibration(job, chunk, frozen=frozen):
        kinds[visit.module] = {*kinds.get(visit.module, ()), visit.kind}
        seen[visit.module] += range(visit.span.start, visit.span.stop)
        assert (visit.span.shuffled, visit.span.augmented) == (False, False)
    assert kinds == {k: {"forward" if k < frozen else "recalibrate"} for k in range(job.num_modules)}
    assert seen == {module: list(range(job.batches_per_epoch)) for module in range(job.num_modules)}


@pytest.mark.parametrize(("prefix", "first"), [("forward", "forward"), ("ascend", "recalibrate")])
def test_a_frozen_prefix_whose_statistics_move_is_recalibrated(prefix, first):
    job = JobSize(num_modules=2, num_samples=8, batch_size=4, augmented=True)
    schedule = Schedule(
        regime="parallel", epochs=(1, 1), cached=False, prefix=prefix, frozen=1, recalibrates=True, chunk=2
    )
    kinds = [visit.kind for visit in schedule.visits(job)]
    assert kinds == [prefix, "train", first, "recalibrate"]


@given(frozen_jobs(), LENGTHS, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=150)
def test_sequential_and_multi_lap_train_what_is_not_frozen(drawn, lengths, views, laps):
    job, frozen = drawn
    epochs = tuple(lengths[: job.num_modules])
    machine = Machine(job)
    states = machine.run(sequential(job, epochs, views, laps, frozen=frozen))
    assert states == plain_sequential(job, epochs, views, laps, frozen)
    assert_each_step_once(machine, [0] * frozen + [laps * number for number in epochs[frozen:]])


@given(frozen_jobs(), LENGTHS, st.integers(1, 9), st.integers(1, 3), st.booleans())
@settings(max_examples=100)
def test_streamed_sequential_passes_the_frozen_first(drawn, lengths, chunk, laps, moving):
    job, frozen = drawn
    epochs = tuple(lengths[: job.num_modules])
    machine = Machine(job, moving=moving)
    prefix = "ascend" if moving else "forward"
    states = machine.run(streamed_sequential(job, epochs, chunk, laps, prefix, frozen=frozen))
    assert states == plain_streamed(job, epochs, laps, moving=moving, frozen=frozen)
    assert_each_step_once(machine, [0] * frozen + [laps * number for number in epochs[frozen:]])


@given(frozen_jobs(), LENGTHS, st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=100)
def test_what_is_frozen_is_passed_once_for_all(drawn, lengths, views, laps, in_parallel):
    """Every sample once a copy, however many epochs and laps; nothing is rebuilt."""
    job, frozen = drawn
    machine, epochs = Machine(job), tuple(lengths[: job.num_modules])
    if in_parallel:
        machine.run(parallel(job, lengths[0], 2, frozen=frozen, views=views))
    else:
        machine.run(sequential(job, epochs, views, laps, frozen=frozen))
    counts = Counter(passed for passed in machine.forwards if passed[0] < frozen)
    copies = views if job.augmented else 1
    assert counts == {(module, n): copies for module in range(frozen) for n in range(job.num_samples)}


@given(frozen_jobs(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=50)
def test_without_augmentation_what_is_frozen_may_be_cached(drawn, epochs, chunk, views):
    job, frozen = replace(drawn[0], augmented=False), drawn[1]
    cached = Machine(job).run(parallel(job, epochs, chunk, frozen=frozen, views=views))
    assert cached == Machine(job).run(parallel(job, epochs, chunk, frozen=frozen))


def test_a_schedule_freezes_what_it_says():
    job = JobSize(num_modules=3, num_samples=12, batch_size=4, augmented=True)
    for regime in REGIMES:
        for cached in (True, False):
            schedule = Schedule(regime=regime, epochs=(2, 2, 2), frozen=2, views=2, cached=cached)
            assert [schedule.epochs_of(module) for module in range(3)] == [0, 0, 2]
            if regime != "end-to-end":
                machine = Machine(job)
                machine.run(schedule.visits(job))
                assert_each_step_once(machine, [0, 0, 2])
                assert len(machine.forwards) == 2 * 2 * 12  # modules, copies or epochs, samples
