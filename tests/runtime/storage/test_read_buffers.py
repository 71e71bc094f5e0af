"""Reading ahead changes when records are read, and nothing else."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.runtime.errors import DamagedBoundaryError
from edge_trgl.runtime.storage import boundary, files
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

NUM_SAMPLES, BATCH, SHAPE = 40, 8, (3, 4, 5)
VALUES = torch.randn(NUM_SAMPLES, *SHAPE, generator=torch.Generator().manual_seed(0))


class Watched(files.FileSystem):
    """Knows the thread of every read."""

    def __init__(self):
        self.threads = []

    def preadv(self, fd, buffer, offset):
        self.threads.append(threading.current_thread().name.split("_")[0])
        return super().preadv(fd, buffer, offset)

    def taken(self):
        found, self.threads = self.threads, []
        return set(found)


def _store(folder, *, ahead=True, reuse=True):
    return ActivationStore(folder / "boundaries", NUM_SAMPLES, BATCH, ahead=ahead, reuse=reuse)


def _full(store, name="b1"):
    made = store.create(BoundarySpec(name=name, shape=SHAPE, dtype="float32", records=NUM_SAMPLES))
    for start in range(0, NUM_SAMPLES, BATCH):
        samples = np.arange(start, start + BATCH)
        made.append(samples, VALUES[samples])
    return made


@pytest.fixture
def store(tmp_path):
    store = _store(tmp_path)
    yield store
    store.close()


def test_what_was_announced_comes_from_the_other_thread(store, use_system):
    made, system = _full(store), Watched()
    use_system(system)
    order = np.random.default_rng(0).permutation(NUM_SAMPLES)
    for start in range(0, NUM_SAMPLES, BATCH):
        samples, then = order[start : start + BATCH], order[start + BATCH :]
        assert torch.equal(made.read(samples, then=then), VALUES[samples])
        store._shared.buffers._coming and store._shared.buffers._coming.done.result()
        expected = {"MainThread"} if start == 0 else set()
        assert system.taken() == expected | ({"read-ahead"} if len(then) else set())


def test_a_window_of_large_records_is_read_ahead_as_a_whole(store, monkeypatch):
    monkeypatch.setattr("edge_trgl.runtime.storage.boundary_spec.CHUNK_BYTES", VALUES[0].nbytes)
    monkeypatch.setattr(boundary, "WINDOW_CHUNKS", 2)
    made = _full(store)
    for start in range(0, NUM_SAMPLES, BATCH):
        then = np.arange(NUM_SAMPLES)[start + BATCH :][: made.window]
        made.read(np.arange(start, start + BATCH), then=then)
    assert store.bytes_read == VALUES.nbytes


def test_a_batch_stays_while_the_next_one_comes(store):
    made = _full(store)
    first = made.read(np.arange(8), then=np.arange(8, 16))
    store._shared.buffers._coming.done.result()
    assert torch.equal(first, VALUES[:8])
    second = made.read(np.arange(8, 16), then=np.arange(16, 24))
    assert torch.equal(second, VALUES[8:16])
    assert first.data_ptr() != second.data_ptr()


def test_another_batch_than_was_announced_is_read_all_the_same(store):
    made = _full(store)
    made.read(np.arange(8), then=np.arange(8, 16))
    assert torch.equal(made.read(np.array([3, 30])), VALUES[[3, 30]])
    made.read(np.arange(8), then=np.arange(8, 16))
    assert torch.equal(made.read(np.arange(8, 12)), VALUES[8:12])


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
    assert torch.equal(made.read(np.arange(8), then=np.arange(8, 16)), VALUES[:8])
    with pytest.raises(DamagedBoundaryError, match="record 9"):
        made.read(np.arange(8, 16))
    made.read(np.arange(8), then=np.arange(8, 16))
    assert torch.equal(made.read(np.arange(16, 24)), VALUES[16:24])  # nobody asked


def test_closing_waits_for_the_thread(store):
    made = _full(store)
    made.read(np.arange(8), then=np.arange(8, 16))
    store.drop("b1")
    assert store._shared.buffers._coming is None


@pytest.mark.parametrize("ahead", [False, True])
def test_there_are_no_more_buffers_than_batches_at_work(tmp_path, monkeypatch, ahead):
    made_rows = []

    def empty_rows(spec, num_rows):
        made_rows.append(num_rows)
        return boundary.empty_rows(spec, num_rows)

    monkeypatch.setattr("edge_trgl.runtime.storage.read_buffers.empty_rows", empty_rows)
    store = _store(tmp_path, ahead=ahead)
    made = _full(store)
    for start in range(0, NUM_SAMPLES, BATCH):
        made.read(np.arange(start, start + BATCH), then=np.arange(start + BATCH, NUM_SAMPLES))
    assert made_rows == [BATCH] * (2 if ahead else 1)
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
