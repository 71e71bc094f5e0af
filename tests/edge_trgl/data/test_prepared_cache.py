"""Shared preparations: the same bytes at no cost, none that is damaged, and an own set where sharing fails."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from PIL import Image

from edge_trgl.config.data import DataConfig
from edge_trgl.data import is_prepared, open_dataset
from edge_trgl.data.prepare import prepare
from edge_trgl.data.prepared_cache import PreparedCache, open_cache
from edge_trgl.runtime.errors import DiskFullError, InputError
from edge_trgl.runtime.storage import disk_space, files
from edge_trgl.runtime.units import MIB


@pytest.fixture
def settings(tmp_path, sets):
    sets.npz(tmp_path / "set.npz", sets.labelled(300, (16, 16, 3), 3), sets.labelled(6, (16, 16, 3), 3, seed=1))
    return DataConfig(source=str(tmp_path / "set.npz"), cache_mb=1.0)


class Preparing:
    """Prepares folders through the cache and counts how often it decodes."""

    def __init__(self, folder):
        self.folder = folder
        self.decoded = 0

    def __call__(self, name, settings, *, anew=False, before=lambda: None):
        target = self.folder / name

        def decode():
            self.decoded += 1
            before()
            return prepare(settings.source, target, seed=0, validation=settings.validation)

        cache = PreparedCache(self.folder / "cache", settings, seed=0, labels=True)
        return cache.prepare(target, decode, anew=anew)


@pytest.fixture
def preparing(tmp_path):
    return Preparing(tmp_path)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_second_takes_what_the_first_prepared(preparing, settings, tmp_path):
    first, second = preparing("a", settings), preparing("b", settings)
    assert (first.reused, second.reused, preparing.decoded) == (False, True, 1)
    assert second.info == first.info == open_dataset(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "b" / "train.images").stat().st_nlink == 3


def test_each_run_is_charged_for_its_data(preparing, settings, tmp_path):
    preparing("a", settings)
    preparing("b", settings)
    assert disk_space.taken_mb(tmp_path / "a") == disk_space.taken_mb(tmp_path / "b") > 0.1


def test_other_settings_are_prepared_anew(preparing, settings):
    preparing("a", settings)
    assert not preparing("b", replace(settings, validation=0.2)).reused
    assert preparing.decoded == 2


def test_a_moved_source_is_named_as_it_is_now(preparing, settings, tmp_path):
    preparing("a", settings)
    (tmp_path / "set.npz").rename(tmp_path / "elsewhere.npz").rename(tmp_path / "set.npz")
    other = replace(settings, source=os.path.relpath(settings.source))
    assert not preparing("b", settings).reused  # renaming a file is a change of it
    taken = preparing("c", other)
    assert taken.reused
    assert taken.info.summary.source == open_dataset(tmp_path / "c").summary.source == other.source
    assert open_dataset(tmp_path / "b").summary.source == settings.source


def test_nothing_is_kept_where_that_is_switched_off(preparing, settings, tmp_path):
    without = replace(settings, cache_mb=0.0)
    preparing("a", without)
    preparing("b", without)
    assert preparing.decoded == 2
    assert not (tmp_path / "cache").exists()


def test_a_set_above_the_limit_is_not_kept(preparing, settings, tmp_path):
    preparing("a", replace(settings, cache_mb=0.01))
    assert not open_cache(tmp_path / "cache").entries()


def test_without_a_limit_it_is_a_share_of_what_is_free(preparing, settings, tmp_path, monkeypatch):
    unset = replace(settings, cache_mb=None)
    monkeypatch.setattr(disk_space, "free_mb", lambda folder: 1.0)
    preparing("a", unset)
    assert not open_cache(tmp_path / "cache").entries()
    monkeypatch.setattr(disk_space, "free_mb", lambda folder: 10.0)
    preparing("b", unset)
    assert len(open_cache(tmp_path / "cache").entries()) == 1


def test_files_that_change_while_they_are_read_are_not_kept(preparing, settings, tmp_path):
    preparing("a", settings, before=lambda: os.utime(settings.source))
    assert not open_cache(tmp_path / "cache").entries()


def the_kept(folder):
    (entry,) = (folder / "cache").glob("*/")
    return entry


def damage(path, at=0):
    """Change a byte in place, as a failing disk does."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name", ["dataset.json", "train.labels", "val.checksums"])
def test_a_damaged_set_is_prepared_again(preparing, settings, tmp_path, name):
    whole = preparing("a", settings).info
    damage(the_kept(tmp_path) / name)
    again = preparing("b", settings)
    assert (again.reused, again.info, preparing.decoded) == (False, whole, 2)
    assert name in again.damage
    assert preparing("c", settings).reused
    assert open_dataset(tmp_path / "c") == whole


def test_a_damaged_set_is_not_taken_for_one_where_images_are_only_surveyed(preparing, settings, tmp_path):
    info = preparing("a", settings).info
    damage(the_kept(tmp_path) / "dataset.json")
    cache = PreparedCache(tmp_path / "cache", settings, seed=0, labels=True)
    assert cache.prepare(tmp_path / "b", lambda: info).damage
    assert not is_prepared(tmp_path / "b")
    assert not cache.prepare(tmp_path / "c", lambda: info).reused


def test_a_file_of_the_wrong_size_is_damage(preparing, settings, tmp_path):
    preparing("a", settings)
    with (the_kept(tmp_path) / "test.images").open("r+b") as file:
        file.truncate(10)
    assert "test.images" in preparing("b", settings).damage


def test_a_damaged_record_is_replaced_in_run_and_cache(preparing, settings, tmp_path):
    preparing("a", settings)
    whole = (tmp_path / "a" / "train.images").read_bytes()
    damage(the_kept(tmp_path) / "train.images")
    taken = preparing("b", settings)
    assert taken.reused
    mended = preparing("b", settings, anew=True)
    assert not mended.reused
    assert (tmp_path / "b" / "train.images").read_bytes() == whole
    assert (the_kept(tmp_path) / "train.images").read_bytes() == whole


class FullUntilCleared(files.FileSystem):
    """A disk without room for records as long as anything is kept."""

    def __init__(self, cache):
        self._cache = cache

    def pwrite(self, fd, data, offset):
        if any(self._cache.glob("*/*.images")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)


def test_a_full_disk_gets_the_room_of_what_nobody_uses(preparing, settings, tmp_path, monkeypatch):
    preparing("a", replace(settings, validation=0.3))
    other = replace(settings, validation=0.2)
    monkeypatch.setattr(files, "system", FullUntilCleared(tmp_path / "cache"))
    # As long as a run uses it, removing it would set nothing free.
    with pytest.raises(DiskFullError):
        preparing("b", other)
    assert the_kept(tmp_path)
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    assert preparing("b", other).info == open_dataset(tmp_path / "b")


class WithoutLinks(files.FileSystem):
    def link(self, source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_where_there_are_no_links_each_prepares_its_own(preparing, settings, monkeypatch):
    monkeypatch.setattr(files, "system", WithoutLinks())
    assert preparing("a", settings).info == preparing("b", settings).info
    assert preparing.decoded == 2


def test_the_limit_counts_only_what_nobody_uses(preparing, settings, tmp_path):
    each_mb = 0.3
    few = replace(settings, cache_mb=1.5 * each_mb)
    for name, validation in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        preparing(name, replace(few, validation=validation))
    assert len(open_cache(tmp_path / "cache").entries()) == 3
    for name in "abc":
        for path in (tmp_path / name).iterdir():
            path.unlink()
    preparing("d", replace(few, validation=0.4))
    assert sum(entry.own_bytes for entry in open_cache(tmp_path / "cache").entries()) <= few.cache_mb * MIB


def test_what_has_no_labels_is_not_taken_where_they_are_needed(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(30):
        Image.new("L", (4, 4), number).save(photos / f"{number}.png")
    settings = DataConfig(source=str(photos), cache_mb=1.0)

    def prepared(name, *, labels):
        cache = PreparedCache(tmp_path / "cache", settings, seed=0, labels=labels)
        return cache.prepare(tmp_path / name, lambda: prepare(str(photos), tmp_path / name, seed=0, labels=labels))

    assert not prepared("first", labels=False).reused
    with pytest.raises(InputError, match="images without labels"):
        prepared("second", labels=True)
    assert not is_prepared(tmp_path / "second")
    assert prepared("third", labels=False).reused
