"""The plan fits, is the fastest that does, is exact where it can be; a refusal names the budget that would do."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.planner import DISK_CHUNK, MEMORY_CHUNK, Demand, ModuleRow, Plan, make_plan

PLENTY = 1e6


def row(state=4, step=20, recomputed=12, forward=6, reads=0, writes=0):
    """A module; state, step, recomputed step and forward in MiB, reads and writes in KiB of a sample."""
    return ModuleRow(
        state=state * MIB,
        step=step * MIB,
        recomputed_step=recomputed * MIB,
        forward=forward * MIB,
        reads=reads * 1024,
        writes=writes * 1024,
    )


# Module 1 reads 64 KiB and writes 32 KiB of a sample: 0.5 and 0.25 MiB of a batch of 8.
ROWS = (
    row(state=1, step=1, recomputed=1, forward=1),
    row(state=4, step=20, recomputed=12, forward=6, reads=64, writes=32),
    row(state=2, step=1, recomputed=1, forward=1),
)


def demand_of(rows=ROWS, **changes):
    fields = {
        "rows": rows,
        "batch_size": 8,
        "batches_per_epoch": 100,
        "num_samples": 800,
        "fixed_mb": 100.0,
        "workspace": 0.0,
        "streams": True,
        "cached_samples": 1600,
    }
    return Demand(**{**fields, **changes})


def smallest_budget(demand):
    """The budget, in MiB, that the refusal of nearly nothing names."""
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(demand, 0.5)
    return int(re.search(r"smallest budget that would do is (\d+) MiB", caught.value.message)[1])


class TestBytes:
    """Peaks of module 1, added up by hand."""

    def test_a_stream_in_memory_holds_a_chunk_of_input_and_of_output(self):
        plan = make_plan(demand_of(resident=1, chunk=10, prefetch=False), PLENTY)
        assert plan.placement == "memory"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 5 + 2.5

    def test_a_stream_is_never_longer_than_the_data(self):
        plan = make_plan(demand_of(resident=1, chunk=100, prefetch=False, num_samples=80), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 5 + 2.5

    def test_a_stream_on_disk_holds_a_batch(self):
        demand = demand_of(resident=1, chunk=100, prefetch=False)
        assert make_plan(demand, PLENTY).placement == "memory"
        plan = make_plan(demand, 130)
        assert plan.placement == "disk"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5

    def test_a_cache_in_memory_holds_all_copies_of_the_input_and_in_the_forward_pass_of_the_output(self):
        forward = 6 + 0.5 + 100 + 50
        assert forward > 20 + 0.5 + 100
        plan = make_plan(demand_of(streams=False, prefetch=False), PLENTY)
        assert plan.placement == "memory"
        assert plan.peaks_mb[1] == 100 + 4 + forward

    def test_a_cache_in_memory_without_an_output_peaks_in_the_step(self):
        rows = (ROWS[0], dataclasses.replace(ROWS[1], writes=0), ROWS[2])
        plan = make_plan(demand_of(rows, streams=False, prefetch=False), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5 + 100

    def test_a_cache_on_disk_holds_a_batch(self):
        plan = make_plan(demand_of(streams=False, prefetch=False), 150)
        assert plan.placement == "disk"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5

    def test_prefetching_holds_the_next_module_too(self):
        plan = make_plan(demand_of(resident=1, chunk=1), PLENTY)
        assert plan.prefetch
        assert plan.resident_bytes == 6 * MIB
        assert plan.peaks_mb[1] == 100 + 6 + 20 + 0.5 + 0.25

    def test_the_largest_modules_are_counted_as_resident(self):
        plan = make_plan(demand_of(resident=2, chunk=1, prefetch=False), PLENTY)
        assert plan.resident_bytes == 6 * MIB
        plan = make_plan(demand_of(), PLENTY)
        assert (plan.resident, plan.resident_bytes, plan.prefetch) == (3, 7 * MIB, False)

    def test_recomputing_has_a_smaller_step(self):
        plan = make_plan(demand_of(resident=1, chunk=1, prefetch=False), 120)
        assert plan.recompute
        assert plan.peaks_mb[1] == 100 + 4 + 12 + 0.5 + 0.25

    def test_kernels_take_a_share_of_the_step(self):
        plan = make_plan(demand_of(resident=1, chunk=1, prefetch=False, workspace=0.5), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 30 + 0.5 + 0.25

    def test_they_take_it_of_a_forward_pass_too(self):
        plan = make_plan(demand_of(streams=False, prefetch=False, workspace=0.5), PLENTY)
        assert plan.peaks_mb[1] == 100 + 4 + 9 + 0.5 + 100 + 50

    def test_the_peak_is_that_of_the_heaviest_module(self):
        plan = make_plan(demand_of(), PLENTY)
        assert plan.peak_mb == plan.peaks_mb[1] == max(plan.peaks_mb)
        assert plan.fixed_mb == 100

    @pytest.mark.parametrize("streams", [True, False])
    def test_the_images_of_the_first_module_are_no_boundary(self, streams):
        rows = (row(state=4, step=20, recomputed=12, forward=6, reads=64, writes=32), ROWS[2])
        plan = make_plan(demand_of(rows, streams=streams, resident=1, chunk=10, prefetch=False), PLENTY)
        assert plan.placement == "memory"
        held = 2.5 if streams else 0  # nothing is written in training
        forward = 6 + 0.5 + (2.5 if streams else 50)
        assert plan.peaks_mb[0] == 100 + 4 + max(20 + 0.5 + held, forward)


class TestChoice:
    def test_with_plenty_nothing_is_moved(self):
        plan = make_plan(demand_of(), PLENTY)
        assert (plan.resident, plan.chunk, plan.placement, plan.recompute) == (3, 1, "memory", False)
        assert plan.seconds == 0
        assert plan.lossy == ()

    def test_fewer_modules_stay_before_anything_is_recomputed(self):
        demand = demand_of((row(reads=1, writes=1),) * 3, prefetch=False)
        plan = make_plan(demand, make_plan(demand, PLENTY).peak_mb - 0.5)
        assert (plan.resident, plan.recompute) == (2, False)
        assert plan.chunk > 1

    def test_chunks_in_memory_are_no_longer_than_they_must_be(self):
        plan = make_plan(demand_of((row(reads=64, writes=64),) * 3, resident=1), PLENTY)
        assert (plan.placement, plan.chunk) == ("memory", MEMORY_CHUNK)

    def test_the_faster_of_two_ways_is_taken(self):
        # 8 MiB of input and of output: recomputing frees as much as the disk, and moves nothing.
        demand = demand_of((row(reads=1024, writes=1024),) * 2, resident=1, chunk=1, prefetch=False)
        plan = make_plan(demand, 100 + 4 + 20 + 8 + 1)
        assert (plan.placement, plan.recompute) == ("memory", True)
        few_bytes = dataclasses.replace(demand, num_samples=8)
        plan = make_plan(few_bytes, 100 + 4 + 20 + 8 + 1)
        assert (plan.placement, plan.recompute) == ("disk", False)

    def test_recomputing_makes_room_where_nothing_else_does(self):
        assert make_plan(demand_of(), 100 + 4 + 12 + 2).recompute
        assert not make_plan(demand_of(), 100 + 4 + 20 + 2).recompute

    def test_chunks_on_disk_may_be_longer_but_no_longer_than_an_epoch(self):
        # In memory one batch of input and output is 40 MiB.
        heavy = (ROWS[0], row(state=40, reads=4096, writes=1024), row(state=40))
        for num_batches in (100, 1000):
            demand = demand_of(heavy, batches_per_epoch=num_batches, num_samples=8 * num_batches)
            plan = make_plan(demand, 100 + 40 + 20 + 32 + 1)
            assert plan.placement == "disk"
            assert plan.chunk == min(num_batches, DISK_CHUNK)

    def test_trained_one_after_the_other_one_module_stays(self):
        assert make_plan(demand_of(streams=False), PLENTY).resident == 1

    def test_micro_batches_come_last_and_only_if_allowed(self):
        small = tuple(dataclasses.replace(one, step=MIB, recomputed_step=MIB, forward=MIB) for one in ROWS)
        allowed = demand_of(micro_rows=((4, small),))
        exact = smallest_budget(demand_of())
        assert make_plan(allowed, exact).lossy == ()
        plan = make_plan(allowed, exact - 2)
        assert (plan.micro_batch, plan.lossy) == (4, ("micro-batch",))
        with pytest.raises(DoesNotFitError):
            make_plan(demand_of(), exact - 2)

    def test_the_largest_micro_batch_that_fits_is_taken(self):
        def shrunk(mb):
            sizes = {"step": mb * MIB, "recomputed_step": mb * MIB, "forward": mb * MIB}
            return tuple(dataclasses.replace(one, **sizes) for one in ROWS)

        demand = demand_of(micro_rows=((4, shrunk(6)), (2, shrunk(3)), (1, shrunk(1))))
        assert make_plan(demand, 100 + 4 + 3 + 1).micro_batch == 2


class TestRefusal:
    def test_it_names_the_budget_that_would_do_and_the_module_in_the_way(self):
        with pytest.raises(DoesNotFitError) as caught:
            make_plan(demand_of(), 110)
        # 100 fixed, 4 of the module, 12 of the recomputed step, 0.5 of the batch, on disk.
        assert caught.value.message == (
            "this does not fit 110 MiB: the smallest budget that would do is 117 MiB, "
            "100 of it before any module; module 1 is in the way"
        )
        assert "--budget-mb 117" in caught.value.hint
        assert "--allow micro-batch" in caught.value.hint
        assert caught.value.exit_code == 3

    def test_what_is_allowed_already_is_not_proposed(self):
        small = tuple(dataclasses.replace(one, step=MIB, recomputed_step=MIB, forward=MIB) for one in ROWS)
        with pytest.raises(DoesNotFitError) as caught:
            make_plan(demand_of(micro_rows=((4, small),)), 1)
        assert "--allow" not in caught.value.hint

    def test_more_modules_than_there_are_cannot_stay(self):
        with pytest.raises(UsageError, match=r"--resident 4: the net has 3 modules"):
            make_plan(demand_of(resident=4), PLENTY)


def test_a_plan_survives_json():
    plan = make_plan(demand_of(), PLENTY)
    document = plan.document()
    assert document["peak_mb"] == plan.peak_mb
    assert Plan.from_document(json.loads(json.dumps(document))) == plan


@st.composite
def module_rows(draw):
    step = draw(st.integers(0, 64 * MIB))
    return ModuleRow(
        state=draw(st.integers(1, 32 * MIB)),
        step=step,
        recomputed_step=draw(st.integers(0, step)),
        forward=draw(st.integers(0, step)),
        reads=draw(st.integers(0, 1 << 18)),
        writes=draw(st.integers(0, 1 << 18)),
    )


@st.composite
def demands(draw):
    rows = tuple(draw(st.lists(module_rows(), min_size=1, max_size=5)))
    batch_size = draw(st.integers(1, 64))
    num_batches = draw(st.integers(1, 400))
    num_samples = batch_size * num_batches
    micro_rows = tuple(
        (batch_size // part, tuple(_divided(one, part) for one in rows))
        for part in (2, 4)[: draw(st.integers(0, 2))]
        if batch_size >= part
    )
    return Demand(
        rows=rows,
        batch_size=batch_size,
        batches_per_epoch=num_batches,
        num_samples=num_samples,
        fixed_mb=draw(st.floats(1, 300)),
        workspace=draw(st.floats(0, 0.5)),
        streams=draw(st.booleans()),
        cached_samples=num_samples * draw(st.integers(1, 3)),
        micro_rows=micro_rows,
        chunk=draw(st.none() | st.integers(1, 500)),
        resident=draw(st.none() | st.integers(1, len(rows))),
        prefetch=draw(st.booleans()),
    )


def _divided(one, part):
    return dataclasses.replace(
        one, step=one.step // part, recomputed_step=one.recomputed_step // part, forward=one.forward // part
    )


def exact_only(demand):
    return dataclasses.replace(demand, micro_rows=())


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
        assert plan.resident <= len(demand.rows)
        assert plan.resident == (demand.resident or plan.resident)
        assert plan.chunk <= demand.batches_per_epoch
        if demand.chunk is not None:
            assert plan.chunk == min(demand.chunk, demand.batches_per_epoch)
        assert not plan.prefetch or demand.prefetch

    @settings(max_examples=100, deadline=None)
    @given(demands(), st.floats(0, 100))
    def test_a_lossy_plan_is_taken_only_where_no_exact_one_fits(self, demand, spare_mb):
        assume(demand.micro_rows)
        budget_mb = smallest_budget(demand) + spare_mb
        is_lossy = bool(make_plan(demand, budget_mb).lossy)
        assert is_lossy == (not fits(exact_only(demand), budget_mb))

    @settings(max_examples=100, deadline=None)
    @given(demands(), st.floats(0, 300), st.floats(0, 300))
    def test_a_larger_budget_gives_no_slower_plan(self, demand, spare_mb, more_mb):
        demand = exact_only(demand)
        budget_mb = smallest_budget(demand) + spare_mb
        assert make_plan(demand, budget_mb + more_mb).seconds <= make_plan(demand, budget_mb).seconds
