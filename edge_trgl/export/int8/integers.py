"""Quantisation arithmetic: scales, zero points and rounding to integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_trgl.export.arrays import Array

LARGEST_INT8 = 127
"""Weights do not use -128: a product with it may overflow the accumulator of some kernels."""

LARGEST_BIAS = 2.0**30
"""The largest quantised bias. A bias is an int32; this leaves one bit for the sum that it is added to."""


LEAST_SCALE = 1e-30
"""Smaller scales count as an empty range: float32 would round them to zero or lose their digits."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The quantisation of a tensor: value = (integer - `zero`) * `scale`.

    `zero` is int8 or uint8 and gives the dtype of the integers.
    """

    scale: np.float32
    zero: np.generic


def step_of(low: float, high: float, *, symmetric: bool) -> Step:
    """Compute the quantisation for values from `low` <= 0 to `high` >= 0.

    It uses int8 with zero point 0 if `symmetric`, else the full range of uint8.
    """
    if symmetric:
        return Step(scale=_scale(max(-low, high) / LARGEST_INT8), zero=np.int8(0))
    scale = _scale((high - low) / 255)
    return Step(scale=scale, zero=np.uint8(np.clip(round(-low / float(scale)), 0, 255)))


def _scale(wanted: float) -> np.float32:
    scale: np.float32 = np.float32(wanted if wanted >= LEAST_SCALE else 1.0)
    return scale


def channel_scales(weights: Array, axis: int, smallest: Array | None = None) -> Array:
    """Compute a scale for each channel along `axis` that maps its largest absolute weight to 127.

    `smallest`, [channels], are lower bounds of the scales. Returns float32 [channels].
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    wanted = np.maximum(weights.max(axis=others), -weights.min(axis=others)) / LARGEST_INT8
    scales = wanted if smallest is None else np.maximum(wanted, smallest)
    return np.asarray(np.where(scales >= LEAST_SCALE, scales, 1.0), np.float32)


def as_int8(weights: Array, scales: Array, axis: int) -> Array:
    """Round `weights` to int8 of the same shape, with the scale of each channel along `axis`."""
    steps = weights / scales.reshape([-1 if side == axis else 1 for side in range(weights.ndim)])
    np.rint(steps, out=steps)
    rounded: Array = np.clip(steps, -LARGEST_INT8, LARGEST_INT8, out=steps).astype(np.int8)
    return rounded


def as_int32(bias: Array, scales: Array) -> Array:
    """Round a bias [channels] to int32 [channels] with the scale of each channel's products."""
    return np.rint(bias.astype(np.float64) / scales.astype(np.float64)).astype(np.int32)
