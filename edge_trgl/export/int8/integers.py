"""Real numbers as integers of 8 bits: scales, zero points and roundings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_trgl.export.arrays import Array

LARGEST_INT8 = 127
"""-128 is left out: a product with it need not fit what adds the products up."""

LARGEST_BIAS = 2.0**30
"""In steps of its scale; a bias is an integer of 32 bits, and leaves one of them to the sum that it joins."""


LEAST_SCALE = 1e-30
"""A range that asks for less is none: float32 would round such a scale to zero, or lose its digits."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Of a tensor: a value is (integer - `zero`) * `scale`; `zero` is int8 or uint8, as the integers are."""

    scale: np.float32
    zero: np.generic


def step_of(low: float, high: float, *, symmetric: bool) -> Step:
    """For values from `low`, at most 0, to `high`, at least 0: int8 about 0, or all of uint8."""
    if symmetric:
        return Step(scale=_scale(max(-low, high) / LARGEST_INT8), zero=np.int8(0))
    scale = _scale((high - low) / 255)
    return Step(scale=scale, zero=np.uint8(np.clip(round(-low / float(scale)), 0, 255)))


def _scale(wanted: float) -> np.float32:
    scale: np.float32 = np.float32(wanted if wanted >= LEAST_SCALE else 1.0)
    return scale


def channel_scales(weights: Array, axis: int, smallest: Array | None = None) -> Array:
    """float32 [channels]: a scale for each channel along `axis`, so that its largest weight is 127.

    `smallest`, of the same shape: scales that they may not be below.
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    wanted = np.maximum(weights.max(axis=others), -weights.min(axis=others)) / LARGEST_INT8
    scales = wanted if smallest is None else np.maximum(wanted, smallest)
    return np.asarray(np.where(scales >= LEAST_SCALE, scales, 1.0), np.float32)


def as_int8(weights: Array, scales: Array, axis: int) -> Array:
    """int8, of the shape of `weights`: the nearest steps of each channel's scale."""
    steps = weights / scales.reshape([-1 if side == axis else 1 for side in range(weights.ndim)])
    np.rint(steps, out=steps)
    rounded: Array = np.clip(steps, -LARGEST_INT8, LARGEST_INT8, out=steps).astype(np.int8)
    return rounded


def as_int32(bias: Array, scales: Array) -> Array:
    """int32 [channels]: a bias in steps of the products' scales."""
    return np.rint(bias.astype(np.float64) / scales.astype(np.float64)).astype(np.int32)
