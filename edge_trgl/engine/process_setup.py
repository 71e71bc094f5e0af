"""Sets up a process that computes with torch, in the same way for planning and for training."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from edge_trgl import __version__
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.runtime.memory import allocator, counters, file_pages, guard, high_water
from edge_trgl.runtime.memory.device import Device
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes import processor


def set_up(threads: int | None) -> None:
    """Set the number of threads (None: torch's default) and how denormals are computed.

    Call it before the first parallel operation, which would fix both.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    # Denormal numbers make CPU steps many times slower.
    torch.set_flush_denormal(True)


def warm_up(device: str) -> None:
    """Draw a small module and take a step: that loads the kernels, so that later growth is the modules' own."""
    chain = km_resnet(1, 1, input_shape=(3, 16, 16), num_classes=10, width=16)
    local = LocalModule(chain, 0, (16, 8, 8), StepConfig(transport=Transport(tau=1.0)))
    chain.initialise(0, local.trunk, local.readers(), 0)
    local.materialise(device)
    images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.zeros(16, dtype=torch.int64, device=device)
    local.train_step(images.contiguous(memory_format=torch.channels_last), labels, lr=0.0, seed=0)
    local.infer(images.contiguous(memory_format=torch.channels_last), labels, None)
    local.take_totals()


def begin(device: Device, limits: Limits, others_mb: float) -> None:
    """Warm up, then limit the memory of this process and of its device to its part of the budget.

    Args:
        device: where the process computes.
        limits: the run's budget.
        others_mb: MiB of the budget that other processes take.
    """
    room_mb = limits.room_mb(others_mb)
    device.set_limit(room_mb - counters.usage().rss)
    warm_up(device.name)
    allocator.keep_tensors_on_heap()
    if device.name == "cpu":  # the guard limits mapped memory, and a CUDA process maps far more than it uses
        guard.set_guard(limits, others_mb)
    else:
        # Again: warming up has loaded libraries of hundreds of MiB, which count against the budget.
        device.set_limit(room_mb - counters.usage().rss)
    # Making its first kernels has run code that no later step runs. Not before: the limits count what is resident,
    # and most of these pages come back.
    file_pages.give_back()


def others_mb() -> float:
    """Return the high-water mark of the parent process, in MiB; it shares the budget with this one."""
    return high_water.peak_mb(Path(f"/proc/{os.getppid()}"))


def environment(device: str) -> dict[str, str | int]:
    """Return what a run's exact results and memory depend on besides its configuration, by name."""
    facts: dict[str, str | int] = {
        "edge-trgl": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "machine": os.uname().machine,
        # Equal instruction sets may still run different kernels: libraries choose by the core and its caches.
        "processor": processor.processor(),
        "board": processor.board(),
    }
    if device == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        facts |= {"GPU": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda), "cuDNN": str(cudnn)}
    return facts
