"""ActivationStore: a dict in all but memory."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from random_boundaries import BATCH_SIZE, NUM_SAMPLES, SHAPES, batch, numbers, same, spec_of

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.records import document_of, read_record
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord
from edge_trgl.runtime.storage.record_codec import decoded, encoded


@pytest.fixture
def store(tmp_path):
    store = ActivationStore(tmp_path / "boundaries", NUM_SAMPLES, BATCH_SIZE)
    yield store
    store.close()


@pytest.fixture(params=[False, True], ids=["disk", "memory"])
def in_memory(request):
    return request.param


class TestBothPlacements:
    """What a boundary promises wherever it is kept."""

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_records_come_back_in_any_order(self, store, in_memory, shape, dtype):
        spec = spec_of(shape=shape, dtype=dtype, in_memory=in_memory)
        boundary = store.create(spec)
        order = np.random.default_rng(0).permutation(NUM_SAMPLES)
        values = batch(spec, 0, NUM_SAMPLES).to(getattr(torch, dtype))
        for start in range(0, NUM_SAMPLES, BATCH_SIZE):
            samples = order[start : start + BATCH_SIZE]
            boundary.append(samples, values[samples])
        assert boundary.num_written == (NUM_SAMPLES,)
        for samples in [
            *order.reshape(5, 8),
            numbers(3),
            numbers(7, 6, 5),
            np.sort(order[:8]),
            numbers(4, 4),
        ]:
            assert same(boundary.read(samples), values[samples])

    @pytest.mark.parametrize("shape", SHAPES)
    def test_int8_records_come_back_as_float32_near_what_they_were(self, store, in_memory, shape):
        spec = spec_of(shape=shape, dtype="int8", in_memory=in_memory)
        boundary, values = store.create(spec), batch(spec, 0, NUM_SAMPLES)
        for start in range(0, NUM_SAMPLES, BATCH_SIZE):
            samples = np.arange(start, start + BATCH_SIZE)
            boundary.append(samples, values[samples])
        for samples in (np.arange(3, 7), numbers(7, 30, 5, 5)):
            found = boundary.read(samples)
            assert same(found, decoded(encoded(values[samples], spec), spec))
            assert (found - values[samples]).abs().max() < values.abs().max() / 127
        store.restore(store.commit())
        assert same(store.get("b1").read(numbers(3)), decoded(encoded(values[3:4], spec), spec))

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_images_come_back_channels_last_whatever_they_were(self, store, in_memory, layout):
        boundary = store.create(spec_of(in_memory=in_memory))
        values = batch(boundary.spec, 0, 8).contiguous(memory_format=layout)
        boundary.append(np.arange(8), values)
        for samples in (np.arange(8), numbers(5, 1)):
            found = boundary.read(samples)
            assert same(found, values[samples])
            assert found.stride() == (60, 1, 15, 3)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_strides_do_not_depend_on_the_placement(self, store, shape):
        strides = set()
        for name, in_memory in (("disk", False), ("memory", True)):
            boundary = store.create(spec_of(name, shape=shape, in_memory=in_memory))
            boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
            strides |= {boundary.read(numbers(*samples)).stride() for samples in ([3, 4, 5], [5, 1, 2])}
        assert len(strides) == 1

    def test_values_of_another_dtype_are_converted(self, store, in_memory):
        boundary = store.create(spec_of(dtype="bfloat16", in_memory=in_memory))
        values = batch(boundary.spec, 0, 4).requires_grad_()
        boundary.append(np.arange(4), values)
        found = boundary.read(np.arange(4))
        assert same(found, values.detach().bfloat16())
        assert not found.requires_grad

    def test_copies_hold_the_same_samples_apart(self, store, in_memory):
        boundary = store.create(spec_of(copies=2, in_memory=in_memory))
        first, second = batch(boundary.spec, 1, 3), batch(boundary.spec, 2, 2)
        boundary.append(numbers(2, 0, 1), first, copy=0)
        boundary.append(numbers(0, 2), second, copy=1)
        assert boundary.num_written == (3, 2)
        assert same(boundary.read(numbers(0, 2), copy=0), first[[1, 0]])
        assert same(boundary.read(numbers(0, 2), copy=1), second)
        with pytest.raises(AssertionError, match="no record of sample 1"):
            boundary.read(numbers(0, 1), copy=1)

    def test_scattered_reads_share_one_buffer(self, store, in_memory):
        one = store.create(spec_of("one", in_memory=in_memory))
        two = store.create(spec_of("two", in_memory=in_memory))
        for boundary in (one, two):
            boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
        places = {boundary.read(numbers(5, 3)).data_ptr() for boundary in (one, two, one)}
        assert len(places) == 1

    def test_the_buffer_goes_with_the_last_boundary_that_can_need_it(self, store, in_memory):
        for name in ("one", "two"):
            boundary = store.create(spec_of(name, in_memory=in_memory))
            boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
        buffer = weakref.ref(boundary.read(numbers(5, 3))._base)
        store.drop("one")
        assert buffer() is not None
        store.drop("two")
        assert buffer() is None

    def test_misuse_is_an_assertion(self, store, in_memory):
        boundary = store.create(spec_of(records=10, in_memory=in_memory))
        values = batch(boundary.spec, 0, 8)
        boundary.append(np.arange(8), values)
        with pytest.raises(AssertionError, match="a sample is there already"):
            boundary.append(numbers(7), values[:1])
        with pytest.raises(AssertionError, match="more than 10"):
            boundary.append(numbers(8, 9, 10), values[:3])
        with pytest.raises(AssertionError, match=r"\(2, 3, 4, 5\)"):
            boundary.append(numbers(8), values[:2])
        with pytest.raises(AssertionError, match="9 samples"):
            boundary.read(np.zeros(9, dtype=np.int64))
        with pytest.raises(AssertionError, match="0 samples"):
            boundary.read(numbers())
        with pytest.raises(AssertionError, match=r"no boundary 'b2'; there are \['b1'\]"):
            store.get("b2")
        assert boundary.num_written == (8,)

    def test_restore_forgets_what_came_after_the_commit(self, store, in_memory):
        boundary = store.create(spec_of(copies=2, in_memory=in_memory))
        values = batch(boundary.spec, 0, 8)
        boundary.append(np.arange(4), values[:4], copy=1)
        records = store.commit()
        store.sweep()
        boundary.append(numbers(4, 5), values[4:6], copy=1)
        boundary.append(numbers(0), values[:1], copy=0)
        store.create(spec_of("later"))
        store.restore(records)
        boundary = store.get("b1")
        assert "later" not in store
        assert boundary.num_written == (0, 4)
        assert same(boundary.read(np.arange(4), copy=1), values[:4])
        assert [path.name for path in store.folder.iterdir()] == [records[0].file]
        # The places of forgotten records are used again.
        boundary.append(numbers(6, 4), values[6:8], copy=1)
        assert same(boundary.read(numbers(4, 3), copy=1), values[[7, 3]])
        store.restore(store.commit())
        assert same(store.get("b1").read(numbers(4, 3), copy=1), values[[7, 3]])

    def test_creating_again_before_a_commit_reuses_the_space(self, store, in_memory):
        spec = spec_of(in_memory=in_memory)
        boundary = store.create(spec)
        boundary.append(np.arange(8), batch(spec, 0, 8))
        before = [path.stat().st_ino for path in store.folder.iterdir()]
        again = store.create(spec)
        assert again.num_written == (0,)
        with pytest.raises(AssertionError, match="no record of sample 0"):
            again.read(numbers(0))
        again.append(numbers(1), batch(spec, 1, 1))
        assert same(again.read(numbers(1)), batch(spec, 1, 1))
        assert [path.stat().st_ino for path in store.folder.iterdir()] == before

    def test_a_file_of_a_commit_stays_until_the_sweep_after_the_next(self, store, in_memory):
        spec = spec_of(in_memory=in_memory)
        store.create(spec)
        first = store.commit()[0].file
        store.sweep()
        store.create(spec)
        assert (store.folder / first).exists()
        store.sweep()
        assert (store.folder / first).exists()
        second = store.commit()[0].file
        assert (store.folder / first).exists()
        store.drop("b1")
        store.sweep()
        assert [path.name for path in store.folder.iterdir()] == [second]
        assert store.commit() == []
        store.sweep()
        assert list(store.folder.iterdir()) == []


def test_consecutive_records_in_memory_are_a_view(store):
    boundary = store.create(spec_of(in_memory=True))
    boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
    first = boundary.read(np.arange(8))
    assert boundary.read(numbers(2, 3)).data_ptr() == first[2].data_ptr()
    assert boundary.read(numbers(3, 2)).data_ptr() != first[3].data_ptr()


def test_a_memory_boundary_that_is_dropped_before_a_commit_never_touches_the_disk(store, faults, use_system):
    system = use_system(faults.FaultySystem())
    boundary = store.create(spec_of(in_memory=True))
    boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
    boundary.read(numbers(3, 2))
    store.drop("b1")
    assert set(system.calls) <= {"unlink"}
    assert (store.bytes_read, store.bytes_written) == (0, 0)


def test_dense_batches_are_written_from_where_they_lie_in_one_call(store, use_system):
    class Spy(files.FileSystem):
        def pwrite(self, fd, data, offset):
            places.append((np.frombuffer(data, np.uint8).ctypes.data, len(data)))
            return super().pwrite(fd, data, offset)

    places = []
    boundary, rows = store.create(spec_of()), store.create(spec_of("rows", shape=(6,)))
    images = batch(boundary.spec, 0, 8).contiguous(memory_format=torch.channels_last)
    vectors = batch(rows.spec, 0, 8)
    use_system(Spy())
    boundary.append(np.arange(8), images)
    rows.append(np.arange(8), vectors)
    assert places == [(images.data_ptr(), images.nbytes), (vectors.data_ptr(), vectors.nbytes)]


@pytest.mark.parametrize("reuse", [True, False])
def test_reads_share_a_buffer_unless_that_is_switched_off(tmp_path, reuse):
    store = ActivationStore(tmp_path / "boundaries", NUM_SAMPLES, BATCH_SIZE, reuse=reuse)
    boundary = store.create(spec_of())
    boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
    first, second = (boundary.read(np.arange(8)) for _ in range(2))
    assert (first.data_ptr() == second.data_ptr()) == reuse
    store.close()


def test_consecutive_records_on_disk_are_read_in_one_call(store, faults, use_system):
    boundary = store.create(spec_of())
    boundary.append(np.arange(20), batch(boundary.spec, 0, 20))
    system = use_system(faults.FaultySystem())
    boundary.read(np.arange(4, 12))
    assert system.calls == ["preadv"]
    boundary.read(numbers(1, 2, 9, 3, 4))
    assert system.calls == ["preadv"] * 4


def test_space_is_allocated_at_creation(store):
    spec = spec_of(copies=2, records=10)
    boundary = store.create(spec)
    assert spec.file_bytes == 20 * (60 * 4 + 16)
    assert boundary.path.stat().st_size == spec.file_bytes
    assert boundary.path.stat().st_blocks * 512 >= spec.file_bytes


def test_full_disk_shows_at_creation(store, faults, use_system):
    use_system(faults.FaultySystem("ENOSPC", 2))
    with pytest.raises(StorageError, match="the disk is full"):
        store.create(spec_of())
    assert "b1" not in store
    assert list(store.folder.iterdir()) == []


def test_counters_count_disk_bytes(store):
    boundary = store.create(spec_of())
    boundary.append(np.arange(8), batch(boundary.spec, 0, 8))
    boundary.read(numbers(1, 5))
    assert (store.bytes_written, store.bytes_read) == (8 * 240, 2 * 240)
    store.commit()
    assert store.bytes_written == 8 * (240 + 16)


def test_a_commit_without_news_writes_and_syncs_no_boundary(store, faults, use_system):
    boundary = store.create(spec_of())
    boundary.append(np.arange(4), batch(boundary.spec, 0, 4))
    records = store.commit()
    system = use_system(faults.FaultySystem())
    assert store.commit() == records
    assert system.calls == ["open", "fsync"]
    boundary.append(numbers(4), batch(boundary.spec, 0, 1))
    system.calls.clear()
    store.commit()
    assert system.calls == ["pwrite", "fsync", "open", "fsync"]


def test_a_commit_right_after_a_restore_writes_nothing(store, in_memory):
    boundary = store.create(spec_of(in_memory=in_memory))
    boundary.append(np.arange(4), batch(boundary.spec, 0, 4))
    records = store.commit()
    store.restore(records)
    before = store.bytes_written
    assert store.commit() == records
    assert store.bytes_written == before


def test_a_failed_append_appends_nothing(store, faults, use_system):
    boundary = store.create(spec_of())
    values = batch(boundary.spec, 0, 4)
    use_system(faults.FaultySystem("EIO", 1))
    with pytest.raises(StorageError, match="input/output error"):
        boundary.append(np.arange(4), values)
    assert boundary.num_written == (0,)
    boundary.append(np.arange(4), values)
    assert same(boundary.read(np.arange(4)), values)


def test_a_failed_sync_is_not_tried_again(store, faults, use_system):
    boundary = store.create(spec_of())
    boundary.append(np.arange(4), batch(boundary.spec, 0, 4))
    use_system(faults.FaultySystem("EIO", 2))
    with pytest.raises(StorageError, match="input/output error"):
        store.commit()
    with pytest.raises(AssertionError, match="restore the store"):
        store.commit()


def test_records_survive_json(store):
    store.create(spec_of(copies=2, in_memory=True))
    (record,) = store.commit()
    assert read_record(BoundaryRecord, json.loads(json.dumps(document_of(record)))) == record


@pytest.mark.slow
def test_stores_do_not_load_dynamo(tmp_path):
    code = """
import sys, numpy as np, torch
from pathlib import Path
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec
store = ActivationStore(Path(sys.argv[1]), 4, 4)
for in_memory in (False, True):
    boundary = store.create(
        BoundarySpec(name=str(in_memory), shape=(3, 2, 2), dtype="bfloat16", records=4, in_memory=in_memory)
    )
    boundary.append(np.arange(4), torch.zeros(4, 3, 2, 2))
    boundary.read(np.array([2, 1]))
store.restore(store.commit())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "boundaries")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
