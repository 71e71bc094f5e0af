"""The bytes alive at every moment of a work, and how much it computes, at any batch size, from two small runs.

The runs are on two and on three samples. Every storage that a run makes is counted from its allocation until it
is freed. Both runs allocate in the same order, and each allocation grows linearly with the batch, so the bytes
alive at every moment on B samples follow exactly, and with them the peak. What kernels allocate internally
(reordered copies, scratch) is not seen, except for what is known of convolutions.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edge_trgl.networks.cutting.nested import tensors_in
from edge_trgl.planning import calibrated

SMALL, LARGER = 2, 3
"""Numbers of samples of the two runs; batch norm needs two."""

_COPIES = {
    torch.ops.aten.convolution.default: (1, 1),
    torch.ops.aten.convolution_backward.default: (2, 2),
}
"""For each convolution kernel, the place of the weight among its arguments, and how many copies of the weight it
holds while it runs: the weight and its gradient in oneDNN's layout. [x86], see `calibrated`."""


_PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1, torch.ops.aten.bmm.default: 0}
"""For each product of matrices, the place of its left factor [..., rows, inner] among its arguments."""


@dataclass(frozen=True)
class Effort:
    """How much a run computes: `operations` that it calls, and `multiplications` of convolutions and matrices."""

    operations: int = 0
    multiplications: int = 0


@dataclass(frozen=True)
class Timeline:
    """Bytes of tensors alive after each allocation of a run on `SMALL` and on `LARGER` samples.

    `kernels`: bytes that the running kernel holds beside them, at any batch size. `sizes`: of each tensor, in both
    runs. `effort`: what both runs compute; timelines of equal bytes are equal without it.
    """

    small: tuple[int, ...]
    larger: tuple[int, ...]
    kernels: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    effort: tuple[Effort, Effort] = field(default=(Effort(), Effort()), compare=False, repr=False)

    def peak(self, batch_size: int) -> int:
        """Peak bytes of the same run on `batch_size` samples."""
        return max(map(sum, zip(self._tensors(batch_size), self.kernels, strict=True)), default=0)

    def peak_tensors(self, batch_size: int) -> int:
        """The same without what kernels hold."""
        return max(self._tensors(batch_size), default=0)

    def largest(self, batch_size: int) -> int:
        """Bytes of the largest tensor of the run on `batch_size` samples."""
        return max((_on(batch_size, low, high) for low, high in self.sizes), default=0)

    def seconds(self, batch_size: int) -> float:
        """About how long the run takes on `batch_size` samples, on the machine of the constants, on one thread."""
        small, larger = self.effort
        written = sum(_on(batch_size, low, high) for low, high in self.sizes)
        multiplications = _on(batch_size, small.multiplications, larger.multiplications)
        return (
            small.operations * calibrated.OPERATION_S
            + written * calibrated.BYTE_S
            + multiplications * calibrated.MULTIPLICATION_S
        )

    def _tensors(self, batch_size: int) -> Iterator[int]:
        for low, high in zip(self.small, self.larger, strict=True):
            yield _on(batch_size, low, high)


def _on(batch_size: int, small: int, larger: int) -> int:
    """Bytes on `batch_size` samples, from those on `SMALL` and on `LARGER` samples."""
    return small + (larger - small) * (batch_size - SMALL)


def timeline_of(work: Callable[[int], Callable[[], None]]) -> Timeline:
    """The timeline of the work that `work(num_samples)` prepares."""
    found = []
    for size in (SMALL, LARGER):
        run = work(size)
        with _LiveBytes() as live:
            run()
        found.append(live)
    small, larger = (tuple(live.moments) for live in found)
    sizes = zip(*(live.sizes for live in found), strict=True)
    efforts = (found[0].effort(), found[1].effort())
    return Timeline(small, larger, tuple(found[0].kernels), tuple(sizes), efforts)


def _multiplications(func: Any, args: Any, out: Any) -> int:
    """The multiplications of a convolution, its backward, or a product of matrices; none of anything else."""
    if func is torch.ops.aten.convolution.default:
        return int(out.numel() * args[1][0].numel())
    if func is torch.ops.aten.convolution_backward.default:
        wanted: list[bool] = args[-1]  # the gradients of input, weight and bias
        return int(args[0].numel() * args[2][0].numel() * sum(wanted[:2]))
    if func in _PRODUCTS:
        return int(out.numel() * args[_PRODUCTS[func]].shape[-1])
    return 0


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, counts the bytes of new storages, what kernels hold beside them, and the effort."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments: list[int] = []
        self.kernels: list[int] = []
        self.sizes: list[int] = []
        self._now = 0
        self._known: set[int] = set()
        self._operations = 0
        self._multiplications = 0

    def effort(self) -> Effort:
        """What was computed while it was on."""
        return Effort(self._operations, self._multiplications)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping dynamo means importing it, which would make planning 70 MiB larger than training.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in tensors_in((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        for tensor in tensors_in(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in before and storage._cdata not in self._known:
                self._count(storage)
        self._operations += 1
        self._multiplications += _multiplications(func, args, out)
        if func in _COPIES:
            place, copies = _COPIES[func]
            self._note(copies * args[place].nbytes)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        self._known.add(identity)
        self._now += size
        self.sizes.append(size)
        self._note(0)
        weakref.finalize(storage, self._forget, identity, size)

    def _note(self, kernel: int) -> None:
        self.moments.append(self._now)
        self.kernels.append(kernel)

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self._now -= size
