"""How a process that computes with torch is set up, the same for planning and for training."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from edge_trgl import __version__
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.runtime.memory import allocator, counters, guard, high_water
from edge_trgl.runtime.memory.device import Device
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes import processor


def set_up(threads: int | None) -> None:
    """Threads and arithmetic; before the first parallel operation, which would fix both."""
    if threads is not None:
        torch.set_num_threads(threads)
    # Denormals make CPU steps many times slower.
    torch.set_flush_denormal(True)


def warm_up(device: str) -> None:
    """One step of a small module: loads the kernels, so that what follows is the modules' own memory."""
    chain = km_resnet(1, 1, input_shape=(3, 16, 16), num_classes=10, width=16)
    local = LocalModule(chain, 0, (16, 8, 8), StepConfig(transport=Transport(tau=1.0))).materialise(device)
    images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.zeros(16, dtype=torch.int64, device=device)
    local.train_step(images.contiguous(memory_format=torch.channels_last), labels, lr=0.0, seed=0)
    local.infer(images.contiguous(memory_format=torch.channels_last), labels, None)
    local.take_totals()


def begin(device: Device, limits: Limits, others_mb: float) -> None:
    """Warm up; let this process grow as far as the budget has room for it, and its device can be held to that.

    `others_mb`: MiB of the budget that are not for this process.
    """
    room_mb = limits.room_mb(others_mb)
    device.set_limit(room_mb - counters.usage().rss)
    warm_up(device.name)
    allocator.keep_tensors_on_heap()
    if device.name == "cpu":  # a CUDA process maps far more memory than it uses
        guard.set_guard(limits, others_mb)
    else:
        # Less the libraries that warming up loaded, hundreds of MiB.
        device.set_limit(room_mb - counters.usage().rss)


def others_mb() -> float:
    """MiB at most of the parent, which lives beside this process."""
    return high_water.peak_mb(Path(f"/proc/{os.getppid()}"))


def environment(device: str) -> dict[str, str | int]:
    """What the bits of a run, and its memory, depend on beside its configuration."""
    found: dict[str, str | int] = {
        "edge-trgl": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "machine": os.uname().machine,
        # The same instructions are not the same kernels: libraries choose these by the core and its caches.
        "processor": processor.processor(),
        "board": processor.board(),
    }
    if device == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        found |= {"GPU": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda), "cuDNN": str(cudnn)}
    return found
