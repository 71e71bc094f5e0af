"""Reading ahead changes when records are read, and nothing else."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.data import stored_order, windowed_order
from edge_trgl.runtime.errors import DamagedBoundaryError, StorageError
from edge_trgl.runtime.storage import boundary_spec, files, record_codec
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

NUM_SAMPLES, BATCH = 40, 8
SHAPE = (3, 4, 5)
SECTORS = (8, 16, 8)  # records of whole sectors, a page each
CHUNK = 2  # records

SHAPES = pytest.mark.parametrize("shape", [SHAPE, SECTORS])


class Watched(files.FileSystem):
    """Knows the thread of every read and the records in it; can fail, or know no direct reads."""

    def __init__(self):
        self.threads, self.offsets, self.flags = [], [], []
        self.fault = 0
        self.is_direct = True

    def open(self, path, flags):
        if flags & os.O_DIRECT and not self.is_direct:
            raise OSError(errno.EINVAL, "invalid argument")
        self.flags.append(flags)
        return super().open(path, flags)

    def preadv(self, fd, buffer, offset):
        self.threads.append(threading.current_thread().name.split("_")[0])
        return super().preadv(fd, buffer, offset)

    def scatter(self, fd, buffers, offset):
        self.threads.append(threading.current_thread().name.split("_")[0])
        self.offsets.append(offset)
        if self.fault:
            raise OSError(self.fault, "fault")
        return super().scatter(fd, buffers, offset)

    def taken(self):
        found, self.threads = self.threads, []
        return set(found)


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Every file is a large one."""
    monkeypatch.setattr(boundary_spec, "LARGE_FILE_BYTES", 1)


@pytest.fixture
def chunked(monkeypatch):
    """Chunks of `CHUNK` records and windows of two chunks."""

    def by(shape):
        monkeypatch.setattr(boundary_spec, "CHUNK_BYTES", CHUNK * 4 * int(np.prod(shape)))
        monkeypatch.setattr(boundary_spec, "WINDOW_CHUNKS", 2)

    return by


def _values(shape=SHAPE):
    return torch.randn(NUM_SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


VALUES = _values()


def _store(folder, *, ahead=True, reuse=True):
    return ActivationStore(folder / "boundaries", NUM_SAMPLES, BATCH, ahead=ahead, reuse=reuse)


def _full(store, name="b1", values=VALUES, order=None, **options):
    shape = tuple(values.shape[1:])
    made = store.create(BoundarySpec(name=name, shape=shape, dtype="float32", records=NUM_SAMPLES, **options))
    order = np.arange(NUM_SAMPLES) if order is None else order
    for copy in range(made.spec.copies):
        for start in range(0, NUM_SAMPLES, BATCH):
            samples = order[start : start + BATCH]
            made.append(samples, values[samples], copy=copy)
    return made


def _epoch(made, order, copy=0):
    """The records of an epoch in that order, batch by batch as training reads them."""
    for start in range(0, len(order), BATCH):
        samples, then = order[start : start + BATCH], order[start + BATCH :][: made.window]
        yield samples, made.read(samples, copy=copy, then=then)


def _settle(store):
    """Wait for the thread."""
    window = store._shared.buffers._window
    if window is not None and window._done is not None:
        window._done.result()


@pytest.fixture
def store(tmp_path):
    store = _store(tmp_path)
    yield store
    store.close()


@SHAPES
def test_what_was_announced_comes_from_the_other_thread(store, use_system, shape):
    values, system = _values(shape), Watched()
    made = _full(store, values=values)
    use_system(system)
    for samples, found in _epoch(made, np.random.default_rng(0).permutation(NUM_SAMPLES)):
        assert torch.equal(found, values[samples])
        _settle(store)
        assert system.taken() <= {"read-ahead"}
    assert system.offsets


@SHAPES
@pytest.mark.parametrize("copies", [1, 2])
def test_each_record_of_a_shuffled_epoch_is_read_once(store, chunked, use_system, shape, copies):
    chunked(shape)
    order, values, system = stored_order(NUM_SAMPLES, 3), _values(shape), Watched()
    made = _full(store, values=values, order=order, copies=copies)
    use_system(system)
    epoch = windowed_order(NUM_SAMPLES, 3, 1, CHUNK)
    for samples, found in _epoch(made, epoch, copies - 1):
        assert torch.equal(found, values[samples])
    assert store.bytes_read == values.nbytes
    # The first batch is read by itself, and its chunks again without it.
    assert len(system.offsets) <= NUM_SAMPLES // CHUNK + 2 * BATCH


def test_records_of_whole_sectors_go_past_the_page_cache(store, use_system):
    values, system = _values(SECTORS), Watched()
    made = _full(store, values=values)
    use_system(system)
    for samples, found in _epoch(made, np.arange(NUM_SAMPLES)):
        assert torch.equal(found, values[samples])
    assert [bool(flags & os.O_DIRECT) for flags in system.flags] == [True]


@SHAPES
@pytest.mark.parametrize("refuses", ["open", "read"])
def test_without_direct_reads_it_goes_by_way_of_the_page_cache(store, use_system, shape, refuses):
    class Plain(Watched):
        def scatter(self, fd, buffers, offset):
            if refuses == "read" and self.flags[-1] & os.O_DIRECT:
                raise OSError(errno.EINVAL, "invalid argument")
            return super().scatter(fd, buffers, offset)

    values, system = _values(shape), Plain()
    system.is_direct = refuses != "open"
    made = _full(store, values=values)
    use_system(system)
    for samples, found in _epoch(made, np.random.default_rng(0).permutation(NUM_SAMPLES)):
        assert torch.equal(found, values[samples])
    assert not system.flags[-1] & os.O_DIRECT


@SHAPES
def test_reads_that_come_short_are_gone_on_with(store, use_system, shape):
    class Short(Watched):
        def scatter(self, fd, buffers, offset):
            return super().scatter(fd, [buffers[0][: max(len(buffers[0]) // 2, 1)]], offset)

    values = _values(shape)
    made = _full(store, values=values)
    use_system(Short())
    for samples, found in _epoch(made, np.arange(NUM_SAMPLES)):
        assert torch.equal(found, values[samples])


def test_in_order_only_a_batch_and_a_chunk_are_held(store, chunked):
    chunked(SHAPE)
    in_order, shuffled = _full(store, in_order=True), _full(store, "b2")
    assert in_order.spec.window(BATCH) == CHUNK + BATCH
    assert shuffled.spec.window(BATCH) == 3 * CHUNK + BATCH
    for samples, found in _epoch(in_order, np.arange(NUM_SAMPLES)):
        assert torch.equal(found, VALUES[samples])
    assert store.bytes_read == VALUES.nbytes


def test_small_files_are_left_to_the_page_cache(store, use_system, monkeypatch):
    monkeypatch.setattr(boundary_spec, "LARGE_FILE_BYTES", 1 << 20)
    made, system = _full(store), Watched()
    use_system(system)
    for samples, found in _epoch(made, np.arange(NUM_SAMPLES)):
        assert torch.equal(found, VALUES[samples])
    assert system.taken() == {"MainThread"}
    assert store._shared.buffers._window is None


def test_a_batch_stays_while_the_next_ones_come(store):
    made = _full(store)
    first = made.read(np.arange(8), then=np.arange(8, 16))
    _settle(store)
    assert torch.equal(first, VALUES[:8])


def test_another_batch_than_was_announced_is_read_all_the_same(store):
    made = _full(store)
    made.read(np.arange(8), then=np.arange(8, 16))
    assert torch.equal(made.read(np.array([3, 30])), VALUES[[3, 30]])
    made.read(np.arange(8), then=np.arange(8, 16))
    assert torch.equal(made.read(np.arange(8, 12)), VALUES[8:12])


def test_a_batch_of_the_same_record_many_times(store):
    made = _full(store)
    made.read(np.arange(8), then=np.array([9, 9, 9, 9]))
    for _ in range(10):
        assert torch.equal(made.read(np.array([9, 9, 9, 9])), VALUES[[9, 9, 9, 9]])


def test_two_boundaries_in_turn(store):
    first, second = _full(store), _full(store, "b2")
    for start in (0, 8, 16):
        samples, then = np.arange(start, start + 8), np.arange(start + 8, start + 16)
        assert torch.equal(first.read(samples, then=then), VALUES[samples])
        assert torch.equal(second.read(samples, then=then), VALUES[samples])


def test_what_is_written_anew_is_not_read_from_before(store):
    spec = BoundarySpec(name="b1", shape=SHAPE, dtype="float32", records=NUM_SAMPLES)
    for value in (1.0, 2.0):
        made = store.create(spec)
        made.append(np.arange(16), torch.full((16, *SHAPE), value))
        assert made.read(np.arange(8), then=np.arange(8, 16)).max() == value
    made = store.create(spec)
    made.append(np.arange(16), torch.full((16, *SHAPE), 3.0))
    assert made.read(np.arange(8, 16)).max() == 3.0


def test_damage_that_is_found_ahead_is_told_when_it_is_asked_for(store):
    made = _full(store)
    data = bytearray(made.path.read_bytes())
    data[240 * 9] ^= 1
    made.path.write_bytes(data)
    assert torch.equal(made.read(np.arange(8), then=np.arange(8, 24)), VALUES[:8])
    with pytest.raises(DamagedBoundaryError, match="record 9"):
        made.read(np.arange(8, 16))
    made.read(np.arange(8), then=np.arange(8, 16))
    assert torch.equal(made.read(np.arange(16, 24)), VALUES[16:24])  # nobody asked


@SHAPES
def test_a_disk_that_fails_ahead_is_told_if_it_fails_again(store, use_system, shape):
    values, system = _values(shape), Watched()
    made = _full(store, values=values)
    use_system(system)
    made.read(np.arange(8))
    system.fault = errno.EIO
    store._shared.buffers.announce(made._stored, np.arange(8, 24, dtype=np.int32))
    with pytest.raises(StorageError):
        _settle(store)
    with pytest.raises(StorageError, match="input/output error"):
        made.read(np.arange(8, 16), then=np.arange(16, 24))
    system.fault = 0
    assert torch.equal(made.read(np.arange(8, 16), then=np.arange(16, 24)), values[8:16])
    assert torch.equal(made.read(np.arange(16, 24)), values[16:24])


def test_a_file_that_was_cut_is_told(store):
    made = _full(store)
    os.truncate(made.path, 240 * 12)
    assert torch.equal(made.read(np.arange(8), then=np.arange(8, 16)), VALUES[:8])
    with pytest.raises(StorageError, match="bytes short"):
        made.read(np.arange(8, 16))


def test_closing_waits_for_the_thread(store):
    made = _full(store)
    made.read(np.arange(8), then=np.arange(8, 16))
    store.drop("b1")
    assert store._shared.buffers._window is None


@pytest.mark.parametrize("ahead", [False, True])
def test_there_is_one_buffer(tmp_path, monkeypatch, ahead):
    made_rows = []

    def empty_rows(spec, num_rows):
        made_rows.append(num_rows)
        return record_codec.empty_rows(spec, num_rows)

    monkeypatch.setattr("edge_trgl.runtime.storage.read_buffers.empty_rows", empty_rows)
    store = _store(tmp_path, ahead=ahead)
    list(_epoch(_full(store), np.arange(NUM_SAMPLES)))
    assert made_rows == [BATCH]
    store.close()


def test_without_reuse_every_batch_stays_as_it_was(tmp_path):
    store = _store(tmp_path, reuse=False)
    made, batches = _full(store), []
    for start in range(0, NUM_SAMPLES, BATCH):
        batches.append(made.read(np.arange(start, start + BATCH), then=np.arange(start + BATCH, NUM_SAMPLES)))
    assert torch.equal(torch.cat(batches), VALUES)
    store.close()


@settings(max_examples=30)
@given(st.data())
def test_any_order_of_reads_and_announcements_gives_the_records(tmp_path_factory, data):
    store = _store(tmp_path_factory.mktemp("ahead"), reuse=data.draw(st.booleans()))
    boundaries = [_full(store), _full(store, "b2")]
    batch = st.lists(st.integers(0, NUM_SAMPLES - 1), min_size=1, max_size=BATCH).map(np.array)
    for _ in range(8):
        made, samples, then = data.draw(st.sampled_from(boundaries)), data.draw(batch), data.draw(batch)
        assert torch.equal(made.read(samples, then=then), VALUES[samples])
        if data.draw(st.booleans()):
            assert torch.equal(made.read(then), VALUES[then])
    store.close()
