"""The plan fits, is the fastest that does, is exact where it can be; a refusal names the budget that would do."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_trgl.runtime.demand import FORWARD, Demand, Form, Measurement, ModuleRow, work_key
from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.layouts import DISK_CHUNK, MEMORY_CHUNK
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.plan import Plan
from edge_trgl.runtime.planner import Begun, choose, lower, smallest

PLENTY = 1e6
LEVELS = {"none": 0.0, "some": 0.5, "all": 1.0}


def row(state=4, step=20, recomputed=12, forward=6, reads=0, writes=0, kind="k"):
    """A module; state, step, recomputed step and forward in MiB, reads and writes in KiB of a sample."""
    works = {"none": step * MIB, "some": 19 * step * MIB // 20, "all": recomputed * MIB, FORWARD: forward * MIB}
    return ModuleRow(
        kind=f"{kind}{state}-{step}-{recomputed}-{forward}",
        weights=state * MIB // 2,
        momentum=state * MIB - state * MIB // 2,
        opening=0,
        gradients=0,
        works=works,
        reads=reads * 1024,
        writes=writes * 1024,
    )


# Module 1 reads 64 KiB and writes 32 KiB of a sample: 0.5 and 0.25 MiB of a batch of 8.
ROWS = (
    row(state=1, step=1, recomputed=1, forward=1),
    row(state=4, step=20, recomputed=12, forward=6, reads=64, writes=32),
    row(state=2, step=1, recomputed=1, forward=1),
)


def demand_of(rows=ROWS, *, order="stream", parts=(), batch_size=8, **changes):
    """A job of `rows`; `parts`: micro-batches and the rows that go with them."""
    exact = Form(order=order, rows=tuple(rows), size=batch_size)
    lossy = tuple(Form(order=order, rows=tuple(r), size=size, lossy=("micro-batch",)) for size, r in parts)
    fields = {
        "forms": (exact, *lossy),
        "levels": LEVELS,
        "batch_size": batch_size,
        "batches_per_epoch": 100,
        "num_samples": 800,
        "fixed_mb": 100.0,
        "others_mb": 10.0,
        "workspace": 0.0,
        "held_bytes": 0,
        "epochs": (1,) * len(rows),
        "copies": 2,
    }
    return Demand(**{**fields, **changes})


def make_plan(demand, budget_mb):
    return choose(demand, budget_mb, {}, probing=False)


def smallest_budget(demand):
    """The budget, in MiB, that the refusal of nearly nothing names."""
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(demand, 0.5)
    return int(re.search(r"smallest budget that would do is (\d+) MiB", caught.value.message)[1])


def shrunk(mb):
    """`ROWS` with every work of so many MiB."""
    return tuple(dataclasses.replace(one, works=dict.fromkeys(one.works, mb * MIB)) for one in ROWS)


class TestBytes:
    """Peaks of module 1, added up by hand."""

    def test_a_stream_in_memory_holds_a_chunk_of_input_and_of_output(self):
        plan = make_plan(demand_of(resident=1, chunk=10, prefetch=False), PLENTY)
        assert plan.layout.placement == "memory"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 5 + 2.5

    def test_a_stream_is_never_longer_than_the_data(self):
        plan = make_plan(demand_of(resident=1, chunk=100, prefetch=False, num_samples=80), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 5 + 2.5

    def test_a_stream_on_disk_holds_a_batch(self):
        demand = demand_of(resident=1, chunk=100, prefetch=False)
        assert make_plan(demand, PLENTY).layout.placement == "memory"
        plan = make_plan(demand, 130)
        assert plan.layout.placement == "disk"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5

    def test_a_cache_in_memory_holds_all_copies_of_the_input_and_in_the_forward_pass_of_the_output(self):
        forward = 6 + 0.5 + 100 + 50
        assert forward > 20 + 0.5 + 100
        plan = make_plan(demand_of(order="cache", prefetch=False), PLENTY)
        assert plan.layout.placement == "memory"
        assert plan.peaks_mb[1] == 100 + 4 + forward

    def test_a_cache_in_memory_without_an_output_peaks_in_the_step(self):
        rows = (ROWS[0], dataclasses.replace(ROWS[1], writes=0), ROWS[2])
        plan = make_plan(demand_of(rows, order="cache", prefetch=False), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5 + 100

    def test_a_cache_on_disk_holds_a_batch(self):
        plan = make_plan(demand_of(order="cache", prefetch=False), 150)
        assert plan.layout.placement == "disk"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5

    def test_prefetching_holds_the_next_module_too(self):
        plan = make_plan(demand_of(resident=1, chunk=1), PLENTY)
        assert plan.layout.prefetch
        assert plan.resident_bytes[1] == 6 * MIB
        assert plan.peaks_mb[1] == 100 + 6 + 20 + 0.5 + 0.25

    @pytest.mark.parametrize("laps", [1, 2])
    def test_a_cache_reads_ahead_if_there_is_another_lap(self, laps):
        plan = make_plan(demand_of(order="cache", laps=laps), PLENTY)
        assert plan.layout.prefetch == (laps > 1)

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_a_stream_keeps_modules_if_there_is_another_round(self, epochs):
        demand = demand_of(
            (row(reads=1, writes=1),) * 3, batches_per_epoch=8, num_samples=64, epochs=(epochs,) * 3
        )
        plan = make_plan(demand, make_plan(demand, PLENTY).peak_mb - 3.5)
        assert (plan.layout.resident + plan.layout.prefetch > 1) == (epochs > 1)
        assert plan.layout.chunk == 8

    def test_the_largest_modules_are_counted_as_resident(self):
        plan = make_plan(demand_of(resident=2, chunk=1, prefetch=False), PLENTY)
        assert plan.resident_bytes == (5 * MIB, 6 * MIB, 6 * MIB)
        plan = make_plan(demand_of(), PLENTY)
        assert (plan.layout.resident, plan.resident_bytes, plan.layout.prefetch) == (3, (7 * MIB,) * 3, False)

    def test_recomputing_has_a_smaller_step(self):
        plan = make_plan(demand_of(resident=1, chunk=1, prefetch=False), 120)
        assert plan.layout.recompute == "all"
        assert plan.peaks_mb[1] == 100 + 4 + 12 + 0.5 + 0.25

    def test_kernels_take_a_share_of_the_step(self):
        plan = make_plan(demand_of(resident=1, chunk=1, prefetch=False, workspace=0.5), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 30 + 0.5 + 0.25

    def test_they_take_it_of_a_forward_pass_too(self):
        plan = make_plan(demand_of(order="cache", prefetch=False, workspace=0.5), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 9 + 0.5 + 100 + 50

    def test_a_module_may_peak_while_it_is_made(self):
        rows = (ROWS[0], dataclasses.replace(ROWS[1], opening=50 * MIB), ROWS[2])
        plan = make_plan(demand_of(rows), PLENTY)
        assert plan.peaks_mb[1] == 100 + 50  # no other module is in memory then
        assert plan.peaks_mb[0] == make_plan(demand_of(), PLENTY).peaks_mb[0]

    def test_the_peak_is_that_of_the_heaviest_module(self):
        plan = make_plan(demand_of(), PLENTY)
        assert plan.peak_mb == plan.peaks_mb[1] == max(plan.peaks_mb)
        assert plan.fixed_mb == 100

    @pytest.mark.parametrize("order", ["stream", "cache"])
    def test_the_images_of_the_first_module_are_no_boundary(self, order):
        rows = (row(state=4, step=20, recomputed=12, forward=6, reads=64, writes=32), ROWS[2])
        plan = make_plan(demand_of(rows, order=order, resident=1, chunk=10, prefetch=False), PLENTY)
        assert plan.layout.placement == "memory"
        held = 2.5 if order == "stream" else 0  # nothing is written in training
        forward = 6 + 0.5 + (2.5 if order == "stream" else 50)
        assert plan.peaks_mb[0] == 100 + 4 + max(20 + 0.5 + held, forward)


class TestChoice:
    def test_with_plenty_nothing_is_moved(self):
        plan = make_plan(demand_of(), PLENTY)
        assert (plan.layout.resident, plan.layout.chunk) == (3, 1)
        assert (plan.layout.placement, plan.layout.recompute) == ("memory", "none")
        assert plan.seconds == 0
        assert plan.lossy == ()

    def test_fewer_modules_stay_before_anything_is_recomputed(self):
        demand = demand_of((row(reads=1, writes=1),) * 3, prefetch=False, epochs=(2,) * 3)
        plan = make_plan(demand, make_plan(demand, PLENTY).peak_mb - 0.5)
        assert (plan.layout.resident, plan.layout.recompute) == (2, "none")
        assert plan.layout.chunk > 1

    def test_chunks_in_memory_are_no_longer_than_they_must_be(self):
        plan = make_plan(demand_of((row(reads=64, writes=64),) * 3, resident=1), PLENTY)
        assert (plan.layout.placement, plan.layout.chunk) == ("memory", MEMORY_CHUNK)

    def test_the_faster_of_two_ways_is_taken(self):
        # 8 MiB of input and of output: recomputing frees as much as the disk, and moves nothing.
        demand = demand_of((row(reads=1024, writes=1024),) * 2, resident=1, chunk=1, prefetch=False)
        plan = make_plan(demand, 100 + 4 + 20 + 8 + 1)
        assert (plan.layout.placement, plan.layout.recompute) == ("memory", "all")
        few_bytes = dataclasses.replace(demand, num_samples=8)
        plan = make_plan(few_bytes, 100 + 4 + 20 + 8 + 1)
        assert (plan.layout.placement, plan.layout.recompute) == ("disk", "none")

    def test_recomputing_makes_room_where_nothing_else_does(self):
        assert make_plan(demand_of(), 100 + 4 + 12 + 2).layout.recompute == "all"
        assert make_plan(demand_of(), 100 + 4 + 20 + 2).layout.recompute == "none"

    def test_chunks_on_disk_may_be_longer_but_no_longer_than_an_epoch(self):
        # In memory one batch of input and output is 40 MiB.
        heavy = (ROWS[0], row(state=40, reads=4096, writes=1024), row(state=40))
        for num_batches in (100, 1000):
            demand = demand_of(heavy, batches_per_epoch=num_batches, num_samples=8 * num_batches)
            plan = make_plan(demand, 100 + 40 + 20 + 32 + 1)
            assert plan.layout.placement == "disk"
            assert plan.layout.chunk == min(num_batches, DISK_CHUNK)

    def test_trained_one_after_the_other_one_module_stays(self):
        assert make_plan(demand_of(order="cache"), PLENTY).layout.resident == 1

    def test_micro_batches_come_last_and_only_if_allowed(self):
        parts = ((4, shrunk(1)),)
        allowed = demand_of(parts=parts, allowed=("micro-batch",))
        exact = smallest_budget(demand_of())
        assert make_plan(allowed, exact).lossy == ()
        plan = make_plan(allowed, exact - 2)
        assert (plan.micro_batch, plan.lossy) == (4, ("micro-batch",))
        with pytest.raises(DoesNotFitError):
            make_plan(demand_of(parts=parts), exact - 2)

    def test_the_largest_micro_batch_that_fits_is_taken(self):
        demand = demand_of(parts=((4, shrunk(6)), (2, shrunk(3)), (1, shrunk(1))), allowed=("micro-batch",))
        assert make_plan(demand, 100 + 4 + 3 + 1).micro_batch == 2


class TestRefusal:
    def test_it_names_the_budget_that_would_do_the_module_in_the_way_and_its_parts(self):
        with pytest.raises(DoesNotFitError) as caught:
            make_plan(demand_of(), 110)
        # 100 fixed, 4 of the module, 12 of the recomputed step, 0.5 of the batch, on disk.
        assert caught.value.message == (
            "this does not fit 110 MiB: the smallest budget that would do is 117 MiB, 100 of it before any "
            "module; module 1 is in the way, with 2.0 MiB of weights, 2.0 of momentum, 12.0 for a step and 0.5 of "
            "boundaries"
        )
        assert caught.value.hint == "Give --budget-mb 117."
        assert caught.value.exit_code == 3

    def test_a_module_that_is_in_the_way_while_it_is_made(self):
        rows = (ROWS[0], dataclasses.replace(ROWS[1], opening=50 * MIB), ROWS[2])
        with pytest.raises(DoesNotFitError, match=r"20\.0 for a step and .*; making it takes 50\.0"):
            make_plan(demand_of(rows, resident=1, chunk=100, prefetch=False), 110)

    def test_each_change_that_would_make_it_fit_comes_with_its_peak(self):
        with pytest.raises(DoesNotFitError) as caught:
            make_plan(demand_of(parts=((4, shrunk(1)),), without=("disk",)), 1)
        # 100 fixed, 4 of the module, 1 of the step; of boundaries a batch of 4 or of 8, read and written.
        assert caught.value.hint == (
            "Give --budget-mb 117; or --batch-size 4 (peak 106 MiB); "
            "or --allow micro-batch (in parts of 4: peak 106 MiB; changes results); or leave out --without disk."
        )

    def test_what_is_allowed_already_is_not_proposed(self):
        with pytest.raises(DoesNotFitError) as caught:
            make_plan(demand_of(parts=((4, shrunk(1)),), allowed=("micro-batch",)), 1)
        assert "--allow" not in caught.value.hint

    def test_more_modules_than_there_are_cannot_stay(self):
        with pytest.raises(UsageError, match=r"--resident 4: the net has 3 modules"):
            make_plan(demand_of(resident=4), PLENTY)


def test_a_demand_and_a_plan_survive_json():
    demand = demand_of(parts=((4, shrunk(1)),), allowed=("micro-batch",), endurance_tb=20.0)
    assert Demand.from_document(json.loads(json.dumps(demand.document()))) == demand
    plan = make_plan(demand, PLENTY)
    document = plan.document()
    assert document["peak_mb"] == plan.peak_mb
    assert Plan.from_document(json.loads(json.dumps(document))) == plan


class TestWithout:
    """What is switched off is not used, whatever it costs."""

    @pytest.mark.parametrize(
        ("saving", "used"),
        [
            ("paging", lambda layout: layout.resident < 3),
            ("disk", lambda layout: layout.placement == "disk"),
            ("recompute", lambda layout: layout.recompute != "none"),
        ],
    )
    def test_a_saving_that_is_switched_off_is_not_used(self, saving, used):
        assert used(smallest(demand_of(), {}, probing=False).layout)
        assert not used(smallest(demand_of(without=(saving,)), {}, probing=False).layout)


def measured_at(demand, *, work_mb, fixed_mb, works=(*LEVELS, FORWARD), seconds=1.0):
    """Every one of `works` of every kind, measured alike."""
    one = Measurement(opening_mb=0, work_mb=work_mb, fixed_mb=fixed_mb, seconds=seconds)
    return {
        work_key(row.kind, work, form.size): one for form in demand.forms for row in form.rows for work in works
    }


class TestProbing:
    def test_a_plan_that_rests_on_estimates_waits_for_measurements_of_each_kind(self):
        twins = (ROWS[0], ROWS[1], ROWS[1])
        found = choose(demand_of(twins), PLENTY, {}, probing=True)
        assert [(one.module, one.work, one.size) for one in found] == [
            (1, "none", 8),
            (1, FORWARD, 8),
            (0, "none", 8),
            (0, FORWARD, 8),
        ]
        assert [one.key for one in found[:2]] == [work_key(ROWS[1].kind, work, 8) for work in ("none", FORWARD)]

    def test_with_them_the_plan_is_what_was_measured(self):
        demand = demand_of(resident=1, chunk=1, prefetch=False, held_bytes=MIB)
        plan = choose(demand, PLENTY, measured_at(demand, work_mb=30, fixed_mb=80), probing=True)
        # 80 fixed, 10 of other processes, 1 of the data, 4 of the module, 30 of the step, a batch in and out.
        assert plan.peaks_mb[1] == 80 + 10 + 1 + 4 + 30 + 0.5 + 0.25
        assert plan.probed

    def test_without_probing_estimates_do(self):
        plan = choose(demand_of(), PLENTY, {}, probing=False)
        assert not plan.probed

    def test_a_step_that_turns_out_larger_moves_the_plan_on(self):
        demand = demand_of(resident=1, chunk=1, prefetch=False)
        measured = measured_at(demand, work_mb=50, fixed_mb=90, works=("none",))
        found = choose(demand, 130, measured, probing=True)
        assert {one.work for one in found} == {"some", FORWARD}

    def test_what_was_refused_is_not_taken(self):
        demand = demand_of(resident=1, chunk=1, prefetch=False)
        refused = {
            work_key(ROWS[1].kind, "none", 8): Measurement(
                opening_mb=0, work_mb=0, fixed_mb=0, seconds=0, refused=True
            )
        }
        found = choose(demand, PLENTY, {**measured_at(demand, work_mb=1, fixed_mb=90), **refused}, probing=True)
        assert found.layout.recompute == "some"

    def test_a_refusal_rests_on_measurements(self):
        demand = demand_of()
        assert isinstance(choose(demand, 50, {}, probing=True), list)
        with pytest.raises(DoesNotFitError, match=r"would do is 16\d MiB"):
            choose(demand, 50, measured_at(demand, work_mb=50, fixed_mb=100), probing=True)

    def test_where_all_was_refused_the_refusal_rests_on_estimates(self):
        demand = demand_of()
        works = measured_at(demand, work_mb=0, fixed_mb=0)
        refused = {key: dataclasses.replace(found, refused=True) for key, found in works.items()}
        with pytest.raises(DoesNotFitError, match=r"would do is 117 MiB"):
            choose(demand, 50, refused, probing=True)

    def test_nothing_is_measured_where_planning_took_more_than_the_budget(self):
        with pytest.raises(DoesNotFitError, match=r"need 260 MiB"):
            choose(demand_of(floor_mb=260.0), 250, {}, probing=True)

    def test_the_smallest_is_measured_too(self):
        demand = demand_of()
        assert isinstance(smallest(demand, {}, probing=True), list)
        plan = smallest(demand, measured_at(demand, work_mb=50, fixed_mb=100), probing=True)
        assert plan.probed
        with pytest.raises(DoesNotFitError):
            choose(demand, plan.peak_mb - 1, measured_at(demand, work_mb=50, fixed_mb=100), probing=True)


class TestLower:
    def test_a_step_down_takes_less_and_computes_the_same(self):
        demand = demand_of(parts=((4, shrunk(1)),), allowed=("micro-batch",), chunk=4)
        plan = make_plan(demand, PLENTY)
        seen = [plan]
        while (plan := lower(demand, seen[-1], {})) is not None:
            assert plan.peak_mb < seen[-1].peak_mb
            assert plan.layout.chunk == seen[-1].layout.chunk
            assert plan.lossy == ()
            seen.append(plan)
        assert seen[-1].peak_mb == smallest(dataclasses.replace(demand, allowed=()), {}, probing=False).peak_mb

    def test_the_disk_is_below_a_chunk_in_memory_whatever_lengths_a_new_plan_would_take(self):
        demand = demand_of((row(reads=64, writes=64),) * 3, resident=1, batches_per_epoch=140)
        plan = make_plan(demand, PLENTY)
        assert (plan.layout.placement, plan.layout.chunk) == ("memory", MEMORY_CHUNK)
        below = lower(demand, plan, {})
        assert (below.layout.placement, below.layout.chunk) == ("disk", MEMORY_CHUNK)

    def test_a_step_is_worth_its_name(self):
        demand = demand_of((row(state=1, reads=64, writes=64),) * 50, chunk=4)
        plan = make_plan(demand, PLENTY)
        below = lower(demand, plan, {})
        assert plan.peak_mb - below.peak_mb >= 0.1 * (plan.peak_mb - plan.fixed_mb)


class TestDisk:
    """What the disk has no room for is not planned; a refusal says what it would have to have."""

    HEAVY = (row(state=1, writes=64), row(state=1, reads=64, writes=64), row(state=1, reads=64))

    def demand(self, **changes):
        return demand_of(self.HEAVY, batches_per_epoch=100, epochs=(2,) * 3, stored_bytes=10 * MIB, **changes)

    def test_a_chunk_is_as_long_as_the_disk_has_room_for(self):
        demand = self.demand(resident=1, prefetch=False)
        budget_mb = smallest(demand, {}, probing=False).peak_mb + 0.1
        plenty = choose(demand, budget_mb, {}, probing=False)
        assert (plenty.layout.placement, plenty.layout.chunk) == ("disk", 100)
        tight = choose(demand, budget_mb, {}, probing=False, disk_mb=plenty.disk_mb - 1)
        assert (tight.layout.placement, tight.layout.chunk) == ("disk", 50)
        assert tight.disk_mb <= plenty.disk_mb - 1

    def test_in_memory_commits_wait_where_the_disk_has_no_room_for_a_chunk(self):
        demand = self.demand(resident=1, chunk=10, prefetch=False)
        plenty = choose(demand, PLENTY, {}, probing=False)
        assert plenty.layout.placement == "memory"
        tight = choose(demand, PLENTY, {}, probing=False, disk_mb=plenty.disk_mb - 1)
        assert tight.layout == plenty.layout
        # Two boundaries of 10 batches of 8.
        assert plenty.disk_mb - tight.disk_mb == pytest.approx(2 * 80 * 64 / 1024, rel=0.01)

    def test_the_smallest_peak_is_one_that_the_disk_has_room_for(self):
        demand = self.demand(resident=1, prefetch=False)
        plenty = smallest(demand, {}, probing=False)
        tight = smallest(demand, {}, probing=False, disk_mb=plenty.disk_mb - 1)
        assert tight.peak_mb >= plenty.peak_mb
        assert tight.disk_mb <= plenty.disk_mb - 1

    def test_a_step_down_stays_on_the_disk(self):
        demand = self.demand(resident=1, chunk=100, prefetch=False)
        plan = choose(demand, PLENTY, {}, probing=False)
        assert plan.layout.placement == "memory"
        below = lower(demand, plan, {})
        assert below.layout.placement == "disk"
        kept = lower(demand, plan, {}, disk_mb=below.disk_mb - 1)
        assert kept is None or kept.layout.placement == "memory"

    def test_a_refusal_names_what_would_do_the_largest_boundary_and_what_needs_less(self):
        rows = (row(state=1, writes=64), row(state=1, reads=64, writes=32), row(state=1, reads=32))
        narrow = tuple(dataclasses.replace(one, reads=one.reads // 2, writes=one.writes // 2) for one in rows)
        demand = demand_of(rows, order="cache", stored_bytes=10 * MIB)
        forms = (*demand.forms, Form(order="cache", rows=narrow, size=8, lossy=("fp16-boundaries",)))
        demand = dataclasses.replace(demand, forms=forms)
        with pytest.raises(DoesNotFitError) as caught:
            choose(demand, PLENTY, {}, probing=False, disk_mb=50)
        # 2 copies of 800 samples of 64 and of 32 KiB, and their index.
        assert caught.value.message == (
            "this does not fit 50 MiB of the disk: the least that would do is 165 MiB, 10.0 of it there already "
            "(the prepared data), 4.1 for files of modules and 150.1 for boundaries; the largest is that into "
            "module 1, with 100.0 MiB"
        )
        assert caught.value.hint == (
            "Free 115 MiB, or give --disk-mb 165 where they are free; or --views 1 (needs 90 MiB); or "
            "--allow fp16-boundaries, which changes results (needs 90 MiB); or --cache none, which "
            "passes the frozen modules anew in every epoch (needs 17 MiB)."
        )
        assert caught.value.exit_code == 3

    def test_what_is_asked_for_may_be_in_the_way(self):
        with pytest.raises(DoesNotFitError, match="does not fit 15 MiB of the disk") as caught:
            choose(self.demand(chunk=100, without=("paging",)), 130, {}, probing=False, disk_mb=15)
        assert "a shorter --chunk (needs " in caught.value.hint


class TestBegun:
    """A run that has begun goes on with other chunks only where it can, and with other boundaries where it may."""

    def test_its_chunk_may_become_one_of_those_that_are_named(self):
        demand = demand_of(TestDisk.HEAVY, resident=1, prefetch=False, epochs=(2,) * 3)
        budget_mb = smallest(demand, {}, probing=False).peak_mb + 0.1
        plan = choose(demand, budget_mb, {}, probing=False)
        less_mb = plan.disk_mb - 1
        assert plan.layout.chunk == 100
        with pytest.raises(DoesNotFitError):
            choose(demand, budget_mb, {}, probing=False, disk_mb=less_mb, begun=Begun(plan=plan, chunks=(100,)))
        found = choose(
            demand, budget_mb, {}, probing=False, disk_mb=less_mb, begun=Begun(plan=plan, chunks=(100, 25, 5))
        )
        assert found.layout.chunk == 25

    @pytest.mark.parametrize("allowed", [(), ("fp16-boundaries",)])
    def test_its_boundaries_become_narrower_only_where_that_is_allowed(self, allowed):
        rows = (row(state=1, writes=64), row(state=1, reads=64))
        narrow = tuple(dataclasses.replace(one, reads=one.reads // 2, writes=one.writes // 2) for one in rows)
        demand = demand_of(rows, order="cache", allowed=allowed)
        forms = (*demand.forms, Form(order="cache", rows=narrow, size=8, lossy=("fp16-boundaries",)))
        demand = dataclasses.replace(demand, forms=forms)
        plan = choose(demand, PLENTY, {}, probing=False)
        assert plan.lossy == ()
        begun, less_mb = Begun(plan=plan, chunks=(1,)), plan.disk_mb - 1
        if allowed:
            found = choose(demand, PLENTY, {}, probing=False, disk_mb=less_mb, begun=begun)
            assert found.lossy == allowed
            # What is there already stays as wide as it is.
            wide = dataclasses.replace(begun, live_bytes=8 * MIB)
            beside = choose(demand, PLENTY, {}, probing=False, disk_mb=less_mb, begun=wide)
            assert beside.disk_mb - found.disk_mb == pytest.approx(4)
        else:
            with pytest.raises(DoesNotFitError):
                choose(demand, PLENTY, {}, probing=False, disk_mb=less_mb, begun=begun)


class TestRounds:
    """Every batch goes up through all modules and its gradient down again."""

    def test_in_memory_the_inputs_of_all_modules_are_kept(self):
        rows = (row(writes=64), row(reads=64, writes=32), row(reads=32))
        plan = make_plan(demand_of(rows, order="rounds", resident=1, prefetch=False), PLENTY)
        assert plan.layout.placement == "memory"
        # The boundaries of 64 and 32 KiB, and the gradients that come in and go out.
        assert plan.peaks_mb[1] == 100 + 4 + 20 + (64 + 32 + 64 + 32) * 8 / 1024

    def test_on_disk_a_batch_and_its_gradient_are_held(self):
        rows = (row(writes=64), row(reads=64, writes=32), row(reads=32))
        plan = smallest(demand_of(rows, order="rounds", prefetch=False), {}, probing=False)
        assert plan.layout.placement == "disk"
        assert plan.peaks_mb[1] == 100 + 4 + 12 + (64 + 32) * 8 / 1024


@st.composite
def module_rows(draw):
    step = draw(st.integers(0, 64 * MIB))
    some = draw(st.integers(0, step))
    state = draw(st.integers(2, 32 * MIB))
    return ModuleRow(
        kind=draw(st.text("abc", min_size=1, max_size=3)),
        weights=state // 2,
        momentum=state // 2,
        opening=0,
        gradients=0,
        works={"none": step, "some": some, "all": draw(st.integers(0, some)), FORWARD: draw(st.integers(0, step))},
        reads=draw(st.integers(0, 1 << 18)),
        writes=draw(st.integers(0, 1 << 18)),
    )


@st.composite
def demands(draw):
    rows = tuple(draw(st.lists(module_rows(), min_size=1, max_size=5)))
    batch_size = draw(st.integers(1, 64))
    num_batches = draw(st.integers(1, 400))
    parts = [
        (batch_size // part, tuple(_divided(one, part) for one in rows))
        for part in (2, 4)[: draw(st.integers(0, 2))]
        if batch_size >= part
    ]
    return demand_of(
        rows,
        order=draw(st.sampled_from(["stream", "cache", "rounds"])),
        parts=parts,
        batch_size=batch_size,
        batches_per_epoch=num_batches,
        num_samples=batch_size * num_batches,
        fixed_mb=draw(st.floats(1, 300)),
        workspace=draw(st.floats(0, 0.5)),
        copies=draw(st.integers(1, 3)),
        chunk=draw(st.none() | st.integers(1, 500)),
        resident=draw(st.none() | st.integers(1, len(rows))),
        prefetch=draw(st.booleans()),
        allowed=("micro-batch",),
    )


def _divided(one, part):
    return dataclasses.replace(one, works={name: size // part for name, size in one.works.items()})


def exact_only(demand):
    return dataclasses.replace(demand, allowed=())


def fits(demand, budget_mb):
    try:
        make_plan(demand, budget_mb)
    except DoesNotFitError:
        return False
    return True


class TestAnyDemand:
    @settings(max_examples=100, deadline=None)
    @given(demands())
    def test_the_named_budget_is_the_smallest(self, demand):
        budget_mb = smallest_budget(demand)
        assert make_plan(demand, budget_mb).peak_mb <= budget_mb
        assert not fits(demand, budget_mb - 1.01)

    @settings(max_examples=100, deadline=None)
    @given(demands(), st.floats(0, 500))
    def test_the_plan_fits_and_obeys(self, demand, spare_mb):
        budget_mb = smallest_budget(demand) + spare_mb
        plan = make_plan(demand, budget_mb)
        assert plan.peak_mb <= budget_mb
        assert plan.layout.resident == (demand.resident or plan.layout.resident) <= len(plan.peaks_mb)
        assert plan.layout.chunk <= demand.batches_per_epoch
        if demand.chunk is not None and demand.forms[0].order == "stream":
            assert plan.layout.chunk == min(demand.chunk, demand.batches_per_epoch)
        assert not plan.layout.prefetch or demand.prefetch

    @settings(max_examples=100, deadline=None)
    @given(demands(), st.floats(0, 100))
    def test_a_lossy_plan_is_taken_only_where_no_exact_one_fits(self, demand, spare_mb):
        assume(len(demand.forms) > 1)
        budget_mb = smallest_budget(demand) + spare_mb
        is_lossy = bool(make_plan(demand, budget_mb).lossy)
        assert is_lossy == (not fits(exact_only(demand), budget_mb))

    @settings(max_examples=100, deadline=None)
    @given(demands(), st.floats(0, 300), st.floats(0, 300))
    def test_a_larger_budget_gives_no_slower_plan(self, demand, spare_mb, more_mb):
        demand = exact_only(demand)
        budget_mb = smallest_budget(demand) + spare_mb
        assert make_plan(demand, budget_mb + more_mb).seconds <= make_plan(demand, budget_mb).seconds

    @settings(max_examples=100, deadline=None)
    @given(demands(), st.floats(0, 300), st.floats(0, 300))
    def test_the_named_disk_is_the_smallest_and_the_plan_stays_on_it(self, demand, spare_mb, more_mb):
        budget_mb = smallest_budget(demand) + spare_mb
        with pytest.raises(DoesNotFitError) as caught:
            choose(demand, budget_mb, {}, probing=False, disk_mb=0)
        least_mb = int(re.search(r"the least that would do is (\d+) MiB", caught.value.message)[1])
        for disk_mb in (least_mb, least_mb + more_mb):
            found = choose(demand, budget_mb, {}, probing=False, disk_mb=disk_mb)
            assert (found.disk_mb <= disk_mb, found.peak_mb <= budget_mb) == (True, True)
        with pytest.raises(DoesNotFitError, match="MiB of the disk"):
            choose(demand, budget_mb, {}, probing=False, disk_mb=least_mb - 1.01)


class TestFrozen:
    """Module 0 writes 64 KiB of a sample, module 1 reads that and writes 32: 800 samples in two copies."""

    ROWS = (row(1, 1, 1, 1, writes=64), row(4, 20, 12, 6, reads=64, writes=32), row(2, 1, 1, 1, reads=32))
    KEPT_MB = 2 * 800 * 64 / 1024

    def demand(self, **changes):
        return demand_of(self.ROWS, **{"frozen": 1, "kept": True, "epochs": (0, 1, 1), "chunk": 1, **changes})

    def test_what_leaves_them_is_in_memory_all_the_time(self):
        found = make_plan(self.demand(), PLENTY)
        assert (found.layout.placement, found.layout.resident) == ("memory", 2)
        # Before any module, the work, boundaries, modules in memory: the two that training comes back to.
        assert found.peaks_mb == pytest.approx(
            (
                100 + 1 + self.KEPT_MB + 5,
                100 + 20 + 0.5 + self.KEPT_MB + 0.25 + 6,
                100 + 1 + 0.25 + self.KEPT_MB + 6,
            )
        )

    @pytest.mark.parametrize(("prefetch", "batches"), [(True, 2), (False, 1)])
    def test_or_on_disk_where_a_second_batch_is_read_ahead(self, prefetch, batches):
        found = make_plan(self.demand(prefetch=prefetch), 140)
        assert (found.layout.placement, found.layout.prefetch) == ("disk", prefetch)
        expected = (100 + 1 + 5, 100 + 20 + 0.5 * batches + 6, 100 + 1 + 0.25 * batches + 6)
        assert found.peaks_mb == pytest.approx(expected)

    @pytest.mark.parametrize(("laps", "kept_mb"), [(1, 0), (2, KEPT_MB)])
    def test_in_laps_it_stays(self, laps, kept_mb):
        found = make_plan(self.demand(order="cache", laps=laps, chunk=None, prefetch=False), PLENTY)
        written_mb = 2 * 800 * 32 / 1024
        assert found.peaks_mb == pytest.approx(
            (
                100 + 1 + self.KEPT_MB + 1,
                100 + 6 + 0.5 + self.KEPT_MB + written_mb + 4,
                100 + 1 + 0.25 + written_mb + kept_mb + 2,
            )
        )

    def test_without_a_cache_they_are_in_every_round(self):
        found = make_plan(self.demand(kept=False), PLENTY)
        assert (found.layout.placement, found.layout.resident) == ("memory", 3)
        assert found.peaks_mb == pytest.approx((100 + 1 + 0.5 + 7, 100 + 20 + 0.75 + 7, 100 + 1 + 0.25 + 7))

    @pytest.mark.parametrize("kept", [True, False])
    def test_their_steps_are_not_measured(self, kept):
        wanted = choose(self.demand(kept=kept), PLENTY, {}, probing=True)
        assert {(one.module, one.work) for one in wanted if one.module == 0} == {(0, FORWARD)}
        assert {one.work for one in wanted if one.module == 1} == {"none", FORWARD}
