"""Preparing: the files in the folder, equal bytes for equal seeds, and no half-written set after a failure."""

from __future__ import annotations

import errno
import hashlib
import os

import numpy as np
import pytest

from edge_trgl.data import open_dataset
from edge_trgl.data.prepare import prepare
from edge_trgl.runtime.errors import InputError, StorageError, UsageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.checksum import Checksum, checksum_of


@pytest.fixture
def spec(tmp_path, sets):
    sets.npz(tmp_path / "set.npz", sets.labelled(30, (4, 5, 3), 3), sets.labelled(6, (4, 5, 3), 3, seed=1))
    return str(tmp_path / "set.npz")


def test_the_files_are_what_they_are_said_to_be(tmp_path, spec):
    info = prepare(spec, tmp_path / "data", seed=0)
    fingerprint = hashlib.sha256()
    for name, split in info.splits.items():
        images, labels, checksums = (
            (tmp_path / "data" / f"{name}.{kind}").read_bytes() for kind in ("images", "labels", "checksums")
        )
        records = [images[start : start + 60] for start in range(0, len(images), 60)]
        assert len(records) == split.num_images
        assert checksums == np.array([checksum_of(record) for record in records], "<u8").tobytes()
        assert set(np.frombuffer(labels, "<i8")) <= {0, 1, 2}
        of_files = (Checksum(labels).hexdigest(), Checksum(checksums).hexdigest())
        assert of_files == (split.labels_checksum, split.records_checksum)
        fingerprint.update(checksums + labels)
    assert info.fingerprint == fingerprint.hexdigest()
    assert info.shape == (4, 5, 3)
    pixels = np.fromfile(tmp_path / "data" / "train.images", np.uint8).reshape(-1, 3) / 255
    assert info.mean == pytest.approx(pixels.mean(axis=0))
    assert info.std == pytest.approx(pixels.std(axis=0))
    assert len(list((tmp_path / "data").iterdir())) == 10


def test_the_same_seed_gives_the_same_bytes(tmp_path, spec):
    first, again = prepare(spec, tmp_path / "a", seed=0), prepare(spec, tmp_path / "b", seed=0)
    other = prepare(spec, tmp_path / "c", seed=1)
    assert first == again
    assert first.fingerprint != other.fingerprint
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_validation_is_an_empty_split(tmp_path, spec):
    info = prepare(spec, tmp_path / "data", seed=0, validation=0)
    assert [info.splits[name].num_images for name in ("train", "val", "test")] == [30, 0, 6]
    assert open_dataset(tmp_path / "data") == info


def test_an_earlier_preparation_is_replaced(tmp_path, spec):
    prepare("sample", tmp_path / "data", seed=0, limit=20)
    info = prepare(spec, tmp_path / "data", seed=0)
    assert open_dataset(tmp_path / "data") == info


def test_a_failed_preparation_leaves_nothing_that_opens(tmp_path, spec):
    prepare(spec, tmp_path / "data", seed=0)
    images = np.full((4, 2, 2), np.nan, np.float32)
    np.savez(tmp_path / "bad.npz", x_train=images, y_train=np.arange(4) % 2)
    with pytest.raises(InputError, match="not finite"):
        prepare(str(tmp_path / "bad.npz"), tmp_path / "data", seed=0)
    with pytest.raises(StorageError):
        open_dataset(tmp_path / "data")
    assert not list((tmp_path / "data").glob("*.tmp"))


@pytest.mark.parametrize("validation", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_out_of_range(tmp_path, validation):
    with pytest.raises(UsageError, match="validation is"):
        prepare("sample", tmp_path / "data", seed=0, validation=validation)


def test_a_limit_out_of_range(tmp_path):
    for limit in (-1, 0, 9, 5001):
        with pytest.raises(UsageError, match=f"limit is {limit}; it must be from 10, .* to 5000"):
            prepare("sample", tmp_path / "data", seed=0, limit=limit)
    assert not (tmp_path / "data").exists()


class FailingSystem(files.FileSystem):
    """Makes the N-th call that changes a file fail."""

    def __init__(self, at, error):
        self.left = at
        self.error = error

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise OSError(self.error, os.strerror(self.error))

    def pwrite(self, fd, data, offset):
        self._count()
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        self._count()

    def rename(self, source, target):
        self._count()
        super().rename(source, target)

    def unlink(self, path):
        self._count()
        super().unlink(path)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_whatever_fails_the_folder_opens_whole_or_not_at_all(tmp_path, monkeypatch, spec, error):
    old = prepare(spec, tmp_path / "data", seed=0)
    new = prepare(spec, tmp_path / "other", seed=1)
    num_failed = 0
    while True:
        monkeypatch.setattr(files, "system", FailingSystem(num_failed + 1, error))
        try:
            prepare(spec, tmp_path / "data", seed=1)
        except StorageError:
            num_failed += 1
        else:
            break
        finally:
            monkeypatch.undo()
        try:
            assert open_dataset(tmp_path / "data") in (old, new)
        except StorageError as refusal:
            assert "dataset.json cannot be read" in refusal.message
    assert num_failed > 30
    assert open_dataset(tmp_path / "data") == new
