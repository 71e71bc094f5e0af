"""dataset.json: reading returns what was written, and damage is reported."""

from __future__ import annotations

import pytest

from edge_trgl.data import dataset, open_dataset
from edge_trgl.data.dataset import DATASET_FILE
from edge_trgl.data.prepare import prepare
from edge_trgl.runtime.errors import StorageError


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "data", prepare("sample", tmp_path / "data", seed=0, limit=40)


def test_what_was_written_is_read(prepared):
    folder, info = prepared
    assert open_dataset(folder) == info
    assert info.record_bytes == 784
    assert info.scale == 255.0


def test_a_flipped_byte_is_found_or_means_nothing(prepared):
    folder, info = prepared
    path = folder / DATASET_FILE
    whole = path.read_bytes()
    num_found = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            assert open_dataset(folder) == info
        except StorageError as error:
            num_found += 1
            assert DATASET_FILE in error.message
    assert num_found > len(whole) // 4


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff\xfe"])
def test_another_file_is_refused(prepared, content):
    folder, _ = prepared
    (folder / DATASET_FILE).write_bytes(content)
    with pytest.raises(StorageError, match=r"dataset\.json is damaged"):
        open_dataset(folder)


def test_a_missing_file_is_named(prepared):
    folder, _ = prepared
    for name in ("val.checksums", DATASET_FILE):
        (folder / name).unlink()
        with pytest.raises(StorageError, match=f"{name} cannot be read: No such file"):
            open_dataset(folder)


@pytest.mark.parametrize(
    "name", [f"{split}.{kind}" for split in ("train", "val") for kind in ("images", "labels", "checksums")]
)
def test_a_cut_file_is_named(prepared, name):
    folder, _ = prepared
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=f"{name} is damaged: it has"):
        open_dataset(folder)


def test_another_version_is_refused(prepared, monkeypatch):
    folder, info = prepared
    monkeypatch.setattr(dataset, "SCHEMA", dataset.SCHEMA + 1)
    newer = dataset.encode(info)
    monkeypatch.undo()
    (folder / DATASET_FILE).write_bytes(newer)
    with pytest.raises(StorageError, match=r"dataset\.json was written by another version"):
        open_dataset(folder)
