"""The key of a prepared set: another one whenever the records may be others, the same one else."""

from __future__ import annotations

import os
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest

from edge_trgl.config.data import DataConfig
from edge_trgl.data import content_key as content_key_module
from edge_trgl.data.content_key import UNREAD, content_key
from edge_trgl.runtime.errors import InputError


@pytest.fixture
def photos(tmp_path, sets):
    sets.image_folder(tmp_path / "photos", {"": sets.labelled(8, (4, 4, 3), 2)})
    return tmp_path / "photos"


def key(source, *, seed=0, **settings):
    return content_key(DataConfig(source=str(source), **settings), seed=seed)


def test_the_same_data_have_the_same_key(photos):
    assert key(photos) == key(photos) == key(f"{photos}/") == key(photos.parent / "photos" / ".." / "photos")


def test_a_moved_folder_keeps_its_key(photos):
    before = key(photos)
    assert key(photos.rename(photos.with_name("renamed"))) == before


def rewrite_behind_its_back(photos):
    """Other bytes of the same number, with the old time put back."""
    path = next(photos.rglob("*.png"))
    about = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


CHANGES = {
    "a file more": lambda photos: shutil.copy(next(photos.rglob("0000.png")), photos / "class0" / "more.png"),
    "a file less": lambda photos: next(photos.rglob("*.png")).unlink(),
    "another name": lambda photos: next(photos.rglob("0003.png")).rename(photos / "class0" / "zzz.png"),
    "another class": lambda photos: (photos / "class0").rename(photos / "class9"),
    "other bytes": lambda photos: next(photos.rglob("*.png")).write_bytes(b"other"),
    "other bytes of the same time": rewrite_behind_its_back,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_files_is_noticed(photos, change):
    before = key(photos)
    CHANGES[change](photos)
    assert key(photos) != before


def test_hidden_files_are_not_read(photos):
    before = key(photos)
    (photos / ".DS_Store").write_text("x")
    (photos / ".thumbnails").mkdir()
    (photos / ".thumbnails" / "0000.png").write_text("x")
    assert key(photos) == before


def test_links_in_a_circle_and_to_nothing(photos):
    (photos / "class0" / "back").symlink_to(photos)
    (photos / "class0" / "gone.png").symlink_to(photos / "nowhere.png")
    assert key(photos) == key(photos)


OTHER_VALUES = {
    "image_size": 8,
    "resize": "crop",
    "strict": True,
    "limit": 4,
    "validation": 0.5,
    "choose_on": "half-test",
}


def test_every_setting_that_is_read_counts(photos):
    for name, value in OTHER_VALUES.items():
        assert key(photos, **{name: value}) != key(photos), name
    assert key(photos, seed=1) != key(photos)
    # A setting that is added later counts as long as nobody says that preparing does not read it.
    assert OTHER_VALUES.keys() | set(UNREAD) == {field.name for field in fields(DataConfig)}


def test_settings_of_training_do_not_count(photos):
    plain = DataConfig(source=str(photos))
    other = replace(plain, augment=False, flip=True, crop_padding=3, normalize="imagenet", cache_mb=1.0)
    assert content_key(plain, seed=0) == content_key(other, seed=0)


def test_other_code_makes_other_records(photos, monkeypatch):
    before = key(photos)
    monkeypatch.setattr(content_key_module, "_code", lambda: [b"another version"])
    assert key(photos) != before


def test_other_libraries_make_other_records(photos, monkeypatch):
    before = key(photos)
    monkeypatch.setattr(content_key_module.PIL, "__version__", "0.1")
    assert key(photos) != before


def test_a_single_file(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=np.zeros((4, 2, 2)))
    before = key(path)
    (tmp_path / "unrelated.txt").write_text("x")
    assert key(path) == before
    np.savez(path, x_train=np.ones((4, 2, 2)))
    assert key(path) != before


def test_a_description_is_part_of_its_readings(tmp_path):
    (tmp_path / "walk.csv").write_text("time,x,label\n0,1,a\n1,2,b\n")
    keys = [key(tmp_path / "walk.csv")]
    (tmp_path / "walk.toml").write_text("window = 2\n")
    keys += [key(tmp_path / "walk.csv"), key(tmp_path / "walk.toml")]
    assert keys[0] != keys[1] == keys[2]
    (tmp_path / "walk.csv").write_text("time,x,label\n0,1,a\n1,2,b\n2,1,a\n")
    assert key(tmp_path / "walk.toml") != keys[2]


def test_what_cannot_be_listed_has_no_key(tmp_path):
    assert key("sample") == key("sample")
    (tmp_path / "walk.toml").write_text("window = no number\n")
    with pytest.raises(InputError):
        key(tmp_path / "walk.toml")
