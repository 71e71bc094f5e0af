"""Files of boundaries that are not what was written: each damage is found and named, the rest stays usable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_trgl.runtime.errors import DamagedBoundaryError
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

SHAPE, STRIDE, RECORDS = (3, 4, 5), 240, 8


@pytest.fixture
def store(tmp_path):
    store = ActivationStore(tmp_path / "boundaries", 40, 8)
    yield store
    store.close()


@pytest.fixture
def committed(store):
    """A function that commits a boundary of six records; returns its file and the commit's records."""

    def make(*, in_memory=False, samples=range(6), seed=0):
        spec = BoundarySpec(name="b1", shape=SHAPE, dtype="float32", records=RECORDS, in_memory=in_memory)
        boundary, numbers = store.create(spec), np.array(samples)
        boundary.append(numbers, torch.randn(len(numbers), *SHAPE, generator=torch.Generator().manual_seed(seed)))
        records = store.commit()
        store.close()
        return boundary.path, records

    return make


def _found(store, records):
    """What restoring and reading finds."""
    lost = store.restore(records)
    if not lost:
        with pytest.raises(DamagedBoundaryError) as raised:
            store.get("b1").read(np.arange(6))
        return raised.value
    ((record, error),) = lost
    assert record == records[0]
    assert store.names == ()
    return error


def test_every_flipped_byte_is_named(store, committed):
    path, records = committed()
    data = path.read_bytes()
    in_use = [*range(0, 6 * STRIDE, 7), *range(RECORDS * STRIDE, RECORDS * STRIDE + 6 * 16)]
    for position in in_use:
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        error = _found(store, records)
        what = "index" if position >= RECORDS * STRIDE else f"record {position // STRIDE} in"
        assert what in error.message
        assert "boundary 'b1'" in error.message
        assert error.boundary == "b1"
        assert str(path) in error.message
        assert "To go back to the last commit: edge-trgl resume" in error.hint


def test_damage_of_a_memory_boundary_is_found_when_it_is_restored(store, committed):
    path, records = committed(in_memory=True)
    data = bytearray(path.read_bytes())
    data[3 * STRIDE + 5] ^= 1
    path.write_bytes(data)
    ((_, error),) = store.restore(records)
    assert error.message.startswith(f"boundary 'b1', record 3 in {path} is damaged")


def test_cut_and_missing_files_are_named_and_their_places_kept(store, committed):
    path, records = committed()
    garbage = store.folder / "b9.77"
    garbage.touch()
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert f"{path} has {len(data) - 1} bytes where {len(data)} were" in _found(store, records).message
    assert not garbage.exists()
    assert path.exists()  # the database names it still
    path.unlink()
    assert f"{path} does not exist" in _found(store, records).message


def test_a_damaged_file_goes_after_the_next_commit(store, committed):
    path, records = committed()
    path.write_bytes(b"")
    store.restore(records)
    store.commit()
    assert path.exists()
    store.sweep()
    assert not path.exists()


def test_what_is_given_up_is_not_opened(store, committed):
    path, records = committed()
    error = DamagedBoundaryError("found while it was read", boundary="b1")
    assert store.restore(records, {"b1": error}) == [(records[0], error)]
    assert "b1" not in store
    assert path.exists()


def test_other_boundaries_stay(store, committed):
    path, records = committed()
    store.restore(records)
    other = store.create(BoundarySpec(name="b2", shape=SHAPE, dtype="float32", records=RECORDS))
    other.append(np.arange(6), torch.ones(6, *SHAPE))
    records = store.commit()
    path.write_bytes(b"")
    assert [record.spec.name for record, _ in store.restore(records)] == ["b1"]
    assert torch.equal(store.get("b2").read(np.arange(6)), torch.ones(6, *SHAPE))


def test_another_boundarys_file_is_found(store, committed):
    path, records = committed()
    store.restore([])
    other, _ = committed(samples=(5, 4), seed=1)
    other.rename(path)
    assert "the index of boundary 'b1'" in _found(store, records).message


def test_damage_leaves_no_descriptor_open(store, committed):
    path, records = committed()
    path.write_bytes(bytes(path.stat().st_size))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert store.restore(records)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
