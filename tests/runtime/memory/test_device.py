"""Which counters a device has: none on the CPU, torch's and the context's on a GPU, one memory on a Jetson."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import device, guard
from edge_trgl.runtime.units import MIB

FIXTURES = Path(__file__).parent / "fixtures"
PID = 4711  # of the training process in the recorded files
ORIN_MB = 7620.0


class Board:
    """A machine of the recorded files: torch's allocator takes 22 MiB when CUDA starts."""

    def __init__(self, folder, *, integrated, total_mb=ORIN_MB, free_mb=None):
        self.nvmap = folder / "clients"
        self.integrated = integrated
        self._total_mb = total_mb
        self._free_mb = free_mb
        self.reserved = self.max_reserved = 0.0
        self.fraction = 1.0
        self.is_started = False
        self._suffix = ""

    def available_mb(self):
        return self._recorded_mb("meminfo", "MemAvailable")

    def anonymous_mb(self):
        return self._recorded_mb("status", "RssAnon")

    def _recorded_mb(self, file, name):
        lines = (FIXTURES / f"orin-{file}{self._suffix}.txt").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(f"{name}:")]
        return int(line.split()[1]) / 1024

    def has_cuda(self):
        return True

    def is_integrated(self):
        self._begin()  # as the real driver does before it can tell
        return self.integrated

    def start(self):
        self._begin()
        self.is_started = True
        self.reserve(22)

    def _begin(self):
        self._suffix = "-cuda"

    def total_mb(self):
        return self._total_mb

    def free_mb(self):
        assert not self.integrated, "this is MemFree, without the page cache"
        assert self.is_started
        return self._free_mb

    def reserved_mb(self):
        return self.reserved

    def max_reserved_mb(self):
        return self.max_reserved

    def release(self):
        self.max_reserved = self.reserved

    def set_fraction(self, fraction):
        assert type(fraction) is float
        assert 0 <= fraction <= 1
        self.fraction = fraction

    def reserve(self, mb):
        """Let torch's allocator take `mb` MiB, or give them back; beyond its limit it fails as without NVML."""
        if self.reserved + mb > self.fraction * self._total_mb:
            raise RuntimeError((FIXTURES / "refused" / "tegra-nvml.txt").read_text())
        self.reserved += mb
        self.max_reserved = max(self.max_reserved, self.reserved)

    def show_nvmap(self, **sizes):
        """Put the driver's table there, with this process in the place of the training process."""
        text = (FIXTURES / "nvmap-clients.txt").read_text().replace(f" {PID} ", f" {os.getpid()} ")
        for old, new in sizes.items():
            text = text.replace(f"{old.removeprefix('kib_')}K", f"{new}K")
        self.nvmap.write_text(text)


@pytest.fixture
def orin(tmp_path):
    return Board(tmp_path, integrated=True)


class TestCpu:
    def test_it_has_nothing_beside_rss(self):
        cpu = device.open_device("cpu")
        assert (cpu.name, cpu.memory_mb(), cpu.rest_mb(), cpu.peak_mb()) == ("cpu", 0, 0, 0)
        assert "VmHWM" in cpu.method

    def test_what_is_available_is_not_what_is_free(self, orin):
        assert device.open_device("cpu", orin).available_mb() == 5376

    def test_a_limit_leaves_cuda_alone(self, orin):
        device.open_device("cpu", orin).set_limit(100)
        assert orin.fraction == 1
        assert not orin.is_started


class TestDiscrete:
    @pytest.fixture
    def board(self, tmp_path):
        return Board(tmp_path, integrated=False, total_mb=8000.0, free_mb=7678)

    def test_what_is_reserved_and_the_context_count(self, board):
        cuda = device.open_device("cuda", board)
        assert cuda.memory_mb() == 322
        board.reserve(978)
        board.reserve(-900)
        assert cuda.memory_mb() == 1300  # the highest so far
        assert cuda.name == "cuda"
        assert cuda.method.endswith("CUDA bytes reserved + CUDA context")

    def test_what_a_step_takes_is_told_apart_from_the_highest_so_far(self, board):
        cuda = device.open_device("cuda", board)
        board.reserve(978)
        board.reserve(-900)
        assert cuda.rest_mb() == 400
        assert cuda.peak_mb() == 400
        board.reserve(50)
        board.reserve(-50)
        assert (cuda.peak_mb(), cuda.memory_mb()) == (450, 1300)
        board.reserve(1500)
        assert cuda.memory_mb() == 1900

    def test_the_host_says_what_is_available(self, board):
        assert device.open_device("cuda", board).available_mb() == 4916

    def test_a_context_is_never_less_than_nothing(self, tmp_path):
        board = Board(tmp_path, integrated=False, total_mb=8000.0, free_mb=7995)
        assert device.open_device("cuda", board).memory_mb() == 22

    def test_a_limit_leaves_the_allocator_what_the_context_does_not_take(self, board):
        device.open_device("cuda", board).set_limit(700)
        assert board.fraction == pytest.approx((700 - 300) / 8000)

    @pytest.mark.parametrize(("limit_mb", "fraction"), [(100, 0), (9000, 1)])
    def test_a_limit_out_of_range_is_nothing_or_all(self, board, limit_mb, fraction):
        device.open_device("cuda", board).set_limit(limit_mb)
        assert board.fraction == fraction


class TestTegra:
    def test_the_context_is_the_drop_of_available_memory(self, orin):
        cuda = device.open_device("cuda", orin)
        # 460 less are available: 57 are private memory in RSS now, torch's allocator has 22.
        assert cuda.memory_mb() == 22 + 381
        orin.reserve(978)
        orin.reserve(-900)
        assert cuda.memory_mb() == 1381
        assert "CUDA bytes reserved" in cuda.method
        assert "MemAvailable" in cuda.method

    def test_the_driver_tells_it_better(self, orin):
        orin.show_nvmap()
        cuda = device.open_device("cuda", orin)
        assert cuda.memory_mb() == 414
        assert "NvMap" in cuda.method

    def test_what_libraries_take_later_is_seen_by_the_driver(self, orin):
        orin.show_nvmap()
        cuda = device.open_device("cuda", orin)
        orin.reserve(1000)
        orin.show_nvmap(kib_421888=421888 + 1024 * 1000 + 1024 * 64)
        assert cuda.memory_mb() == 414 + 1000 + 64
        orin.reserve(-1000)
        orin.show_nvmap()
        assert cuda.memory_mb() == 414 + 1000 + 64  # the highest so far

    def test_a_driver_that_counts_elsewhere_is_not_believed(self, orin):
        orin.show_nvmap(kib_421888=0, kib_2048=0)
        cuda = device.open_device("cuda", orin)
        assert cuda.memory_mb() == 403
        assert "NvMap" not in cuda.method

    def test_a_context_is_never_less_than_nothing(self, orin, monkeypatch):
        # Another program gave memory back meanwhile.
        monkeypatch.setattr(orin, "_begin", lambda: None)
        cuda = device.open_device("cuda", orin)
        cuda.set_limit(762)
        assert orin.fraction == pytest.approx(0.1)
        assert cuda.memory_mb() == 22

    def test_what_is_available_is_not_what_is_free(self, orin):
        assert device.open_device("cuda", orin).available_mb() == 4916

    def test_beyond_the_limit_the_allocator_refuses_as_it_does_without_nvml(self, orin):
        cuda = device.open_device("cuda", orin)
        cuda.set_limit(500)
        assert orin.fraction == pytest.approx((500 - 381) / ORIN_MB)
        with pytest.raises(RuntimeError) as caught:
            orin.reserve(98)
        assert guard.refused(caught.value)
        orin.reserve(96)
        assert cuda.memory_mb() <= 500


class TestNvmap:
    TABLE = FIXTURES / "nvmap-clients.txt"

    @pytest.mark.parametrize(
        ("pid", "kib"),
        [
            pytest.param(PID, 421888 + 2048, id="two clients"),
            pytest.param(3977, 1024, id="a name with a blank"),
            pytest.param(0, 100228, id="kernel"),
        ],
    )
    def test_the_rows_of_a_process_are_added_up(self, pid, kib):
        assert device.nvmap_mb(self.TABLE, pid) == kib / 1024

    @pytest.mark.parametrize("pid", [471, 47110, 2048])
    def test_a_process_without_a_row_is_not_told(self, pid):
        assert device.nvmap_mb(self.TABLE, pid) is None

    def test_without_the_table_nothing_is_told(self, tmp_path):
        assert device.nvmap_mb(tmp_path / "clients", PID) is None
        assert device.nvmap_mb(tmp_path, PID) is None  # unreadable, also for root


class TestThisMachine:
    @pytest.fixture
    def cuda(self, monkeypatch):
        """Takes the place of torch.cuda, with device 2 the current one."""
        asked = SimpleNamespace(fractions=[])

        def properties(index):
            assert index == 2
            return SimpleNamespace(is_integrated=1, total_memory=7620 * MIB)

        fake = SimpleNamespace(
            current_device=lambda: 2,
            get_device_properties=properties,
            mem_get_info=lambda: (300 * MIB, 7620 * MIB),
            memory_reserved=lambda: 22 * MIB,
            max_memory_reserved=lambda: 1000 * MIB,
            set_per_process_memory_fraction=asked.fractions.append,
        )
        monkeypatch.setattr(torch, "cuda", fake)
        return asked

    def test_torch_is_asked_about_the_current_device(self, cuda):
        machine = device.THIS_MACHINE
        assert machine.is_integrated() is True
        assert (machine.total_mb(), machine.free_mb()) == (7620, 300)
        assert (machine.reserved_mb(), machine.max_reserved_mb()) == (22, 1000)

    def test_what_is_free_is_given_back_before_the_highest_begins_anew(self, cuda, monkeypatch):
        done = []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("free"), raising=False)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: done.append("highest"), raising=False)
        device.THIS_MACHINE.release()
        assert done == ["free", "highest"]

    def test_a_fraction_comes_without_benchmarks(self, cuda, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
        device.THIS_MACHINE.set_fraction(0.25)
        assert cuda.fractions == [0.25]
        assert torch.backends.cudnn.benchmark is False


def test_without_a_gpu_the_flag_is_wrong(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        device.open_device("cuda")
    assert "no CUDA device" in caught.value.message
    assert "--device cpu" in caught.value.hint


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize(
    "message", ["refused/tegra-nvml.txt", "refused/cudnn-engines.txt", "not_refused/no-kernel.txt"]
)
def test_a_gpu_that_cannot_run_a_step_is_named(tmp_path, monkeypatch, integrated, message):
    text = (FIXTURES / message).read_text()

    def start():
        raise RuntimeError(text)

    board = Board(tmp_path, integrated=integrated)
    monkeypatch.setattr(board, "start", start)
    with pytest.raises(UsageError) as caught:
        device.open_device("cuda", board)
    assert caught.value.message == f"the CUDA device cannot run a step: {text.splitlines()[0]}"
    assert "--device cpu" in caught.value.hint


def test_what_all_opened_devices_count_is_told_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_devices", [])
    assert device.all_opened_mb() == 0
    device.open_device("cpu")
    board = Board(tmp_path, integrated=False, total_mb=8000.0, free_mb=7678)
    device.open_device("cuda", board)
    board.reserve(100)
    assert device.all_opened_mb() == 422


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestRealGpu:
    def test_it_counts_what_is_allocated(self):
        cuda = device.open_device("cuda")
        before = cuda.memory_mb()
        held = torch.ones(64 * MIB, dtype=torch.uint8, device="cuda")
        assert cuda.memory_mb() - before >= 64
        assert before > 50
        del held
        rest = cuda.rest_mb()
        assert rest <= cuda.peak_mb() < cuda.memory_mb()

    def test_beyond_the_limit_it_refuses_and_goes_on(self):
        cuda = device.open_device("cuda")
        torch.cuda.empty_cache()
        cuda.set_limit(cuda.memory_mb() + 64)
        try:
            with pytest.raises(RuntimeError) as caught:
                torch.ones(8 * 1024 * MIB, dtype=torch.uint8, device="cuda")
            assert guard.refused(caught.value)
            assert int(torch.ones(8, device="cuda").sum()) == 8
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
