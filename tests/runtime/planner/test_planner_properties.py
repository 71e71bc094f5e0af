"""Of any demand: the plan fits and obeys, the budget that a refusal names is the smallest."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planner_demands import demand_of, make_plan, smallest_budget

from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.planner.demand import FORWARD, ModuleRow
from edge_trgl.runtime.planner.planner import choose
from edge_trgl.runtime.units import MIB


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
    @pytest.mark.slow
    @settings(max_examples=100)
    @given(demands())
    def test_the_named_budget_is_the_smallest(self, demand):
        budget_mb = smallest_budget(demand)
        assert make_plan(demand, budget_mb).peak_mb <= budget_mb
        assert not fits(demand, budget_mb - 1.01)

    @settings(max_examples=100)
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

    @pytest.mark.slow
    @settings(max_examples=100)
    @given(demands(), st.floats(0, 100))
    def test_a_lossy_plan_is_taken_only_where_no_exact_one_fits(self, demand, spare_mb):
        assume(len(demand.forms) > 1)
        budget_mb = smallest_budget(demand) + spare_mb
        is_lossy = bool(make_plan(demand, budget_mb).lossy)
        assert is_lossy == (not fits(exact_only(demand), budget_mb))

    @settings(max_examples=100)
    @given(demands(), st.floats(0, 300), st.floats(0, 300))
    def test_a_larger_budget_gives_no_slower_plan(self, demand, spare_mb, more_mb):
        demand = exact_only(demand)
        budget_mb = smallest_budget(demand) + spare_mb
        assert make_plan(demand, budget_mb + more_mb).seconds <= make_plan(demand, budget_mb).seconds

    @pytest.mark.slow
    @settings(max_examples=100)
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
