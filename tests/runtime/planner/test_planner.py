"""The plan fits, is the fastest that does, is exact where it can be; its peaks, added up by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from planner_demands import PLENTY, ROWS, demand_of, make_plan, row, shrunk, smallest_budget

from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.planner.demand import FORWARD, REFUSED, Demand, Measurement, work_key
from edge_trgl.runtime.planner.layouts import DISK_CHUNK, MEMORY_CHUNK
from edge_trgl.runtime.planner.plan import Plan
from edge_trgl.runtime.planner.planner import choose, smallest, worth_measuring_mb
from edge_trgl.runtime.records import document_of, read_record
from edge_trgl.runtime.units import MIB


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

    def test_growing_takes_validation_samples_through_beside_the_cache(self):
        # 256 samples of what module 1 reads and writes, beside the largest boundary that any module is trained on.
        plan = make_plan(demand_of(order="cache", prefetch=False, num_looked_at=1000), PLENTY)
        passed = 16 + 8
        assert plan.peaks_mb[1] == 100 + 4 + 6 + 0.5 + max(100 + 50, 100 + passed)
        rows = (ROWS[0], ROWS[1], dataclasses.replace(ROWS[2], reads=256 * 1024))
        plain, growing = (
            make_plan(demand_of(rows, order="cache", prefetch=False, num_looked_at=n), PLENTY) for n in (0, 1000)
        )
        assert plain.peaks_mb[1] == 100 + 4 + 6 + 0.5 + 100 + 50
        assert growing.peaks_mb[1] == 100 + 4 + 6 + 0.5 + 400 + passed
        assert growing.peaks_mb[2] == plain.peaks_mb[2]

    def test_a_cache_on_disk_holds_a_batch(self):
        plan = make_plan(demand_of(order="cache", prefetch=False), 150)
        assert plan.layout.placement == "disk"
        assert plan.peaks_mb[1] == 100 + 4 + 20 + 0.5

    def test_what_training_holds_beside_its_modules_comes_on_top(self):
        usual, more = (make_plan(demand_of(resident=1, held_bytes=held), PLENTY) for held in (0, 3 * MIB))
        assert [high - low for low, high in zip(usual.peaks_mb, more.peaks_mb, strict=True)] == [3.0] * len(ROWS)

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

    @pytest.mark.parametrize(("prefetch", "ahead_mb"), [(True, 16 + 1 + 0.5), (False, 0)])
    def test_or_on_disk_where_sixteen_chunks_are_read_ahead(self, prefetch, ahead_mb):
        found = make_plan(self.demand(prefetch=prefetch), 150)
        assert (found.layout.placement, found.layout.prefetch) == ("disk", prefetch)
        # The file that the last module reads, of one chunk, is small and left to the page cache.
        expected = (100 + 1 + 5, 100 + 20 + 0.5 + ahead_mb + 6, 100 + 1 + 0.25 + 6)
        assert found.peaks_mb == pytest.approx(expected)

    def test_without_room_for_them_they_are_left_to_the_page_cache(self):
        found = make_plan(self.demand(), 140)
        assert (found.layout.placement, found.layout.prefetch) == ("disk", False)

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


def test_a_demand_and_a_plan_survive_json():
    demand = demand_of(parts=((4, shrunk(1)),), allowed=("micro-batch",), endurance_tb=20.0)
    assert read_record(Demand, json.loads(json.dumps(document_of(demand)))) == demand
    plan = make_plan(demand, PLENTY)
    assert read_record(Plan, json.loads(json.dumps(document_of(plan)))) == plan


class TestTheSmallestPeak:
    @pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 1.2])
    def test_is_found_where_steps_take_other_than_was_foretold(self, factor):
        rows = (
            row(state=2, step=200, recomputed=180, forward=1),
            row(state=2, step=190, recomputed=190, forward=1),
        )
        demand = demand_of(rows, fixed_mb=1.0, others_mb=0.0)
        truth, measured = self._truth(demand, factor), {}
        while not isinstance(found := smallest(demand, measured, probing=True), Plan):
            room_mb = worth_measuring_mb(demand, measured)
            for one in found:
                true = truth[one.key]
                measured[one.key] = true if true.fixed_mb + true.work_mb <= room_mb else REFUSED
        assert found.peak_mb == smallest(demand, truth, probing=False).peak_mb

    def _truth(self, demand, factor):
        """Every work as if it took `factor` of what is foretold of it."""
        return {
            work_key(one.kind, work, form.size): Measurement(
                work_mb=factor * size / MIB, opening_mb=0.0, fixed_mb=demand.fixed_mb, seconds=1.0
            )
            for form in demand.forms
            for one in form.rows
            for work, size in one.works.items()
        }
