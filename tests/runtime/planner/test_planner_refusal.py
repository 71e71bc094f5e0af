"""A refusal names the budget that would do; a plan rests on what was measured; a step down takes less."""

from __future__ import annotations

import dataclasses

import pytest
from planner_demands import LEVELS, PLENTY, ROWS, demand_of, make_plan, row, shrunk

from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.planner.demand import FORWARD, Measurement, work_key
from edge_trgl.runtime.planner.layouts import MEMORY_CHUNK
from edge_trgl.runtime.planner.planner import Begun, choose, lower, smallest
from edge_trgl.runtime.units import MIB


def hint_of(demand, budget_mb):
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(demand, budget_mb)
    return caught.value.hint


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

    def test_where_a_forward_pass_makes_the_peak_what_it_writes_is_told_as_a_boundary(self):
        """100 MiB of all samples are written while it runs, and are no part of a step."""
        rows = (
            row(state=1, step=2, recomputed=2, forward=1, writes=64),
            row(state=1, step=1, recomputed=1, forward=1, reads=32),
        )
        with pytest.raises(
            DoesNotFitError, match=r"module 0 is in the way, .* 1\.0 for a step and 100\.0 of bound"
        ):
            make_plan(demand_of(rows, order="cache", without=("disk",)), 110)

    def test_a_module_that_is_in_the_way_while_it_is_made(self):
        rows = (ROWS[0], dataclasses.replace(ROWS[1], opening=50 * MIB), ROWS[2])
        with pytest.raises(DoesNotFitError, match=r"20\.0 for a step and .*; making it takes 50\.0"):
            make_plan(demand_of(rows, resident=1, chunk=100, prefetch=False), 110)

    # 100 fixed, 4 of the module, the step, a batch read and written; 2 % more, for they are estimates.
    PARTS = ((4, shrunk(8)), (2, shrunk(4)), (1, shrunk(2)))

    @pytest.mark.parametrize(("budget_mb", "size", "peak_mb"), [(116, 4, 115), (113, 2, 111), (110, 1, 109)])
    def test_the_smallest_change_of_each_kind_that_makes_it_fit_comes_with_its_peak(
        self, budget_mb, size, peak_mb
    ):
        hint = hint_of(demand_of(parts=self.PARTS), budget_mb)
        assert hint == (
            f"Give --budget-mb 117; or --batch-size {size} (peak {peak_mb} MiB); "
            f"or --allow micro-batch, in parts of {size}, which changes results (peak {peak_mb} MiB)."
        )

    def test_savings_that_were_switched_off_come_first(self):
        hint = hint_of(demand_of(parts=self.PARTS, without=("recompute", "disk")), 121)
        assert hint.startswith("Give --budget-mb 125; or leave out --without recompute (peak 120 MiB); or --batch")

    def test_a_change_that_does_not_suffice_is_proposed_as_the_nearest_alone(self):
        assert hint_of(demand_of(parts=self.PARTS), 105) == (
            "Give --budget-mb 117; or less than that with --batch-size 1 (peak 109 MiB); "
            "no single change fits 105 MiB."
        )

    def test_an_exact_batch_does_without_the_gradients_of_parts(self):
        """Three of the five MiB of a part's step."""
        rows = tuple(
            dataclasses.replace(one, gradients=3 * MIB, works={**one.works, FORWARD: MIB}) for one in shrunk(5)
        )
        hint = hint_of(demand_of(parts=((4, rows),)), 112)
        assert "--batch-size 4 (peak 109 MiB); or --allow micro-batch, in parts of 4" in hint
        assert "results (peak 112 MiB)" in hint

    def test_what_is_allowed_already_is_not_proposed(self):
        assert "--allow" not in hint_of(demand_of(parts=self.PARTS, allowed=("micro-batch",)), 1)

    def test_a_run_that_has_begun_keeps_its_settings(self):
        demand = demand_of(parts=self.PARTS)
        begun = Begun(plan=make_plan(demand, PLENTY), chunks=(), live_bytes=0)
        with pytest.raises(DoesNotFitError) as caught:
            choose(demand, 114, {}, probing=False, begun=begun)
        assert caught.value.hint == "Give --budget-mb 117."

    def test_more_modules_than_there_are_cannot_stay(self):
        with pytest.raises(UsageError, match=r"--resident 4: the net has 3 modules"):
            make_plan(demand_of(resident=4), PLENTY)


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
