"""Bytes read and written, wear and time of a plan, added up by hand."""

from __future__ import annotations

import dataclasses

import pytest

from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, Measurement, ModuleRow, work_key
from edge_trgl.runtime.planner.planner import choose
from edge_trgl.runtime.planner.traffic import passes, traffic_of
from edge_trgl.runtime.units import MIB

IMAGE, RECORD, STATE = 100, 1000, 50_000


def row(module):
    return ModuleRow(
        kind=f"k{module}",
        weights=STATE // 2,
        momentum=STATE // 2,
        opening=0,
        gradients=0,
        works={"none": MIB, FORWARD: MIB},
        reads=RECORD if module else 400,
        writes=RECORD if module < 2 else 0,
    )


def demand_of(order, **changes):
    """Three modules, 8 batches of 10 (and 5 samples that no batch takes), two epochs."""
    fields = {
        "forms": (Form(order=order, rows=tuple(map(row, range(3))), size=10),),
        "levels": {"none": 0.0},
        "batch_size": 10,
        "batches_per_epoch": 8,
        "num_samples": 85,
        "fixed_mb": 100.0,
        "others_mb": 10.0,
        "workspace": 0.0,
        "held_bytes": 0,
        "epochs": (2, 2, 2),
        "image_bytes": IMAGE,
        "resident": 1,
        "prefetch": False,
        "without": (),
    }
    return Demand(**{**fields, **changes})


def on_disk(demand, measured=None):
    """The traffic of the plan that keeps its boundaries on disk."""
    plan = choose(demand, 1e6, measured or {}, probing=False)
    plan = dataclasses.replace(plan, layout=dataclasses.replace(plan.layout, placement="disk"))
    return traffic_of(demand, plan, measured or {})


class TestBytes:
    def test_a_stream_writes_and_reads_each_boundary_once_an_epoch(self):
        found = on_disk(demand_of("stream", chunk=4))
        boundaries, images = 2 * 2 * 80 * RECORD, 2 * 80 * IMAGE
        # Two chunks in each of two epochs; of three modules, one at a time, each is loaded once a chunk.
        loads = 4 * 3 * STATE
        assert found.read_mb * MIB == pytest.approx(boundaries + images + loads)
        assert found.written_mb * MIB == pytest.approx(boundaries + loads + 3 * STATE)

    def test_a_cache_is_written_once_a_lap_and_read_every_epoch_and_by_the_frozen_pass(self):
        found = on_disk(demand_of("cache", epochs=(4, 4, 4), laps=2, copies=3))
        written = 2 * 2 * 3 * 80 * RECORD
        # Boundaries 1 and 2 in training; boundary 1 once more for each copy and lap of boundary 2.
        read = (4 + 4 + 2 * 3) * 80 * RECORD
        images = (4 + 2 * 3) * 80 * IMAGE
        assert found.read_mb * MIB == pytest.approx(read + images + 2 * 3 * STATE)
        assert found.written_mb * MIB == pytest.approx(written + 2 * 3 * STATE + 3 * STATE)

    def test_growing_passes_validation_images_through_what_is_trained(self):
        plain, growing = (on_disk(demand_of("cache", num_looked_at=n)) for n in (0, 30))
        # Two looks: through module 0, and through both before the last.
        passed, loads = (2 * IMAGE + RECORD) * 30, (2 + 1) * STATE
        assert (growing.read_mb - plain.read_mb) * MIB == pytest.approx(passed + loads)
        assert (growing.written_mb - plain.written_mb) * MIB == pytest.approx(30 * RECORD)

    def test_rounds_keep_boundaries_and_send_gradients_back(self):
        found = on_disk(demand_of("rounds"))
        once = 2 * 2 * 80 * RECORD
        loads = 2 * 8 * 2 * (3 - 1) * STATE
        images = 2 * 2 * 80 * IMAGE
        assert found.read_mb * MIB == pytest.approx(3 * once + images + loads)
        assert found.written_mb * MIB == pytest.approx(2 * once + loads + 3 * STATE)

    def test_losses_that_compare_with_images_read_them_again(self):
        plain, pictured = (on_disk(demand_of("cache", epochs=(2, 3, 4), pictured=p)) for p in ((), (0, 2)))
        assert (pictured.read_mb - plain.read_mb) * MIB == pytest.approx((2 + 4) * 80 * IMAGE)
        assert pictured.written_mb == plain.written_mb

    def test_boundaries_in_memory_are_not_traffic(self):
        demand = demand_of("stream", chunk=4)
        plan = choose(demand, 1e6, {}, probing=False)
        assert plan.layout.placement == "memory"
        images, loads = 2 * 80 * IMAGE, 4 * 3 * STATE
        assert traffic_of(demand, plan, {}).read_mb * MIB == pytest.approx(images + loads)

    def test_without_a_cache_every_epoch_goes_through_the_frozen_modules(self):
        demand = demand_of("stream", one_by_one=True, epochs=(2, 3, 4), chunk=4)
        assert passes(demand, demand.forms[0]) == [(2, 7), (3, 4), (4, 0)]
        found = on_disk(demand)
        assert found.epochs == 4
        boundaries = (7 + 4) * 80 * RECORD
        loads = (2 + 3 + 4) * 2 * 3 * STATE
        assert found.written_mb * MIB == pytest.approx(boundaries + loads + 3 * STATE)


class TestFrozen:
    def test_what_leaves_frozen_modules_is_written_once(self):
        demand = demand_of("stream", frozen=1, kept=True, epochs=(0, 2, 2), copies=3, chunk=4)
        assert passes(demand, demand.forms[0]) == [(0, 3), (2, 0), (2, 0)]
        found = on_disk(demand)
        # The frozen module once, the two others in each of two epochs of two chunks.
        loads = (1 + 2 * 2 * 2) * STATE
        assert found.read_mb * MIB == pytest.approx(3 * 80 * IMAGE + (2 + 2) * 80 * RECORD + loads)
        assert found.written_mb * MIB == pytest.approx((3 + 2) * 80 * RECORD + loads + 3 * STATE)

    def test_without_a_cache_every_epoch_passes_them(self):
        demand = demand_of("stream", frozen=1, epochs=(0, 2, 2), chunk=4)
        assert passes(demand, demand.forms[0]) == [(0, 2), (2, 0), (2, 0)]
        found, whole = on_disk(demand), on_disk(demand_of("stream", chunk=4))
        assert found == whole

    def test_laps_read_it_again(self):
        demand = demand_of("cache", frozen=1, kept=True, epochs=(0, 4, 4), laps=2, copies=3)
        assert passes(demand, demand.forms[0]) == [(0, 3), (4, 6), (4, 0)]
        found = on_disk(demand)
        loads = (1 + 2 * 2) * STATE
        assert found.read_mb * MIB == pytest.approx(3 * 80 * IMAGE + (4 + 6 + 4) * 80 * RECORD + loads)
        assert found.written_mb * MIB == pytest.approx((3 + 6) * 80 * RECORD + loads + 3 * STATE)

    def test_they_take_the_time_of_their_passes(self):
        measured = {
            work_key(f"k{module}", work, 10): Measurement(
                opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=seconds
            )
            for module, work, seconds in ((0, FORWARD, 0.5), (1, "none", 2.0), (2, "none", 3.0))
        }
        found = on_disk(demand_of("stream", frozen=1, kept=True, epochs=(0, 2, 2), copies=3), measured)
        assert found.compute_s == pytest.approx(3 * 8 * 0.5 + 2 * 8 * (2.0 + 3.0))

    def test_commits_do_not_write_them(self):
        measured = {
            work_key(f"k{module}", work, 10): Measurement(opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=1.0)
            for module in range(3)
            for work in ("none", FORWARD)
        }
        fields = {"frozen": 1, "kept": True, "epochs": (0, 2, 2)}
        rare = on_disk(demand_of("stream", checkpoint_s=1e9, **fields), measured)
        often = on_disk(demand_of("stream", checkpoint_s=rare.compute_s / 4, **fields), measured)
        assert (often.written_mb - rare.written_mb) * MIB == pytest.approx(4 * 2 * STATE)


class TestWearAndTime:
    def test_wear_is_the_share_of_what_may_be_written(self):
        found = on_disk(demand_of("stream", chunk=4, endurance_tb=1e-6))
        assert found.wear == pytest.approx(found.written_mb * MIB / 1e6)

    def test_nobody_knows_the_wear_of_an_unknown_storage(self):
        assert on_disk(demand_of("stream")).wear is None

    def test_time_is_that_of_the_steps_and_of_what_is_moved(self):
        measured = {
            work_key(f"k{module}", work, 10): Measurement(
                opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=seconds
            )
            for module in range(3)
            for work, seconds in (("none", 2.0), (FORWARD, 0.5))
        }
        demand = demand_of("cache", read_mbs=1.0, write_mbs=0.5, checkpoint_s=1e9)
        found = on_disk(demand, measured)
        # Three modules, two epochs of eight batches; two frozen passes.
        assert found.compute_s == pytest.approx(3 * 2 * 8 * 2.0 + 2 * 8 * 0.5)
        growing = on_disk(dataclasses.replace(demand, num_looked_at=17), measured)
        assert growing.compute_s - found.compute_s == pytest.approx((2 + 1) * 17 / 85 * 8 * 0.5)
        moving = found.read_mb * MIB / 1e6 + found.written_mb * MIB / 0.5e6
        assert found.seconds == pytest.approx(found.compute_s + moving)

    def test_looks_at_all_depths_take_their_time(self):
        measured = {
            work_key(f"k{module}", work, 10): Measurement(opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=1.0)
            for module in range(3)
            for work in ("none", FORWARD)
        }
        plain, looking = (on_disk(demand_of("stream", num_looked_at=17, looks=n), measured) for n in (0, 4))
        assert looking.compute_s - plain.compute_s == pytest.approx(4 * 3 * 17 / 85 * 8)

    def test_without_measurements_there_is_no_time(self):
        found = on_disk(demand_of("stream"))
        assert (found.compute_s, found.seconds) == (None, None)

    def test_commits_write_what_changed(self):
        measured = {
            work_key(f"k{module}", work, 10): Measurement(opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=1.0)
            for module in range(3)
            for work in ("none", FORWARD)
        }
        rare = on_disk(demand_of("stream", checkpoint_s=1e9), measured)
        often = on_disk(demand_of("stream", checkpoint_s=rare.compute_s / 4), measured)
        assert (often.written_mb - rare.written_mb) * MIB == pytest.approx(4 * 3 * STATE)

    @pytest.mark.parametrize(("num_commits", "num_written"), [(0, 0), (1, 1), (2, 2), (8, 2)])
    def test_commits_write_cached_boundaries_in_memory_once(self, num_commits, num_written):
        measured = {
            work_key(f"k{module}", work, 10): Measurement(opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=1.0)
            for module in range(3)
            for work in ("none", FORWARD)
        }
        compute_s = on_disk(demand_of("cache"), measured).compute_s
        demand = demand_of("cache", checkpoint_s=compute_s / num_commits if num_commits else 1e9)
        plan = choose(demand, 1e6, measured, probing=False)
        assert plan.layout.placement == "memory"
        found = traffic_of(demand, plan, measured)
        # A round of loads; at the end all modules, and one with each commit.
        modules = (3 + 3 + num_commits) * STATE
        assert found.written_mb * MIB == pytest.approx(modules + num_written * 80 * RECORD, rel=1e-6)
