"""Peaks that the kernel kept, and phases with peaks of their own."""

from __future__ import annotations

import os

import own_process
import pytest

from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.high_water import Meter

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


@pytest.fixture
def process(tmp_path):
    """The folder of a process under /proc."""
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "clear_refs").touch()
    return tmp_path


def set_peak(process, peak_mb):
    (process / "status").write_text(STATUS.replace("409600 kB", f"{peak_mb * 1024} kB"))


class TestPeak:
    def test_it_is_in_mib(self, process):
        assert high_water.peak_mb(process) == 400.0

    def test_a_process_that_is_gone_but_not_waited_for_has_none(self, process):
        (process / "status").write_text("Name:\tpython\nState:\tZ (zombie)\nPid:\t4711\n")
        assert high_water.peak_mb(process) == 0

    def test_a_process_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            high_water.peak_mb(tmp_path / "4711")

    def test_it_is_never_below_what_is_resident(self):
        code = (
            "import json; from edge_trgl.runtime.memory import counters, high_water; "
            "print(json.dumps([counters.usage().rss, high_water.peak_mb()]))"
        )
        rss, peak = own_process.result_of("-c", code)
        assert 0 < rss <= peak


class TestMeter:
    @pytest.fixture
    def meter(self, process):
        return Meter(process)

    def test_it_keeps_the_highest_of_all_phases(self, meter, process):
        peaks = []
        for before, inside in ((100, 300), (500, 200), (150, 250)):
            set_peak(process, before)
            with meter.phase():
                set_peak(process, inside)
            peaks.append(meter.read())
        assert peaks == [300, 200, 250]
        assert meter.highest == 500  # between two phases: read before the mark was reset

    def test_a_phase_resets_the_mark_after_reading_it(self, meter, process):
        set_peak(process, 700)
        with meter.phase():
            assert (process / "clear_refs").read_text() == "5"
            assert meter.highest == 700

    def test_what_a_phase_took_counts_when_it_ends(self, meter, process):
        set_peak(process, 100)
        with meter.phase():
            set_peak(process, 300)
        assert meter.highest == 300

    def test_a_kernel_that_refuses_leaves_one_peak_for_all(self, process):
        (process / "clear_refs").unlink()
        (process / "clear_refs").mkdir()  # what cannot be written to
        meter = Meter(process)
        set_peak(process, 80)
        with meter.phase():
            set_peak(process, 90)
        assert meter.read() == meter.highest == 90

    @pytest.mark.skipif(
        not os.access(high_water.SELF / "clear_refs", os.W_OK), reason="the kernel keeps one mark for all"
    )
    def test_a_real_peak_belongs_to_its_phase(self):
        code = """
import json
from edge_trgl.runtime.memory import allocator, counters, high_water
meter = high_water.Meter()
start = counters.usage().rss
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
