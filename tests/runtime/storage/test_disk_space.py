"""What a folder takes is what `du` says; the limit leaves a reserve."""

from __future__ import annotations

import subprocess
import threading

import pytest

from edge_trgl.runtime.storage import disk_space
from edge_trgl.runtime.units import MIB


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    for name, size in (("a", 100), ("b/c", 10_000), ("b/d/e", 3_000_000)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (folder / "sparse").touch()
    with (folder / "sparse").open("r+b") as file:
        file.truncate(50_000_000)
    (folder / "link").symlink_to(tmp_path)
    return folder


def du_mb(folder):
    # Whole kibibytes; the size of a file is not what it takes.
    return int(subprocess.run(["du", "-sk", folder], capture_output=True, check=True).stdout.split()[0]) / 1024


def test_a_folder_takes_what_du_says(tree):
    assert disk_space.taken_mb(tree) == pytest.approx(du_mb(tree), abs=1 / 1024)


def test_folders_are_left_out_wherever_they_are(tree):
    without = disk_space.taken_mb(tree, without=(tree / "b" / "d",))
    assert disk_space.taken_mb(tree) - without == pytest.approx(du_mb(tree / "b" / "d"), abs=1 / 1024)


def test_what_is_removed_in_the_meantime_takes_nothing(tree):
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            (tree / "b" / "passing").write_bytes(b"x")
            (tree / "b" / "passing").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    for _ in range(300):
        assert disk_space.taken_mb(tree) < 4
    stop.set()
    thread.join()
    assert disk_space.taken_mb(tree / "gone") == 0


@pytest.mark.parametrize(("free_mb", "reserve_mb"), [(100.0, 5.0), (100_000.0, 256.0)])
def test_the_limit_leaves_a_reserve(tree, monkeypatch, free_mb, reserve_mb):
    monkeypatch.setattr(disk_space, "free_mb", lambda folder: free_mb)
    assert disk_space.limit_mb(tree) == disk_space.taken_mb(tree) + free_mb - reserve_mb


def test_free_is_what_the_system_says(tmp_path):
    before = disk_space.free_mb(tmp_path)
    df = subprocess.run(["df", "--output=avail", "-B1", tmp_path], capture_output=True, check=True)
    assert int(df.stdout.split()[-1]) / MIB == pytest.approx(before, rel=0.05)
