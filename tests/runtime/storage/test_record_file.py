"""Files too large for the page cache: what is fetched ahead, what is let go of, and when it goes to the disk."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import boundary_spec, files, record_file, write_behind
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

RECORD = 1024  # bytes: 256 float32
CHUNK = 8  # records: 2 pages
NUM_SAMPLES = 256
WILL_NEED, DONT_NEED = os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED


class Spy(files.FileSystem):
    """Keeps what the kernel was told."""

    def __init__(self):
        self.advised, self.written_out = [], []

    def fadvise(self, fd, offset, length, advice):
        self.advised.append((advice, offset, length))

    def sync_file_range(self, fd, offset, length):
        self.written_out.append((offset, length))

    def chunks(self, advice):
        """The chunks of which the kernel was told so since the last call."""
        found = [offset // (CHUNK * RECORD) for kind, offset, _ in self.advised if kind == advice]
        self.advised = [told for told in self.advised if told[0] != advice]
        return found


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(boundary_spec, "LARGE_FILE_BYTES", 1)
    monkeypatch.setattr(boundary_spec, "CHUNK_BYTES", CHUNK * RECORD)
    monkeypatch.setattr(write_behind, "STEP_BYTES", 32 * RECORD)
    store = ActivationStore(tmp_path / "boundaries", NUM_SAMPLES, 16)
    yield store
    store.close()


def _full(store, *, in_memory=False, copies=1):
    spec = BoundarySpec(
        name="b1", shape=(256,), dtype="float32", records=NUM_SAMPLES, copies=copies, in_memory=in_memory
    )
    boundary = store.create(spec)
    for copy in range(copies):
        for start in range(0, NUM_SAMPLES, 16):
            samples = np.arange(start, start + 16)
            boundary.append(samples, torch.full((16, 256), float(start)), copy=copy)
    store.commit()  # nothing is under way any more
    return boundary


def test_what_is_expected_is_fetched_once_and_the_rest_let_go_of(store, use_system):
    boundary, spy = _full(store), Spy()
    use_system(spy)
    boundary._stored.expect(np.arange(5, 30))
    assert spy.chunks(WILL_NEED) == [0, 1, 2, 3]
    assert spy.chunks(DONT_NEED) == []
    boundary._stored.expect(np.array([100, 17, 20]))
    assert spy.chunks(WILL_NEED) == [12]
    assert sorted(spy.chunks(DONT_NEED)) == [0, 1, 3]
    boundary._stored.expect(np.array([], np.int64))
    assert sorted(spy.chunks(DONT_NEED)) == [2, 12]


def test_a_chunk_is_fetched_in_pieces_that_no_kernel_cuts_short(store, use_system, monkeypatch):
    boundary, spy = _full(store), Spy()
    monkeypatch.setattr(record_file, "_FETCH_BYTES", 5 * RECORD)
    use_system(spy)
    boundary._stored.expect(np.array([9]))
    assert spy.advised == [(WILL_NEED, 8 * RECORD, 5 * RECORD), (WILL_NEED, 13 * RECORD, 3 * RECORD)]


def test_copies_lie_in_chunks_of_their_own(store, use_system):
    boundary, spy = _full(store, copies=2), Spy()
    use_system(spy)
    boundary.read(np.array([3]), copy=1, then=np.array([0, 255]))
    assert spy.chunks(WILL_NEED) == [32, 63]


def test_records_that_are_not_there_yet_are_passed_over(store, use_system):
    spec = BoundarySpec(name="b1", shape=(256,), dtype="float32", records=NUM_SAMPLES)
    boundary, spy = store.create(spec), Spy()
    boundary.append(np.arange(8), torch.zeros(8, 256))
    use_system(spy)
    boundary.read(np.arange(2), then=np.arange(100))
    assert spy.chunks(WILL_NEED) == [0]


def test_small_files_and_boundaries_in_memory_are_left_to_the_kernel(store, use_system, monkeypatch):
    in_memory, spy = _full(store, in_memory=True), Spy()
    use_system(spy)
    in_memory.read(np.arange(16), then=np.arange(16, 32))
    assert spy.advised == []
    monkeypatch.setattr(boundary_spec, "LARGE_FILE_BYTES", 1 << 30)
    small = _full(store)
    small.read(np.arange(16), then=np.arange(16, 32))
    assert spy.advised == spy.written_out == []


def test_a_window_is_sixteen_chunks(store):
    assert _full(store).window == 16 * CHUNK


def test_what_is_written_goes_to_the_disk_in_steps(store, use_system):
    spy = Spy()
    use_system(spy)
    boundary = _full(store)
    step = 32 * RECORD
    assert spy.written_out == [(start, step) for start in range(0, NUM_SAMPLES * RECORD, step)]
    assert (DONT_NEED, 7 * step, step) in spy.advised
    assert spy.advised[-1] == (DONT_NEED, 0, boundary.spec.file_bytes)


def test_writing_again_from_the_start_ends_a_step(store, use_system):
    spy = Spy()
    spec = BoundarySpec(name="b1", shape=(256,), dtype="float32", records=NUM_SAMPLES)
    use_system(spy)
    for _ in range(2):
        boundary = store.create(spec)
        boundary.append(np.arange(16), torch.zeros(16, 256))
    boundary.append(np.arange(16, 32), torch.zeros(16, 256))
    store.commit()
    assert spy.written_out == [(0, 16 * RECORD), (0, 32 * RECORD)]


def test_a_disk_that_fails_behind_the_writer_is_found_at_the_commit(store, use_system):
    class Failing(files.FileSystem):
        def sync_file_range(self, fd, offset, length):
            raise OSError(5, "input/output error")

    use_system(Failing())
    spec = BoundarySpec(name="b1", shape=(256,), dtype="float32", records=NUM_SAMPLES)
    boundary = store.create(spec)
    boundary.append(np.arange(32), torch.zeros(32, 256))
    with pytest.raises(StorageError, match="input/output error"):
        store.commit()
    with pytest.raises(AssertionError, match="restore the store"):
        store.commit()


def test_a_disk_that_fails_stops_a_writer_that_goes_on(store, use_system):
    class Failing(files.FileSystem):
        def sync_file_range(self, fd, offset, length):
            raise OSError(28, "no space left on device")

    use_system(Failing())
    with pytest.raises(StorageError, match="disk is full"):
        _full(store)


def test_the_real_call_writes_out(tmp_path):
    with files.opened(tmp_path / "file", os.O_RDWR | os.O_CREAT) as fd:
        files.write_all(fd, b"x" * 10000, 0)
        files.write_out(fd, 0, 10000)
        with pytest.raises(StorageError):
            files.write_out(fd, -1, 1)
