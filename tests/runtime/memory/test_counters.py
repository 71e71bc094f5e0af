"""What psutil counts, in the product's units."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import own_process
import psutil
import pytest

from edge_trgl.runtime.memory import counters

# A board that has read a lot: nearly nothing is free, most of it is available.
MEMINFO = """\
MemTotal:        3964456 kB
MemFree:          102400 kB
MemAvailable:    2097152 kB
Buffers:           81920 kB
Cached:          1887436 kB
Shmem:              4096 kB
Active:           512000 kB
Inactive:        1024000 kB
Slab:              40960 kB
SwapTotal:             0 kB
HugePages_Total:       0
"""


@pytest.fixture(scope="module")
def here():
    """A process as it counts itself."""
    return own_process.result_of(
        "-c",
        "import dataclasses, json\nfrom edge_trgl.runtime.memory.counters import usage\n"
        "lines = [line.split() for line in open('/proc/self/status')]\n"
        "kernel = {line[0][:-1]: int(line[1]) / 1024 for line in lines if line[-1] == 'kB'}\n"
        "print(json.dumps({**dataclasses.asdict(usage()), 'kernel': kernel}))",
    )


class TestUsage:
    def test_every_kind_is_counted_in_mib(self, monkeypatch):
        mib = 2**20
        info = SimpleNamespace(rss=300 * mib, shared=100 * mib, data=500 * mib)
        monkeypatch.setattr(psutil.Process, "memory_info", lambda process: info)
        assert counters.usage() == counters.Usage(rss=300.0, anonymous=200.0, file=100.0, data=500.0)

    def test_it_is_what_the_kernel_says(self, here):
        # The kernel adds pages up in portions.
        assert here["rss"] == pytest.approx(here["kernel"]["VmRSS"], abs=2)
        assert here["anonymous"] == pytest.approx(here["kernel"]["RssAnon"], abs=2)
        assert here["file"] == pytest.approx(here["kernel"]["RssFile"] + here["kernel"]["RssShmem"], abs=2)
        assert here["data"] == pytest.approx(here["kernel"]["VmData"] + here["kernel"]["VmStk"], abs=2)

    def test_after_a_fork_a_child_counts_itself(self):
        code = """
import json, os
from edge_trgl.runtime.memory import counters
before = counters.usage().rss
reading, writing = os.pipe()
if os.fork() == 0:
    held = b"x" * (64 << 20)
    os.write(writing, json.dumps(counters.usage().rss).encode())
    os._exit(0)
os.wait()
print(json.dumps([before, json.loads(os.read(reading, 100)), counters.usage().rss]))
"""
        before, child, after = own_process.result_of("-c", code)
        assert child > before + 50
        assert after < before + 10


def test_available_is_not_what_is_free(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert counters.available_mb() == 2048.0
    assert counters.total_mb() == 3964456 / 1024


def test_input_and_output_are_counted(tmp_path):
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    if kind.stdout.strip() == "tmpfs":
        pytest.skip("no disk is written to")
    code = """
import json, sys
from pathlib import Path
from edge_trgl.runtime.memory import allocator, counters, high_water

path, counts = Path(sys.argv[1]), [counters.io_mb()]
path.write_bytes(bytes(4 << 20))
counts.append(counters.io_mb())
path.read_bytes()
print(json.dumps([*counts, counters.io_mb()]))
"""
    before, between, after = own_process.result_of("-c", code, tmp_path / "file")
    assert 4 <= between[1] - before[1] < 5
    assert between[0] - before[0] < 1
    assert 4 <= after[0] - between[0] < 5


def test_pages_that_the_cache_has_lost_are_waited_for(tmp_path):
    file = tmp_path / "library"
    file.write_bytes(bytes(2**20))
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    if kind.stdout.strip() == "tmpfs":
        pytest.skip("files in memory are never lost")
    code = """
import mmap, os, sys
from edge_trgl.runtime.memory import counters
descriptor = os.open(sys.argv[1], os.O_RDWR)
os.fsync(descriptor)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
mapping = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
before = counters.major_faults()
mapping[2**19]
print(counters.major_faults() - before)
"""
    assert own_process.result_of("-c", code, file) >= 1
