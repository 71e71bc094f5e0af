"""Which counters a device has: none on the CPU, torch's and the context's on a GPU, one memory on a Jetson."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from edge_trgl.runtime import device
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import MIB


class Gpu:
    """Takes the place of torch.cuda; `calls` tells in what order its parts were asked."""

    def __init__(self, *, integrated, reserved_mb, free_mb, total_mb):
        self.integrated = integrated
        self.reserved_mb = reserved_mb
        self.free_mb = free_mb
        self.total_mb = total_mb
        self.calls = []

    def is_available(self):
        return True

    def current_device(self):
        self.calls.append("current_device")
        return 0

    def get_device_properties(self, index):
        assert index == 0
        return SimpleNamespace(name="Orin" if self.integrated else "RTX", is_integrated=int(self.integrated))

    def synchronize(self):
        self.calls.append("synchronize")

    def mem_get_info(self):
        self.calls.append("mem_get_info")
        return self.free_mb * MIB, self.total_mb * MIB

    def memory_reserved(self):
        return self.reserved_mb * MIB

    def max_memory_reserved(self):
        return self.reserved_mb * MIB


@pytest.fixture
def use_gpu(monkeypatch):
    """Put a GPU into this machine; the first tensor on it makes its context."""

    def use(available_mb=(), **fields):
        gpu = Gpu(**fields)
        readings = iter(available_mb)

        def zeros(size, *, device):
            assert (size, device) == (1, "cuda")
            gpu.calls.append("context")

        def read():
            gpu.calls.append("available")
            return next(readings)

        monkeypatch.setattr(torch, "cuda", gpu)
        monkeypatch.setattr(torch, "zeros", zeros)
        monkeypatch.setattr(device, "available_mb", read)
        return gpu

    return use


def test_the_cpu_has_nothing_beside_rss():
    cpu = device.open_device("cpu")
    assert cpu.name == "cpu"
    assert cpu.memory_mb() == 0
    assert "VmHWM" in cpu.method


def test_a_discrete_gpu_counts_what_is_reserved_and_the_context(use_gpu):
    gpu = use_gpu(integrated=False, reserved_mb=2, free_mb=7698, total_mb=8000, available_mb=[5000] * 2)
    cuda = device.open_device("cuda")
    assert "context" in gpu.calls
    assert gpu.calls.index("context") < gpu.calls.index("mem_get_info")
    gpu.reserved_mb = 1000
    assert cuda.memory_mb() == 1300
    assert cuda.name == "cuda"
    assert "CUDA" in cuda.method


def test_an_integrated_gpu_is_measured_by_available_memory_alone(use_gpu):
    gpu = use_gpu(integrated=True, reserved_mb=2, free_mb=100, total_mb=7620, available_mb=[5000, 4600])
    cuda = device.open_device("cuda")
    assert gpu.calls[0] == "available"
    assert "mem_get_info" not in gpu.calls
    gpu.reserved_mb = 1000
    assert cuda.memory_mb() == 1400


@pytest.mark.parametrize("integrated", [False, True])
def test_a_context_is_never_less_than_nothing(use_gpu, integrated):
    use_gpu(integrated=integrated, reserved_mb=10, free_mb=7995, total_mb=8000, available_mb=[5000, 5100])
    assert device.open_device("cuda").memory_mb() == 10


def test_without_a_gpu_the_flag_is_wrong(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        device.open_device("cuda")
    assert "no CUDA device" in caught.value.message
    assert "--device cpu" in caught.value.hint


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpu_counts_what_is_allocated():
    cuda = device.open_device("cuda")
    before = cuda.memory_mb()
    held = torch.ones(64 * MIB, dtype=torch.uint8, device="cuda")
    assert cuda.memory_mb() - before >= 64
    assert before > 50
    del held
