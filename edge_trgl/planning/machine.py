"""How fast this machine computes, in which types, and which memory counters it has."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from edge_trgl.engine import process_setup
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.zoo import km_resnet
from edge_trgl.runtime.memory import allocator, high_water
from edge_trgl.runtime.memory.cgroup import CgroupUnavailableError, memory_cgroup
from edge_trgl.runtime.memory.device import THIS_MACHINE
from edge_trgl.runtime.processes.machine_speed import MachineSpeed
from edge_trgl.runtime.units import MIB

BATCH_SIZE, SIDE, WIDTH = 32, 32, 64
"""The reference module: a K-M module with its encoder, on square images with SIDE pixels a side."""

SMALL_BATCH = 8
"""Images of a convolution; few, because a type without kernels of its own is a hundred times slower."""

NARROW = {"fp16": torch.float16, "bf16": torch.bfloat16}
MIN_STEPS, MAX_STEPS, SECONDS = 3, 50, 1.0


def measure() -> MachineSpeed:
    """Measure this machine; takes a few seconds."""
    process_setup.set_up(None)
    allocator.keep_tensors_on_heap()  # as training does
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    return MachineSpeed(
        device=device,
        gpu=_gpu() if cuda else "none",
        images_per_s=_reference(device),
        relative_speeds=_relative_speeds(device),
        counters=tuple(_counters(cuda=cuda)),
    )


def _reference(device: str) -> float:
    """Images a second of the reference module's local step."""
    chain = km_resnet(1, 1, input_shape=(3, SIDE, SIDE), num_classes=10, width=WIDTH)
    shape = (WIDTH, SIDE // 2, SIDE // 2)
    local = LocalModule(chain, 0, shape, StepConfig(transport=Transport(tau=1.0))).materialise(device)
    images = torch.rand(BATCH_SIZE, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(BATCH_SIZE, dtype=torch.int64, device=device)

    def step() -> None:
        local.train_step(images, labels, lr=0.0, seed=0)
        local.take_totals()  # waits for the device

    return BATCH_SIZE / _seconds(step)


def _relative_speeds(device: str) -> dict[str, float | None]:
    base = _convolution(torch.float32, device)
    speeds: dict[str, float | None] = {"fp32": 1.0}
    for name, dtype in NARROW.items():
        try:
            speeds[name] = round(base / _convolution(dtype, device), 3)
        except RuntimeError:
            speeds[name] = None
    return speeds


def _convolution(dtype: torch.dtype, device: str) -> float:
    """Seconds of a 3x3 convolution of [SMALL_BATCH, WIDTH, SIDE, SIDE].

    Raises:
        RuntimeError: torch has no kernel for this type on this device.
    """
    weight, x = (
        torch.rand(shape).to(device, dtype, memory_format=torch.channels_last)
        for shape in ((WIDTH, WIDTH, 3, 3), (SMALL_BATCH, WIDTH, SIDE, SIDE))
    )

    def step() -> None:
        functional.conv2d(x, weight, padding=1)
        if device == "cuda":
            torch.cuda.synchronize()

    return _seconds(step)


def _seconds(step: Callable[[], None]) -> float:
    """Median seconds of a step, after one that loads the kernels."""
    step()
    times: list[float] = []
    while len(times) < MIN_STEPS or (len(times) < MAX_STEPS and sum(times) < SECONDS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _gpu() -> str:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{properties.name}, compute capability {properties.major}.{properties.minor}"


def _counters(*, cuda: bool) -> list[str]:
    present = {
        "VmHWM reset": _mark_falls(),
        "memory cgroup": _has_cgroups(),
        "CUDA": cuda,
        "nvmap": os.access(THIS_MACHINE.nvmap, os.R_OK),
    }
    return [name for name, there in present.items() if there]


def _has_cgroups() -> bool:
    try:
        with memory_cgroup(64, f"edge-trgl-probe-{os.getpid()}"):
            return True
    except (CgroupUnavailableError, OSError):
        return False


def _mark_falls() -> bool:
    # Not from the heap, which may keep what was freed.
    with mmap.mmap(-1, 16 * MIB) as held:
        held[:] = bytes(len(held))
    before = high_water.peak_mb()
    with high_water.Meter().phase():
        return high_water.peak_mb() < before
