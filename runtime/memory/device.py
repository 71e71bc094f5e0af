"""Which counters a device has: the bytes that RSS does not show, and the limit that its allocator takes.

What the CPU uses is in RSS, all of it. A discrete GPU has a memory of its own. An integrated one (Jetson)
takes its bytes from the memory of the board: they are in no RSS, and what CUDA calls free is MemFree there,
without the page cache, so that only MemAvailable tells what can be had.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import torch

from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.units import MIB


class Device(Protocol):
    """A device as the budget sees it. `method`: what was counted, in the words of the report."""

    name: str
    method: str

    def memory_mb(self) -> float:
        """MiB at most so far that count against the budget and are not in RSS."""
        ...

    def rest_mb(self) -> float:
        """Give back what is free; the MiB of `memory_mb` that are left, from which `peak_mb` goes on."""
        ...

    def peak_mb(self) -> float:
        """MiB at most since `rest_mb`."""
        ...

    def available_mb(self) -> float:
        """MiB of the board's or the host's memory that a new process can have."""
        ...

    def set_limit(self, limit_mb: float) -> None:
        """Let `memory_mb` grow to `limit_mb` at most; before the first step, whose workspace it limits too."""
        ...


class Machine(Protocol):
    """What is asked of torch.cuda and of the kernel. `nvmap`: Tegra's table of bytes by process, for root."""

    nvmap: Path

    def available_mb(self) -> float:
        """MiB of the board's or the host's memory that a new process can have."""
        ...

    def anonymous_mb(self) -> float:
        """MiB of private memory that this process has resident."""
        ...

    def has_cuda(self) -> bool:
        """Whether there is a CUDA device and a torch that can use it."""
        ...

    def is_integrated(self) -> bool:
        """Whether the GPU shares the memory of the CPU."""
        ...

    def start(self) -> None:
        """Create the CUDA context and load the libraries that a step uses."""
        ...

    def total_mb(self) -> float:
        """MiB of the GPU's memory, of which `set_fraction` takes its part."""
        ...

    def free_mb(self) -> float:
        """MiB that CUDA calls free."""
        ...

    def reserved_mb(self) -> float:
        """MiB that torch's allocator holds."""
        ...

    def max_reserved_mb(self) -> float:
        """MiB that torch's allocator held at most since it was last released."""
        ...

    def release(self) -> None:
        """Let torch's allocator give back what it holds free, and tell its highest from here on."""
        ...

    def set_fraction(self, fraction: float) -> None:
        """Let torch's allocator hold `fraction` (0 to 1) of the GPU's memory at most."""
        ...


class ThisMachine:
    """The real one, with the current CUDA device."""

    nvmap = Path("/sys/kernel/debug/nvmap/iovmm/clients")

    def available_mb(self) -> float:
        """MemAvailable."""
        return counters.available_mb()

    def anonymous_mb(self) -> float:
        """Of the CPU's memory."""
        return counters.usage().anonymous

    def has_cuda(self) -> bool:
        """As torch sees it."""
        return torch.cuda.is_available()

    def is_integrated(self) -> bool:
        """As the driver says."""
        return bool(torch.cuda.get_device_properties(torch.cuda.current_device()).is_integrated)

    def start(self) -> None:
        """One small convolution and one small product."""
        # cuDNN and cuBLAS take memory when they are first used, beside torch's allocator, as the context does.
        image = torch.ones(1, 1, 8, 8, device="cuda")
        torch.mm(image[0, 0], torch.conv2d(image, image[:, :, :3, :3], padding=1)[0, 0])
        torch.cuda.synchronize()

    def total_mb(self) -> float:
        """Also what the allocator's fraction is a part of."""
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / MIB

    def free_mb(self) -> float:
        """Of the device, whoever uses the rest."""
        return torch.cuda.mem_get_info()[0] / MIB

    def reserved_mb(self) -> float:
        """Now."""
        return torch.cuda.memory_reserved() / MIB

    def max_reserved_mb(self) -> float:
        """As torch counts it."""
        return torch.cuda.max_memory_reserved() / MIB

    def release(self) -> None:
        """Blocks without a tensor in them."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def set_fraction(self, fraction: float) -> None:
        """Through the caching allocator."""
        # A benchmark would try algorithms whose workspace takes all that the limit leaves.
        torch.backends.cudnn.benchmark = False
        torch.cuda.set_per_process_memory_fraction(fraction)


THIS_MACHINE = ThisMachine()


class Cpu:
    """Everything that the CPU uses is in RSS."""

    name = "cpu"
    method = "VmHWM of every process of the run"

    def __init__(self, machine: Machine = THIS_MACHINE) -> None:
        self._machine = machine

    def memory_mb(self) -> float:
        """Nothing."""
        return 0.0

    def rest_mb(self) -> float:
        """Nothing."""
        return 0.0

    def peak_mb(self) -> float:
        """Nothing."""
        return 0.0

    def available_mb(self) -> float:
        """MemAvailable."""
        return self._machine.available_mb()

    def set_limit(self, limit_mb: float) -> None:
        """Nothing to do: `budget.set_guard` limits what is in RSS."""


class _Gpu:
    """What torch's allocator holds, and beside it the context and the libraries, which a subclass counts."""

    name = "cuda"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._highest_mb = 0.0  # of torch's allocator before it was last released
        self._outside_mb = 0.0

    def memory_mb(self) -> float:
        """Reserved at most, and what the driver holds for this process beside it."""
        return max(self._highest_mb, self._machine.max_reserved_mb()) + self._outside()

    def rest_mb(self) -> float:
        """Reserved, and the same beside it."""
        self._highest_mb = max(self._highest_mb, self._machine.max_reserved_mb())
        self._machine.release()
        return self._machine.reserved_mb() + self._outside()

    def peak_mb(self) -> float:
        """Reserved at most since then, and the same beside it."""
        return self._machine.max_reserved_mb() + self._outside()

    def available_mb(self) -> float:
        """MemAvailable of the host or the board: the run's processes live there, and the GPU's bytes count too."""
        return self._machine.available_mb()

    def set_limit(self, limit_mb: float) -> None:
        """The fraction of torch's allocator: it refuses what would pass the limit."""
        fraction = (limit_mb - self._outside_mb) / self._machine.total_mb()
        self._machine.set_fraction(min(max(fraction, 0.0), 1.0))

    def _outside(self) -> float:
        return self._outside_mb


class Cuda(_Gpu):
    """A GPU with a memory of its own: torch's bytes, and what the context and the libraries took at the start.

    The latter is all that is taken of the device then, so that other programs on the same GPU count as well.
    """

    method = "VmHWM of every process of the run + CUDA bytes reserved + CUDA context"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        _start(machine)
        self._outside_mb = max(machine.total_mb() - machine.free_mb() - machine.reserved_mb(), 0.0)


class Tegra(_Gpu):
    """A GPU that shares the board's memory: the driver's own count where root may read it, else as `Cuda`.

    Args:
        before_mb: `room_mb` before anything of CUDA was set up.
    """

    def __init__(self, machine: Machine, before_mb: float) -> None:
        super().__init__(machine)
        _start(machine)
        seen_mb = self._seen_outside_mb()
        if seen_mb is None:
            self.method = f"{Cuda.method} (the drop of MemAvailable across its creation)"
            self._outside_mb = max(before_mb - room_mb(machine) - machine.reserved_mb(), 0.0)
        else:
            self.method = "VmHWM of every process of the run + NvMap bytes of the process that uses CUDA"
            self._outside_mb = seen_mb

    def _outside(self) -> float:
        self._outside_mb = max(self._outside_mb, self._seen_outside_mb() or 0.0)
        return self._outside_mb

    def _seen_outside_mb(self) -> float | None:
        seen_mb, reserved_mb = nvmap_mb(self._machine.nvmap, os.getpid()), self._machine.reserved_mb()
        # Less than torch alone holds: the driver counts elsewhere (Thor), or another has our number (containers).
        return seen_mb - reserved_mb if seen_mb is not None and seen_mb >= reserved_mb else None


def room_mb(machine: Machine) -> float:
    """MemAvailable as it would be without this process's private memory, which is in RSS already, in MiB.

    Shared memory, of which CUDA makes a few MiB, is in RSS too and stays out: the context appears larger by it.
    """
    return machine.available_mb() + machine.anonymous_mb()


def nvmap_mb(table: Path, pid: int) -> float | None:
    """MiB that Tegra's memory manager holds for the process `pid`; None where the table does not tell.

    The table has a row `CLIENT PROCESS PID SIZE` for every client, 0 being the kernel, with the size in KiB
    ("52340K") and blanks possible in the process's name; a process can have several.
    """
    try:
        rows = [line.split() for line in table.read_text().splitlines()]
    except OSError:
        return None
    sizes = [int(row[-1].removesuffix("K")) for row in rows if row[-2:-1] == [str(pid)]]
    return sum(sizes) / 1024 if sizes else None


def _start(machine: Machine) -> None:
    try:
        machine.start()
    except RuntimeError as error:
        raise UsageError(
            f"the CUDA device cannot run a step: {str(error).splitlines()[0]}",
            hint="Stop what else uses its memory, see that this torch is built for it, or use --device cpu.",
        ) from error


def open_device(name: str, machine: Machine = THIS_MACHINE) -> Device:
    """The device `cpu` or `cuda`. Open it before anything else of this process uses CUDA.

    Raises:
        UsageError: there is no such device here, or it cannot run a step.
    """
    device = _opened(name, machine)
    _devices.append(device)
    return device


def all_opened_mb() -> float:
    """MiB at most so far that devices of this process count beside RSS."""
    return max((device.memory_mb() for device in _devices), default=0.0)


_devices: list[Device] = []
"""Those of this process; nearly always there is one."""


def _opened(name: str, machine: Machine) -> Device:
    if name == "cpu":
        return Cpu(machine)
    before_mb = room_mb(machine)  # first: already asking for the device's properties takes memory
    if not machine.has_cuda():
        raise UsageError("there is no CUDA device here", hint="Use --device cpu.")
    return Tegra(machine, before_mb) if machine.is_integrated() else Cuda(machine)
