"""The guard: a limit on this process, and the check at safe points."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from edge_trgl.runtime.errors import OverBudgetError
from edge_trgl.runtime.memory.counters import usage
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.units import MIB

_MAPPED_MB = 32.0
"""Mapped later but hardly resident: the stack of the reading thread, the staging buffer of module files, a heap
that grows by whole huge pages."""

_MAPPED_SHARE = 1.15
"""What is mapped over what is resident at a step's peak: a tensor is mapped whole before it is touched, and
convolutions ask for more scratch than they use (measured up to 1.08). The guard is there against runaways;
the high-water mark, checked between visits, holds the budget itself."""


def set_guard(limits: Limits, others_mb: float = 0.0) -> None:
    """Let the private writable memory of this process grow only as far as its room in the budget allows.

    `others_mb`: MiB of the budget that are not for this process.

    RLIMIT_DATA counts what is mapped, not what is resident (thread stacks, arenas), and leaves file pages
    out; so it is set from here on: what is mapped now, plus what the limit leaves. Call it once the threads
    that compute are there. Beyond it, torch raises "can't allocate memory" instead of the kernel killing the
    process.
    """
    limit_mb = limits.room_mb(others_mb)
    _guards[:] = [limit_mb]
    _allow(_allowed_by(limit_mb))


def renew_guard() -> None:
    """Raise the guard of this process, if it has one, by what the heap gave back: that is mapped all the same.

    It is never lowered: code that was loaded since is in RSS, but steps map what they do not touch as before.
    """
    for limit_mb in _guards:
        before, _ = resource.getrlimit(resource.RLIMIT_DATA)
        _allow(max(_allowed_by(limit_mb), before))


@contextmanager
def limited(extra_mb: float) -> Iterator[None]:
    """Let this process grow by about `extra_mb` MiB inside and no further: what passes that is refused."""
    before, _ = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _allowed_by(usage().rss + extra_mb)
    _allow(allowed if before == resource.RLIM_INFINITY else min(allowed, before))
    try:
        yield
    finally:
        _allow(before)


_guards: list[float] = []
"""That of this process, if it has one."""


def _allowed_by(limit_mb: float) -> int:
    now = usage()
    return int((now.data + max(limit_mb - now.rss, 0.0) * _MAPPED_SHARE + _MAPPED_MB) * MIB)


def _allow(num_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    free = hard == resource.RLIM_INFINITY
    soft = num_bytes if free or num_bytes == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


_NO_PRIMITIVE = "could not create a primitive"

_REFUSALS = (
    # torch's CPU allocator: over glibc's, and over mimalloc (on AArch64 since torch 2.10).
    "can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    # oneDNN, which does not say why.
    _NO_PRIMITIVE,
    # C++ in general.
    "bad_alloc",
    # torch's CUDA allocator ("CUDA out of memory"), the CUDA runtime ("CUDA error: out of memory"), the driver
    # ("CUDA driver error: out of memory": Orin, pytorch/pytorch#112121).
    "out of memory",
    # The driver where it cannot even name the error; torch calls it to map memory.
    "CUDA driver error: unknown error",
    # torch's CUDA allocator on Tegra: it asks NVML for its message, which is missing there
    # (pytorch/pytorch#185240; a MIG slice does the same).
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
    # cuBLAS and cuDNN, whose own allocations torch's allocator does not see. Both document these codes as a
    # failed cudaMalloc, and the codes NOT_INITIALIZED as a driver or a library that does not fit: not here.
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",  # since cuDNN 9
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    # torch's convolution, which drops every cuDNN engine whose workspace was refused (Conv_v8.cpp). A GPU that
    # cuDNN cannot serve at all says the same, but in the first convolution of all, when the device is opened.
    "was unable to find an engine to execute this computation",
    # Tegra's memory manager; it writes to standard error, and callers that collect that pass it on.
    "NvMapMemAlloc",
)


def refused(error: BaseException) -> bool:
    """Whether `error` is an allocation that the guard or the device refused."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch raises RuntimeError; onnxruntime has classes of its own.
    is_librarys = isinstance(error, RuntimeError) or type(error).__module__ != "builtins"
    return isinstance(error, MemoryError) or (is_librarys and any(text in str(error) for text in _REFUSALS))


def lasts(error: BaseException) -> bool:
    """Whether this thread is refused the same from now on, however much is free.

    oneDNN's code generator never clears its first failure to get memory (seen with torch 2.13 on x86): every
    kernel that it has not made yet fails after it.
    """
    return _NO_PRIMITIVE in str(error)


def check(peak_mb: float, limits: Limits, where: str) -> None:
    """At a safe point: stop, resumable, when the peak has passed the budget.

    Raises:
        OverBudgetError: with both numbers.
    """
    if peak_mb > limits.memory_mb:
        raise OverBudgetError(
            f"the budget of {limits.memory_mb:.0f} MiB was passed: {peak_mb:.0f} MiB at {where}",
            hint="What was committed is kept. Resume with a larger budget: edge-trgl resume RUN --budget-mb N.",
        )
