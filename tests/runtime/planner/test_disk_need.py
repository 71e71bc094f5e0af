"""Bytes on the disk at the worst moment, added up by hand."""

from __future__ import annotations

import pytest

from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, ModuleRow
from edge_trgl.runtime.planner.disk_need import DATABASE_BYTES, ROW_BYTES, disk_need
from edge_trgl.runtime.planner.plan import Layout

STATE, MODULE = 512_000, 528_384
"""A module's tensors; 8000 for its header and 8192 more, in whole blocks of 4096."""

SAMPLES, BATCH = 80, 10


def row(module, num_modules=4):
    """Module `module` reads `module` records of 4080 bytes, which are 4096 with their index, of a sample."""
    return ModuleRow(
        kind=f"k{module}",
        weights=STATE // 2,
        momentum=STATE // 2,
        opening=0,
        gradients=0,
        works={"none": 1, FORWARD: 1},
        reads=4096 * module - 16 if module else 784,
        writes=4096 * (module + 1) - 16 if module < num_modules - 1 else 0,
    )


def need(order, *, placement="disk", resident=1, chunk=2, **changes):
    """Of four modules, eight batches of ten."""
    fields = {
        "forms": (Form(order=order, rows=tuple(map(row, range(4))), size=BATCH),),
        "levels": {"none": 0.0},
        "batch_size": BATCH,
        "batches_per_epoch": SAMPLES // BATCH,
        "num_samples": SAMPLES,
        "fixed_mb": 100.0,
        "others_mb": 10.0,
        "workspace": 0.0,
        "held_bytes": 0,
        "epochs": (2, 2, 2, 2),
        "stored_bytes": 1_000_000,
    }
    layout = Layout(form=0, recompute="none", placement=placement, resident=resident, prefetch=False, chunk=chunk)
    return disk_need(Demand(**{**fields, **changes}), layout)


CHUNK, CACHE = 2 * BATCH * 4096, SAMPLES * 4096
"""Bytes of so many records of module 1."""


class TestBoundaries:
    def test_a_stream_holds_a_chunk_of_what_is_read_and_of_what_is_written(self):
        found = need("stream")
        assert (found.boundaries, found.spared) == ((2 + 3) * CHUNK, 0)
        assert found.largest == (3, 3 * CHUNK)

    def test_a_stream_is_never_longer_than_the_data(self):
        assert need("stream", chunk=100).boundaries == (2 + 3) * CACHE

    def test_a_stream_in_memory_is_only_written_by_a_commit_that_does_not_wait(self):
        found = need("stream", placement="memory")
        assert (found.boundaries, found.spared) == ((2 + 3) * CHUNK,) * 2
        assert found.least == found.total - 5 * CHUNK

    @pytest.mark.parametrize("placement", ["disk", "memory"])
    def test_a_cache_holds_all_copies_of_what_is_read_and_of_what_is_written(self, placement):
        found = need("cache", placement=placement, copies=3)
        assert (found.boundaries, found.spared) == ((2 + 3) * 3 * CACHE, 0)
        assert found.largest == (3, 3 * 3 * CACHE)

    def test_rounds_hold_all_that_a_batch_went_through_and_its_gradient(self):
        batch = BATCH * 4096
        assert need("rounds", chunk=1).boundaries == (1 + 2 + 3) * batch + 3 * batch
        assert need("rounds", chunk=1, placement="memory").spared == need("rounds", chunk=1).boundaries

    def test_they_are_whole_blocks_of_the_disk(self):
        block = 65_536
        records = 2 * BATCH * 4096  # 80 KiB
        found = need("stream", block_bytes=block)
        assert found.boundaries == -(-2 * records // block) * block + -(-3 * records // block) * block
        assert found.modules % block == 0

    def test_an_evaluation_may_be_of_more_samples_than_training(self):
        assert need("stream", chunk=100, num_scored=1000).boundaries == (2 + 3) * 1000 * 4096
        assert need("stream", chunk=100, num_scored=1000, placement="memory").boundaries == 5 * CACHE

    def test_growing_takes_validation_samples_through_beside_what_is_cached(self):
        batch = BATCH * 4096
        # Of 800, 32 batches at a time; the last module is scored when all of training is done.
        assert need("cache", num_looked_at=800).boundaries == 3 * CACHE + (1 + 2) * 32 * batch
        assert need("cache", num_looked_at=10).boundaries == (2 + 3) * CACHE
        assert need("cache", num_looked_at=800, placement="memory").boundaries == (2 + 3) * CACHE
        assert need("stream", num_looked_at=800).boundaries == (2 + 3) * CHUNK

    def test_what_leaves_frozen_modules_stays_beside_the_stream(self):
        fields = {"frozen": 1, "kept": True, "copies": 2}
        assert need("stream", **fields).boundaries == 2 * CACHE + (2 + 3) * CHUNK
        found = need("stream", **fields, placement="memory")
        assert found.boundaries - found.spared == 2 * CACHE
        assert found.largest == (1, 2 * CACHE)

    def test_the_pass_through_frozen_modules_may_take_most(self):
        assert need("stream", frozen=3, kept=True).boundaries == (2 + 3) * CACHE

    def test_laps_keep_what_leaves_frozen_modules(self):
        fields = {"frozen": 1, "kept": True}
        assert need("cache", **fields, laps=2).boundaries == (1 + 2 + 3) * CACHE
        assert need("cache", **fields, laps=1).boundaries == (2 + 3) * CACHE


class TestModules:
    def test_each_has_two_versions_and_three_for_a_moment_where_it_is_paged(self):
        assert need("stream").modules == (2 * 4 + 1) * MODULE
        assert need("stream", resident=4).modules == 2 * 4 * MODULE

    def test_one_after_the_other_one_has_two(self):
        assert need("cache").modules == (4 + 1) * MODULE

    @pytest.mark.parametrize("changes", [{"laps": 2}, {"converted": True}])
    def test_where_they_were_there_before_each_may_have_two(self, changes):
        assert need("cache", **changes).modules == (2 * 4 + 1) * MODULE

    def test_frozen_ones_never_change(self):
        assert need("stream", frozen=2, epochs=(0, 0, 2, 2)).modules == (4 + 2 + 1) * MODULE


def test_the_rest_is_what_is_there_already_and_the_database():
    found = need("stream")
    assert found.database == DATABASE_BYTES + ROW_BYTES * (8 + 8 * 4)
    assert found.total == 1_000_000 + found.database + found.modules + found.boundaries
