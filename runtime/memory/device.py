"""Memory counters of a device: the bytes that are not in RSS, and the limit of its allocator.

All memory of the CPU is in RSS. A discrete GPU has its own memory. An integrated GPU (Jetson) takes memory of the
board that is in no RSS. What CUDA calls free is MemFree there, without the page cache, so that only MemAvailable
says how much can be allocated.
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
    """A device and its memory. `method` says, for the report, what was counted."""

    name: str
    method: str

    def memory_mb(self) -> float:
        """Peak so far in MiB of the memory that is not in RSS."""
        ...

    def rest_mb(self) -> float:
        """Release free memory and start a new `peak_mb`; returns the MiB that are still in use."""
        ...

    def peak_mb(self) -> float:
        """Peak since `rest_mb` in MiB."""
        ...

    def available_mb(self) -> float:
        """MiB of the memory of the board or the host that a new process can allocate."""
        ...

    def set_limit(self, limit_mb: float) -> None:
        """Limit `memory_mb`. Call it before the first step, whose workspace it limits too."""
        ...


class Machine(Protocol):
    """What is read from torch.cuda and the kernel. `nvmap`: Tegra's table of memory by process, for root only."""

    nvmap: Path

    def available_mb(self) -> float:
        """MiB of the memory of the board or the host that a new process can allocate."""
        ...

    def anonymous_mb(self) -> float:
        """MiB of private memory that this process has resident."""
        ...

    def has_cuda(self) -> bool:
        """Whether torch can use a CUDA device."""
        ...

    def is_integrated(self) -> bool:
        """Whether the GPU shares the memory of the CPU."""
        ...

    def start(self) -> None:
        """Create the CUDA context and load the libraries that a step uses."""
        ...

    def total_mb(self) -> float:
        """MiB of the memory of the GPU, to which `set_fraction` refers."""
        ...

    def free_mb(self) -> float:
        """MiB that CUDA calls free."""
        ...

    def reserved_mb(self) -> float:
        """MiB reserved by torch's allocator."""
        ...

    def max_reserved_mb(self) -> float:
        """Peak of `reserved_mb` since the last `release`."""
        ...

    def release(self) -> None:
        """Return the free memory of torch's allocator, and start a new peak."""
        ...

    def set_fraction(self, fraction: float) -> None:
        """Limit torch's allocator to `fraction` (0 to 1) of the memory of the GPU."""
        ...


class ThisMachine:
    """This machine and its current CUDA device."""

    nvmap = Path("/sys/kernel/debug/nvmap/iovmm/clients")

    def available_mb(self) -> float:
        """MemAvailable in MiB."""
        return counters.available_mb()

    def anonymous_mb(self) -> float:
        """MiB of private memory that this process has resident."""
        return counters.usage().anonymous

    def has_cuda(self) -> bool:
        """Whether torch can use a CUDA device."""
        return torch.cuda.is_available()

    def is_integrated(self) -> bool:
        """Whether the GPU shares the memory of the CPU, as the driver reports it."""
        return bool(torch.cuda.get_device_properties(torch.cuda.current_device()).is_integrated)

    def start(self) -> None:
        """Run one small convolution and one small matrix product."""
        # Like the context, cuDNN and cuBLAS allocate memory outside torch's allocator, when they are first used.
        image = torch.ones(1, 1, 8, 8, device="cuda")
        torch.mm(image[0, 0], torch.conv2d(image, image[:, :, :3, :3], padding=1)[0, 0])
        torch.cuda.synchronize()

    def total_mb(self) -> float:
        """MiB of the memory of the GPU, to which `set_fraction` refers."""
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / MIB

    def free_mb(self) -> float:
        """MiB that CUDA calls free, whoever uses the rest."""
        return torch.cuda.mem_get_info()[0] / MIB

    def reserved_mb(self) -> float:
        """MiB reserved by torch's allocator."""
        return torch.cuda.memory_reserved() / MIB

    def max_reserved_mb(self) -> float:
        """Peak of `reserved_mb` since the last `release`."""
        return torch.cuda.max_memory_reserved() / MIB

    def release(self) -> None:
        """Return blocks without tensors, and start a new peak."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def set_fraction(self, fraction: float) -> None:
        """Limit the caching allocator, and switch off cuDNN's benchmark."""
        # It would try algorithms whose workspace takes all that the limit leaves.
        torch.backends.cudnn.benchmark = False
        torch.cuda.set_per_process_memory_fraction(fraction)


THIS_MACHINE = ThisMachine()


class Cpu:
    """The CPU, all of whose memory is in RSS."""

    name = "cpu"
    method = "VmHWM of every process of the run"

    def __init__(self, machine: Machine = THIS_MACHINE) -> None:
        self._machine = machine

    def memory_mb(self) -> float:
        """Zero: everything is in RSS."""
        return 0.0

    def rest_mb(self) -> float:
        """Zero: everything is in RSS."""
        return 0.0

    def peak_mb(self) -> float:
        """Zero: everything is in RSS."""
        return 0.0

    def available_mb(self) -> float:
        """MemAvailable in MiB."""
        return self._machine.available_mb()

    def set_limit(self, limit_mb: float) -> None:
        """Do nothing: `guard.set_guard` limits what is in RSS."""


class _Gpu:
    """A GPU: the memory of torch's allocator, and that of the context and the libraries, counted by subclasses."""

    name = "cuda"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._highest_mb = 0.0  # peak of torch's allocator before the last release
        self._outside_mb = 0.0

    def memory_mb(self) -> float:
        """Peak of torch's allocator, plus what the driver holds for this process outside it, in MiB."""
        return max(self._highest_mb, self._machine.max_reserved_mb()) + self._outside()

    def rest_mb(self) -> float:
        """Release torch's free blocks; returns what is still reserved, plus what is outside, in MiB."""
        self._highest_mb = max(self._highest_mb, self._machine.max_reserved_mb())
        self._machine.release()
        return self._machine.reserved_mb() + self._outside()

    def peak_mb(self) -> float:
        """Peak of torch's allocator since `rest_mb`, plus what is outside, in MiB."""
        return self._machine.max_reserved_mb() + self._outside()

    def available_mb(self) -> float:
        """MemAvailable of the host or the board in MiB: the budget counts its memory and the GPU's together."""
        return self._machine.available_mb()

    def set_limit(self, limit_mb: float) -> None:
        """Limit torch's allocator, which refuses allocations beyond `limit_mb` MiB."""
        fraction = (limit_mb - self._outside_mb) / self._machine.total_mb()
        self._machine.set_fraction(min(max(fraction, 0.0), 1.0))

    def _outside(self) -> float:
        return self._outside_mb


class Cuda(_Gpu):
    """A GPU with its own memory: torch's allocator, and what the context and the libraries took at the start.

    The latter is everything in use on the device at that time, so that other programs on the same GPU count too.
    """

    method = "VmHWM of every process of the run + CUDA bytes reserved + CUDA context"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        _start(machine)
        self._outside_mb = max(machine.total_mb() - machine.free_mb() - machine.reserved_mb(), 0.0)


class Tegra(_Gpu):
    """A GPU that shares the memory of the board, counted by the driver if root may read that, else as `Cuda`.

    Args:
        before_mb: `room_mb` before CUDA was initialised.
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
        # Less than torch alone has reserved: the driver counts elsewhere (Thor), or the pid is another
        # (containers).
        return seen_mb - reserved_mb if seen_mb is not None and seen_mb >= reserved_mb else None


def room_mb(machine: Machine) -> float:
    """MemAvailable plus the private memory of this process, which is in RSS already, in MiB.

    Shared memory, of which CUDA makes a few MiB, is in RSS too but not added, so that the context appears larger.
    """
    return machine.available_mb() + machine.anonymous_mb()


def nvmap_mb(table: Path, pid: int) -> float | None:
    """MiB that Tegra's memory manager holds for the process `pid`; None if the table cannot be read or lacks it.

    The table has a row `CLIENT PROCESS PID SIZE` for each client, with the size in KiB ("52340K"). Names of
    processes may contain blanks, the kernel has pid 0, and a process can have several rows.
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
    """Open the device `cpu` or `cuda`, before anything else in this process uses CUDA.

    Raises:
        UsageError: there is no such device, or it cannot run a step.
    """
    device = _opened(name, machine)
    _devices.append(device)
    return device


def all_opened_mb() -> float:
    """Peak so far in MiB of the memory that the devices of this process use outside RSS."""
    return max((device.memory_mb() for device in _devices), default=0.0)


_devices: list[Device] = []
"""The devices opened in this process, usually one."""


def _opened(name: str, machine: Machine) -> Device:
    if name == "cpu":
        return Cpu(machine)
    before_mb = room_mb(machine)  # first, because even reading the properties of the device takes memory
    if not machine.has_cuda():
        raise UsageError("there is no CUDA device here", hint="Use --device cpu.")
    return Tegra(machine, before_mb) if machine.is_integrated() else Cuda(machine)
