"""Reading records: in any order, one read for contiguous ones, with checksums, into one buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_trgl.data import RecordReader, epoch_order
from edge_trgl.data.prepare import prepare
from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files

NUM_IMAGES = 40


@pytest.fixture(scope="module", params=["uint8", "float32"])
def prepared(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("reader")
    generator = np.random.default_rng(0)
    images = (generator.random((NUM_IMAGES, 3, 4)) * 255).astype(request.param)
    labels = np.arange(NUM_IMAGES) % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:2], "y_test": labels[:2]}
    np.savez(folder / "set.npz", axes="NHW", **arrays)
    info = prepare(str(folder / "set.npz"), folder / "data", seed=0, validation=0)
    return folder / "data", info, images[..., None], labels


@pytest.fixture
def reader(prepared):
    folder, info, *_ = prepared
    reader = RecordReader(folder, "train", info)
    yield reader
    reader.close()


class CountingSystem(files.FileSystem):
    def __init__(self):
        self.num_reads = 0

    def preadv(self, fd, buffer, offset):
        self.num_reads += 1
        return super().preadv(fd, buffer, offset)


class ShortReads(files.FileSystem):
    def preadv(self, fd, buffer, offset):
        return super().preadv(fd, buffer[:5], offset)


@settings(max_examples=50)
@given(samples=st.lists(st.integers(0, NUM_IMAGES - 1), max_size=60))
def test_any_samples_in_any_order(prepared, samples):
    folder, info, images, labels = prepared
    reader = RecordReader(folder, "train", info)
    samples = np.array(samples, np.int64)
    found = reader.read(samples)
    assert found.dtype == images.dtype
    assert np.array_equal(found, images[samples])
    assert np.array_equal(reader.labels, labels)
    assert reader.labels.dtype == np.int64
    assert len(reader) == NUM_IMAGES
    reader.close()


@pytest.mark.parametrize(
    ("samples", "expected"), [([5, 6, 7], 1), ([5, 6, 2, 3, 9], 3), ([3, 2, 1], 3), ([], 0), ([4, 4], 2)]
)
def test_one_read_for_each_run(reader, monkeypatch, samples, expected):
    counting = CountingSystem()
    monkeypatch.setattr(files, "system", counting)
    reader.read(np.array(samples, np.int64))
    assert counting.num_reads == expected


def test_short_reads_go_on(prepared, reader, monkeypatch):
    monkeypatch.setattr(files, "system", ShortReads())
    assert np.array_equal(reader.read(np.arange(NUM_IMAGES)), prepared[2])


def test_the_buffer_is_used_again(reader):
    first = reader.read(np.arange(10))
    assert np.shares_memory(first, reader.read(np.arange(20, 30)))
    assert np.shares_memory(first, reader.read(np.arange(3)))


def test_a_whole_epoch_in_its_order(prepared, reader):
    order = epoch_order(NUM_IMAGES, 0, 0)
    batches = [reader.read(order[start : start + 7]).copy() for start in range(0, NUM_IMAGES, 7)]
    assert np.array_equal(np.concatenate(batches), prepared[2][order])


def test_a_sample_that_is_not_there_is_our_mistake(reader):
    for sample in (-1, NUM_IMAGES):
        with pytest.raises(AssertionError):
            reader.read(np.array([sample]))


def _damage(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


@pytest.fixture
def copied(tmp_path):
    info = prepare("sample", tmp_path / "data", seed=0, limit=20)
    return tmp_path / "data", info


def test_a_damaged_record_is_named(copied):
    folder, info = copied
    _damage(folder / "train.images", 784 * 3 + 100)
    reader = RecordReader(folder, "train", info)
    reader.read(np.array([0, 1, 2, 4]))
    with pytest.raises(StorageError, match=r"train\.images is damaged: record 3 does not match"):
        reader.read(np.array([7, 3, 2]))
    reader.close()


@pytest.mark.parametrize("kind", ["labels", "checksums"])
def test_damaged_labels_and_checksums_are_named(copied, kind):
    folder, info = copied
    _damage(folder / f"train.{kind}", 5)
    with pytest.raises(StorageError, match=f"train.{kind} is damaged"):
        RecordReader(folder, "train", info)


def test_a_file_cut_while_it_is_open_is_named(copied):
    folder, info = copied
    reader = RecordReader(folder, "train", info)
    with (folder / "train.images").open("r+b") as stream:
        stream.truncate(784 * 2 + 5)
    reader.read(np.array([0, 1]))
    with pytest.raises(StorageError, match=r"train\.images ends at byte"):
        reader.read(np.array([1, 2]))
    reader.close()


def test_an_empty_split(tmp_path):
    info = prepare("sample", tmp_path / "data", seed=0, limit=20, validation=0)
    reader = RecordReader(tmp_path / "data", "val", info)
    assert len(reader) == 0
    assert reader.read(np.empty(0, np.int64)).shape == (0, 28, 28, 1)
    reader.close()
