"""A model with all its weights in a file, of which only those that are being computed with are in memory.

The weights have their values, so a constructor may do with them what it likes; the kernel brings their pages back
from the file when they are touched.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edge_trgl.networks.cutting.nested import tensors_in
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.units import MIB

_IN_MEMORY_BYTES = 1 << 16
"""Smaller weights stay in memory: each mapping takes pages and an entry in the kernel's table."""

_TOUCHED_BYTES = 8 * MIB
"""Pages leave memory when the calls since the last time were given this much."""


class WeightsFile(TorchFunctionMode):
    """Keeps weights in a file without a name, and drops their pages from memory while functions of torch run.

    Args:
        folder: an existing folder for the file; None is the system's own.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the mappings need it as long as they live
        self._size = 0
        self._mappings: dict[int, mmap.mmap] = {}  # by the address of the tensor's storage
        self._touched_bytes = 0

    def take(self, weight: nn.Parameter) -> None:
        """Move the values of a parameter into the file, unless they are few; it stays the same object."""
        if (
            weight.is_meta
            or nn.parameter.is_lazy(weight)
            or weight.nbytes < _IN_MEMORY_BYTES
            or self._holds(weight)
        ):
            return
        values = weight.detach()
        mapping = self._mapping(values.nbytes)
        moved = torch.frombuffer(mapping, dtype=values.dtype, count=values.numel()).view(values.shape)
        moved.copy_(values)
        weight.data = moved
        self._mappings[moved.untyped_storage().data_ptr()] = mapping
        self._touch(moved.nbytes)

    def _mapping(self, num_bytes: int) -> mmap.mmap:
        start = self._size
        self._size += -(-num_bytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        os.posix_fallocate(self._file.fileno(), start, self._size - start)
        return mmap.mmap(self._file.fileno(), num_bytes, offset=start)

    def _touch(self, num_bytes: int) -> None:
        self._touched_bytes += num_bytes
        if self._touched_bytes > _TOUCHED_BYTES:
            self.drop_pages()

    def drop_pages(self) -> None:
        """Let the pages of all weights leave memory, and what is free on the heap; the values stay in the file."""
        self._touched_bytes = 0
        allocator.trim()  # weights are made on the heap, and small ones that stay keep it from shrinking
        for mapping in self._mappings.values():
            mapping.madvise(mmap.MADV_DONTNEED)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._touch(sum(tensor.nbytes for tensor in tensors_in((args, kwargs)) if self._holds(tensor)))
        return result

    def _holds(self, tensor: Tensor) -> bool:
        is_plain = tensor.layout == torch.strided and not tensor.is_meta
        return is_plain and tensor.untyped_storage().data_ptr() in self._mappings


@contextmanager
def _taking_new_weights(weights: WeightsFile) -> Iterator[None]:
    """Move every parameter into the file when a module registers it or `copy.deepcopy` makes it."""
    register: Callable[..., None] = nn.Module.register_parameter
    deepcopy: Callable[..., nn.Parameter] = nn.Parameter.__deepcopy__

    def register_taken(part: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        if weight is not None:
            weights.take(weight)
        register(part, name, weight)

    def taken_copy(weight: nn.Parameter, memo: dict[int, Any]) -> nn.Parameter:
        copied = deepcopy(weight, memo)
        weights.take(copied)
        return copied

    nn.Module.register_parameter = register_taken  # type: ignore[method-assign,assignment]
    nn.Parameter.__deepcopy__ = taken_copy  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        nn.Parameter.__deepcopy__ = deepcopy  # type: ignore[method-assign]


def build_in_file(
    factory: Callable[[], nn.Module], folder: Path | None, seed: int | None = None
) -> tuple[nn.Module, WeightsFile]:
    """Build a model whose weights have the values that its constructor gives them.

    Args:
        factory: makes the model.
        folder: an existing folder for the file; None is the system's own.
        seed: of torch's default generator; None leaves that as it is.

    Returns:
        The model, and the file of its weights.
    """
    if seed is not None:
        torch.default_generator.manual_seed(seed)
    weights = WeightsFile(folder)
    with torch.device("cpu"), _taking_new_weights(weights), weights:
        model = factory()
    weights.drop_pages()
    return model, weights
