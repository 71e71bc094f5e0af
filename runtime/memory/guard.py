"""The guard: a limit on this process, and the check at safe points."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from edge_trgl.runtime.errors import RESUME, OverBudgetError
from edge_trgl.runtime.memory.counters import usage
from edge_trgl.runtime.memory.limits import Limits, larger_mb
from edge_trgl.runtime.units import MIB

_MAPPED_MB = 32.0
"""MiB that are mapped later but hardly become resident: the stack of the reading thread, the staging buffer of
module files, a heap that grows by whole huge pages."""

_MAPPED_SHARE = 1.15
"""Ratio of mapped to resident memory at the peak of a step: a tensor is mapped as a whole before it is touched,
and convolutions ask for more scratch memory than they use (up to 1.08 was measured). The guard only stops
runaways; the budget itself is kept by the high-water mark, which is checked between visits."""


def set_guard(limits: Limits, others_mb: float = 0.0) -> None:
    """Limit the private writable memory of this process so that its RSS stays within its part of the budget.

    RLIMIT_DATA counts mapped memory, resident or not (thread stacks, arenas), and no file pages. It is therefore
    set to what is mapped now plus what the limit leaves. Call it when the compute threads have been started.
    Beyond the limit torch raises "can't allocate memory", instead of the kernel killing the process.

    Args:
        limits: of the run.
        others_mb: MiB of the budget that belong to other processes.
    """
    limit_mb, file_mb = limits.room_mb(others_mb), usage().file
    _guards[:] = [(limit_mb, file_mb)]
    _allow(_allowed_by(limit_mb, file_mb))


def renew_guard() -> None:
    """Raise the guard of this process, if it has one, by what was mapped in the meantime and is not resident.

    That is memory which the heap has returned, and code that oneDNN generates: a mapping of a MiB or more for each
    kernel, of which little is used, 60 MiB in a net of many shapes. The guard is never lowered: code loaded in the
    meantime counts in RSS, but steps still map memory they do not touch.
    """
    for limit_mb, file_mb in _guards:
        before, _ = resource.getrlimit(resource.RLIMIT_DATA)
        _allow(max(_allowed_by(limit_mb, file_mb), before))


@contextmanager
def limited(extra_mb: float) -> Iterator[None]:
    """Refuse allocations inside that would make this process grow by more than about `extra_mb` MiB."""
    before, _ = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _allowed_by(usage().rss + extra_mb)
    _allow(allowed if before == resource.RLIM_INFINITY else min(allowed, before))
    try:
        yield
    finally:
        _allow(before)


_guards: list[tuple[float, float]] = []
"""The limit of this process, if it has one, and the pages of files it had when it got that, in MiB."""


def _allowed_by(limit_mb: float, file_mb: float = 0.0) -> int:
    now = usage()
    rss = now.anonymous + max(now.file, file_mb)  # pages that were given back come back
    return int((now.data + max(limit_mb - rss, 0.0) * _MAPPED_SHARE + _MAPPED_MB) * MIB)


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
    """Whether `error` is an allocation refused by the guard or the device."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch raises RuntimeError; onnxruntime has classes of its own.
    is_librarys = isinstance(error, RuntimeError) or type(error).__module__ != "builtins"
    return isinstance(error, MemoryError) or (is_librarys and any(text in str(error) for text in _REFUSALS))


def lasts(error: BaseException) -> bool:
    """Whether the same allocation will fail in this thread from now on, however much memory is free.

    After its first failure to get memory, oneDNN's code generator fails for every kernel that it has not generated
    yet (torch 2.13 on x86).
    """
    return _NO_PRIMITIVE in str(error)


def check(peak_mb: float, limits: Limits, where: str) -> None:
    """Stop the run at a safe point, from which it can be resumed, if the peak is over the budget.

    Raises:
        OverBudgetError: with both numbers.
    """
    if peak_mb > limits.memory_mb:
        raise OverBudgetError(
            f"the budget of {limits.memory_mb:.0f} MiB was passed: {peak_mb:.0f} MiB at {where}",
            hint="What was committed is kept. To go on with a larger budget: "
            f"{RESUME} --budget-mb {larger_mb(peak_mb)}",
        )
