"""Allocators that give memory back, and the settings that make them do so."""

from __future__ import annotations

import ctypes

import own_process
import pytest

from edge_trgl.runtime.memory.allocator_settings import allocator_environment


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
class TestAllocators:
    CODE = """
import json
from edge_trgl.runtime.memory import allocator, counters, high_water
start = counters.usage().rss
blocks = [b"x" * {size} for _ in range({total} // {size})]
full = counters.usage().rss
del blocks[:-1]  # the last one holds the end of the heap
freed = counters.usage().rss
allocator.trim()
print(json.dumps([full - start, freed - start, counters.usage().rss - start]))
"""

    def test_trim_gives_freed_heap_back(self):
        full, freed, trimmed = own_process.result_of("-c", self.CODE.format(size=20_000, total=64 << 20))
        assert full > 60
        assert freed > 60  # else there is nothing to show
        assert trimmed < 8

    def test_with_the_settings_large_blocks_go_back_at_once(self):
        code = self.CODE.format(size=2 << 20, total=64 << 20)
        for allocator in ("heap", "huge"):
            full, freed, _ = own_process.result_of("-c", code, **allocator_environment(allocator))
            assert full > 60
            assert freed < 8

    FAULTS = """
import json, resource
from edge_trgl.runtime.memory import allocator, counters, high_water

allocator.keep_tensors_on_heap()
start = counters.usage().rss
block = b"x" * (6 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    del block
    block = b"x" * (6 << 20)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
blocks = [b"x" * (6 << 20) for _ in range(10)]
full = counters.usage().rss
del block, blocks
print(json.dumps([faults, full - start, counters.usage().rss - start]))
"""

    def test_on_the_heap_a_tensor_takes_the_place_of_the_last_one(self):
        faults, full, freed = own_process.result_of("-c", self.FAULTS, **allocator_environment("heap"))
        assert faults < 3000  # of 50 times 1536 pages
        assert full > 60
        assert freed < 10  # the end of the heap goes back

    @pytest.mark.parametrize("allocator", ["huge", "default"])
    def test_other_allocators_are_left_as_they_are(self, allocator):
        code = """
import ctypes, json
from edge_trgl.runtime.memory import allocator, counters, high_water

class Library:
    def __getattr__(self, name):
        raise AssertionError(name)

allocator._C_LIBRARY = Library()
allocator.keep_tensors_on_heap()
print(json.dumps("untouched"))
"""
        assert own_process.result_of("-c", code, **allocator_environment(allocator)) == "untouched"

    def test_only_small_huge_pages_are_asked_for(self, tmp_path):
        def tunables(allocator, size):
            path = tmp_path / "hpage_pmd_size"
            path.write_text(f"{size}\n")
            return allocator_environment(allocator, path).get("GLIBC_TUNABLES")

        assert tunables("huge", 2 << 20) == "glibc.malloc.hugetlb=1"
        assert tunables("huge", 32 << 20) == "glibc.malloc.hugetlb=0"  # of pages of 16 KiB
        assert tunables("heap", 32 << 20) is None

    def test_a_kernel_without_huge_pages_is_asked_all_the_same(self, tmp_path):
        assert allocator_environment("huge", tmp_path / "none")["GLIBC_TUNABLES"].endswith("=1")

    def test_where_huge_pages_are_left_alone_tensors_still_go_back_at_once(self, tmp_path):
        path = tmp_path / "hpage_pmd_size"
        path.write_text(f"{32 << 20}\n")
        start = "from edge_trgl.runtime.memory import allocator\nallocator.keep_tensors_on_heap()\n"
        code = (start + self.CODE).format(size=2 << 20, total=64 << 20)
        full, freed, _ = own_process.result_of("-c", code, **allocator_environment("huge", path))
        assert full > 60
        assert freed < 8

    def test_mimalloc_maps_no_more_than_it_is_asked_for(self):
        for allocator in ("heap", "huge"):
            found = allocator_environment(allocator)
            assert (found["MIMALLOC_PURGE_DELAY"], found["MIMALLOC_ARENA_EAGER_COMMIT"]) == ("0", "0")

    FLAGS = """
import json
from pathlib import Path
from edge_trgl.runtime.memory import allocator, counters, high_water

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
allocator.no_huge_pages_in_heap()
kept = flags()
second = grown()
print(json.dumps([before, kept, flags()]))
"""

    def test_no_huge_page_fills_the_holes_of_the_heap_as_it_is(self):
        before, kept, later = own_process.result_of("-c", self.FLAGS, **allocator_environment("huge"))
        if not any(before[0]):
            pytest.skip("the kernel or the C library has no huge pages for a heap")
        assert not any(kept[0])
        assert all(kept[1])
        assert any(later[0])  # what it is extended by
