"""The plan stays on the disk; a run that has begun goes on with less of it."""

from __future__ import annotations

import dataclasses

import pytest
from planner_demands import PLENTY, demand_of, row

from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.planner.demand import Form
from edge_trgl.runtime.planner.planner import Begun, choose, lower, smallest
from edge_trgl.runtime.units import MIB


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
            choose(demand, PLENTY, {}, probing=False, disk_mb=92)
        # 2 copies of 800 samples of 64 and of 32 KiB, and their index.
        assert caught.value.message == (
            "this does not fit 92 MiB of the disk: the least that would do is 165 MiB, 10.0 of it there already "
            "(the prepared data), 4.1 for files of modules and 150.1 for boundaries; the largest is that into "
            "module 1, with 100.0 MiB"
        )
        assert caught.value.hint == (
            "Free 73 MiB, or give --disk-mb 165 where they are free; or --views 1 (needs 90 MiB); or "
            "--allow fp16-boundaries, which changes results (needs 90 MiB); or --cache none --views 1, which "
            "passes the frozen modules anew in every epoch (needs 17 MiB)."
        )
        assert caught.value.exit_code == 3
        with pytest.raises(DoesNotFitError) as caught:
            choose(demand, PLENTY, {}, probing=False, disk_mb=50)
        assert "are free; or --cache none --views 1, which passes" in caught.value.hint
        with pytest.raises(DoesNotFitError) as caught:
            choose(demand, PLENTY, {}, probing=False, disk_mb=5)
        assert caught.value.hint.endswith(
            "are free; or less than that with --cache none --views 1, which passes the frozen modules anew in "
            "every epoch "
            "(needs 17 MiB); no single change fits 5 MiB."
        )

    def test_what_is_asked_for_may_be_in_the_way(self):
        with pytest.raises(DoesNotFitError, match="does not fit 20 MiB of the disk") as caught:
            choose(self.demand(chunk=100, without=("paging",)), 130, {}, probing=False, disk_mb=20)
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
