"""The seam to the file system: whole writes, whole reads, durable replacement, errors that say what to do."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge_trgl.runtime.errors import RESUME, DiskFullError, StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.checksum import Checksum
from edge_trgl.runtime.storage.files import FileRecord

OLD, NEW = b"old generation", b"the new generation, in two chunks"


def write_new(path):
    return files.write_durable(path, [NEW[:11], memoryview(NEW)[11:]])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def names(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def test_durable_write_returns_what_the_database_keeps(path):
    old_mask = os.umask(0o022)
    try:
        record = write_new(path)
    finally:
        os.umask(old_mask)
    assert record == FileRecord(name="file", num_bytes=len(NEW), checksum=Checksum(NEW).hexdigest())
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path) == ["file"]


def test_durable_write_syncs_the_file_before_the_rename_and_the_folder_after(path, faults, use_system):
    system = use_system(faults.FaultySystem())
    write_new(path)
    assert system.calls == ["open", "pwrite", "pwrite", "fsync", "rename", "open", "fsync"]


def test_write_without_durability_waits_for_nothing(path, faults, use_system):
    system = use_system(faults.FaultySystem())
    files.replace_file(path, [NEW], durable=False)
    assert system.calls == ["open", "pwrite", "rename"]
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("at", range(1, 8))
def test_failed_write_leaves_one_whole_file_and_no_temporary(path, faults, use_system, fault, at):
    system = use_system(faults.FaultySystem(fault, at))
    with pytest.raises(StorageError, match="disk"):
        write_new(path)
    assert system.has_failed
    # Only the sync of the folder comes after the rename.
    assert path.read_bytes() == (NEW if at > 5 else OLD)
    assert names(path) == ["file"]


@pytest.mark.parametrize("at", [2, 3])
def test_short_write_goes_on(path, faults, use_system, at):
    system = use_system(faults.FaultySystem("short", at))
    write_new(path)
    assert system.calls.count("pwrite") == 3
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("at", range(1, 8))
def test_kill_leaves_one_whole_file(path, faults, use_system, at):
    use_system(faults.FaultySystem("crash", at))
    with pytest.raises(faults.Crash):
        write_new(path)
    assert path.read_bytes() == (NEW if at > 5 else OLD)


@pytest.mark.parametrize("keeps_entries", [False, True])
@pytest.mark.parametrize("keeps_bytes", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
def test_power_cut_leaves_one_whole_file_and_never_undoes_an_acknowledged_write(
    path, faults, use_system, at, keeps_entries, keeps_bytes
):
    system = use_system(
        faults.PowerCutSystem(path.parent, at, keeps_entries=keeps_entries, keeps_bytes=keeps_bytes)
    )
    acknowledged = False
    try:
        write_new(path)
        acknowledged = True
    except faults.Crash:
        pass
    use_system()
    system.cut()
    assert acknowledged == (at == 8)
    assert path.read_bytes() in ([NEW] if acknowledged else [OLD, NEW])


def test_power_cut_undoes_a_write_that_was_not_durable(path, faults, use_system):
    """The simulated disk is not too kind: it tells the two kinds of write apart."""
    system = use_system(faults.PowerCutSystem(path.parent, 99, keeps_entries=True, keeps_bytes=False))
    files.replace_file(path, [NEW], durable=False)
    use_system()
    system.cut()
    assert path.read_bytes() == b""


def test_disk_that_takes_nothing_is_full(path, use_system):
    class TakesNothing(files.FileSystem):
        def pwrite(self, fd, data, offset):
            return 0

    use_system(TakesNothing())
    with pytest.raises(StorageError, match="the disk is full"):
        write_new(path)


def test_real_full_device():
    with (
        files.opened(Path("/dev/full"), os.O_WRONLY) as fd,
        pytest.raises(StorageError, match="the disk is full: /dev/full could not be written") as raised,
    ):
        files.write_all(fd, b"x", 0)
    assert raised.value.hint == f"free space on the disk that holds /dev, then go on: {RESUME}"


def test_file_size_limit_gives_short_counts_and_then_an_error(tmp_path):
    """`RLIMIT_FSIZE` shortens a write without any error: only a loop notices."""
    code = (
        "import os, sys; from pathlib import Path; from edge_trgl.runtime.storage import files\n"
        "from edge_trgl.runtime.errors import DiskFullError, StorageError\n"
        "try: files.write_durable(Path(sys.argv[1]), [bytes(5000)])\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "file.tmp cannot be used: file too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EDQUOT, "the disk quota is used up: {path} could not be written"),
        (errno.EIO, "the disk reported an input/output error at {path}"),
        (errno.EACCES, "no permission to open or change {path}"),
        (errno.EROFS, "{path} lies on a file system that is mounted read-only"),
        (errno.ENOENT, "{path} does not exist"),
        (errno.EMFILE, "{path} cannot be used: too many open files"),
    ],
)
def test_errors_are_one_sentence_with_the_path_and_a_next_step(path, use_system, number, message):
    class Refuses(files.FileSystem):
        def open(self, path, flags):
            raise OSError(number, os.strerror(number))

    use_system(Refuses())
    with pytest.raises(StorageError) as raised:
        files.open_file(path, os.O_RDONLY)
    assert raised.value.message == message.format(path=path)
    assert str(path.parent) in raised.value.hint
    assert isinstance(raised.value, DiskFullError) == (number == errno.EDQUOT)


def test_read_fills_the_buffer_over_short_counts(path, faults, use_system):
    system = use_system(faults.FaultySystem("short", 2))
    buffer = bytearray(9)
    with files.opened(path, os.O_RDONLY) as fd:
        files.read_into(fd, buffer, 2)
    assert bytes(buffer) == OLD[2:11]
    assert system.calls == ["open", "preadv", "preadv"]


def test_read_past_the_end_names_the_file(path):
    with (
        files.opened(path, os.O_RDONLY) as fd,
        pytest.raises(StorageError, match=f"{path} ends at byte {len(OLD)}, 6 bytes short"),
    ):
        files.read_into(fd, bytearray(10), len(OLD) - 4)


def test_descriptors_are_closed_when_a_call_fails(path, faults, use_system):
    for at in range(1, 8):
        use_system(faults.FaultySystem("EIO", at))
        with pytest.raises(StorageError):
            write_new(path)
    targets = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
    assert [target for target in targets if target.startswith(str(path.parent))] == []


def test_remove(path):
    files.remove(path)
    files.remove(path)
    assert names(path) == []


def test_make_folder_is_durable_and_idempotent(tmp_path, faults, use_system):
    system = use_system(faults.FaultySystem())
    files.make_folder(tmp_path / "new")
    assert system.calls == ["mkdir", "open", "fsync"]
    files.make_folder(tmp_path / "new")
    assert system.calls == ["mkdir", "open", "fsync"]
    with pytest.raises(StorageError, match="does not exist"):
        files.make_folder(tmp_path / "missing" / "new")


def test_list_folder_gives_files_only(path):
    (path.parent / "another").touch()
    (path.parent / "sub").mkdir()
    assert files.list_folder(path.parent) == [path.parent / "another", path]
    with pytest.raises(StorageError, match="does not exist"):
        files.list_folder(path.parent / "missing")


def test_allocate_gives_the_length_and_the_blocks(path):
    with files.opened(path, os.O_RDWR) as fd:
        files.allocate(fd, 1 << 20)
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_blocks * 512 >= 1 << 20


def test_allocate_without_fallocate_gives_the_length(path, use_system):
    class Without(files.FileSystem):
        def fallocate(self, fd, size):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    use_system(Without())
    with files.opened(path, os.O_RDWR) as fd:
        files.allocate(fd, 5000)
    assert path.stat().st_size == 5000


def test_allocate_on_a_full_disk(path, faults, use_system):
    use_system(faults.FaultySystem("ENOSPC", 2))
    with files.opened(path, os.O_RDWR) as fd, pytest.raises(StorageError, match="the disk is full"):
        files.allocate(fd, 5000)


def test_refused_advice_is_no_error(path, use_system):
    class Without(files.FileSystem):
        def fadvise(self, fd, offset, length, advice):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    use_system(Without())
    with files.opened(path, os.O_RDONLY) as fd:
        files.drop_cache(fd, 0, 4096)
        files.will_need(fd, 0, 4096)
