"""Records as tensors: images lie channels-last (H, W, C), records of any other rank row by row.

An int8 record is its scales, float32, one a channel, and then its values: scale x int8. The scale is the channel's
largest absolute value over 127, so it needs one pass over one record and knows of no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from edge_trgl.runtime.storage.boundary_spec import SCALE_BYTES, BoundarySpec, num_scales
from edge_trgl.runtime.storage.safetensors_file import bytes_of
from edge_trgl.runtime.storage.write_behind import STEP_BYTES
from edge_trgl.runtime.units import MIB

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_LEVELS = 127
_PART_BYTES = MIB
"""About so much is encoded at a time: the float32 values between need no more memory."""


def empty_rows(spec: BoundarySpec, num_rows: int) -> Tensor:
    """Return [num_rows, elements of a record] ([num_rows, bytes], uint8, of int8 records), not initialised."""
    if spec.dtype == "int8":
        return torch.empty(num_rows, spec.record_bytes, dtype=torch.uint8)
    return torch.empty(num_rows, math.prod(spec.shape), dtype=_DTYPES[spec.dtype])


def decoded(rows: Tensor, spec: BoundarySpec) -> Tensor:
    """The values [B, *shape] of rows: a view, images channels-last; of int8 records new float32 memory."""
    if spec.dtype != "int8":
        return _shaped(rows, spec)
    values = torch.empty(len(rows), math.prod(spec.shape))
    values.copy_(rows[:, _scale_bytes(spec) :].view(torch.int8))
    shaped = _shaped(values, spec)
    shaped.mul_(_of_channels(_scales(rows, spec), spec))
    return shaped


def store(rows: Tensor, values: Tensor, spec: BoundarySpec) -> None:
    """Write [B, *shape] into rows [B, ...]."""
    if spec.dtype != "int8":
        _shaped(rows, spec).copy_(values)
        return
    size = max(1, _PART_BYTES // (4 * math.prod(spec.shape)))
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        _quantise(rows[part], values[part].to(device="cpu", dtype=torch.float32), spec)


def encoded(values: Tensor, spec: BoundarySpec) -> Tensor:
    """[B, *shape] as one stretch of CPU memory in the order of the file; a copy only if it must be."""
    if spec.dtype == "int8":
        rows = empty_rows(spec, len(values))
        store(rows, values, spec)
        return rows
    values = values.to(device="cpu", dtype=_DTYPES[spec.dtype])
    if len(spec.shape) == 3:
        values = values.permute(0, 2, 3, 1)
    return values.contiguous()


def steps(memory: Tensor, first: int, stop: int) -> Iterator[tuple[int, memoryview]]:
    """Cut rows first..stop into stretches of about `STEP_BYTES`: (row, the memory itself)."""
    num_rows = max(1, STEP_BYTES // memory[0].nbytes)
    for row in range(first, stop, num_rows):
        yield row, bytes_of(memory[row : min(row + num_rows, stop)])


def _shaped(rows: Tensor, spec: BoundarySpec) -> Tensor:
    """View [B, elements] as [B, *shape]; images become channels-last."""
    if len(spec.shape) != 3:
        return rows.view(len(rows), *spec.shape)
    channels, height, width = spec.shape
    return rows.view(len(rows), height, width, channels).permute(0, 3, 1, 2)


def _quantise(rows: Tensor, values: Tensor, spec: BoundarySpec) -> None:
    within = tuple(range(2 if len(spec.shape) > 1 else 1, values.dim()))
    scales = values.abs().amax(within).reshape(len(values), -1).div_(_LEVELS)
    # A channel of zeros has any scale: 0 x 1.
    steps_per_unit = torch.where(scales > 0, scales.reciprocal(), 1.0)
    rows[:, : _scale_bytes(spec)] = scales.view(torch.uint8)
    levels = (values * _of_channels(steps_per_unit, spec)).round_().clamp_(-_LEVELS, _LEVELS)
    _shaped(rows[:, _scale_bytes(spec) :].view(torch.int8), spec).copy_(levels)


def _scales(rows: Tensor, spec: BoundarySpec) -> Tensor:
    """float32 [B, channels]."""
    # A copy: in the rows they lie at any byte.
    return rows[:, : _scale_bytes(spec)].clone(memory_format=torch.contiguous_format).view(torch.float32)


def _of_channels(scales: Tensor, spec: BoundarySpec) -> Tensor:
    """[B, channels] so that it goes with [B, *shape]."""
    return scales.reshape(len(scales), -1, *[1] * (len(spec.shape) - 1))


def _scale_bytes(spec: BoundarySpec) -> int:
    return SCALE_BYTES * num_scales(spec.shape)
