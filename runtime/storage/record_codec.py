"""Encoding of records: images are stored channels-last (H, W, C), records of any other rank row-major.

An int8 record consists of its scales (float32, one per channel) and its values, each to be multiplied by the
scale. The scale is the largest absolute value of the channel divided by 127, so that a record is encoded in one
pass and independently of all others.
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
"""Approximate size of the float32 values that are encoded at a time."""


def empty_rows(spec: BoundarySpec, num_rows: int) -> Tensor:
    """Allocate uninitialised rows [num_rows, elements of a record]; uint8 [num_rows, bytes] for int8 records."""
    if spec.dtype == "int8":
        return torch.empty(num_rows, spec.record_bytes, dtype=torch.uint8)
    return torch.empty(num_rows, math.prod(spec.shape), dtype=_DTYPES[spec.dtype])


def as_rows(memory: Tensor, spec: BoundarySpec) -> Tensor:
    """View memory, uint8 [num_rows, bytes of a record], as rows like those of `empty_rows`."""
    return memory if spec.dtype == "int8" else memory.view(_DTYPES[spec.dtype])


def decoded(rows: Tensor, spec: BoundarySpec) -> Tensor:
    """View rows as values [B, *shape], images channels-last; int8 records are converted to new float32 memory."""
    if spec.dtype != "int8":
        return _shaped(rows, spec)
    values = torch.empty(len(rows), math.prod(spec.shape))
    values.copy_(rows[:, _scale_bytes(spec) :].view(torch.int8))
    shaped = _shaped(values, spec)
    shaped.mul_(_of_channels(_scales(rows, spec), spec))
    return shaped


def store(rows: Tensor, values: Tensor, spec: BoundarySpec) -> None:
    """Encode values [B, *shape] into rows [B, ...]."""
    if spec.dtype != "int8":
        _shaped(rows, spec).copy_(values)
        return
    size = max(1, _PART_BYTES // (4 * math.prod(spec.shape)))
    for start in range(0, len(values), size):
        part = slice(start, start + size)
        _quantise(rows[part], values[part].to(device="cpu", dtype=torch.float32), spec)


def encoded(values: Tensor, spec: BoundarySpec) -> Tensor:
    """Encode values [B, *shape] as contiguous CPU memory in the order of the file; without a copy if possible."""
    if spec.dtype == "int8":
        rows = empty_rows(spec, len(values))
        store(rows, values, spec)
        return rows
    values = values.to(device="cpu", dtype=_DTYPES[spec.dtype])
    if len(spec.shape) == 3:
        values = values.permute(0, 2, 3, 1)
    return values.contiguous()


def steps(memory: Tensor, first: int, stop: int) -> Iterator[tuple[int, memoryview]]:
    """Yield rows first..stop in parts of about `STEP_BYTES`, as (first row, its memory)."""
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
    # In a channel of zeros the scale is 0; any factor will do.
    steps_per_unit = torch.where(scales > 0, scales.reciprocal(), 1.0)
    rows[:, : _scale_bytes(spec)] = scales.view(torch.uint8)
    levels = (values * _of_channels(steps_per_unit, spec)).round_().clamp_(-_LEVELS, _LEVELS)
    _shaped(rows[:, _scale_bytes(spec) :].view(torch.int8), spec).copy_(levels)


def _scales(rows: Tensor, spec: BoundarySpec) -> Tensor:
    """float32 [B, channels]."""
    # A copy, because in the rows they are not aligned.
    return rows[:, : _scale_bytes(spec)].clone(memory_format=torch.contiguous_format).view(torch.float32)


def _of_channels(scales: Tensor, spec: BoundarySpec) -> Tensor:
    """Reshape [B, channels] to broadcast with [B, *shape]."""
    return scales.reshape(len(scales), -1, *[1] * (len(spec.shape) - 1))


def _scale_bytes(spec: BoundarySpec) -> int:
    return SCALE_BYTES * num_scales(spec.shape)
