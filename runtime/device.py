"""Which counters a device has: its name, and the bytes that RSS does not show."""

from __future__ import annotations

from typing import Protocol

import torch

from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import MIB, available_mb


class Device(Protocol):
    """A device as the budget sees it."""

    name: str
    method: str

    def memory_mb(self) -> float:
        """MiB at most so far that count against the budget and are not in RSS."""
        ...


class Cpu:
    """Everything that the CPU uses is in RSS."""

    name = "cpu"
    method = "VmHWM of every process of the run"

    def memory_mb(self) -> float:
        """Nothing."""
        return 0.0


class Cuda:
    """What torch's allocator reserved at most, and the context, measured once as the drop of free memory."""

    name = "cuda"
    method = "VmHWM of every process of the run + CUDA bytes reserved + CUDA context"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise UsageError("there is no CUDA device here", hint="Use --device cpu.")
        self._context_mb = _context_mb()

    def memory_mb(self) -> float:
        """Reserved at most, and the context."""
        return torch.cuda.max_memory_reserved() / MIB + self._context_mb


def _context_mb() -> float:
    # On an integrated GPU (Jetson) there is one memory, and only MemAvailable tells what is free of it.
    before = available_mb()  # of everything: asking for properties already begins to set CUDA up
    index = torch.cuda.current_device()
    integrated = bool(torch.cuda.get_device_properties(index).is_integrated)
    torch.cuda.synchronize()
    torch.zeros(1, device="cuda")
    if integrated:
        return max(before - available_mb(), 0.0)
    free, total = torch.cuda.mem_get_info()
    return max((total - free - torch.cuda.memory_reserved()) / MIB, 0.0)


def open_device(name: str) -> Device:
    """The device `cpu` or `cuda`.

    Raises:
        UsageError: there is no such device here.
    """
    return Cuda() if name == "cuda" else Cpu()
