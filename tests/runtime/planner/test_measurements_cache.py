"""Measurements are kept in the cache folder; a cache that cannot be used costs nothing but time."""

from __future__ import annotations

import pytest

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.planner.demand import Measurement
from edge_trgl.runtime.storage import storage_speed
from edge_trgl.runtime.storage.storage_speed import StorageSpeed

ONE = Measurement(work_mb=12.5, opening_mb=3.5, fixed_mb=230.0, seconds=0.25)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edge-trgl" / "probes"


def test_what_is_kept_is_recalled(folder):
    measurements_cache.keep("kind-none-32", ONE)
    assert measurements_cache.recall(["kind-none-32", "other"]) == {"kind-none-32": ONE}
    assert [path.name for path in folder.iterdir()] == ["kind-none-32.json"]


def test_the_folder_is_that_of_the_user_where_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert measurements_cache.cache_folder() == tmp_path / "home" / ".cache" / "edge-trgl" / "probes"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"work_mb": 1', '{"unknown": 1}'])
def test_a_damaged_file_is_no_measurement(folder, content):
    measurements_cache.keep("key", ONE)
    (folder / "key.json").write_text(content)
    assert measurements_cache.recall(["key"]) == {}


def test_a_folder_that_cannot_be_made_is_no_error(folder):
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.write_text("a file")
    measurements_cache.keep("key", ONE)
    assert measurements_cache.recall(["key"]) == {}


SPEED = StorageSpeed(read_mbs=90.0, write_mbs=40.0, random_iops=1500.0, method="O_DIRECT", file_mb=16.0)


@pytest.fixture
def disk(monkeypatch):
    """A disk that counts how often it is measured."""
    asked = []

    def measure(place, *, max_bytes):
        asked.append(max_bytes)
        return SPEED

    monkeypatch.setattr(storage_speed, "measure", measure)
    monkeypatch.setattr(storage_speed, "kind", lambda place: f"ext4 on {place.name}")
    return asked


def test_a_disk_is_measured_once(tmp_path, disk):
    assert [measurements_cache.disk_speed(tmp_path / "a") for _ in range(2)] == [SPEED, SPEED]
    assert disk == [16 << 20]
    measurements_cache.disk_speed(tmp_path / "b")
    assert len(disk) == 2


def test_a_disk_that_cannot_be_measured_has_no_speed(tmp_path, monkeypatch):
    def measure(place, *, max_bytes):
        raise StorageError("it is full")

    monkeypatch.setattr(storage_speed, "measure", measure)
    assert measurements_cache.disk_speed(tmp_path) is None
