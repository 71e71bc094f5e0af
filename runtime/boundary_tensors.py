"""Records as tensors: images lie channels-last (H, W, C), records of any other rank row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from edge_trgl.runtime.boundary_records import BoundarySpec
from edge_trgl.runtime.tensorfile import bytes_of
from edge_trgl.runtime.write_behind import STEP_BYTES

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def empty_rows(spec: BoundarySpec, num_rows: int) -> Tensor:
    """Return [num_rows, elements of a record], not initialised."""
    return torch.empty(num_rows, math.prod(spec.shape), dtype=_DTYPES[spec.dtype])


def shaped(rows: Tensor, spec: BoundarySpec) -> Tensor:
    """View [B, elements] as [B, *shape]; images become channels-last."""
    if len(spec.shape) != 3:
        return rows.view(len(rows), *spec.shape)
    channels, height, width = spec.shape
    return rows.view(len(rows), height, width, channels).permute(0, 3, 1, 2)


def dense(values: Tensor, spec: BoundarySpec) -> Tensor:
    """Return [B, *shape] as one stretch of CPU memory in the order of the file; a copy only if it must be."""
    values = values.to(device="cpu", dtype=_DTYPES[spec.dtype])
    if len(spec.shape) == 3:
        values = values.permute(0, 2, 3, 1)
    return values.contiguous()


def steps(memory: Tensor, first: int, stop: int) -> Iterator[tuple[int, memoryview]]:
    """Cut rows first..stop into stretches of about `STEP_BYTES`: (row, the memory itself)."""
    num_rows = max(1, STEP_BYTES // memory[0].nbytes)
    for row in range(first, stop, num_rows):
        yield row, bytes_of(memory[row : min(row + num_rows, stop)])
