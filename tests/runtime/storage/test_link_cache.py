"""Kept folders: what is taken is what was kept, at no cost, and a crash leaves nothing that looks complete."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.link_cache import LinkCache

LAST = "done.json"
MUCH = 1 << 30
KIB = 1024


@pytest.fixture
def cache(tmp_path):
    return LinkCache(tmp_path / "cache", LAST)


@pytest.fixture
def make(tmp_path):
    """Makes a folder of finished files of so many KiB."""

    def make(name, kib=4):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "records").write_bytes(os.urandom(kib * KIB))
        (folder / LAST).write_text(name)
        return folder

    return make


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def drop(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_what_is_taken_is_what_was_kept(cache, make, tmp_path):
    kept = make("first")
    assert cache.keep("a", kept, MUCH)
    before = contents(kept)
    drop(kept)
    taken = tmp_path / "second"
    taken.mkdir()
    (taken / "records").write_text("half of")
    assert cache.take("a", taken)
    assert contents(taken) == before
    cache.clear()
    assert contents(taken) == before
    assert not cache.entries()


def test_nothing_is_copied(cache, make, tmp_path):
    kept = make("first")
    cache.keep("a", kept, MUCH)
    taken = tmp_path / "second"
    taken.mkdir()
    cache.take("a", taken)
    assert (kept / "records").stat().st_ino == (taken / "records").stat().st_ino
    assert (kept / "records").stat().st_nlink == 3


def test_what_is_not_there_is_not_taken(cache, make, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    assert not cache.take("a", target)
    assert not (tmp_path / "cache").exists()
    cache.keep("a", make("first"), MUCH)
    assert not cache.take("b", target)
    assert not list(target.iterdir())


def test_temporary_files_are_not_kept(cache, make, tmp_path):
    kept = make("first")
    files.temporary_of(kept / "records").write_text("half")
    cache.keep("a", kept, MUCH)
    assert {path.name for path in (tmp_path / "cache" / "a").iterdir()} == {"records", LAST}


def test_the_longest_unused_go_first(cache, make, tmp_path):
    limit = 40 * KIB
    for at, name in enumerate("abc"):
        folder = make(name, kib=8)
        assert cache.keep(name, folder, limit)
        drop(folder)
        os.utime(tmp_path / "cache" / name, (at, at))
    target = tmp_path / "target"
    target.mkdir()
    assert cache.take("a", target)
    drop(target)
    assert cache.keep("d", make("d", kib=8), limit)
    assert {entry.key for entry in cache.entries()} == {"a", "c", "d"}


def test_what_somebody_uses_costs_nothing_and_stays(cache, make):
    limit = 20 * KIB
    for name in "abc":
        assert cache.keep(name, make(name, kib=8), limit)
    assert [entry.own_bytes for entry in cache.entries()] == [0, 0, 0]
    cache.shrink(0)
    assert len(cache.entries()) == 3


def test_what_is_larger_than_the_limit_is_not_kept(cache, make, tmp_path):
    assert not cache.keep("a", make("a", kib=8), 4 * KIB)
    assert not (tmp_path / "cache").exists()


class WithoutLinks(files.FileSystem):
    def link(self, source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def test_without_links_nothing_is_kept_or_taken(cache, make, tmp_path, monkeypatch):
    cache.keep("a", make("a"), MUCH)
    monkeypatch.setattr(files, "system", WithoutLinks())
    target = tmp_path / "target"
    target.mkdir()
    assert not cache.take("a", target)
    assert not cache.keep("b", make("b"), MUCH)
    assert not (target / LAST).exists()
    assert [entry.key for entry in cache.entries()] == ["a"]


class Failing(files.FileSystem):
    """Fails from its n-th operation on, as if the process had been killed there."""

    def __init__(self, allowed):
        self.allowed = allowed

    def _count(self):
        self.allowed -= 1
        if self.allowed < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def link(self, source, target):
        self._count()
        super().link(source, target)

    def unlink(self, path):
        self._count()
        super().unlink(path)

    def fsync(self, fd):
        self._count()
        super().fsync(fd)

    def mkdir(self, path):
        self._count()
        super().mkdir(path)


def do(act, cache, kept, target):
    """Return whether it was done."""
    if act == "keep":
        return cache.keep("a", kept, MUCH)
    if act == "take":
        return cache.take("a", target)
    cache.clear()
    return True


@pytest.mark.parametrize("act", ["keep", "take", "clear"])
def test_a_stop_anywhere_leaves_all_or_nothing(make, tmp_path, monkeypatch, act):
    kept = make("kept")
    whole = contents(kept)
    for allowed in range(20):
        folder, target = tmp_path / f"cache{allowed}", tmp_path / f"target{allowed}"
        cache = LinkCache(folder, LAST)
        target.mkdir()
        if act != "keep":
            cache.keep("a", kept, MUCH)
        monkeypatch.setattr(files, "system", Failing(allowed))
        try:
            done = do(act, cache, kept, target)
        except StorageError:
            done = False
        monkeypatch.setattr(files, "system", files.FileSystem())
        assert not (target / LAST).exists() or contents(target) == whole
        for entry in cache.entries():
            assert contents(folder / entry.key) == whole
        assert contents(kept) == whole
        if done:
            return
    raise AssertionError("it never came to its end")


KEEPER = """
import sys
from pathlib import Path
from edge_trgl.runtime.storage.link_cache import LinkCache

while True:
    cache = LinkCache(Path(sys.argv[1]), "done.json")
    cache.keep("a", Path(sys.argv[2]), 1 << 30)
    print("kept", flush=True)
    cache.clear()
"""


def test_a_kill_leaves_nothing_half_linked(make, tmp_path):
    kept = make("kept")
    for number in range(20):
        (kept / f"more{number}").write_text("more")
    whole = contents(kept)
    for _ in range(5):
        arguments = [sys.executable, "-c", KEEPER, str(tmp_path / "cache"), str(kept)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as keeper:
            keeper.stdout.readline()
            keeper.send_signal(signal.SIGKILL)
        for entry in LinkCache(tmp_path / "cache", LAST).entries():
            assert contents(tmp_path / "cache" / entry.key) == whole


def test_two_at_once(make, tmp_path):
    kept = make("kept")
    whole = contents(kept)

    def use(number):
        cache = LinkCache(tmp_path / "cache", LAST)
        for turn in range(20):
            target = tmp_path / f"target{number}-{turn}"
            target.mkdir()
            if cache.take("a", target):
                assert contents(target) == whole
            else:
                assert not (target / LAST).exists()
                cache.keep("a", kept, MUCH)
            if turn % 3 == number:
                cache.remove("a")
            done[number] += 1

    done = [0, 0]
    threads = [threading.Thread(target=use, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [20, 20]
