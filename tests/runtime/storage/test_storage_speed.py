"""The speed of a disk: what is written and read, without the page cache, and that nothing is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files, storage_speed
from edge_trgl.runtime.storage.storage_speed import BLOCK_BYTES, CHUNK_BYTES, DIRECT, DROPPED
from edge_trgl.runtime.units import MIB


class Recorder(files.FileSystem):
    """Keeps what was asked of the disk, in order; never waits for it."""

    def __init__(self):
        self.calls = []

    def pwrite(self, fd, data, offset):
        self.calls.append(("write", offset, len(data)))
        return super().pwrite(fd, data, offset)

    def preadv(self, fd, buffer, offset):
        self.calls.append(("read", offset, len(buffer)))
        return super().preadv(fd, buffer, offset)

    def fsync(self, fd):
        self.calls.append(("sync",))

    def fadvise(self, fd, offset, length, advice):
        name = {os.POSIX_FADV_DONTNEED: "drop", os.POSIX_FADV_RANDOM: "random"}[advice]
        self.calls.append((name, offset, length))
        super().fadvise(fd, offset, length, advice)


@pytest.fixture
def few_blocks(monkeypatch):
    """Three random reads."""
    monkeypatch.setattr(storage_speed, "NUM_BLOCKS", 3)


def measure(folder):
    return storage_speed.measure(folder, max_bytes=2 * MIB)


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_speeds_come_back_and_no_file_stays(tmp_path):
    before = descriptors()
    speed = measure(tmp_path)
    assert min(speed.read_mbs, speed.write_mbs, speed.random_iops) > 0
    assert speed.file_mb == 2
    assert speed.method in (DIRECT, DROPPED)
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before


def test_the_disk_is_asked_in_this_order(tmp_path, use_system):
    """Written and synced as a whole, dropped, read as a whole, dropped, then read block by block."""
    system = use_system(Recorder())
    measure(tmp_path)
    chunks = [(offset, CHUNK_BYTES) for offset in range(0, 2 * MIB, CHUNK_BYTES)]
    head, blocks = system.calls[:8], system.calls[8:]
    assert head == [
        *(("write", *chunk) for chunk in chunks),
        ("sync",),
        ("drop", 0, 0),
        *(("read", *chunk) for chunk in chunks),
        ("drop", 0, 0),
        ("random", 0, 0),
    ]
    offsets = [offset for _, offset, _ in blocks]
    assert {(name, length) for name, _, length in blocks} == {("read", BLOCK_BYTES)}
    assert sorted(offsets) == list(range(0, 2 * MIB, max(BLOCK_BYTES, storage_speed.PAGE_BYTES)))
    assert offsets != sorted(offsets)


def test_of_a_larger_page_one_block_is_read(tmp_path, use_system, monkeypatch):
    """Else the page cache would have the next ones."""
    monkeypatch.setattr(storage_speed, "PAGE_BYTES", 16_384)
    system = use_system(Recorder())
    measure(tmp_path)
    assert sorted(system.calls[8:]) == [("read", offset, BLOCK_BYTES) for offset in range(0, 2 * MIB, 16_384)]


def test_a_slow_disk_is_not_read_at_random_for_long(tmp_path, use_system, monkeypatch):
    monkeypatch.setattr(storage_speed, "RANDOM_SECONDS", 1e-9)
    system = use_system(Recorder())
    assert measure(tmp_path).random_iops > 0
    assert [call[2] for call in system.calls if call[0] == "read"].count(BLOCK_BYTES) == 1


def test_the_file_has_no_name_while_it_is_written(tmp_path, use_system, few_blocks):
    class Looks(files.FileSystem):
        seen = ()

        def pwrite(self, fd, data, offset):
            self.seen = (*self.seen, list(tmp_path.iterdir()))
            return super().pwrite(fd, data, offset)

    system = use_system(Looks())
    measure(tmp_path)
    assert system.seen == ([], [])


def test_bytes_are_written_that_no_disk_can_compress(tmp_path, use_system, few_blocks):
    class Keeps(files.FileSystem):
        content = b""

        def pwrite(self, fd, data, offset):
            self.content = bytes(data)
            return super().pwrite(fd, data, offset)

    system = use_system(Keeps())
    measure(tmp_path)
    assert min(map(system.content.count, range(256))) > 3000


class TestWithoutDirect:
    def test_where_the_flag_is_refused(self, tmp_path, use_system, monkeypatch, few_blocks):
        monkeypatch.setattr(storage_speed, "_bypass", lambda fd: False)
        system = use_system(Recorder())
        assert measure(tmp_path).method == DROPPED
        names = [call[0] for call in system.calls]
        assert names.index("sync") < names.index("drop") < names.index("read")

    def test_where_transfers_are_refused(self, tmp_path, use_system, few_blocks):
        class Refuses(files.FileSystem):
            def pwrite(self, fd, data, offset):
                if _flags(fd) & os.O_DIRECT:
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                return super().pwrite(fd, data, offset)

        use_system(Refuses())
        assert measure(tmp_path).method == DROPPED

    def test_where_they_are_refused_in_any_case(self, tmp_path, use_system):
        class Refuses(files.FileSystem):
            def pwrite(self, fd, data, offset):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        use_system(Refuses())
        with pytest.raises(StorageError, match="cannot be measured: invalid argument"):
            measure(tmp_path)

    def test_refused_advice_is_no_error(self, tmp_path, use_system, few_blocks):
        class Without(files.FileSystem):
            def fadvise(self, fd, offset, length, advice):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        use_system(Without())
        assert measure(tmp_path).read_mbs > 0


def _flags(fd):
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(text.partition("flags:")[2].split()[0], 8)


class TestFreeSpace:
    def free(self, monkeypatch, mib):
        monkeypatch.setattr(psutil, "disk_usage", lambda folder: SimpleNamespace(free=int(mib * MIB)))

    @pytest.mark.parametrize(("mib", "expected"), [(10, 1), (19.9, 1), (20, 2), (1e6, 2)])
    def test_a_tenth_of_it_is_the_most(self, tmp_path, monkeypatch, use_system, few_blocks, mib, expected):
        self.free(monkeypatch, mib)
        use_system(Recorder())
        assert measure(tmp_path).file_mb == expected

    def test_too_little_is_told_before_anything_is_written(self, tmp_path, monkeypatch, faults, use_system):
        self.free(monkeypatch, 9.9)
        system = use_system(faults.FaultySystem())
        with pytest.raises(StorageError, match="cannot be measured: no space left on device") as caught:
            measure(tmp_path)
        assert "10 MiB" in caught.value.hint
        assert system.calls == []

    def test_64_mib_are_the_most_by_default(self):
        assert storage_speed.FILE_BYTES == 64 * MIB


class TestFaults:
    """Calls: open, unlink, fallocate, 2 pwrite, fsync, 2 + 3 preadv, unlink."""

    CALLS = 12

    def test_these_are_all_calls(self, tmp_path, faults, use_system, few_blocks):
        system = use_system(faults.FaultySystem())
        measure(tmp_path)
        assert len(system.calls) == self.CALLS

    @pytest.mark.parametrize(("fault", "text"), [("ENOSPC", "no space left"), ("EIO", "input/output error")])
    @pytest.mark.parametrize("at", range(1, CALLS + 1))
    def test_any_failure_is_one_sentence_and_leaves_nothing(
        self, tmp_path, faults, use_system, few_blocks, fault, text, at
    ):
        before = descriptors()
        system = use_system(faults.FaultySystem(fault, at))
        with pytest.raises(StorageError) as caught:
            measure(tmp_path)
        assert system.has_failed
        assert caught.value.message.startswith(f"the disk that holds {tmp_path} cannot be measured: {text}")
        assert "--disk" in caught.value.hint
        assert list(tmp_path.iterdir()) == []
        assert descriptors() == before

    @pytest.mark.parametrize("at", range(1, CALLS + 1))
    def test_short_counts_are_gone_on_from(self, tmp_path, faults, use_system, few_blocks, monkeypatch, at):
        monkeypatch.setattr(storage_speed, "_bypass", lambda fd: False)
        use_system(faults.FaultySystem("short", at))
        assert measure(tmp_path).file_mb == 2
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("at", range(1, CALLS + 1))
    def test_an_interrupt_leaves_nothing(self, tmp_path, faults, use_system, few_blocks, at):
        class Interrupted(faults.FaultySystem):
            def _call(self, name):
                super()._call(name)
                if len(self.calls) == self.at:
                    raise KeyboardInterrupt

        before = descriptors()
        use_system(Interrupted("", at))
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert descriptors() == before

    @pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT"])
    def test_a_signal_leaves_nothing(self, tmp_path, number):
        code = f"""
import os, signal, sys, time
from pathlib import Path
from edge_trgl.runtime.storage import files, storage_speed

class Struck(files.FileSystem):
    def fsync(self, fd):
        os.kill(os.getpid(), signal.{number})
        time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
files.system = Struck()
storage_speed.measure(Path(sys.argv[1]), max_bytes=1 << 20)
"""
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL, check=False)
        assert done.returncode < 0
        assert list(tmp_path.iterdir()) == []


class TestFolders:
    def test_one_that_is_not_there(self, tmp_path):
        with pytest.raises(StorageError, match="missing cannot be measured: no such file or directory"):
            measure(tmp_path / "missing")

    def test_one_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="file cannot be measured: not a directory"):
            measure(tmp_path / "file")

    @pytest.mark.parametrize(
        ("number", "text"), [(errno.EACCES, "permission denied"), (errno.EROFS, "read-only file system")]
    )
    def test_one_that_cannot_be_written(self, tmp_path, use_system, number, text):
        class Refuses(files.FileSystem):
            def open(self, path, flags):
                raise OSError(number, os.strerror(number))

        use_system(Refuses())
        with pytest.raises(StorageError, match=f"cannot be measured: {text}"):
            measure(tmp_path)


MOUNTS = """\
22 27 0:20 / /proc rw,nosuid - proc proc rw
27 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
90 27 259:1 / {point} rw,relatime shared:1 master:2 - xfs /dev/nvme0n1p1 rw
91 27 0:40 / {point}/inner rw - tmpfs none rw
92 27 259:2 / {point}/inner rw - btrfs /dev/nvme0n1p2 rw
93 27 259:3 / {point}/in rw - f2fs /dev/sda1 rw
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("", "ext4 on mmcblk0p2"),
        ("big disk", "xfs on nvme0n1p1"),
        ("big disk/inner/deep", "btrfs on nvme0n1p2"),
        ("big disk/in", "f2fs on sda1"),
        ("big disk 2", "ext4 on mmcblk0p2"),
    ],
)
def test_the_kind_of_a_disk(tmp_path, folder, expected):
    """The innermost mount, the last of several in one place; spaces are written as octal numbers."""
    point = str(tmp_path.resolve() / "big disk").replace(" ", r"\040")
    (tmp_path / "mountinfo").write_text(MOUNTS.format(point=point))
    assert storage_speed.kind(tmp_path / folder, tmp_path / "mountinfo") == expected


def test_the_kind_of_a_real_disk(tmp_path):
    assert storage_speed.kind(tmp_path) != "unknown"
    assert storage_speed.kind(Path("/proc")) == "proc on proc"
