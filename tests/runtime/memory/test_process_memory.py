"""What the kernel counts, read right; phases with peaks of their own; allocators that give memory back."""

from __future__ import annotations

import ctypes
import os
import subprocess

import own_process
import pytest

from edge_trgl.runtime.memory import process_memory
from edge_trgl.runtime.memory.process_memory import Meter

STATUS = """\
Name:\tpython
Umask:\t0022
State:\tS (sleeping)
Pid:\t4711
VmPeak:\t 1048576 kB
VmSize:\t  921600 kB
VmLck:\t       0 kB
VmHWM:\t  409600 kB
VmRSS:\t  307200 kB
RssAnon:\t  204800 kB
RssFile:\t   92160 kB
RssShmem:\t   10240 kB
VmData:\t  512000 kB
VmStk:\t     132 kB
VmSwap:\t    2048 kB
Threads:\t3
Cpus_allowed_list:\t0-3
"""

# A board that has read a lot: nearly nothing is free, most of it is available.
MEMINFO = """\
MemTotal:        3964456 kB
MemFree:          102400 kB
MemAvailable:    2097152 kB
Buffers:           81920 kB
Cached:          1887436 kB
SwapTotal:             0 kB
HugePages_Total:       0
"""


@pytest.fixture
def status(tmp_path):
    path = tmp_path / "status"
    path.write_text(STATUS)
    return path


def set_peak(status, peak_mb):
    status.write_text(STATUS.replace("409600 kB", f"{peak_mb * 1024} kB"))


@pytest.fixture(scope="module")
def here():
    """A process as it counts itself."""
    return own_process.result_of(
        "-c",
        "import dataclasses, json\nfrom edge_trgl.runtime.memory.process_memory import resident_mb, usage\n"
        "found = {'usage': dataclasses.asdict(usage()), 'resident_mb': resident_mb()}\n"
        "print(json.dumps(found))",
    )


class TestUsage:
    def test_every_kind_is_counted_in_mib(self, status):
        assert process_memory.usage(status) == process_memory.Usage(
            rss=300.0, anonymous=200.0, file=90.0, shared=10.0, peak=400.0, data=500.0
        )

    def test_rss_is_the_sum_of_its_kinds(self, here):
        now = process_memory.Usage(**here["usage"])
        # The kernel adds pages up in portions.
        assert now.rss == pytest.approx(now.anonymous + now.file + now.shared, abs=2)
        assert 0 < now.rss <= now.peak

    def test_what_is_resident_is_what_the_kernel_says(self, here):
        assert here["resident_mb"] == pytest.approx(here["usage"]["rss"], abs=2)

    def test_a_process_that_is_gone_but_not_waited_for_uses_nothing(self, status):
        status.write_text("Name:\tpython\nState:\tZ (zombie)\nPid:\t4711\n")
        assert process_memory.usage(status).rss == 0

    def test_available_is_not_what_is_free(self, tmp_path):
        path = tmp_path / "meminfo"
        path.write_text(MEMINFO)
        assert process_memory.available_mb(path) == 2048.0

    def test_names_are_whole(self, status):
        assert process_memory.read_kib(status, ("VmRSS", "Rss", "VmNone")) == {"VmRSS": 307200}


class TestMeter:
    @pytest.fixture
    def meter(self, tmp_path, status):
        return Meter(clear_refs=tmp_path / "clear_refs", status=status)

    def test_it_keeps_the_highest_of_all_phases(self, meter, status):
        peaks = []
        for before, inside in ((100, 300), (500, 200), (150, 250)):
            set_peak(status, before)
            with meter.phase():
                set_peak(status, inside)
            peaks.append(meter.read())
        assert peaks == [300, 200, 250]
        assert meter.highest == 500  # between two phases: read before the mark was reset

    def test_a_phase_resets_the_mark_after_reading_it(self, meter, status, tmp_path):
        set_peak(status, 700)
        with meter.phase():
            assert (tmp_path / "clear_refs").read_text() == "5"
            assert meter.highest == 700

    def test_what_a_phase_took_counts_when_it_ends(self, meter, status):
        set_peak(status, 100)
        with meter.phase():
            set_peak(status, 300)
        assert meter.highest == 300

    def test_a_kernel_that_refuses_leaves_one_peak_for_all(self, status, tmp_path):
        meter = Meter(clear_refs=tmp_path / "nowhere" / "clear_refs", status=status)
        set_peak(status, 80)
        with meter.phase():
            set_peak(status, 90)
        assert meter.read() == meter.highest == 90

    @pytest.mark.skipif(
        not os.access(process_memory.CLEAR_REFS, os.W_OK), reason="the kernel keeps one mark for all"
    )
    def test_a_real_peak_belongs_to_its_phase(self):
        code = """
import json
from edge_trgl.runtime.memory import process_memory
meter = process_memory.Meter()
start = process_memory.usage().rss
with meter.phase():
    held = b"x" * (64 << 20)
    del held
first = meter.read()
with meter.phase():
    pass
print(json.dumps([start, first, meter.read(), meter.highest]))
"""
        start, first, second, highest = own_process.result_of("-c", code)
        # The kernel adds pages up in portions, hence 63.
        assert start + 63 <= first < start + 72
        assert second < start + 8
        assert highest == first


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
class TestAllocators:
    CODE = """
import json
from edge_trgl.runtime.memory import process_memory
start = process_memory.usage().rss
blocks = [b"x" * {size} for _ in range({total} // {size})]
full = process_memory.usage().rss
del blocks[:-1]  # the last one holds the end of the heap
freed = process_memory.usage().rss
process_memory.trim()
print(json.dumps([full - start, freed - start, process_memory.usage().rss - start]))
"""

    def test_trim_gives_freed_heap_back(self):
        full, freed, trimmed = own_process.result_of("-c", self.CODE.format(size=20_000, total=64 << 20))
        assert full > 60
        assert freed > 60  # else there is nothing to show
        assert trimmed < 8

    def test_with_the_settings_large_blocks_go_back_at_once(self):
        code = self.CODE.format(size=2 << 20, total=64 << 20)
        for allocator in ("held", "huge"):
            full, freed, _ = own_process.result_of("-c", code, **process_memory.allocator_environment(allocator))
            assert full > 60
            assert freed < 8

    FAULTS = """
import json, resource
from edge_trgl.runtime.memory import process_memory

process_memory.hold_freed()
start = process_memory.usage().rss
block = b"x" * (6 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    del block
    block = b"x" * (6 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
blocks = [b"x" * (6 << 20) for _ in range(10)]
full = process_memory.usage().rss
del block, blocks
print(json.dumps([faults, full - start, process_memory.usage().rss - start]))
"""

    def test_on_the_heap_a_tensor_takes_the_place_of_the_last_one(self):
        faults, full, freed = own_process.result_of(
            "-c", self.FAULTS, **process_memory.allocator_environment("held")
        )
        assert faults < 3000  # of 50 times 1536 pages
        assert full > 60
        assert freed < 10  # the end of the heap goes back

    @pytest.mark.parametrize("allocator", ["huge", "own"])
    def test_other_allocators_are_left_as_they_are(self, allocator):
        code = """
import ctypes, json
from edge_trgl.runtime.memory import process_memory

class Library:
    def __getattr__(self, name):
        raise AssertionError(name)

process_memory._C_LIBRARY = Library()
process_memory.hold_freed()
print(json.dumps("untouched"))
"""
        assert own_process.result_of("-c", code, **process_memory.allocator_environment(allocator)) == "untouched"

    def test_only_small_huge_pages_are_asked_for(self, tmp_path):
        def tunables(allocator, size):
            path = tmp_path / "hpage_pmd_size"
            path.write_text(f"{size}\n")
            return process_memory.allocator_environment(allocator, path).get("GLIBC_TUNABLES")

        assert tunables("huge", 2 << 20) == "glibc.malloc.hugetlb=1"
        assert tunables("huge", 32 << 20) == "glibc.malloc.hugetlb=0"  # of pages of 16 KiB
        assert tunables("held", 32 << 20) is None

    def test_a_kernel_without_huge_pages_is_asked_all_the_same(self, tmp_path):
        assert process_memory.allocator_environment("huge", tmp_path / "none")["GLIBC_TUNABLES"].endswith("=1")

    def test_where_huge_pages_are_left_alone_tensors_still_go_back_at_once(self, tmp_path):
        path = tmp_path / "hpage_pmd_size"
        path.write_text(f"{32 << 20}\n")
        code = "from edge_trgl.runtime.memory import process_memory\nprocess_memory.hold_freed()\n" + self.CODE
        code = code.format(size=2 << 20, total=64 << 20)
        full, freed, _ = own_process.result_of("-c", code, **process_memory.allocator_environment("huge", path))
        assert full > 60
        assert freed < 8

    def test_mimalloc_maps_no_more_than_it_is_asked_for(self):
        for allocator in ("held", "huge"):
            found = process_memory.allocator_environment(allocator)
            assert (found["MIMALLOC_PURGE_DELAY"], found["MIMALLOC_ARENA_EAGER_COMMIT"]) == ("0", "0")

    FLAGS = """
import json
from pathlib import Path
from edge_trgl.runtime.memory import process_memory

def flags():
    found, inside = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith("[heap]")
        elif inside and line.startswith("VmFlags:"):
            found.append(line.split()[1:])
    return ["hg" in one for one in found], ["nh" in one for one in found]

def grown():
    return [bytes(500_000) for _ in range(40)]

first = grown()
before = flags()
process_memory.keep_holes()
kept = flags()
second = grown()
print(json.dumps([before, kept, flags()]))
"""

    def test_no_huge_page_fills_the_holes_of_the_heap_as_it_is(self):
        before, kept, later = own_process.result_of(
            "-c", self.FLAGS, **process_memory.allocator_environment("huge")
        )
        if not any(before[0]):
            pytest.skip("the kernel or the C library has no huge pages for a heap")
        assert not any(kept[0])
        assert all(kept[1])
        assert any(later[0])  # what it is extended by


def test_input_and_output_are_counted(tmp_path):
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    if kind.stdout.strip() == "tmpfs":
        pytest.skip("no disk is written to")
    code = """
import json, sys
from pathlib import Path
from edge_trgl.runtime.memory import process_memory

path, counts = Path(sys.argv[1]), [process_memory.io_mb()]
path.write_bytes(bytes(4 << 20))
counts.append(process_memory.io_mb())
path.read_bytes()
print(json.dumps([*counts, process_memory.io_mb()]))
"""
    before, between, after = own_process.result_of("-c", code, tmp_path / "file")
    assert 4 <= between[1] - before[1] < 5
    assert between[0] - before[0] < 1
    assert 4 <= after[0] - between[0] < 5
